"""Passphrases, asked for on the terminal."""
import os
import signal

import pexpect
import pytest

from lib.crypt import create, opts, qemu_io
from lib.tools import COWIMG, SLOW, cowimg


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


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_at_the_question_for_a_fresh_image_leaves_nothing(tmp_path, stop):
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a", "1M")
    for line in ("convert -o encryption -O qcow2 a b", "create -q -f luks b 1M"):
        child = spawn(*line.split(), cwd=tmp_path)
        child.expect_exact("password: ")
        os.kill(child.pid, stop)
        finish(child, 1)
        assert not (tmp_path / "b").exists()
