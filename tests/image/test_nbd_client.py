"""Images by nbd:// names: our client against qemu-nbd, nbdkit and our own server."""
import json
import os
import subprocess
import time

import pytest

from nbd import Server
from tools import COWIMG, SLOW, cowimg, qemu_img, qemu_io, run


class Other:
    """Somebody else's server on a unix socket."""

    def __init__(self, work, *command):
        self.socket = os.path.join(work, "other.sock")
        self.uri = "nbd+unix:///?socket=" + self.socket
        self.child = subprocess.Popen([str(c).replace("SOCKET", self.socket) for c in command],
                                      stdin=subprocess.DEVNULL)
        end = time.monotonic() + 20 * SLOW
        while not os.path.exists(self.socket):
            assert self.child.poll() is None and time.monotonic() < end
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.child.terminate()
        self.child.wait()
        if os.path.exists(self.socket):
            os.unlink(self.socket)


def image(work):
    path = work / "d.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    qemu_io(path, "write -P 3 1M 3M", "write -P 9 50M 64k", "write -z 2M 64k")
    return path


def qemu_nbd(work, path, fmt="qcow2", *args):
    return Other(work, "qemu-nbd", "-t", "-e", 8, "-k", "SOCKET", "-f", fmt, *args, path)


def our_server(work, path, fmt="qcow2", *args):
    return Server(work, path, "-f", fmt, "-e", 8, "--persistent", *args)


@pytest.fixture(params=[qemu_nbd, our_server], ids=["qemu-nbd", "cowimg"])
def serve(request):
    return request.param


def test_what_others_serve_reads_and_maps_as_the_reference_reads_it(tmp_path, serve):
    path = image(tmp_path)
    with serve(tmp_path, path, "qcow2", "-r") as server:
        ours, theirs = (json.loads(tool("map", "--output=json", server.uri).stdout)
                        for tool in (cowimg, qemu_img))
        keys = ("start", "length", "depth", "zero", "data")
        assert [[e[k] for k in keys] for e in ours] == [[e[k] for k in keys] for e in theirs]
        for tool in (cowimg, qemu_img):
            assert "identical" in tool("compare", "-U", "-f", "raw", "-F", "qcow2", server.uri,
                                       path).stdout
        info = json.loads(cowimg("info", "--output=json", server.uri).stdout)
        other = json.loads(qemu_img("info", "--output=json", server.uri).stdout)
        for key in ("virtual-size", "format"):
            assert info[key] == other[key]
        assert "actual-size" not in info and "actual-size" not in other
        assert "disk size: unavailable" in cowimg("info", server.uri).stdout
        assert cowimg("measure", "-O", "qcow2", server.uri).stdout == \
            qemu_img("measure", "-O", "qcow2", server.uri).stdout


@pytest.mark.parametrize("form", ["uri", "old", "options", "dotted", "json"])
def test_every_form_of_the_name_finds_the_export(tmp_path, form):
    path = image(tmp_path)
    with qemu_nbd(tmp_path, path, "qcow2", "-r", "-x", "disk") as server:
        s = server.socket
        name = {"uri": ["nbd+unix:///disk?socket=" + s],
                "old": ["nbd:unix:%s:exportname=disk" % s],
                "options": ["--image-opts", "driver=nbd,path=%s,export=disk" % s],
                "dotted": ["--image-opts", "driver=raw,file.driver=nbd,file.server.type=unix,"
                           "file.server.path=%s,file.export=disk" % s],
                "json": ['json:{"driver":"raw","file":{"driver":"nbd","server":{"type":"unix",'
                         '"path":"%s"},"export":"disk"}}' % s]}[form]
        out = cowimg("measure", "-O", "qcow2", "--output=json", *name).stdout
        assert json.loads(out)["required"] == \
            json.loads(qemu_img("measure", "-O", "qcow2", "--output=json", "-U",
                                path).stdout)["required"]


def test_a_qcow2_file_may_lie_behind_the_network(tmp_path, serve):
    path = image(tmp_path)
    size = path.stat().st_size
    with serve(tmp_path, path, "raw") as server:
        assert json.loads(cowimg("info", "--output=json", server.uri).stdout)["format"] == "qcow2"
        assert "No errors" in cowimg("check", "-f", "qcow2", server.uri).stdout
        cowimg("resize", "-f", "qcow2", server.uri, "128M")
    assert path.stat().st_size == size
    assert json.loads(qemu_img("info", "--output=json", path).stdout)["virtual-size"] == 128 << 20
    qemu_img("check", path)


def test_an_overlay_backed_by_an_export_reads_through(tmp_path):
    path = image(tmp_path)
    with qemu_nbd(tmp_path, path, "qcow2", "-r") as server:
        qemu_img("create", "-q", "-f", "qcow2", "-b", server.uri, "-F", "raw",
                 tmp_path / "top.qcow2")
        qemu_io(tmp_path / "top.qcow2", "write -P 5 60M 100k")
        ours = cowimg("compare", "-U", tmp_path / "top.qcow2", path, ok=(1,)).stdout
        theirs = qemu_img("compare", "-U", tmp_path / "top.qcow2", path, ok=(1,)).stdout
        assert ours == theirs and "60" in str(int(ours.split("offset ")[1].split("!")[0]) >> 20)


def test_odd_sizes_and_read_only_servers(tmp_path):
    with Other(tmp_path, "nbdkit", "-f", "-r", "-U", "SOCKET", "pattern", "1000") as server:
        info = json.loads(cowimg("info", "-f", "raw", "--output=json", server.uri).stdout)
        assert info["virtual-size"] == 1024
        assert "request for write access denied" in \
            cowimg("resize", "-f", "raw", server.uri, "2k", ok=(1,)).stdout
        run("nbdcopy", server.uri, tmp_path / "copy")
        os.truncate(tmp_path / "copy", 1024)
        assert "identical" in cowimg("compare", "-f", "raw", "-F", "raw", server.uri,
                                     tmp_path / "copy").stdout


def test_a_server_without_structured_replies_will_do(tmp_path):
    with Other(tmp_path, "nbdkit", "-f", "--no-sr", "-U", "SOCKET", "memory", "4M") as server:
        out = json.loads(cowimg("map", "-f", "raw", "--output=json", server.uri).stdout)
        assert [(e["start"], e["length"], e["data"]) for e in out] == [(0, 4 << 20, True)]


def test_errors_of_the_server_arrive(tmp_path):
    with Other(tmp_path, "nbdkit", "-f", "-U", "SOCKET", "--filter=error", "pattern", "4M",
               "error-pread=EIO", "error-pread-rate=100%") as server:
        out = cowimg("compare", "-f", "raw", "-F", "raw", server.uri, server.uri,
                     ok=(2, 3, 4)).stdout
        assert "Input/output error" in out or "error" in out.lower()


@pytest.mark.parametrize("name,text", [
    ("nbd+unix:///?socket=/nonexistent/socket", "No such file or directory"),
    ("nbd://127.0.0.1:1/x", "Connection refused"), ("nbd:justhost", "a host and a port"),
    ("nbd+vsock:///x", "Unknown protocol"), ("nbd+unix:///x", "Could not open")])
def test_what_cannot_be_reached_is_said(name, text):
    assert text in cowimg("info", name, ok=(1,)).stdout


def test_a_server_that_dies_is_an_error_not_a_hang(tmp_path):
    with Other(tmp_path, "nbdkit", "-f", "-U", "SOCKET", "--filter=delay", "pattern", "64M",
               "rdelay=2") as server:
        reader = subprocess.Popen([COWIMG, "compare", "-f", "raw", "-F", "raw", server.uri,
                                   server.uri], stdout=subprocess.DEVNULL,
                                  stderr=subprocess.PIPE, text=True)
        time.sleep(0.5)
        server.child.kill()
        assert reader.wait(timeout=20 * SLOW) > 1
        assert reader.stderr.read()
