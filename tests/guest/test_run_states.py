"""Run states as the monitor shows them, and how the process ends."""
import re
import socket

import pytest

import guests
from tools import boot_sector
from vm import Vm

pytestmark = pytest.mark.any_kvm


def disk_of(folder, main):
    """A raw disk whose boot sector runs this after the usual head."""
    code = boot_sector(guests.HEAD + "main:\n" + main + guests.HALT, folder)
    return guests.disk_with(folder / "disk.raw", code)


def raw(path):
    return ["-drive", "file=%s,format=raw" % path]


def test_stopped_at_start_until_cont():
    with Vm("-S") as vm:
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert vm.bios() == ""
        vm.monitor("cont")
        assert vm.monitor("info status") == "VM status: running"
        vm.wait_bios("SeaBIOS")
        vm.monitor("stop")
        assert vm.monitor("info status") == "VM status: paused"
        vm.monitor("stop")
        vm.monitor("system_reset")
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        vm.monitor("c")
        vm.monitor("cont")
        assert vm.monitor("info status") == "VM status: running"
        assert vm.quit() == 0


def test_quit_from_every_state():
    with Vm("-S") as vm:
        assert vm.quit() == 0
    with Vm() as vm:
        assert vm.quit() == 0
    with Vm() as vm:
        vm.monitor("stop")
        assert vm.quit() == 0


@pytest.mark.parametrize("value", [0, 1, 0x31])
def test_debug_exit_gives_the_status(tmp_path, value):
    disk = disk_of(tmp_path, "\tmov al, %d\n\tout 0xf4, al\n" % value)
    with Vm(*raw(disk), "-device", "isa-debug-exit,iobase=0xf4,iosize=4") as vm:
        assert vm.wait_exit() == (value << 1 | 1) & 0xFF


PANIC = "\tmov dx, 0x505\n\tmov al, 1\n\tout dx, al\n"


@pytest.mark.parametrize("options", [("-action", "panic=pause"), ("-no-shutdown",)],
                         ids=" ".join)
def test_a_panicked_guest_is_held_for_a_look(tmp_path, options):
    with Vm(*raw(disk_of(tmp_path, PANIC)), "-device", "pvpanic", *options) as vm:
        vm.wait_status("paused (guest-panicked)")
        vm.monitor("system_reset")
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert vm.quit() == 0


def test_a_panicked_guest_ends_the_process_by_default(tmp_path):
    with Vm(*raw(disk_of(tmp_path, PANIC)), "-device", "pvpanic") as vm:
        assert vm.wait_exit() == 0


def test_after_no_shutdown_only_a_reset_leads_on(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.powers_off(tmp_path))
    with Vm(*raw(disk), "-no-shutdown") as vm:
        vm.serial.expect("going off")
        vm.wait_status("paused (shutdown)")
        assert "Resetting the Virtual Machine is required" in vm.monitor("cont")
        vm.monitor("system_reset")
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        vm.monitor("cont")
        vm.serial.expect("going off")
        assert vm.quit() == 0


def test_no_reboot_with_no_shutdown_pauses(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw",
                            guests.resets(tmp_path, "keyboard controller"))
    with Vm(*raw(disk), "-no-reboot", "-no-shutdown") as vm:
        vm.serial.expect("start 1")
        vm.wait_status("paused (shutdown)")


# An instruction that no x86 has, in a place that KVM's emulator must run: jumping
# into device registers, which cannot be executed.
LOST = """
	lgdt	[where]
	mov	eax, cr0
	or	al, 1
	mov	cr0, eax
	.byte	0xea
	.word	wide, 8
	.code32
wide:	mov	eax, 0xd0000000
	jmp	eax
	.code16
	.balign	8
table:	.quad	0, 0x00cf9b000000ffff
where:	.word	15
	.long	table
"""


def test_emulation_failure_pauses_and_the_monitor_stays(tmp_path):
    disk = disk_of(tmp_path, LOST)
    log = tmp_path / "log"
    with Vm(*raw(disk), "-D", log) as vm:
        vm.wait_status("paused (internal-error)")
        assert "EIP=d0000000" in vm.monitor("info registers")
        assert "Resetting the Virtual Machine is required" in vm.monitor("cont")
        assert "emulation" in log.read_text().lower()
        vm.monitor("system_reset")
        assert vm.monitor("info status") == "VM status: paused (prelaunch)"
        assert vm.quit() == 0


def test_snapshot_leaves_the_disk_alone(tmp_path):
    how = guests.resets(tmp_path, "keyboard controller")
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", how)
    before = disk.read_bytes()
    with Vm("-hda", disk, "-snapshot") as vm:
        vm.serial.expect("start 3")
        assert vm.quit() == 0
    assert disk.read_bytes() == before


def test_output_that_nobody_takes_is_named_at_the_end(tmp_path):
    disk = disk_of(tmp_path, "again: mov cx, 1000\n1: mov al, '.'\ncall putc\nloop 1b\n"
                             "inc word ptr [0x8000]\njmp again\n")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "port"))
        listener.listen()
        with Vm(*raw(disk), "-serial", "unix:%s" % (tmp_path / "port"), serial=False) as vm:
            vm.wait_for(lambda: int(vm.monitor("xp /1xh 0x8000").split()[-1], 16) > 2, 60,
                        lambda: "the guest says nothing")
            assert vm.quit() == 0
            assert re.search(r"serial0: the last \d+ bytes of output were dropped: nobody reads "
                             "them", vm.spawn.before.decode())
