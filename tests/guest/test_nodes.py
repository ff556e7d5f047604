"""-blockdev, and `info block` of the images that it makes."""
import re

import pytest

import guests
from tools import COWVM, blank, cowimg, qemu_img, run
from vm import Vm

QUIET = ["-nodefaults", "-display", "none", "-S"]


def refused(*args):
    """The one line of a command line that is not understood."""
    done = run(COWVM, *QUIET, *args, ok=(1,))
    assert done.stdout.startswith("cowvm: ")
    return done.stdout[len("cowvm: "):].rstrip("\n")


@pytest.fixture
def disks(tmp_path, monkeypatch):
    blank(tmp_path / "base.qcow2", "16M")
    monkeypatch.chdir(tmp_path)
    cowimg("create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "top.qcow2")
    with open(tmp_path / "raw.img", "wb") as f:
        f.truncate(8 << 20)
    return tmp_path


def node(**options):
    return ["-blockdev", ",".join("%s=%s" % (k.replace("__", ".").replace("_", "-"), v)
                                  for k, v in options.items())]


RAW = dict(driver="file", filename="raw.img")


@pytest.mark.parametrize("args, words", [
    (node(driver="x"), "Parameter 'driver' does not accept value 'x'"),
    (node(node_name="x"), "Parameter 'driver' is missing"),
    (node(driver="qcow2", node_name="a"), "Parameter 'file' is missing"),
    (node(driver="file", node_name="a"), "Parameter 'filename' is missing"),
    (node(**RAW), "'node-name' must be specified for the root node"),
    (node(**RAW, node_name="1a"), "Invalid node-name: '1a'"),
    (node(**RAW, node_name="a") * 2, "Duplicate nodes with node-name='a'"),
    (node(driver="raw", file="b", node_name="a") + node(**RAW, node_name="b"),
     "Cannot find device='b' nor node-name='b'"),
    (node(driver="qcow2", file__driver="file", file__filename="top.qcow2", backing="no",
          node_name="q"),
     "Could not open backing file: Cannot find device='no' nor node-name='no'"),
    (node(driver="file", filename="nosuch", node_name="a"),
     "Could not open 'nosuch': No such file or directory"),
    (node(**RAW, node_name="a", detect_zeroes="unmap"),
     "setting detect-zeroes to unmap is not allowed without setting discard operation to unmap"),
    (node(**RAW, node_name="a", foo="1"), "Block protocol 'file' doesn't support the option 'foo'"),
    (node(**RAW, node_name="a", read_only="on") + ["-device", "ide-hd,drive=a"],
     "Block node is read-only"),
    (node(**RAW, node_name="a") + node(driver="throttle", file="a", node_name="t"),
     "Parameter 'throttle-group' is missing"),
    (node(driver="qcow2", file__driver="throttle", node_name="t"),
     "Parameter 'file.driver' does not accept value 'throttle'"),
    (node(driver="throttle", throttle_group="g", node_name="t"), "Parameter 'file' is missing"),
    (node(**RAW, node_name="a") + node(driver="throttle", throttle_group="g", file="a",
                                       node_name="t"), "Throttle group 'g' does not exist"),
    (node(**RAW, node_name="a") + node(driver="copy-on-read", file="a", node_name="t", foo="1"),
     "Block format 'copy-on-read' does not support the option 'foo'"),
    (["-object", "throttle-group,id=g"] + node(**RAW, node_name="a") +
     node(driver="throttle", throttle_group="g", file="a", node_name="t") +
     node(driver="qcow2", file="t", node_name="q"),
     "Node 't' can only be under other filters and devices"),
    (["-object", "throttle-group,id=g,x-bps-total=1,x-bps-read=2"],
     "bps/iops/max total values and read/write values cannot be used at the same time"),
    (["-object", "throttle-group,id=g,bps-total=1"], "Invalid parameter 'bps-total'"),
    (["-object", "throttle-group,x-bps-total=1"], "Parameter 'id' is missing"),
    (["-object", "throttle-group,id=g"] * 2, "Duplicate ID 'g' for object"),
    (["-drive", "file=raw.img,format=raw,throttling.foo=1"],
     "Block format 'raw' does not support the option 'throttling.foo'"),
    (node(**RAW, node_name="a") + ["-device", "ide-hd,drive=a"] * 2,
     "Drive 'a' is already in use by another device"),
])
def test_what_makes_no_sense_is_refused_in_the_reference_s_words(disks, args, words):
    assert refused(*args).endswith(": " + words)


def test_a_drive_and_a_node_have_different_names(disks):
    said = refused("-drive", "file=raw.img,format=raw,id=a,if=none",
                   *node(**RAW, node_name="a"))
    assert said.endswith("Device name 'a' conflicts with an existing node name")


def chain(form):
    """The same chain in three ways."""
    if form == "references":
        return (node(driver="file", filename="base.qcow2", node_name="bf", read_only="on") +
                node(driver="qcow2", file="bf", node_name="b", read_only="on") +
                node(driver="file", filename="top.qcow2", node_name="tf") +
                node(driver="qcow2", file="tf", backing="b", node_name="t"))
    if form == "dotted":
        return node(driver="qcow2", node_name="t", file__driver="file",
                    file__filename="top.qcow2", file__node_name="tf", backing__driver="qcow2",
                    backing__node_name="b", backing__file__driver="file",
                    backing__file__node_name="bf", backing__file__filename="base.qcow2")
    return ["-blockdev", '{"driver": "qcow2", "node-name": "t",'
            '"file": {"driver": "file", "filename": "top.qcow2", "node-name": "tf"},'
            '"backing": {"driver": "qcow2", "node-name": "b",'
            '"file": {"driver": "file", "filename": "base.qcow2", "node-name": "bf"}}}']


@pytest.mark.parametrize("form", ["references", "dotted", "json"])
def test_a_chain_of_nodes_is_one_drive(disks, form):
    with Vm("-S", *chain(form), "-device", "virtio-blk-pci,drive=t,id=disk",
            serial=False) as vm:
        said = vm.monitor("info block t")
        assert re.sub(r" +", " ", said).strip() == (
            "t: top.qcow2 (qcow2)\n Attached to: disk\n Cache mode: writeback\n"
            " Backing file: base.qcow2 (chain depth: 1)")
        assert vm.monitor("info block disk") == said
        nodes = vm.monitor("info block -n")
        assert re.findall(r"^(\w+): (.*)$", nodes, re.M)[:4] == [
            ("b", "base.qcow2 (qcow2, read-only)"), ("bf", "base.qcow2 (file, read-only)"),
            ("t", "top.qcow2 (qcow2)"), ("tf", "top.qcow2 (file)")]
        assert vm.monitor("block_resize t 20M").strip() == ""
        # The text of the image tool, for each image of the chain.
        text = vm.monitor("info block -v t").split("Images:\n")[1].rstrip("\n")
    for name, size in (("top.qcow2", "20 MiB"), ("base.qcow2", "16 MiB")):
        theirs = qemu_img("info", name).stdout
        assert "virtual size: " + size in theirs
        part = text[text.index("image: %s\n" % name):]
        for line in theirs.split("\n"):
            assert line.startswith("disk size") or line in part, line


def test_a_node_that_no_device_shows_keeps_nobody_from_its_file(disks):
    with Vm("-S", *node(**RAW, node_name="a"), "-drive", "file=raw.img,format=raw,if=virtio",
            serial=False) as vm:
        assert "a: raw.img (file, read-only)" in vm.monitor("info block -n")
        assert "raw.img (file" not in vm.monitor("info block")


@pytest.mark.parametrize("option, words", [
    ("cache=none", "writeback, direct"), ("cache=unsafe", "writeback, ignore flushes"),
    ("cache=writethrough", "writethrough"), ("cache=directsync", "writethrough, direct"),
    ("snapshot=on", "writeback, ignore flushes")])
def test_cache_modes_are_shown_as_the_reference_does(disks, option, words):
    with Vm("-S", "-drive", "file=top.qcow2,if=virtio,id=d,%s" % option, serial=False) as vm:
        said = vm.monitor("info block d")
        assert re.search(r"Cache mode: +(.*?)\r?$", said, re.M).group(1) == words


LIMITS = [
    ["-object", "throttle-group,id=g,limits.bps-total=73728", "-drive",
     "file=slow.img,format=raw,file.locking=off,if=none,id=t,throttling.group=g"],
    ["-object", "throttle-group,id=g,x-bps-total=73728",
     *node(driver="file", filename="slow.img", node_name="f", locking="off"),
     *node(driver="raw", file="f", node_name="r"),
     *node(driver="throttle", throttle_group="g", file="r", node_name="t")],
    ["-object", '{"qom-type": "throttle-group", "id": "g", "limits": {"bps-total": 73728}}',
     "-blockdev", '{"driver": "throttle", "throttle-group": "g", "node-name": "t", "file": '
     '{"driver": "raw", "file": {"driver": "file", "filename": "slow.img", "locking": "off"}}}'],
]


def test_limits_of_an_object_hold_for_who_names_it(disks):
    """96 sectors thrice: 144 KiB at 72 KiB a second."""
    guests.disk_with(disks / "slow.img", guests.copies_sectors(disks, 100, 400, 96), 1 << 20)
    for limits in LIMITS:
        with Vm(*limits, "-S", "-device", "virtio-blk-pci,drive=t", serial=False) as vm:
            assert "I/O throttling:   bps=73728 bps_rd=0 " in vm.monitor("info block t")
    with Vm(*limits, "-no-shutdown", "-device", "virtio-blk-pci,drive=t") as vm:
        vm.serial.expect("copied")
        said = vm.monitor("info blockstats")
        assert sum(map(int, re.findall(r"(?:rd|wr)_total_time_ns=(\d+)", said))) > 10 ** 9


def test_filters_lie_over_each_other_and_share_one_group(disks):
    object_ = ["-object", "throttle-group,id=g,limits.iops-read=100,limits.iops-read-max=200"]
    over = ["-blockdev", '{"driver": "throttle", "node-name": "t", "throttle-group": "g",'
            '"detect-zeroes": "on", "file": {"driver": "copy-on-read", "file": {"driver": "qcow2",'
            '"file": {"driver": "file", "filename": "top.qcow2"}}}}']
    other = node(driver="null-co", node_name="n", size="1M") + node(
        driver="throttle", throttle_group="g", file="n", node_name="m")
    with Vm("-S", *object_, *over, *other, "-device", "virtio-blk-pci,drive=t", "-device",
            "virtio-blk-pci,drive=m", serial=False) as vm:
        said = vm.monitor("info block t")
        assert "top.qcow2 (qcow2)" in said and "Detect zeroes:    on" in said
        assert "iops_rd=100" in said and "group=g" in said
        assert vm.monitor("block_set_io_throttle m 0 0 0 7 0 0") == ""
        assert "iops=7 iops_rd=0" in vm.monitor("info block t")
