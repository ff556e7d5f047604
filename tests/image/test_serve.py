"""cowimg serve: other programs' clients, ours that misbehave, and the orderly end."""
import concurrent.futures
import json
import os
import random
import signal
import socket
import struct
import subprocess
import time

import pytest

import nbd
from nbd import Client, Server
from tools import COWIMG, SLOW, check_image, cowimg, qemu_img, qemu_io, run


def image(work, size="64M", name="d.qcow2"):
    path = work / name
    qemu_img("create", "-q", "-f", "qcow2", path, size)
    qemu_io(path, "write -P 3 1M 3M", "write -P 9 50M 64k", "write -z 2M 64k")
    return path


def nbd_map(uri):
    return json.loads(run("nbdinfo", "--map", "--json", uri).stdout)


@pytest.fixture
def served(tmp_path):
    path = image(tmp_path)
    with Server(tmp_path, path, "-e", 0, "--persistent", "--discard=unmap") as server:
        server.image = path
        yield server
    check_image(path)


def test_other_clients_see_what_is_in_the_image(tmp_path):
    path = image(tmp_path)
    qemu_img("create", "-q", "-f", "qcow2", "-b", path, "-F", "qcow2", tmp_path / "top.qcow2")
    qemu_io(tmp_path / "top.qcow2", "write -P 5 60M 100k")
    for name in ("d.qcow2", "top.qcow2"):
        with Server(tmp_path, tmp_path / name, "-r", "-e", 0, "--persistent") as server:
            info = json.loads(run("nbdinfo", "--json", server.uri).stdout)["exports"][0]
            assert info["export-size"] == 64 << 20 and info["is_read_only"]
            assert info["can_multi_conn"] and info["can_df"] and not info["can_trim"]
            run("qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", server.uri,
                tmp_path / name)
            run("nbdcopy", server.uri, tmp_path / "copy.raw")
            run("qemu-img", "compare", "-U", "-f", "raw", "-F", "qcow2", tmp_path / "copy.raw",
                tmp_path / name)
            ours = nbd_map(server.uri)
        other = subprocess.Popen(["qemu-nbd", "-r", "-t", "-k", server.socket, "-f", "qcow2",
                                  str(tmp_path / name)])
        try:
            while not os.path.exists(server.socket):
                time.sleep(0.02)
            assert nbd_map(server.uri) == ours
        finally:
            other.terminate()
            other.wait()


def test_writes_of_other_clients_reach_the_image(served):
    qemu_io(served.uri, "write -P 7 10M 5M", "write -f -P 8 20M 100", "write -z 2M 100k",
            "write -z -u 3M 64k", "discard 50M 64k", "flush", "read -P 7 10M 5M",
            "read -P 8 20M 100", fmt="raw")
    assert [e["type"] for e in nbd_map(served.uri) if e["offset"] >= 15 << 20] == [3, 0, 3]
    served.stop()
    qemu_io(served.image, "read -P 7 10M 5M", "read -P 8 20M 100", "read -P 0 2M 100k",
            "read -P 0 3M 64k", "read -P 0 50M 64k")


def test_nbdcopy_fills_an_image_over_several_connections(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", tmp_path / "t.qcow2", "64M")
    source = tmp_path / "src.raw"
    source.write_bytes(random.Random(1).randbytes(20 << 20) + bytes(10 << 20) + b"end" * 1000)
    os.truncate(source, 64 << 20)
    with Server(tmp_path, tmp_path / "t.qcow2", "-e", 4, "--persistent") as server:
        run("nbdcopy", "--flush", "--connections=4", source, server.uri)
    qemu_img("compare", "-f", "raw", "-F", "qcow2", source, tmp_path / "t.qcow2")
    check_image(tmp_path / "t.qcow2")


def test_tcp_on_loopback_and_nowhere_else(tmp_path):
    path = image(tmp_path)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    cowimg("serve", "--fork", "-r", "-p", port, "-x", "disk", "--pid-file", tmp_path / "pid", path)
    pid = int((tmp_path / "pid").read_text())
    run("qemu-img", "compare", "-f", "raw", "-F", "qcow2", "-U",
        "nbd://127.0.0.1:%d/disk" % port, path)
    end = time.monotonic() + 20 * SLOW      # not persistent: it ends with its client
    while os.path.exists("/proc/%d/exe" % pid):
        assert time.monotonic() < end
        time.sleep(0.02)
    for address in ("0.0.0.0", "192.0.2.1"):
        done = cowimg("serve", "-b", address, "-p", port, path, ok=(1,))
        assert "Only loopback addresses" in done.stdout


@pytest.mark.parametrize("args,text", [
    ((), "Expecting one image file name"), (("nosuch",), "Could not open 'nosuch'"),
    (("-p", "0", "x"), "Invalid port"), (("-e", "x", "x"), "Invalid shared device number"),
    (("--discard=x", "x"), "Invalid discard mode"),
    (("-k", "s", "-p", "1", "x"), "exclude each other"),
    (("--fork", "nosuch"), "Could not open 'nosuch'")], ids=str)
def test_what_cannot_be_served_is_refused(args, text, tmp_path):
    assert text in cowimg("serve", *args, ok=(1,), cwd=tmp_path).stdout


def test_options_are_answered_as_the_protocol_says(served):
    c = Client(served.socket)
    assert c.set_context()[0][0] == 0x80000003              # structured replies come first
    assert c.option(nbd.STRUCTURED) == [(1, b"")]
    assert c.option(nbd.LIST) == [(2, b"\0\0\0\0"), (1, b"")]
    assert c.set_context(option=nbd.LIST_META) == [(4, b"\0\0\0\0base:allocation"), (1, b"")]
    assert c.set_context(b"base:", option=nbd.LIST_META)[0][0] == 4
    assert c.set_context(b"other:x") == [(1, b"")]
    assert c.set_context() == [(4, b"\0\0\0\1base:allocation"), (1, b"")]
    assert c.option(99)[0][0] == 0x80000001
    assert c.option(98, b"x" * 100000)[0][0] == 0x80000009
    assert c.go(b"nosuch")[0][0] == 0x80000006
    assert c.option(nbd.GO, b"\xff" * 6)[0][0] == 0x80000003
    assert c.go(option=nbd.INFO)[-1] == (1, b"")
    assert c.go()[-1] == (1, b"") and c.size == 64 << 20
    c.request(nbd.STATUS, 0, 4 << 20)
    (kind, data), = c.chunks()
    assert kind == 5
    assert struct.unpack(">9I", data) == (1, 1 << 20, 3, 1 << 20, 0, 65536, 3,
                                          (2 << 20) - 65536, 0)
    c.request(nbd.READ, 0, 2 << 20)
    assert [k for k, _ in c.chunks()] == [2, 1]             # a hole, then data
    c.request(nbd.READ, 0, 2 << 20, flags=4)                # don't fragment
    (kind, data), = c.chunks()
    assert kind == 1 and data[8:] == bytes(1 << 20) + b"\3" * (1 << 20)
    c.close()
    c = Client(served.socket)
    assert c.option(nbd.ABORT) == [(1, b"")]
    c.close()


def test_the_oldest_way_to_name_an_export_works(served):
    for flags, zeroes in ((1, 124), (3, 0)):
        c = Client(served.socket, flags)
        c.s.sendall(struct.pack(">QII", nbd.OPTION, nbd.EXPORT_NAME, 0))
        size, _ = struct.unpack(">QH", c.take(10))
        assert size == 64 << 20 and c.take(zeroes) == bytes(zeroes)
        c.request(nbd.READ, 1 << 20, 1000, cookie=77)
        assert c.simple(1000) == (0, 77, b"\3" * 1000)
        c.close()


def test_wrong_requests_get_errors_and_the_connection_lives(served):
    c = Client(served.socket)
    c.go()
    for kind, offset, size, flags, payload, error in (
            (nbd.READ, 64 << 20, 1, 0, b"", 22), (nbd.READ, (1 << 64) - 1, 2, 0, b"", 22),
            (nbd.READ, 0, 33 << 20, 0, b"", 75), (nbd.READ, 0, 0, 0, b"", 22),
            (nbd.WRITE, 64 << 20, 4, 0, b"abcd", 28), (nbd.ZERO, 63 << 20, 2 << 20, 0, b"", 28),
            (nbd.TRIM, 1 << 63, 1 << 31, 0, b"", 28), (nbd.STATUS, 0, 512, 0, b"", 22),
            (99, 0, 1, 0, b"", 22), (nbd.READ, 0, 1, 0x8000, b"", 22),
            (nbd.WRITE, 0, 4, 0x10, b"abcd", 22)):
        c.request(kind, offset, size, payload, flags, cookie=offset)
        assert c.simple() == (error, offset, b""), kind
    c.request(nbd.READ, 1 << 20, 16)
    assert c.simple(16) == (0, 1, b"\3" * 16)
    c.close()


def test_a_read_only_export_does_not_change(tmp_path):
    path = image(tmp_path)
    before = path.read_bytes()
    with Server(tmp_path, path, "-r", "-e", 0, "--persistent") as server:
        c = Client(server.socket)
        c.go()
        assert c.flags & 2
        for kind, payload in ((nbd.WRITE, b"x" * 512), (nbd.TRIM, b""), (nbd.ZERO, b"")):
            c.request(kind, 0, 512, payload)
            assert c.simple()[0] == 1
        c.close()
    assert path.read_bytes() == before


def test_garbage_neither_ends_the_server_nor_the_image(served):
    seed = random.Random(20)
    for n in range(1000):
        try:
            c = Client(served.socket, timeout=2)
            if n % 2:
                c.option(nbd.STRUCTURED)
                c.set_context()
                c.go()
            for _ in range(seed.randrange(1, 6)):
                kind = seed.randrange(4)
                if kind == 0:
                    c.s.sendall(seed.randbytes(seed.randrange(1, 200)))
                elif kind == 1:
                    c.s.sendall(struct.pack(">QII", nbd.OPTION, seed.randrange(12),
                                            seed.choice([0, 4, 6, 70000, 1 << 31])) +
                                seed.randbytes(seed.randrange(40)))
                elif kind == 2:         # changes stay in the last MiB
                    c.request(seed.choice([0, 3, 5, 7, 8, 70]), seed.getrandbits(64),
                              seed.getrandbits(32), flags=seed.getrandbits(16))
                else:
                    c.request(nbd.WRITE, 63 << 20, seed.choice([1, 4096, 1 << 20, 1 << 26]),
                              seed.randbytes(seed.randrange(4096)))
            c.close()
        except (EOFError, OSError):
            c.close()
    assert served.child.poll() is None
    qemu_io(served.uri, "read -P 3 1M 1M", "read -P 9 50M 64k", fmt="raw")
    assert served.rss_kib() < 600 << 10


def test_a_client_that_is_killed_in_mid_write_leaves_nothing_behind(served):
    for n in range(8):
        child = subprocess.Popen(["qemu-io", "-f", "raw", "-c", "aio_write -P 1 8M 16M",
                                  "-c", "aio_write -P 2 30M 16M", "-c", "aio_flush", served.uri],
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(0.01 * n)
        child.kill()
        child.wait()
    c = Client(served.socket)
    c.go()
    c.request(nbd.WRITE, 0, 1 << 20, b"z" * 1000)
    c.close()                                       # in the middle of the payload
    qemu_io(served.uri, "read -P 3 1M 1M", "read -P 0 0 1M", fmt="raw")


def test_clients_work_side_by_side(served):
    def client(n):
        c = Client(served.socket)
        c.go()
        seed = random.Random(n)
        for i in range(60):
            at = (20 + n) * (1 << 20) + seed.randrange(1 << 19)
            data = seed.randbytes(seed.randrange(1, 60000))
            c.request(nbd.WRITE, at, len(data), data, flags=i % 2)
            assert c.simple()[0] == 0
            c.request(nbd.READ, at, len(data))
            assert c.simple(len(data))[2] == data
        c.close()
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(client, range(6)))


def test_many_requests_are_in_flight_on_one_connection(served):
    c = Client(served.socket)
    c.go()
    for i in range(300):
        c.request(nbd.WRITE, i * 4096, 4096, bytes([i % 256]) * 4096, cookie=i)
    assert sorted(c.simple()[1] for _ in range(300)) == list(range(300))
    for i in range(100):
        c.request(nbd.READ, i * 4096, 4096, cookie=i)
    for _ in range(100):
        error, cookie, data = c.simple(4096)
        assert not error and data == bytes([cookie % 256]) * 4096
    c.close()


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_after_what_is_in_flight(tmp_path, sig):
    path = image(tmp_path)
    server = Server(tmp_path, path, "-e", 0, "--persistent")
    c = Client(server.socket)
    c.go()
    for i in range(64):
        c.request(nbd.WRITE, (10 << 20) + (i << 16), 65536, bytes([i + 1]) * 65536, cookie=i)
    time.sleep(0.05)
    server.child.send_signal(sig)
    done = []
    try:
        while True:
            error, cookie, _ = c.simple()
            assert not error
            done.append(cookie)
    except (EOFError, OSError):
        pass
    server.stop()
    assert not os.path.exists(server.socket)
    check_image(path)
    for i in done:
        qemu_io(path, "read -P %d %d 64k" % (i + 1, (10 << 20) + (i << 16)))


def test_a_full_server_lets_the_next_one_wait(tmp_path):
    with Server(tmp_path, image(tmp_path), "--persistent") as server:
        first = Client(server.socket)
        second = socket.socket(socket.AF_UNIX)
        second.settimeout(0.3)
        second.connect(server.socket)
        with pytest.raises(socket.timeout):
            second.recv(1)
        first.close()
        second.settimeout(20 * SLOW)
        assert second.recv(8) == b"NBDMAGIC"
        second.close()
