"""Serial ports and entropy by virtio, to the native guest of virtguest.c by either
interface: consoles, named ports, ends that come and go, snapshots."""
import re
import socket

import pytest

import netguest
from tools import COWVM, SLOW, blank, run
from vm import Vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return netguest.kernel(tmp_path_factory.mktemp("virtguest"), "virtguest")


def connect(path):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60 * SLOW)
    s.connect(str(path))
    return s


def echo(s, text):
    s.sendall(text)
    got = b""
    while len(got) < len(text):
        got += s.recv(1000)
    assert got == text.upper()


def random_bytes(vm):
    vm.serial.send("r")
    vm.serial.expect("random ([0-9a-f]{32})")
    return re.findall("random ([0-9a-f]{32})", vm.serial.text)[-1]


@pytest.mark.parametrize("modern", [0, 1])
def test_ports_and_entropy_work_with_snapshots(kernel, tmp_path, modern):
    disk, console, port = blank(tmp_path / "disk.qcow2"), tmp_path / "console", tmp_path / "port"
    with Vm("-vga", "none", "-kernel", kernel, "-append", "modern=%d mem=17" % modern,
            "-device", "virtio-rng", "-device", "virtio-serial,id=vs",
            "-chardev", "socket,id=a,path=%s,server=on,wait=off" % console,
            "-chardev", "socket,id=b,path=%s,server=on,wait=off" % port,
            "-device", "virtconsole,chardev=a",
            "-device", "virtserialport,bus=vs.0,nr=30,chardev=b,name=org.test.0",
            "-hda", disk, memory=32) as vm:
        vm.serial.expect("console 0")
        vm.serial.expect("port 30 org.test.0")
        first = random_bytes(vm)
        with connect(console) as c:
            vm.serial.expect("host 0 open")
            echo(c, b"hello console")
            with connect(port) as p:
                vm.serial.expect("host 30 open")
                echo(p, b"x" * 5000)
                assert vm.monitor("savevm s") == ""
                echo(p, b"after")
            vm.serial.expect("host 30 closed")
            assert vm.monitor("loadvm s") == ""
            vm.serial.expect("host 30 closed")       # as it was open then
            echo(c, b"again")
        assert random_bytes(vm) != first
        assert 'name = "org.test.0"' in vm.monitor("info qtree")
        assert vm.quit() == 0


@pytest.mark.parametrize("options, says", [
    (["-device", "virtserialport"], "No 'virtio-serial-bus' bus found for device 'virtserialport'"),
    (["-device", "virtio-keyboard-pci,disable-legacy=zork"], "'zork', expected on, off or auto"),
    (["-device", "virtio-tablet-pci,disable-legacy=off"], "there is no interface of before 1.0"),
    (["-device", "isa-debugcon,iobase=0x10402"], "iobase is 0x10402, expected 0..0xffff"),
    (["-device", "isa-debug-exit,iobase=0x10501"], "iobase is 0x10501, expected 0..0xffff"),
    (["-device", "virtio-serial,max_ports=32"], "maximum ports supported: 31"),
    (["-device", "virtio-serial", "-device", "virtserialport,nr=0"], "Port number 0 on virtio-ser"),
    (["-device", "virtio-serial", "-device", "virtserialport,bus=other.0"], "bus found for device"),
    (["-device", "virtio-rng,rng=none"], "Property 'rng' can't find value 'none'"),
    (["-object", "rng-random,id=r,filename=/none", "-device", "virtio-rng,rng=r"], "open '/none'"),
    (["-object", "rng-builtin,id=r", "-object", "rng-builtin,id=r"], "Duplicate ID 'r'"),
    (["-object", "rng-builtin"], "Parameter 'id' is missing"),
    (["-device", "virtio-rng,period=0"], "'period' parameter expects a positive integer"),
])
def test_what_cannot_be_is_one_line(options, says):
    said = run(COWVM, "-S", "-display", "none", *options, ok=(1,)).stdout
    assert says in said and said.count("\n") == 1
