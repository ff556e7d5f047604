"""The session that both programs were made for, from a disk image to its snapshots, typed at a
terminal word for word.  Its network is a tap: it runs in a network namespace of its own."""
import os
import re
import subprocess
import time

import pytest

import guests
from terminal import Terminal
from tools import SLOW, check_image, qemu_img, read_disk

pytestmark = pytest.mark.any_kvm
START = ("cowvm -enable-kvm -name ubuntutest -m 2048 -hda %s -vnc :19 -net nic,model=virtio "
         "-net tap,ifname=tap0,script=no,downscript=no -monitor stdio")
FORMATTING = ("Formatting '%s', fmt=qcow2 cluster_size=65536 extended_l2=off "
              "compression_type=zlib size=%d backing_file=%s backing_fmt=qcow2 "
              "lazy_refcounts=off refcount_bits=16")
MIB16, ROWS = 16 << 20, "ID        TAG               VM SIZE                DATE     VM CLOCK"


@pytest.fixture
def terminal(tmp_path):
    apart = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if subprocess.run(apart + ["test", "-w", "/dev/net/tun"], check=False).returncode:
        pytest.skip("this host lets us make no network namespace with a tap in it")
    it = Terminal(tmp_path, apart)
    yield it
    it.shell.close(force=True)


def count(terminal):
    """What the guest has got to, as its memory tells."""
    return int(re.search(r"0x([0-9a-f]{4})$", terminal.monitor("xp /1xh 0x8000")).group(1), 16)


def counts(terminal, least):
    """Wait until it has counted that far."""
    end = time.monotonic() + 60 * SLOW
    while (now := count(terminal)) < least:
        assert time.monotonic() < end, "the guest stands still at %d" % now
        time.sleep(0.01)
    return now


def prepare_images(terminal):
    terminal.type("cowimg create -f qcow2 -o backing_file=./ubuntutest.qcow2 ubuntutest1.qcow2")
    for line in ("cowimg convert -f raw -O qcow2 flat.img flat.qcow2", "mv flat.qcow2 a.qcow2",
                 "cowimg convert -c -f qcow2 -O qcow2 a.qcow2 a-compress.qcow2"):
        assert terminal.type(line) == ""
    terminal.type("cowimg convert -o encryption -f qcow2 -O qcow2 a.qcow2 a-encrypt.qcow2",
                  [("a-encrypt.qcow2", "sesame")])
    assert terminal.type("cowimg resize a.qcow2 +10G") == "Image resized.\n"
    assert terminal.type("cowimg snapshot -c before a.qcow2") == ""


def use_snapshots(terminal):
    """savevm, loadvm, delvm and info snapshots of a running machine."""
    counts(terminal, 3)
    low = count(terminal)
    assert terminal.monitor("savevm s1") == ""
    high = count(terminal)
    counts(terminal, high + 50)
    assert terminal.monitor("stop") == ""
    assert terminal.monitor("loadvm s1") == ""
    assert low <= count(terminal) <= high
    assert terminal.monitor("cont") == ""
    counts(terminal, high + 60)
    assert terminal.monitor("savevm s2") == ""
    rows = terminal.monitor("info snapshots").split("\n")
    assert rows[0] == "List of snapshots present on all disks:" and rows[1].startswith(ROWS)
    assert [row.split()[1] for row in rows[2:] if row.startswith("--")] == ["s1", "s2"]
    assert terminal.monitor("delvm s1") == ""
    rows = terminal.monitor("info snapshots").split("\n")
    assert [row.split()[1] for row in rows[2:] if row.startswith("--")] == ["s2"]


def test_from_create_to_snapshot_blkdev(tmp_path, terminal):
    guests.disk_with(tmp_path / "flat.img", guests.keeps_count(tmp_path, 0x3FF))
    qemu_img("convert", "-f", "raw", "-O", "qcow2", tmp_path / "flat.img",
             tmp_path / "ubuntutest.qcow2")
    prepare_images(terminal)

    terminal.start_machine(START % "a.qcow2")
    assert terminal.monitor("info name") == "ubuntutest"
    assert terminal.monitor("cont") == ""
    use_snapshots(terminal)
    assert terminal.monitor("snapshot_blkdev ide0-hd0 a-snapshot.img qcow2") == (
        FORMATTING % ("a-snapshot.img", MIB16 + (10 << 30), "a.qcow2"))
    last = counts(terminal, count(terminal) + 20)
    assert "127.0.0.1:5919" in terminal.monitor("info vnc")
    assert "tap0" in terminal.monitor("info network")
    terminal.quit_machine()
    for name in ("a.qcow2", "a-snapshot.img"):
        check_image(tmp_path / name)
    # Memory counts first: the last number may have been on its way to the disk.
    stored = int.from_bytes(read_disk(tmp_path / "a-snapshot.img", 8 * 512, 2), "little")
    assert stored >= last - 1
    assert "before" in terminal.type("cowimg snapshot -l a.qcow2")

    said = terminal.start_machine(START % "a-encrypt.qcow2")
    assert "ide0-hd0 (a-encrypt.qcow2) is encrypted: type 'cont' to enter its passphrase" in said
    assert terminal.monitor("info status") == "VM status: paused (prelaunch)"
    said = terminal.monitor("cont", "sesame")
    assert "ide0-hd0 (a-encrypt.qcow2) is encrypted.\n" in said and "sesame" not in said
    use_snapshots(terminal)
    terminal.quit_machine()
    terminal.type("cowimg check a-encrypt.qcow2", [("a-encrypt.qcow2", "sesame")])
