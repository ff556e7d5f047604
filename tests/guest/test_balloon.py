"""The balloon: memory goes to the host and comes back, also around snapshots; native guest
of virtguest.c, by the modern interface, and by the legacy one with snapshots."""
import re

import pytest

import netguest
from tools import blank, check_image
from vm import Vm

pytestmark = pytest.mark.any_kvm
MEMORY = 32                             # MiB, of which the guest can spare all from 16 on


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return netguest.kernel(tmp_path_factory.mktemp("virtguest"), "virtguest")


def machine(kernel, *args, modern=0):
    vm = Vm("-vga", "none", "-kernel", kernel, "-append", "mem=%d modern=%d" % (MEMORY, modern),
            *args, memory=MEMORY)
    vm.serial.expect("ready")
    return vm


def resident(vm):
    """MiB of the machine's memory that the host has to hold."""
    with open("/proc/%d/status" % vm.pid) as f:
        return int(re.search(r"RssAnon:\s+(\d+)", f.read()).group(1)) // 1024


def set_balloon(vm, target):
    assert vm.monitor("balloon %d" % target) == ""
    vm.serial.expect("balloon %d\n" % ((MEMORY - target) * 256))
    assert vm.monitor("info balloon") == "balloon: actual=%d" % target


def check_memory(vm):
    vm.serial.send("m")
    vm.serial.expect("memory right")


def test_memory_goes_to_the_host_and_comes_back(kernel):
    with machine(kernel, "-device", "virtio-balloon-pci", modern=1) as vm:
        assert vm.monitor("info balloon") == "balloon: actual=%d" % MEMORY
        full = resident(vm)
        assert full > 16
        set_balloon(vm, 18)
        assert resident(vm) < full - 10
        check_memory(vm)
        set_balloon(vm, 26)
        check_memory(vm)
        vm.monitor("system_reset")
        vm.serial.expect("ready")               # still asked for 26
        vm.serial.expect("balloon 1536\n")
        assert vm.monitor("info balloon") == "balloon: actual=26"
        set_balloon(vm, MEMORY)
        check_memory(vm)
        assert "not empty" not in vm.serial.text
        assert vm.quit() == 0


def test_snapshots_hold_what_the_balloon_does_not(kernel, tmp_path):
    disk = blank(tmp_path / "disk.qcow2", "64M")
    with machine(kernel, "-device", "virtio-balloon-pci", "-hda", disk) as vm:
        assert vm.monitor("savevm empty") == ""
        set_balloon(vm, 20)
        assert vm.monitor("savevm big") == ""
        set_balloon(vm, 28)
        # A snapshot is being taken while pages go, and loaded while pages come and go.
        assert vm.monitor("savevm -d moving") == ""
        set_balloon(vm, 19)
        check_memory(vm)
        vm.wait_for(lambda: "moving" in vm.monitor("info snapshots"), 30, lambda: "no snapshot")
        for tag, target, then in (("empty", MEMORY, 18), ("big", 20, MEMORY), ("moving", 28, 21)):
            assert vm.monitor("loadvm " + tag) == ""
            assert vm.monitor("info balloon") == "balloon: actual=%d" % target
            set_balloon(vm, then)               # while memory still comes in
            check_memory(vm)
            assert vm.monitor("loadvm " + tag) == ""
            check_memory(vm)
        assert "not empty" not in vm.serial.text and "wrong" not in vm.serial.text
        assert vm.quit() == 0
    check_image(disk)


def test_the_monitor_says_what_it_cannot(kernel):
    with Vm("-vga", "none", "-S") as vm:
        for command in ("info balloon", "balloon 64"):
            assert vm.monitor(command) == "Error: No balloon device has been activated"
    with Vm("-vga", "none", "-S", "-device", "virtio-balloon-pci") as vm:
        assert vm.monitor("balloon 0") == "Error: Parameter 'target' expects a size"
        assert vm.monitor("balloon -1").startswith("enter a positive value")
        assert vm.monitor("balloon 99999") == ""
        assert vm.monitor("help balloon") == \
            "balloon target -- request VM to change its memory allocation (in MB)"
        assert vm.monitor("info memory_size_summary") == \
            "base memory: %d\nplugged memory: 0" % (64 << 20)
