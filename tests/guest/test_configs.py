"""Each example machine in configs/ boots."""
import socket
import time

import pytest

import guests
from tools import SLOW, TOP
from vm import Vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the files are that the examples name."""
    guests.qcow2_with(tmp_path / "disk.qcow2", guests.hello(tmp_path, "from the disk"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["pc", "virtio"])
def test_machine_boots_its_disk(folder, name):
    with Vm("-readconfig", TOP / "configs" / (name + ".cfg")) as vm:
        vm.serial.expect("from the disk")
        assert vm.quit() == 0


def test_cd_comes_first_once(folder):
    guests.bootable_cd(folder, guests.hello(folder, "from the CD"))
    with Vm("-readconfig", TOP / "configs/cdrom.cfg") as vm:
        vm.serial.expect("from the CD")
        vm.monitor("system_reset")
        vm.serial.expect("from the disk")


def connected(path):
    end = time.monotonic() + 20 * SLOW
    while True:
        s = socket.socket(socket.AF_UNIX)
        try:
            s.connect(str(path))
            s.settimeout(30 * SLOW)
            return s
        except OSError:
            s.close()
            assert time.monotonic() < end
            time.sleep(0.05)


def read_until(s, text):
    got = b""
    while text not in got:
        piece = s.recv(4096)
        assert piece, got
        got += piece
    return got


def test_serial_port_and_monitor_are_sockets(folder):
    with Vm("-S", "-readconfig", TOP / "configs/sockets.cfg", serial=False) as vm:
        serial, control = connected("serial.sock"), connected("monitor.sock")
        read_until(control, b"(cowvm) ")
        control.sendall(b"cont\n")
        read_until(serial, b"from the disk")
        control.sendall(b"info status\n")
        read_until(control, b"VM status: running")
        control.sendall(b"quit\n")
        assert vm.wait_exit() == 0
