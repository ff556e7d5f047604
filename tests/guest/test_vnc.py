"""The screen over VNC: what clients see and type."""
import re
import subprocess

import pytest

import guests
from rfb import QEMU_KEY, SHIFT, Rfb, differing_cells, read_png, text_picture
from tools import SLOW
from vnc_vm import dump, vnc_vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture
def echo(tmp_path):
    return guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))


def test_another_client_sees_what_screendump_writes(tmp_path):
    with vnc_vm() as (vm, (_, port)):
        vm.wait_screen("No bootable device")
        vm.monitor("stop")
        subprocess.run(["gvnccapture", "-q", "127.0.0.1:%d" % (port - 5900), tmp_path / "a.png"],
                       check=True, timeout=60 * SLOW)
        seen = read_png(tmp_path / "a.png")
        assert seen == dump(vm, tmp_path)
        assert len(differing_cells(seen, text_picture(vm.cells()))) <= 1
        assert vm.quit() == 0


def test_typing_reaches_the_guest_and_the_screen_the_client(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as vnc:
            assert vnc.name == "cowvm"
            text = "Hello, World! ~{|}_^ 09 aZ @#$%&*()"
            vnc.type(text)                  # without ever pressing shift
            vm.serial.expect(re.escape(text))
            vnc.key(SHIFT, True)            # as a person with a US keyboard does
            vnc.type("Q?")
            vnc.key(SHIFT, False)
            vnc.key(SHIFT, True)            # and one whose slash is shifted
            vnc.type("/")
            vnc.key(SHIFT, False)
            vnc.type("/e")
            vm.serial.expect(re.escape("Q?//e"))
            vm.wait_for(lambda: vm.screen()[0 if text in vm.screen()[0] else 1:][0].endswith("//e")
                        or any("//e" in line for line in vm.screen()), 30, vm.screen)
            vm.monitor("stop")
            want = text_picture(vm.cells())
            vnc.wait(lambda p: p[:2] == want[:2] and len(differing_cells(p, want)) <= 1)
        assert vm.quit() == 0


def test_extended_key_events_are_taken(echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address, extra=(QEMU_KEY,)) as vnc:
            vnc.picture()
            assert vnc.knows_keys
            for down in (1, 0):
                vnc.extended_key(0xE9, 0x1E, down)  # the key of A, whatever is on it
            vnc.extended_key(ord("b"), 0, 1)        # no code: by its keysym
            vm.serial.expect("ab")
        assert vm.quit() == 0


def test_typing_at_the_boot_menu():
    with vnc_vm("-boot", "menu=on,splash-time=60000") as (vm, address):
        vm.wait_screen("Press ESC for boot menu")
        with Rfb(address) as vnc:
            vnc.press(0xFF1B)
            vm.wait_screen("Select boot device")
            vm.wait_for(lambda: "1. DVD/CD" in "\n".join(vm.screen()), 30, vm.screen)
            vnc.type("1")
            vm.wait_screen("Booting from DVD/CD")
        assert vm.quit() == 0


def test_a_held_key_is_released_when_its_client_goes(echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as vnc:
            vnc.key(SHIFT, True)
            vnc.type("A")
            vm.serial.expect("A")
        vm.wait_for(lambda: "Client" not in vm.monitor("info vnc"), 30, lambda: "still there")
        vm.monitor("sendkey b")
        vm.serial.expect("b")
        assert vm.quit() == 0


def test_the_size_follows_the_mode_for_every_client(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as one, Rfb(address) as two, Rfb(address, extra=()) as old:
            for vnc in (one, two, old):
                assert vnc.picture()[:2] == (720, 400)
            info = vm.monitor("info vnc")
            assert len(re.findall(r"Client: 127\.0\.0\.1:\d+ \(ipv4\)\n    Auth: none", info)) == 3
            vm.monitor("sendkey f1")
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*")
            want = dump(vm, tmp_path)
            assert want[:2] == (640, 400)
            for vnc in (one, two):
                assert vnc.wait(lambda p: p == want)
            old.request()                   # this one knows of no sizes: it gets a part
            old.update()
            assert one.picture() == want
        vm.wait_for(lambda: "Client" not in vm.monitor("info vnc"), 30, lambda: "still there")
        assert vm.quit() == 0
