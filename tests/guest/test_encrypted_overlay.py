"""snapshot_blkdev over an encrypted disk: what is plain is said to be, and an encrypted image
that was made before goes on top live, with a secret or with its passphrase typed."""
import time

import pytest

import guests
from counting import SECOND_PORT, goes_on, last_number, number
from lib import crypt
from lib.crypt import answer, encrypted
from monitor_socket import Socket
from tools import cowimg, qemu_img
from vm import PROMPT, Vm

pytestmark = pytest.mark.any_kvm
SECRETS = {"s": "abc123", "n": "second"}
LUKS = "encrypt.format=luks,encrypt.key-secret=%s,encrypt.iter-time=%d"
WARNING = "warning: ide0-hd0: '%s' is not encrypted, but what is behind it is"
WRONG = "Invalid password, cannot unlock any keyslot"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Names as people type them: without a folder."""
    monkeypatch.chdir(tmp_path)


def objects(option):
    return [a for name in SECRETS for a in (option, "secret,id=%s,data=%s" % (
        name, SECRETS[name]))]


def start(work, kind, *args):
    encrypted("a.qcow2", kind, guests.keeps_count(work))
    return Vm(*objects("-object"), "-drive", "file=a.qcow2,encrypt.key-secret=s", *SECOND_PORT,
              *args)


def overlay(name, behind, secret, iter_time=10):
    """As people make it, over a disk that is in use."""
    cowimg("create", "-q", *objects("--object"), "-f", "qcow2", "-u", "-b", behind, "-F",
           "qcow2", "-o", LUKS % (secret, iter_time), name, "16M")


def content(top, *secrets):
    """Of a chain, as the reference decrypts it: secrets from the top down, None for none."""
    options = "driver=qcow2,file.filename=" + top
    for depth, secret in enumerate(secrets):
        if secret:
            options += ",%sencrypt.key-secret=%s" % ("backing." * depth, secret)
    qemu_img("convert", *objects("--object"), "--image-opts", options, "-O", "raw", "flat")
    with open("flat", "rb") as f:
        return f.read()


def counter(data):
    """The guest's counter, and the sector that it is in."""
    sector = data[8 * 512:9 * 512]
    return int.from_bytes(sector[:2], "little"), sector


def read(image):
    with open(image, "rb") as f:
        return f.read()


def holds(image, sector):
    return sector in read(image)


def test_what_the_guest_writes_stays_encrypted(tmp_path):
    with start(tmp_path, "qcow2-aes") as vm:
        number(vm)
        overlay("b.qcow2", "a.qcow2", "n")
        said = answer(vm, "wrong", "second", name="b.qcow2",
                      command="snapshot_blkdev -n ide0-hd0 b.qcow2")
        assert WRONG in said and "second" not in said and "Error" not in said
        assert "b.qcow2 (qcow2, encrypted)" in vm.monitor("info block ide0-hd0")
        goes_on(vm)
        below = number(vm)
        overlay("c.qcow2", "b.qcow2", "s")
        name = 'json:{"driver":"qcow2","file.filename":"c.qcow2","encrypt.key-secret":"s"}'
        assert vm.monitor("snapshot_blkdev -n ide0-hd0 " + name) == ""
        goes_on(vm)
        assert "chain depth: 2" in vm.monitor("info block ide0-hd0")
        assert vm.monitor("savevm all") == ""
        goes_on(vm)
        assert vm.monitor("loadvm all") == ""
        goes_on(vm)
        assert vm.quit() == 0
        last = last_number(vm)
    (was, old), (now, new) = (counter(content("b.qcow2", "n", "s")),
                              counter(content("c.qcow2", "s", "n", "s")))
    assert below <= was + 2 <= now + 2 and last <= now <= last + 1
    for image in ("a.qcow2", "b.qcow2", "c.qcow2"):
        assert not holds(image, old) and not holds(image, new)


def test_nothing_changes_without_the_passphrase(tmp_path):
    path = tmp_path / "mon"
    with start(tmp_path, "qcow2-luks", "-S", "-monitor", "unix:%s,server,nowait" % path) as vm:
        overlay("b.qcow2", "a.qcow2", "n")
        fresh = read("b.qcow2")
        put = "snapshot_blkdev -n ide0-hd0 b.qcow2"

        def nothing_changed():
            assert "): a.qcow2 (qcow2, encrypted)" in vm.monitor("info block ide0-hd0")
            assert read("b.qcow2") == fresh
        said = answer(vm, "one", "", "three", name="b.qcow2", command=put)
        assert said.count(WRONG) == 3 and said.endswith("Error: %s\n" % WRONG)
        nothing_changed()
        vm.spawn.send(put + "\r")
        vm.spawn.expect("Password: ")
        vm.spawn.send("sec\x03")
        vm.spawn.expect("Error: b.qcow2 is still encrypted")
        vm.spawn.expect(PROMPT)
        nothing_changed()
        # Nobody else waits while one is being tried, which takes its time; and they may
        # change what it was to go on top of.
        overlay("b.qcow2", "a.qcow2", "n", iter_time=700)
        fresh = read("b.qcow2")
        other = Socket(path)
        other.until("(cowvm) ")
        other.send(put + "\n")
        other.until("Password: ")
        other.send("second\n")
        assert WARNING % "x.qcow2" in vm.monitor("snapshot_blkdev ide0-hd0 x.qcow2")
        other.until("Error: Device 'ide0-hd0' has another image now")
        assert vm.monitor("snapshot_merge ide0-hd0", timeout=60) == ""
        nothing_changed()
        # Whoever puts a plain one there is told, wherever that is.
        other.send("snapshot_blkdev_all two\n")
        other.until(WARNING % "a-two.qcow2")
        assert vm.monitor("snapshot_merge ide0-hd0", timeout=60) == ""
        # Whoever asked goes away; and the machine, with a passphrase being tried.
        other.send(put + "\n")
        other.until("Password: ")
        other.send("second\n")
        other.conn.close()
        while True:     # until that has come to its end
            vm.spawn.send(put + "\r")
            if vm.spawn.expect(["Password: ", "Error: Failed to get .write. lock"]) == 0:
                break
            vm.spawn.expect(PROMPT)
            time.sleep(0.5)
        vm.spawn.send("second\r")
        other = Socket(path)
        other.until("(cowvm) ")
        other.send("quit\n")
        assert vm.wait_exit() == 0
    assert read("b.qcow2") == fresh
    crypt.check("qcow2-luks", "a.qcow2")
