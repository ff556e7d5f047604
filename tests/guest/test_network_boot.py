"""iPXE in network cards: an address by DHCP, a script and a kernel over TFTP and HTTP
through the user network.

iPXE unpacks itself in an instruction set that a paravirtual KVM emulates far too slowly,
so these run nested where /dev/kvm is not a full one.
"""
import functools
import http.server
import threading

import pytest

import guests
from vm import Vm

class Server:
    """HTTP on the loopback interface, for one folder."""

    def __init__(self, folder):
        self.asked_for = asked_for = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *args):
                asked_for.append(self.path)

        self.httpd = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
        self.port = self.httpd.server_address[1]
        threading.Thread(target=self.httpd.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.httpd.shutdown()
        self.httpd.server_close()


# What the first script, which always comes over TFTP, says, by card.
SCRIPTS = {"virtio": "kernel http://10.0.2.2:%d/hello.krn\nboot\n",
           "e1000": "chain http://10.0.2.2:%d/next.ipxe\n"}


@pytest.mark.full_kvm
@pytest.mark.limit(400)
@pytest.mark.parametrize("model", ["virtio", "e1000"])
def test_ipxe_fetches_scripts_and_kernels_over_tftp_and_http(tmp_path, model):
    tftp, web = tmp_path / "tftp", tmp_path / "web"
    tftp.mkdir()
    web.mkdir()
    (web / "next.ipxe").write_text("#!ipxe\nkernel tftp://10.0.2.2/hello.krn\nboot\n")
    (web if model == "virtio" else tftp).joinpath("hello.krn").write_bytes(
        guests.multiboot_kernel(tmp_path, "kernel from the network"))
    with Server(web) as server:
        (tftp / "boot.ipxe").write_text("#!ipxe\n" + SCRIPTS[model] % server.port)
        with Vm("-nic", "user,model=%s,tftp=%s,bootfile=boot.ipxe" % (model, tftp), "-boot", "n",
                "-no-shutdown") as vm:
            try:
                vm.serial.expect("kernel from the network", timeout=350)
            except AssertionError as e:
                raise AssertionError("%s\n%s" % (e, "\n".join(vm.screen()))) from None
            vm.wait_status("paused")
            assert "model=" in vm.monitor("info network")
        assert set(server.asked_for) == {"/hello.krn" if model == "virtio" else "/next.ipxe"}
