"""The firmware's tables as their readers see them: SeaBIOS, iasl, a Debian kernel."""
import os
import re

import pytest

from tools import DEMO, run
from vm import Vm

CHIPSET = {"00:00.0": "8086:1237", "00:01.0": "8086:7000", "00:01.1": "8086:7010",
           "00:01.3": "8086:7113"}
# What a kernel says of tables that it does not like.
COMPLAINTS = re.compile(r"ACPI.*(error|warning|exception|invalid|fail|mismatch|BIOS bug)|"
                        r"\[Firmware (Bug|Warn)|DMI (not|invalid)|nobody cared", re.IGNORECASE)


@pytest.mark.any_kvm
def test_bios_finds_the_chipset_and_understands_the_tables():
    with Vm("-smp", "2,maxcpus=6,sockets=2") as vm:
        vm.wait_bios("No bootable device.")
        log = vm.bios()
    for place, ids in CHIPSET.items():
        assert "PCI: init bdf=%s id=%s" % (place, ids) in log
    assert "Found 2 cpu(s) max supported 7 cpu(s)" in log    # IDs 0-2 and 4-6
    assert "Copying SMBIOS" in log
    assert "ACPI: parse DSDT" in log
    assert "parse error" not in log and "overrun" not in log


@pytest.mark.no_kvm
def test_namespace_compiles_without_a_remark_and_survives_disassembly(tmp_path):
    source = os.path.join(os.path.dirname(__file__), "../../firmware/dsdt.asl")
    first = run("iasl", "-p", tmp_path / "first", source)
    assert "0 Errors, 0 Warnings, 0 Remarks" in first.stdout
    run("iasl", "-p", tmp_path / "second", "-d", tmp_path / "first.aml")
    again = run("iasl", "-p", tmp_path / "third", tmp_path / "second.dsl")
    assert " 0 Errors" in again.stdout
    assert (tmp_path / "first.aml").stat().st_size == (tmp_path / "third.aml").stat().st_size


def shell(vm, command):
    vm.serial.send(command + "; echo status=$?\r")
    out = vm.serial.expect(r"\nstatus=\d+\r", 60)
    vm.serial.expect("# ")
    return out.replace("\r", "").split("\n", 1)[-1]


def initramfs_shell(vm):
    vm.serial.expect("demo: initramfs shell", 200)
    vm.serial.expect("# ")


@pytest.mark.full_kvm
@pytest.mark.limit(400)
def test_kernel_finds_everything_without_complaint_and_resets_by_the_tables():
    with Vm("-kernel", DEMO / "vmlinuz", "-initrd", DEMO / "initrd.img", "-append",
            "console=ttyS0 quiet reboot=acpi demo.shell", "-smp", "2", "-uuid",
            "00112233-4455-6677-8899-aabbccddeeff", memory=256) as vm:
        initramfs_shell(vm)
        log = shell(vm, "dmesg")
        assert [line for line in log.split("\n") if COMPLAINTS.search(line)] == []
        for said in ["ACPI: PM: (supports S0 S5)", "Using IOAPIC for interrupt routing",
                     "Interrupt link LNKD configured", "smp: Brought up 1 node, 2 CPUs"]:
            assert said in log
        devices = shell(vm, "ls /sys/bus/acpi/devices")
        for name in ["PNP0A03", "PNP0B00", "PNP0303", "PNP0F13", "PNP0501", "QEMU0002",
                     "LNXPWRBN", "ACPI0007:01"]:
            assert name in devices
        ports = shell(vm, "cat /proc/ioports")
        assert "0600-0603 : ACPI PM1a_EVT_BLK" in ports and "0608-060b : ACPI PM_TMR" in ports
        interrupts = shell(vm, "cat /proc/interrupts")
        assert re.search(r"^ +9:.*IO-APIC +9-fasteoi +acpi", interrupts, re.MULTILINE)
        assert "00112233-4455-6677-8899-aabbccddeeff" in \
            shell(vm, "cat /sys/class/dmi/id/product_uuid")
        vm.serial.send("reboot -f\r")
        initramfs_shell(vm)             # port 0xcf9, as the FADT says
        vm.serial.send("poweroff -f\r")
        assert vm.wait_exit() == 0
