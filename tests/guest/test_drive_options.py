"""-drive and the properties of disk devices: what is refused, and what they do."""
import json
import re

import pytest

from tools import COWVM, blank, check_image, cowimg, qemu_img, run
from vm import Vm

RAW = "file=raw.img,format=raw"
NONE = RAW + ",if=none,id=d"


@pytest.fixture(autouse=True)
def disks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blank("base.qcow2", "16M")
    cowimg("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    with open("raw.img", "wb") as f:
        f.truncate(8 << 20)


@pytest.mark.parametrize("args, words", [
    ([RAW + ",if=scsi"], "machine type does not support if=scsi,bus=0,unit=0"),
    ([RAW + ",if=sd"], "machine type does not support if=sd,bus=0,unit=0"),
    ([RAW + ",if=foo"], "unsupported bus type 'foo'"),
    ([RAW + ",cache=foo"], "invalid cache option"),
    ([RAW + ",aio=foo"], "invalid aio option"),
    ([RAW + ",aio=native"], "aio=native was specified, but it requires cache.direct=on, "
     "which was not specified."),
    ([RAW + ",bps=5,throttling.bps-total=5"],
     "'throttling.bps-total' and its alias 'bps' can't be used at the same time"),
    (["if=none,id=d", "virtio-blk-pci,drive=d"], "Device needs media, but drive is empty"),
    (["if=none,id=d", "ide-hd,drive=d"], "Device needs media, but drive is empty"),
    ([RAW + ",driver=raw"], "Cannot specify both 'driver' and 'format'"),
    ([RAW + ",copy-on-read=x"], "Parameter 'copy-on-read' expects 'on' or 'off'"),
    ([RAW + ",readonly=on"], "Block node is read-only"),
    ([NONE, "virtio-blk-pci,drive=d,werror=x"], "Parameter 'werror' does not accept value 'x'"),
    ([NONE, "virtio-blk-pci,drive=d,logical_block_size=1k,physical_block_size=512"],
     "logical_block_size > physical_block_size not supported"),
    ([NONE, "ide-hd,drive=d,logical_block_size=4096,physical_block_size=4096"],
     "logical_block_size must be 512 for IDE"),
    ([NONE, "virtio-blk-pci,drive=d,min_io_size=1000"],
     "min_io_size must be a multiple of logical_block_size"),
    ([NONE, "virtio-blk-pci"], "drive property not set"),
    ([NONE, "virtio-blk-pci,drive=d,bootindex=1", "virtio-net-pci,bootindex=1"],
     "The bootindex 1 has already been used"),
])
def test_what_makes_no_sense_is_refused(args, words):
    line = ["-nodefaults", "-display", "none", "-S", "-drive", args[0]]
    for device in args[1:]:
        line += ["-device", device]
    done = run(COWVM, *line, ok=(1,))
    said = [text for text in done.stdout.split("\n") if "warning:" not in text]
    assert said[0].startswith("cowvm: ") and said[0].endswith(": " + words), done.stdout


def test_formats_are_listed():
    ours, theirs = [re.search("Supported formats: (.*)", run(program, "-drive", "format=help")
                              .stdout).group(1).split()
                    for program in (COWVM, "qemu-system-x86_64")]
    assert ours == sorted(ours) and set(ours) < set(theirs)
    for name in ours:
        done = run(COWVM, "-display", "none", "-net", "none", "-loadvm", "nosuch", "-drive",
                   "if=none,driver=" + name, ok=(1,))
        assert "Unknown driver" not in done.stdout, done.stdout


def depths(image):
    return {e["start"]: e["depth"] for e in
            json.loads(qemu_img("map", "--output=json", image).stdout)}


def test_copy_on_read_fills_the_overlay_with_what_the_guest_reads():
    for name in ("top.qcow2", "plain.qcow2"):
        cowimg("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", name)
    run("qemu-io", "-f", "qcow2", "-c", "write -P 0x77 0 1M", "base.qcow2")
    before = open("base.qcow2", "rb").read()
    with Vm("-drive", "file=top.qcow2,copy-on-read=on", "-drive", "file=plain.qcow2") as vm:
        vm.wait_bios("Booting from Hard Disk")
        vm.wait_bios("not a bootable disk")
        assert vm.quit() == 0
    assert depths("top.qcow2")[0] == 0
    assert depths("plain.qcow2")[0] == 1
    check_image("top.qcow2")
    assert open("base.qcow2", "rb").read() == before
    assert "identical" in qemu_img("compare", "base.qcow2", "top.qcow2").stdout


def test_copy_on_read_of_a_read_only_drive_is_off():
    with Vm("-S", "-drive", NONE + ",readonly=on,copy-on-read=on", serial=False) as vm:
        assert "disabling copy-on-read on read-only drive" in vm.banner


def test_snapshot_leaves_an_image_that_options_describe_alone():
    before = open("top.qcow2", "rb").read()
    with Vm("-S", "-drive", "driver=qcow2,file.driver=file,file.filename=top.qcow2,snapshot=on,"
            "if=virtio,id=d,l2-cache-size=1M", serial=False) as vm:
        assert "(chain depth: 2)" in vm.monitor("info block d")
        assert vm.monitor("block_resize d 32M") == ""
    assert open("top.qcow2", "rb").read() == before


def test_a_drive_without_a_medium_is_one_for_discs():
    with Vm("-S", "-drive", "if=none,id=d", "-device", "ide-cd,drive=d", serial=False) as vm:
        assert vm.monitor("info block d").startswith("d: [not inserted]")
        assert vm.monitor("change d raw.img raw") == ""
        assert "raw.img (raw, read-only)" in vm.monitor("info block d")


def test_a_drive_that_no_device_shows_has_a_medium_to_change():
    with Vm("-S", "-drive", NONE, serial=False) as vm:
        assert "Removable device: not locked, tray closed" in vm.monitor("info block d")
        assert vm.monitor("eject d") == ""
        assert vm.monitor("info block d").startswith("d: [not inserted]")
        assert vm.monitor("change d raw.img raw") == ""
        assert "raw.img (raw" in vm.monitor("info block d")


def test_what_a_drive_says_of_its_serial_number_holds_for_the_device():
    two = [NONE + ",serial=S1", "file=top.qcow2,if=none,id=e,serial=S2"]
    with Vm("-S", "-drive", two[0], "-device", "virtio-blk-pci,drive=d", "-drive", two[1],
            "-device", "ide-hd,drive=e,serial=S3", serial=False) as vm:
        tree = vm.monitor("info qtree")
    assert re.findall(r'serial = "(S\d)"', tree) == ["S1", "S3"]


def test_two_machines_share_a_raw_disk_when_both_say_so():
    shared = ["-S", "-drive", NONE, "-device", "virtio-blk-pci,drive=d,share-rw=on"]
    with Vm(*shared, serial=False):
        with Vm(*shared, serial=False) as second:
            assert "raw.img (raw)" in second.monitor("info block d")
        done = run(COWVM, "-display", "none", "-S", "-drive", NONE,
                   "-device", "virtio-blk-pci,drive=d", ok=(1,))
        assert 'Failed to get shared "write" lock' in done.stdout
