"""convert and compare of encrypted images."""
import pytest

from lib.crypt import KINDS, SECRET, check, content, create, opts, qemu_io
from lib.tools import cowimg, qemu_img


@pytest.mark.parametrize("source", sorted(KINDS))
@pytest.mark.parametrize("target", sorted(KINDS))
def test_convert_from_and_to_every_kind(tmp_path, source, target):
    image = create("reference", source, tmp_path / "a")
    qemu_io(opts(source, image), "write -P 1 0 300k", "write -P 2 3M 1M")
    fmt, options, prefix = KINDS[target]
    if target != "qcow2-aes":
        options = options + [prefix + "iter-time=10"]
    cowimg("convert", *SECRET, "--image-opts", opts(source, image), "-O", fmt, "-o",
           ",".join(options), tmp_path / "b")
    check(target, tmp_path / "b")
    assert content(target, tmp_path / "b") == content(source, image)
    done = cowimg("compare", *SECRET, "--image-opts", opts(source, image),
                  opts(target, tmp_path / "b"))
    assert "Images are identical." in done.stdout


def test_compression_and_encryption_do_not_mix(tmp_path):
    cowimg("create", "-q", "-f", "raw", tmp_path / "a", "1M")
    args = ["convert", "-c", *SECRET, "-O", "qcow2", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", tmp_path / "a",
            tmp_path / "b"]
    assert cowimg(*args, ok=(1,)).stdout.replace("cowimg:", "qemu-img:") == \
        qemu_img(*args, ok=(1,)).stdout


def test_commit_into_an_encrypted_base(tmp_path):
    """The passphrase that opened the chain is good for writing to its base too."""
    base, top = tmp_path / "base", tmp_path / "top"
    create("reference", "qcow2-luks", base)
    cowimg("create", "-q", "-u", "-f", "qcow2", "-F", "qcow2", "-b", base, top, "1M")
    chain = "driver=qcow2,file.filename=%s,backing.encrypt.key-secret=s" % top
    qemu_io(chain, "write -P 5 512k 64k")
    done = cowimg("commit", *SECRET, "--image-opts", chain)
    assert "Image committed." in done.stdout
    qemu_io(opts("qcow2-luks", base), "read -P 5 512k 64k")
    check("qcow2-luks", base)
