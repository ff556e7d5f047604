"""What `info` shows of encryption, secrets, and the words of errors."""
import json
import os
import subprocess

import pytest

from lib.crypt import KINDS, PASS, SECRET, blkio, check, create, opts, tool
from lib.tools import COWIMG, cowimg, qemu_img, run


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("maker", ["ours", "reference"])
def test_info_is_the_reference_s(tmp_path, kind, maker):
    image = create(maker, kind, tmp_path / "a")
    for output in ("human", "json"):
        args = ["info", "--output=" + output, image]
        assert cowimg(*args).stdout == qemu_img(*args).stdout
    assert json.loads(cowimg("info", "--output=json", image).stdout)["encrypted"] is True


def test_info_shows_essiv(tmp_path):
    extra = ["cipher-mode=cbc", "ivgen-alg=essiv", "ivgen-hash-alg=sha256"]
    for kind in ("luks", "qcow2-luks"):
        prefix = KINDS[kind][2]
        image = create("ours", kind, tmp_path / kind, extra=[prefix + e for e in extra])
        for output in ("human", "json"):
            args = ["info", "--output=" + output, image]
            assert cowimg(*args).stdout == qemu_img(*args).stdout


def test_fresh_luks_image_is_laid_out_as_the_reference_s(tmp_path):
    for cluster in (65536, 2 << 20):
        for compat in ("0.10", "1.1"):
            extra = ["cluster_size=%d" % cluster, "compat=" + compat]
            images = [create(w, "qcow2-luks", tmp_path / w, extra=extra)
                      for w in ("ours", "reference")]
            heads = [i.read_bytes()[:256] for i in images]
            at = heads[0].index(bytes.fromhex("0537be77"))
            assert heads[0][at:at + 24] == heads[1][at:at + 24]
            check("qcow2-luks", images[0])
            assert images[0].stat().st_size == images[1].stat().st_size


ERRORS = {
    "no secret for luks": ("-f qcow2 -o encrypt.format=luks X 1M", 1),
    "no secret for a container": ("-f luks X 1M", 1),
    "unknown secret": ("-f luks --object secret,id=s,data=x -o key-secret=z X 1M", 1),
    "unknown format": ("-f qcow2 -o encrypt.format=foo X 1M", 1),
    "aes with luks options": ("-f qcow2 --object secret,id=s,data=x -o encrypt.format=aes,"
                              "encrypt.cipher-alg=aes-128,encrypt.key-secret=s X 1M", 1),
    "both words": ("-f qcow2 --object secret,id=s,data=x -o encryption=on,encrypt.format=luks,"
                   "encrypt.key-secret=s X 1M", 1),
    "no format": ("-f qcow2 --object secret,id=s,data=x -o encrypt.key-secret=s X 1M", 1),
    "iter-time": ("-f qcow2 --object secret,id=s,data=x -o encrypt.format=luks,"
                  "encrypt.key-secret=s,encrypt.iter-time=foo X 1M", 1),
    "cipher": ("-f luks --object secret,id=s,data=x -o key-secret=s,cipher-alg=foo X 1M", 1),
    "mode": ("-f luks --object secret,id=s,data=x -o key-secret=s,cipher-mode=foo X 1M", 1),
    "3des": ("-f luks --object secret,id=s,data=x -o key-secret=s,cipher-alg=3des X 1M", 1),
    "no id": ("--object secret,data=x -f raw X 1M", 1),
    "bad id": ("--object secret,id=1s,data=x -f raw X 1M", 1),
    "no data": ("--object secret,id=s -f raw X 1M", 1),
    "data and file": ("--object secret,id=s,data=x,file=y -f raw X 1M", 1),
    "base64": ("--object secret,id=s,data=%%%,format=base64 -f raw X 1M", 1),
    "secret format": ("--object secret,id=s,data=x,format=foo -f raw X 1M", 1),
    "secret option": ("--object secret,id=s,data=x,foo=bar -f raw X 1M", 1),
    "keyid": ("--object secret,id=s,data=x,keyid=foo -f raw X 1M", 1),
    "twice": ("--object secret,id=s,data=x --object secret,id=s,data=x -f raw X 1M", 1),
    "type": ("--object foo,id=s -f raw X 1M", 1),
    "json": ('--object {"qom-type":"secret","id":"s","data":"x"} -f raw X 1M', 0),
    "help": ("--object secret,help", 0),
}


@pytest.mark.parametrize("name", sorted(ERRORS))
def test_words_of_errors(tmp_path, name):
    line, status = ERRORS[name]
    args = [str(tmp_path / "x") if a == "X" else a for a in line.split()]
    theirs = qemu_img("create", *args, ok=(status,)).stdout
    ours = cowimg("create", *args, ok=(status,)).stdout
    assert ours.replace("cowimg:", "qemu-img:") == theirs


def test_a_wrong_passphrase_is_told(tmp_path):
    wrong = ["--object", "secret,id=s,data=wrong"]
    for kind in ("luks", "qcow2-luks"):
        image = create("ours", kind, tmp_path / kind)
        for args in (wrong, SECRET[:1] + ["secret,id=t,data=abc123"]):
            ours = cowimg("check", *args, "--image-opts", opts(kind, image), ok=(1,)).stdout
            theirs = qemu_img("check", *args, "--image-opts", opts(kind, image), ok=(1,)).stdout
            assert ours.replace("cowimg:", "qemu-img:") == theirs


def test_without_secret_and_terminal_nothing_is_opened(tmp_path):
    for kind in KINDS:
        image = create("ours", kind, tmp_path / kind)
        ours = cowimg("check", image, ok=(1,)).stdout
        assert ours.replace("cowimg:", "qemu-img:") == qemu_img("check", image, ok=(1,)).stdout
        assert blkio(kind, image, "read 0 512", passphrase="", ok=(0, 1)).returncode == \
            (0 if kind == "qcow2-aes" else 1)


def test_the_other_format_is_refused(tmp_path):
    image = create("ours", "qcow2-luks", tmp_path / "a")
    args = ["check", *SECRET, "--image-opts",
            "driver=qcow2,encrypt.format=aes,encrypt.key-secret=s,file.filename=%s" % image]
    assert cowimg(*args, ok=(1,)).stdout.replace("cowimg:", "qemu-img:") == \
        qemu_img(*args, ok=(1,)).stdout


def encrypted(plain):
    """A secret under AES-256-CBC with a key and IV of zeros, base64."""
    done = subprocess.run("openssl enc -aes-256-cbc -K %s -iv %s | base64 -w0" %
                          ("00" * 32, "00" * 16), shell=True, input=plain.encode(),
                          stdout=subprocess.PIPE, check=True)
    return done.stdout.decode()


def test_secrets_from_everywhere(tmp_path):
    image = create("ours", "luks", tmp_path / "a")
    (tmp_path / "raw").write_text(PASS)
    (tmp_path / "b64").write_text("YWJjMTIz\n")
    zeros = "A" * 43 + "="
    ways = [["secret,id=s,file=%s" % (tmp_path / "raw")],
            ["secret,id=s,file=%s,format=base64" % (tmp_path / "b64")],
            ["secret,id=s,data=YWJjMTIz,format=base64"],
            ["secret,id=m,format=base64,data=" + zeros,
             "secret,id=s,keyid=m,iv=%s==,format=base64,data=%s" % ("A" * 22, encrypted(PASS))]]
    for way in ways:
        objects = [a for w in way for a in ("--object", w)]
        for which in ("ours", "reference"):
            done = run(tool(which), "check", *objects, "--image-opts", opts("luks", image),
                       ok=(63,))
            assert "does not support checks" in done.stdout
    (tmp_path / "nl").write_text(PASS + "\n")
    run(COWIMG, "check", "--object", "secret,id=s,file=%s" % (tmp_path / "nl"), "--image-opts",
        opts("luks", image), ok=(1,))


def test_cryptsetup_opens_our_containers(tmp_path):
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
    image = create("ours", "luks", tmp_path / "a")
    dump = run("cryptsetup", "luksDump", image, env=env).stdout
    assert "xts-plain64" in dump and "Payload offset:\t4040" in dump
    for passphrase, status in ((PASS, 0), ("wrong", 2)):
        key = tmp_path / "key"
        key.write_text(passphrase)
        run("cryptsetup", "open", "--test-passphrase", "--key-file", key, image, env=env,
            ok=(status,))
