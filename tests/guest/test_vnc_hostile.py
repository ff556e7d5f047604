"""VNC clients that mean ill, or are just slow, hurt nobody but themselves."""
import contextlib
import os
import socket
import struct
import threading
import time

import pytest

import guests
from rfb import Rfb
from tools import SLOW
from vnc_vm import dump, responds, vnc_vm

pytestmark = pytest.mark.any_kvm


@pytest.fixture
def echo(tmp_path):
    return guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))


def open_client(address):
    """Through the handshake, then whatever the test sends."""
    return Rfb(address).sock


HOSTILE = {
    "half a key event": b"\x04\x01\x00",
    "half a list of encodings": struct.pack(">BxH", 2, 0xFFFF) + b"\0" * 100,
    "cut text of 4 GiB": struct.pack(">BxxxI", 6, 0xFFFFFFFF) + b"x" * 100000,
    "cut text of -1 bytes and more": struct.pack(">Bxxxi", 6, -1),
    "no such message": b"\xAA" * 64,
    "pixels of 7 bits": struct.pack(">BxxxBBBBHHHBBBxxx", 0, 7, 3, 1, 1, 0, 0, 0, 77, 99, 255),
    "a palette of 8 bits": struct.pack(">BxxxBBBBHHHBBBxxx", 0, 8, 8, 0, 0, 0, 0, 0, 0, 0, 0),
    "a request beyond the screen": struct.pack(">BBHHHH", 3, 0, 65535, 65535, 65535, 65535),
    "half a screen by 0": struct.pack(">Bx", 8),
    "the screen scaled by 0": b"\x08\x00\x00\x00",
    "the screen scaled by 255": b"\x08\xFF\x00\x00" + struct.pack(">BBHHHH", 3, 0, 0, 0, 9, 9),
    "another size": struct.pack(">BxHHBx", 251, 60000, 60000, 255) + b"\xFF" * 200,
    "a file": struct.pack(">BBHII", 7, 3, 0, 0, 1 << 31) + b"../../etc/passwd",
    "chat": struct.pack(">BxxxI", 11, 1 << 30),
    "half an extended key": b"\xFF\x00\x00",
    "an audio message": b"\xFF\x01\x00\x02\x00\x00",
    "many keys at once": b"".join(struct.pack(">BBxxI", 4, i & 1, 0x61 + i // 2 % 26)
                                  for i in range(20000)),
    "keys that there are not": b"".join(struct.pack(">BBxxI", 4, 1, 0x1000000 + i)
                                        for i in range(5000)),
    "a wild pointer": b"".join(struct.pack(">BBHH", 5, i & 255, i * 7919 & 0xFFFF, i * 31 & 0xFFFF)
                               for i in range(20000)),
}


def read_all(vm):
    """The guest has read what was typed: there is room for keys again."""
    had = -1
    while had < len(vm.serial.text):
        had = len(vm.serial.text)
        vm.serial.drain(2)


def test_bad_messages_hurt_nobody_else(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        with Rfb(address) as good:
            good.picture()
            left = []
            for name, data in HOSTILE.items():
                sock = open_client(address)
                with contextlib.suppress(OSError):
                    sock.sendall(data)
                left.append(sock)
                assert responds(vm) < 10 * SLOW, name
            good.picture()
            read_all(vm)
            vm.monitor("sendkey f1")        # another size, while they all hang about
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*", timeout=120)
            want = dump(vm, tmp_path)
            good.wait(lambda p: p == want)
            for sock in left:
                sock.close()
            good.wait(lambda p: p == want)
        with Rfb(address) as late:
            assert late.picture() == want
        assert vm.quit() == 0


def test_who_asks_and_never_reads_is_let_go(tmp_path, echo):
    with vnc_vm(boot=echo) as (vm, address):
        vm.serial.expect("type")
        greedy = []
        for _ in range(3):
            sock = open_client(address)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.settimeout(0.5)
            with contextlib.suppress(OSError):
                sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400) * 3000)
            greedy.append(sock)
        with Rfb(address) as good:
            good.picture()
            vm.monitor("sendkey f1")
            vm.monitor("sendkey k")
            vm.serial.expect(r"\*")
            assert responds(vm) < 10 * SLOW
            want = dump(vm, tmp_path)
            good.wait(lambda p: p == want)
        start = time.monotonic()
        assert vm.quit() == 0               # with three threads in the middle of a write
        assert time.monotonic() - start < 20 * SLOW
        for sock in greedy:
            sock.close()


def test_crowds_and_comings_and_goings_leave_nothing_behind(tmp_path):
    with vnc_vm() as (vm, address):
        def count():
            return (len(os.listdir("/proc/%d/fd" % vm.pid)),
                    len(os.listdir("/proc/%d/task" % vm.pid)))
        Rfb(address).sock.close()
        time.sleep(0.5)
        before = count()
        silent = [socket.create_connection(address) for _ in range(60)]
        assert responds(vm) < 10 * SLOW
        for sock in silent:
            sock.close()

        def come_and_go():
            for i in range(10):
                with contextlib.suppress(OSError, EOFError):
                    sock = open_client(address)
                    sock.sendall(struct.pack(">BBHHHH", 3, 0, 0, 0, 720, 400)[:i])
                    sock.close()
        crowd = [threading.Thread(target=come_and_go) for _ in range(4)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        Rfb(address).sock.close()           # the door is where ended threads are counted
        vm.wait_for(lambda: "Client" not in vm.monitor("info vnc"), 60, lambda: "still there")
        Rfb(address).sock.close()
        vm.wait_for(lambda: count()[0] <= before[0] and count()[1] <= before[1] + 1, 30,
                    lambda: "%s before, %s now" % (before, count()))
        assert vm.quit() == 0
