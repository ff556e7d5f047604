"""Pictures of the screen: what screendump writes is what the guest's text looks like in
the BIOS's font, and comes back with a snapshot."""
import time

import pytest

import guests
from rfb import differing_cells, read_png, read_ppm, text_picture
from tools import run
from vm import Vm

pytestmark = pytest.mark.any_kvm


def dump(vm, path, *more):
    assert vm.monitor(" ".join(["screendump", str(path), *more])) == ""
    return path


def test_screendump_of_seabios_is_its_text_in_its_font(tmp_path):
    with Vm() as vm:
        vm.wait_screen("No bootable device")
        vm.monitor("stop")
        cells = vm.cells()
        picture = read_ppm(dump(vm, tmp_path / "a.ppm"))
        assert picture[:2] == (720, 400)
        differing = differing_cells(picture, text_picture(cells))
        assert len(differing) <= 1, differing                     # the cursor's cell
        assert all(cells[x + 80 * y] & 255 in (0, 32) for x, y in differing)
        assert read_png(dump(vm, tmp_path / "a.png", "-f", "png")) == picture
        assert vm.quit() == 0


def test_screendump_says_what_it_cannot(tmp_path):
    with Vm() as vm:
        assert vm.monitor("screendump /nonexistent/a") == \
            "Error: failed to open file '/nonexistent/a': No such file or directory"
        assert vm.monitor("screendump %s/a -f gif" % tmp_path) == \
            "Error: invalid parameter value: gif"
        assert vm.monitor("screendump").startswith("screendump: filename expected")
        assert not list(tmp_path.iterdir())
    with Vm("-vga", "none") as vm:
        assert vm.monitor("screendump %s/a" % tmp_path).startswith("Error: ")
        assert vm.monitor("info vnc") == "None"


def test_graphics_and_text_follow_each_other(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))
    with Vm("-drive", "file=%s,format=raw" % disk) as vm:
        vm.serial.expect("type")
        vm.monitor("sendkey f1")
        vm.monitor("sendkey shift-z")           # colour 0x5a
        vm.serial.expect(r"\*")
        width, height, rgb = read_ppm(dump(vm, tmp_path / "a.ppm"))
        assert (width, height) == (640, 400)
        assert rgb == rgb[:3] * (width * height) and rgb[:3] != bytes(3)
        vm.monitor("sendkey f2")
        vm.monitor("sendkey x")
        vm.serial.expect("x")
        vm.wait_for(lambda: vm.screen()[0] == "x", 30, vm.screen)
        vm.monitor("stop")
        shown = read_ppm(dump(vm, tmp_path / "b.ppm"))
        assert len(differing_cells(shown, text_picture(vm.cells()))) <= 1
        assert vm.quit() == 0


def test_a_snapshot_brings_the_screen_back(tmp_path):
    disk = guests.qcow2_with(tmp_path / "disk.qcow2", guests.echoes_keys(tmp_path))
    with Vm("-drive", "file=%s,if=virtio" % disk) as vm:
        vm.serial.expect("type")
        for mode, key in (("f1", "k"), ("f2", "y")):
            vm.monitor("sendkey " + mode)
            vm.monitor("sendkey " + key)
            vm.serial.expect(r"\*" if mode == "f1" else "y")
            time.sleep(0.2)
            vm.monitor("stop")
            before = read_ppm(dump(vm, tmp_path / "before.ppm"))
            vm.monitor("savevm " + mode)
            vm.monitor("cont")
            vm.monitor("sendkey f2")
            vm.monitor("sendkey q")
            vm.serial.expect("q")
            vm.monitor("stop")
            assert read_ppm(dump(vm, tmp_path / "else.ppm")) != before
            assert vm.monitor("loadvm " + mode) == ""
            assert read_ppm(dump(vm, tmp_path / "after.ppm")) == before
            vm.monitor("cont")
        assert vm.quit() == 0
    run("qemu-img", "check", "-q", disk)


def test_keys_are_held_as_long_as_asked_for(tmp_path):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))
    with Vm("-drive", "file=%s,format=raw" % disk) as vm:
        vm.serial.expect("type")
        vm.monitor("sendkey shift-a 300")
        vm.monitor("sendkey b")
        vm.serial.expect("Ab")
        assert vm.monitor("sendkey foo") == "invalid parameter: foo"
        assert vm.quit() == 0


def test_mice_are_listed_chosen_and_moved():
    with Vm("-device", "virtio-mouse-pci", "-device", "virtio-tablet-pci", "-device",
            "virtio-keyboard-pci") as vm:
        mice = vm.monitor("info mice").split("\n")
        assert sorted(line[2:] for line in mice) == [
            "Mouse #2: PS/2 Mouse", "Mouse #3: Virtio Mouse", "Mouse #4: Virtio Tablet (absolute)"]
        assert "* Mouse #2: PS/2 Mouse" in mice          # no driver of the others yet
        assert vm.monitor("mouse_set 4") == ""
        assert "* Mouse #4" in vm.monitor("info mice")
        assert vm.monitor("mouse_set 1") == "Input device 'PS/2 Keyboard' is not a mouse"
        assert vm.monitor("mouse_set 9") == "Mouse at index '9' not found"
        for command in "mouse_move 5 -5", "mouse_move 1 1 1", "mouse_button 1", "mouse_button 0":
            assert vm.monitor(command) == ""
        assert vm.quit() == 0
