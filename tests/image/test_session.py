"""The session that cowimg was made for, typed at a terminal word for word."""
import os
import re
import subprocess

import pytest

from terminal import Terminal
from tools import COWIMG, SLOW, TOP, check_image, cowimg, qemu_img, run


def file_system(path, megabytes):
    """A raw image with an ext4 file system that holds this project's sources."""
    env = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
    run("mke2fs", "-q", "-F", "-t", "ext4", "-d", TOP / "block", path, "%dM" % megabytes, env=env)
    return path


@pytest.fixture()
def terminal(tmp_path):
    it = Terminal(tmp_path)
    yield it
    it.shell.close(force=True)


def test_the_session_works_word_for_word(tmp_path, terminal):
    here = tmp_path
    flat = file_system(here / "flat.img", 48)
    qemu_img("convert", "-f", "raw", "-O", "qcow2", flat, here / "ubuntutest.qcow2")

    shown = terminal.type("cowimg create -f qcow2 -o backing_file=./ubuntutest.qcow2 "
                          "ubuntutest1.qcow2")
    assert "cowimg: warning: ubuntutest1.qcow2: Backing file specified without backing " \
           "format: detected format of qcow2\n" in shown
    assert re.search(r"^Formatting 'ubuntutest1.qcow2', fmt=qcow2 cluster_size=65536 .* "
                     r"size=50331648 backing_file=./ubuntutest.qcow2 backing_fmt=qcow2 ",
                     shown, re.M)

    assert terminal.type("cowimg convert -f raw -O qcow2 flat.img flat.qcow2") == ""
    assert terminal.type("cowimg convert -f qcow2 -O raw flat.qcow2 back.img") == ""
    assert (here / "back.img").read_bytes() == flat.read_bytes()

    os.rename(here / "flat.qcow2", here / "a.qcow2")
    assert terminal.type("cowimg convert -c -f qcow2 -O qcow2 a.qcow2 a-compress.qcow2") == ""
    assert (here / "a-compress.qcow2").stat().st_size < (here / "a.qcow2").stat().st_size / 2
    terminal.type("cowimg convert -o encryption -f qcow2 -O qcow2 a.qcow2 a-encrypt.qcow2",
                  [("a-encrypt.qcow2", "sesame")])
    assert terminal.type("cowimg compare a.qcow2 a-encrypt.qcow2",
                         [("a-encrypt.qcow2", "sesame")]).endswith("Images are identical.\n")
    assert terminal.type("cowimg resize a.qcow2 +10G") == "Image resized.\n"
    assert terminal.type("cowimg snapshot -c before a.qcow2") == ""
    assert re.search(r"^1 +before +0 B ", terminal.type("cowimg snapshot -l a.qcow2"), re.M)

    shown = terminal.type("cowimg info a.qcow2")
    assert "virtual size: 10 GiB (%d bytes)" % ((10 << 30) + (48 << 20)) in shown
    for name in ("ubuntutest1.qcow2", "a.qcow2", "a-compress.qcow2"):
        check_image(here / name)
    terminal.type("cowimg check a-encrypt.qcow2", [("a-encrypt.qcow2", "sesame")])
    for name in ("ubuntutest1.qcow2", "a-compress.qcow2"):
        assert "identical" in qemu_img("compare", "-f", "raw", "-F", "qcow2", flat,
                                       here / name).stdout
    theirs = "driver=qcow2,encrypt.key-secret=s,file.filename=%s" % (here / "a-encrypt.qcow2")
    secret = ("--object", "secret,id=s,data=sesame", "--image-opts", theirs)
    assert "No errors were found" in qemu_img("check", *secret).stdout
    assert "identical" in qemu_img("compare", *secret,
                                   "driver=raw,file.filename=%s" % flat).stdout
    part = here / "part.img"
    qemu_img("dd", "-f", "qcow2", "-O", "raw", "bs=1M", "count=48", "if=%s" % (here / "a.qcow2"),
             "of=%s" % part)
    assert part.read_bytes() == flat.read_bytes()


def test_a_snapshot_brings_the_disk_back(tmp_path, terminal):
    file_system(tmp_path / "flat.img", 16)
    terminal.type("cowimg convert -f raw -O qcow2 flat.img a.qcow2")
    terminal.type("cowimg snapshot -c before a.qcow2")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0x55 0 8M", tmp_path / "a.qcow2")
    cowimg("compare", "-f", "raw", "-F", "qcow2", tmp_path / "flat.img", tmp_path / "a.qcow2",
           ok=(1,))
    assert terminal.type("cowimg snapshot -a before a.qcow2") == ""
    assert terminal.type("cowimg compare -f raw -F qcow2 flat.img a.qcow2") == \
        "Images are identical.\n"
    check_image(tmp_path / "a.qcow2")


def test_examples_of_the_manual_work(tmp_path, terminal):
    """The rest of them: LUKS with a passphrase from a file, an image served."""
    (tmp_path / "pw").write_text("open up")
    terminal.type("cowimg create --object secret,id=s,file=pw -f qcow2 "
                  "-o encrypt.format=luks,encrypt.key-secret=s b.qcow2 20G")
    assert "encrypted: yes" in terminal.type("cowimg info b.qcow2")
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "3M")
    server = subprocess.Popen([COWIMG, "serve", "-r", "-k", "a.sock", "a.qcow2"], cwd=tmp_path,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for _ in range(200):
        if (tmp_path / "a.sock").exists():
            break
        run("sleep", "0.05")
    assert "3145728" in terminal.type("nbdinfo --size 'nbd+unix:///?socket=a.sock'")
    assert server.wait(20 * SLOW) == 0, server.stdout.read()
