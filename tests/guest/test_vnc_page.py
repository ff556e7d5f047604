"""Debian's noVNC page in headless Chromium: typing and reading the screen over WebSocket."""
import base64
import functools
import http.server
import json
import re
import socket
import subprocess
import threading
import time
import urllib.request

import pytest

import guests
from rfb import read_png
from tools import SLOW
from vnc_vm import dump, vnc_vm
from ws import WebSocket

pytestmark = pytest.mark.any_kvm

CANVAS = "document.querySelector('#noVNC_container canvas')"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def pages():
    """The page's files over HTTP: the port."""
    handler = functools.partial(Quiet, directory="/usr/share/novnc")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Browser:
    """Chromium, driven by its debugging protocol."""

    def __init__(self, work, url):
        port = free_port()
        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
             "--remote-allow-origins=*", "--remote-debugging-port=%d" % port,
             "--user-data-dir=%s" % (work / "browser"), url],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.count, end = 0, time.monotonic() + 60 * SLOW
        while True:
            try:
                with urllib.request.urlopen("http://127.0.0.1:%d/json" % port) as f:
                    page = [t for t in json.load(f) if t["type"] == "page"][0]
                break
            except (OSError, IndexError):
                assert time.monotonic() < end, "the browser does not come up"
                time.sleep(0.2)
        path = re.sub(r"^ws://[^/]*", "", page["webSocketDebuggerUrl"])
        self.link = WebSocket("127.0.0.1", port, path)

    def call(self, method, **params):
        self.count += 1
        self.link.text(json.dumps({"id": self.count, "method": method, "params": params}))
        while True:
            answer = json.loads(self.link.message())
            if answer.get("id") == self.count:
                return answer.get("result", answer)

    def value(self, expression):
        return self.call("Runtime.evaluate", expression=expression)["result"].get("value")

    def type(self, text):
        for c in text:
            code = "Key" + c.upper()
            for kind in "keyDown", "keyUp":
                self.call("Input.dispatchKeyEvent", type=kind, key=c, code=code, text=c,
                          windowsVirtualKeyCode=ord(c.upper()))

    def close(self):
        self.process.kill()
        self.process.wait()


def test_the_page_shows_the_screen_and_types(tmp_path, pages):
    disk = guests.disk_with(tmp_path / "disk.raw", guests.echoes_keys(tmp_path))
    port = free_port()
    with vnc_vm(options=",websocket=%d" % port, boot=disk) as (vm, _):
        vm.serial.expect("type")
        browser = Browser(tmp_path, "http://127.0.0.1:%d/vnc.html?autoconnect=1&host=127.0.0.1"
                          "&port=%d&encrypt=0&path=" % (pages, port))
        try:
            vm.wait_for(lambda: browser.value(CANVAS + " && " + CANVAS + ".width") == 720, 60,
                        lambda: "no canvas of the screen's size")
            browser.value(CANVAS + ".focus()")
            browser.type("hello")
            vm.serial.expect("hello")
            vm.wait_for(lambda: "hello" in "".join(vm.screen()), 30, vm.screen)
            vm.monitor("stop")
            want = dump(vm, tmp_path)

            def shown():
                data = browser.value(CANVAS + ".toDataURL('image/png')")
                (tmp_path / "page.png").write_bytes(base64.b64decode(data.split(",")[1]))
                return read_png(tmp_path / "page.png")
            vm.wait_for(lambda: shown() == want, 30, lambda: "the page shows something else")
        finally:
            browser.close()
        assert vm.quit() == 0
