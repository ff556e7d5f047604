"""Passphrases: asked for on the terminal, changed by amend, and what convert does
with them."""
import os

import pexpect
import pytest

from lib.tools import COWIMG, SLOW, cowimg, qemu_img, run
from test_crypt import KINDS, SECRET, again, blkio, check, content, create, opts, qemu_io, tool

NEW = ["--object", "secret,id=n,data=newpw"]


def spawn(*args, cwd=None):
    return pexpect.spawn(COWIMG, [str(a) for a in args], cwd=str(cwd) if cwd else None,
                         encoding="utf-8", timeout=20 * SLOW)


def finish(child, status):
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == status, child.before
    return child.before


def asked(child, name, answer):
    child.expect_exact("Disk image '%s' is encrypted.\r\npassword: " % name)
    child.sendline(answer)


@pytest.mark.parametrize("kind", ["qcow2-luks", "luks"])
def test_a_passphrase_is_asked_for_without_echo(tmp_path, kind):
    create("ours", kind, tmp_path / "a")
    child = spawn("map", "--output=json", "a", cwd=tmp_path)
    asked(child, "a", "abc123")
    assert "abc123" not in finish(child, 0)


def test_a_wrong_passphrase_is_asked_again(tmp_path):
    create("ours", "qcow2-luks", tmp_path / "a")
    child = spawn("map", "a", cwd=tmp_path)
    asked(child, "a", "wrong")
    child.expect_exact("Could not open 'a': Invalid password, cannot unlock any keyslot")
    asked(child, "a", "abc12\x7f\x7f\x15abc1234\x7f")
    finish(child, 0)
    child = spawn("map", "a", cwd=tmp_path)
    for _ in range(3):
        asked(child, "a", "wrong")
    assert "Invalid password, cannot unlock any keyslot" in finish(child, 1)


def test_an_interrupted_question_is_an_error(tmp_path):
    create("ours", "qcow2-luks", tmp_path / "a")
    child = spawn("map", "a", cwd=tmp_path)
    child.expect_exact("password: ")
    child.send("abc\x03")
    finish(child, 1)


def test_info_asks_nobody(tmp_path):
    create("ours", "qcow2-luks", tmp_path / "a")
    child = spawn("info", "a", cwd=tmp_path)
    assert "encrypted: yes" in finish(child, 0)


def test_every_image_of_a_chain_is_asked_for(tmp_path):
    create("ours", "qcow2-luks", tmp_path / "base")
    create("ours", "qcow2-aes", tmp_path / "top", extra=["backing_file=base", "backing_fmt=qcow2"])
    child = spawn("convert", "-f", "qcow2", "-O", "raw", "top", "out", cwd=tmp_path)
    asked(child, "top", "abc123")
    asked(child, "base", "abc123")
    finish(child, 0)
    assert (tmp_path / "out").stat().st_size == 4 << 20


def test_convert_with_encryption_asks_when_the_target_is_opened(tmp_path):
    """The words of the old manual: convert -o encryption -f qcow2 -O qcow2 a b."""
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a.qcow2", "4M")
    qemu_io("driver=qcow2,file.filename=%s" % (tmp_path / "a.qcow2"), "write -P 65 1M 100k")
    for word in ("encryption", "encryption=on"):
        child = spawn("convert", "-o", word, "-f", "qcow2", "-O", "qcow2", "a.qcow2", "b.qcow2",
                      cwd=tmp_path)
        asked(child, "b.qcow2", "abc123")
        finish(child, 0)
        image = tmp_path / "b.qcow2"
        qemu_io(opts("qcow2-aes", image), "read -P 65 1M 100k", "read -P 0 0 1M")
        assert b"A" * 32 not in image.read_bytes()


def test_convert_without_terminal_leaves_nothing_readable(tmp_path):
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a", "1M")
    done = cowimg("convert", "-o", "encryption", "-O", "qcow2", tmp_path / "a", tmp_path / "b",
                  ok=(1,))
    assert "Parameter 'encrypt.key-secret' is required for cipher" in done.stdout


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


# --- amend --------------------------------------------------------------------------------

def amend(which, kind, image, words, *flags, ok=(0,)):
    prefix = KINDS[kind][2]
    text = ",".join(prefix + w for w in words.split())
    for _ in range(30):
        done = run(tool(which), "amend", *flags, *SECRET, *NEW, "--image-opts", opts(kind, image),
                   "-o", text, ok=None)
        if "Unable to get accurate CPU usage" not in done.stdout:
            break
    assert done.returncode in ok, done.stdout
    return done.stdout.replace("cowimg:", "qemu-img:")


def opens(image, passphrase, kind):
    for which in ("ours", "reference"):
        text = opts(kind, image)
        objects = ["--object", "secret,id=s,data=" + passphrase]
        done = run(tool(which), "map", *objects, "--image-opts", text, ok=(0, 1))
        yield "Invalid password" not in done.stdout


@pytest.mark.parametrize("kind", ["luks", "qcow2-luks"])
@pytest.mark.parametrize("maker", ["ours", "reference"])
def test_key_slots_change_both_ways(tmp_path, kind, maker):
    other = "reference" if maker == "ours" else "ours"
    image = create(maker, kind, tmp_path / "a")
    blkio(kind, image, "write -P 3 0 1M")
    amend(other, kind, image, "state=active new-secret=n iter-time=10")
    assert all(opens(image, "newpw", kind)) and all(opens(image, "abc123", kind))
    amend(maker, kind, image, "state=active new-secret=n iter-time=10 keyslot=6")
    amend(other, kind, image, "state=inactive keyslot=1")
    assert all(opens(image, "newpw", kind))
    amend(maker, kind, image, "state=inactive old-secret=s")
    assert not any(opens(image, "abc123", kind))
    assert all(opens(image, "newpw", kind))
    blkio(kind, image, "read -P 3 0 1M", passphrase="newpw")
    assert cowimg("info", image).stdout == qemu_img("info", image).stdout


MISTAKES = ["state=active", "new-secret=n", "state=foo", "state=inactive",
            "state=inactive keyslot=5", "state=inactive keyslot=9",
            "state=inactive new-secret=n", "state=inactive keyslot=0 old-secret=n",
            "state=inactive old-secret=n", "state=inactive keyslot=0",
            "state=inactive old-secret=s", "state=active new-secret=n keyslot=0 iter-time=10",
            "state=active new-secret=n keyslot=8", "state=active new-secret=z",
            "state=active new-secret=n old-secret=s"]


@pytest.mark.parametrize("kind", ["luks", "qcow2-luks"])
def test_mistakes_are_told_in_the_reference_s_words(tmp_path, kind):
    image = create("ours", kind, tmp_path / "a")
    for words in MISTAKES:
        assert amend("ours", kind, image, words, ok=(1,)) == \
            amend("reference", kind, image, words, ok=(1,)), words
    assert all(opens(image, "abc123", kind))


def test_only_luks_has_key_slots(tmp_path):
    image = create("ours", "qcow2-aes", tmp_path / "a")
    words = "state=inactive keyslot=0"
    assert amend("ours", "qcow2-aes", image, words, ok=(1,)) == \
        amend("reference", "qcow2-aes", image, words, ok=(1,))


def test_the_last_slot_goes_only_by_force(tmp_path):
    image = create("ours", "luks", tmp_path / "a")
    amend("ours", "luks", image, "state=inactive keyslot=0", "--force")
    assert not any(opens(image, "abc123", "luks"))
