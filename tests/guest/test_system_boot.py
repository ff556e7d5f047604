"""Programs of others that boot on a PC by themselves: memtest86+, isolinux, Debian's
generic kernel, the first screen of Debian's installer."""
import re
import subprocess

import pytest

import guests
from debian import BOOT, GUESTS, check_kernel, kernel_args, shell
from rfb import Rfb, picture_text, read_png
from tools import SLOW, blank, run
from vm import Vm
from vnc_vm import dump, vnc_vm

pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(400)]


def test_memtest_runs_its_first_tests_and_ends_by_a_key(tmp_path):
    with Vm("-kernel", GUESTS / "memtest.bin", "-no-reboot", memory=24) as vm:
        vm.wait_screen(r"Memtest86\+ v6", 60)
        vm.wait_screen(r"Test #[1-9]", 200)
        screen = "\n".join(vm.screen())
        assert re.search(r"Memory +: +2\dMB", screen) or "24" in screen, screen
        assert re.search(r"Errors: +0\b", screen), screen
        assert dump(vm, tmp_path)[:2] == (720, 400)
        vm.monitor("sendkey esc")
        assert vm.wait_exit(120) == 0


MENU = """\
DEFAULT menu.c32
PROMPT 0
MENU TITLE Choose a guest
LABEL first
	MENU LABEL The sector
	BOOT /sector.bin
LABEL second
	MENU LABEL The kernel
	KERNEL /isolinux/mboot.c32
	APPEND /kernel.elf
"""


def isolinux_cd(work):
    tree = work / "cd"
    (tree / "isolinux").mkdir(parents=True)
    run("cp", "-r", GUESTS / "isolinux", tree)
    (tree / "isolinux/isolinux.cfg").write_text(MENU)
    (tree / "sector.bin").write_bytes(guests.hello(work, "the boot sector of the menu"))
    (tree / "kernel.elf").write_bytes(guests.multiboot_kernel(work, "the kernel of the menu"))
    run("xorriso", "-as", "mkisofs", "-quiet", "-o", work / "cd.iso", "-b",
        "isolinux/isolinux.bin", "-c", "boot.cat", "-no-emul-boot", "-boot-load-size", "4",
        "-boot-info-table", tree)
    return work / "cd.iso"


@pytest.mark.parametrize("keys,said", [(["ret"], "the boot sector of the menu"),
                                       (["down", "ret"], "the kernel of the menu")])
def test_isolinux_boots_what_is_chosen_from_its_menu(tmp_path, keys, said):
    with Vm("-cdrom", isolinux_cd(tmp_path)) as vm:
        vm.wait_screen(r"Choose a guest\s+The sector\s+The kernel", 120)
        for key in keys:
            vm.monitor("sendkey " + key)
        vm.serial.expect(said, 60)


def generic_shell(vm):
    vm.serial.expect("demo: initramfs shell on x86_64", BOOT)
    vm.serial.expect("# ")


def test_generic_kernel_finds_ide_and_virtio_disks_and_the_cd(tmp_path):
    ide, virtio = blank(tmp_path / "a.qcow2", "32M"), blank(tmp_path / "b.qcow2", "48M")
    cd = guests.bootable_cd(tmp_path, b"")
    with Vm(*kernel_args("console=ttyS0 quiet demo.shell"), "-hda", ide, "-cdrom", cd, "-drive",
            "file=%s,if=virtio" % virtio, "-smp", "2", memory=256) as vm:
        generic_shell(vm)
        sizes = shell(vm, "cat /sys/block/sda/size /sys/block/vda/size")
        assert sizes.split() == ["65536", "98304"]
        for disk in "sda", "vda":
            shell(vm, "dd if=/dev/urandom of=/tmp bs=1M count=4 2>/dev/null; "
                      "dd if=/tmp of=/dev/%s bs=1M conv=fsync 2>/dev/null; "
                      "echo 3 >/proc/sys/vm/drop_caches; cmp -n 4194304 /tmp /dev/%s" % (
                          disk, disk))
        assert "CD001" in shell(vm, "dd if=/dev/sr0 bs=2048 skip=16 count=1 2>/dev/null | strings")
        check_kernel(vm)
        vm.serial.send("poweroff -f\r")
        assert vm.wait_exit() == 0


@pytest.mark.parametrize("model,name", [("qemu64", "QEMU Virtual CPU"), ("EPYC", "AMD EPYC"),
                                        ("max", "")])
def test_generic_kernel_runs_on_other_models_of_cpu(tmp_path, model, name):
    with Vm(*kernel_args("console=ttyS0 quiet demo.shell"), "-cpu", model, memory=256) as vm:
        generic_shell(vm)
        assert name in shell(vm, "grep 'model name' /proc/cpuinfo")
        check_kernel(vm)
        vm.serial.send("poweroff -f\r")
        assert vm.wait_exit() == 0


BLUE, GREY = bytes((0, 0, 170)), bytes((170, 170, 170))


def language_screen(picture):
    """Lines of the installer's list of languages, or None while it is not there."""
    lines = picture_text(picture)
    return lines if re.search(r"\[!!\] Select a language", "\n".join(lines)) else None


def line_colour(picture, line):
    """Of the first dot of a line's text."""
    width, _, rgb = picture
    text = picture_text(picture)
    row = next(n for n, said in enumerate(text) if re.search(line, said))
    at = (row * 16 * width + re.search(line, text[row]).start() * 8) * 3
    return rgb[at:at + 3]


def test_first_screen_of_the_installer_over_vnc(tmp_path):
    """Its kernel drives the screen by itself, with bochs-drm.  What is seen is read by
    the shapes of the letters."""
    args = ["-kernel", GUESTS / "installer/linux", "-initrd", GUESTS / "installer/initrd.gz",
            "-append", "vga=normal fb=false"]
    with vnc_vm(*args, memory=1024, serial=False) as (vm, (host, port)):
        vm.wait_for(lambda: dump(vm, tmp_path)[0] > 720, BOOT, vm.screen)
        vm.wait_for(lambda: language_screen(dump(vm, tmp_path)), BOOT,
                    lambda: "\n".join(picture_text(dump(vm, tmp_path))))
        subprocess.run(["gvnccapture", "-q", "%s:%d" % (host, port - 5900), tmp_path / "a.png"],
                       check=True, timeout=60 * SLOW)
        seen = read_png(tmp_path / "a.png")
        assert seen == dump(vm, tmp_path)
        said = "\n".join(language_screen(seen))
        for line in (r"Language:", r"English +- +English", r"Danish +- +Dansk", r"<Go Back>"):
            assert re.search(line, said), said
        width, height, rgb = seen
        colours = [rgb[i:i + 3] for i in range(0, len(rgb), 3)]
        assert colours.count(BLUE) + colours.count(GREY) > width * height * 9 // 10
        chosen = line_colour(seen, "English +- ")
        assert chosen not in (BLUE, GREY) and line_colour(seen, "Finnish +- ") == GREY
        with Rfb((host, port)) as vnc:
            vnc.press(0xFF54)           # down
            vnc.wait(lambda p: line_colour(p, "Finnish +- ") == chosen)
        assert vm.quit() == 0
