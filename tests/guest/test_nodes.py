"""-blockdev, and `info block` of the images that it makes."""
import re

import pytest

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
