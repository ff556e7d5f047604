"""Networks: the guest of netguest.c with either card, on the user network and on a tap,
and what the monitor and the command line say about networks.

Traffic stays on the loopback interface or in a network namespace of its own.
"""
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

if __name__ == "__main__":              # in a namespace: see the test of taps
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "lib"))

import netguest                         # noqa: E402
from tools import COWVM, SLOW, blank    # noqa: E402
from vm import Vm                       # noqa: E402

CARDS = ["virtio", "e1000"]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return netguest.kernel(tmp_path_factory.mktemp("netguest"))


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def machine(kernel, *args, **kw):
    return Vm("-kernel", kernel, "-vga", "none", *args, **kw)


def card_on(card, backend):
    """Without a boot ROM: it takes its time on a paravirtual KVM."""
    driver = {"virtio": "virtio-net-pci",
              "queues": "virtio-net-pci,mq=on,vectors=8"}.get(card, card)
    return ["-netdev", backend + ",id=n0", "-device", driver + ",netdev=n0,romfile="]


def echoes(connection, data):
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = connection.recv(65536)
        assert piece, "the guest hung up after %d bytes" % len(got)
        got += piece
    return got == data


def connect(port, host="127.0.0.1"):
    return socket.create_connection((host, port), timeout=60 * SLOW)


def check_forwarding(vm):
    """Ports are forwarded and links are cut while the guest runs."""
    port = free_port()
    rule = "tcp:127.0.0.1:%d" % port
    with pytest.raises(ConnectionRefusedError):
        connect(port)
    assert vm.monitor("hostfwd_add n0 %s-:7" % rule) == ""
    with connect(port) as c:
        assert echoes(c, b"one")
        assert vm.monitor("set_link n0 off") == ""
        c.sendall(b"two")
        c.settimeout(1)
        with pytest.raises(socket.timeout):
            c.recv(10)
        assert vm.monitor("set_link n0 on") == ""
        c.settimeout(60 * SLOW)
        assert c.recv(10) == b"two"
    assert vm.monitor("hostfwd_remove n0 " + rule) == "host forwarding rule for %s removed" % rule
    assert vm.monitor("hostfwd_remove " + rule) == "host forwarding rule for %s not found" % rule
    with pytest.raises(ConnectionRefusedError):
        connect(port)


def frames(path):
    data = path.read_bytes()
    magic, major, minor, _, _, longest, link = struct.unpack_from("<IHHiIII", data)
    assert (magic, major, minor, link) == (0xA1B2C3D4, 2, 4, 1)
    at, found = 24, []
    while at < len(data):
        seconds, _, kept, size = struct.unpack_from("<IIII", data, at)
        assert abs(time.time() - seconds) < 600 * SLOW and kept == min(size, longest)
        found.append(data[at + 16:at + 16 + kept])
        at += 16 + kept
    assert at == len(data)
    return found


def check_dumps(where):
    both, sent = frames(where / "all"), frames(where / "rx")
    guest = b"\x52\x54\0\x12\x34\x56"
    assert both[0][6:12] == guest and both[0][:6] == b"\xff" * 6    # asks for an address
    assert any(f[:6] == guest for f in both) and max(len(f) for f in both) > 300    # DHCP
    assert sent and [f[:60] for f in both if f[6:12] == guest] == sent
    assert sum(f.endswith(b"line 7\n") for f in both) >= 2          # and comes back
    assert frames(where / "tx") == []


@pytest.mark.any_kvm
@pytest.mark.parametrize("card", CARDS)
def test_a_guest_gets_an_address_and_answers_at_forwarded_ports(kernel, card, tmp_path):
    port = free_port()
    dumps = [arg for way, cut in (("all", ""), ("rx", ",maxlen=60"), ("tx", ",status=off"))
             for arg in ("-object", "filter-dump,id=%s,netdev=n0,file=%s,queue=%s%s"
                         % (way, tmp_path / way, way, cut))]
    with machine(kernel, *card_on(card, "user,hostfwd=tcp:127.0.0.1:%d-:7" % port),
                 *dumps) as vm:
        vm.serial.expect("card %s 52:54:00:12:34:56" % card)
        vm.serial.expect("offer 10.0.2.15")
        with connect(port) as c:
            for i in range(20):
                assert echoes(c, b"line %d\n" % i)
            assert echoes(c, os.urandom(20000))
            assert re.search(r"TCP\[ESTABLISHED\] +\d+ +127.0.0.1 +%d +10.0.2.15 +7 " % port,
                             vm.monitor("info usernet"))
        vm.serial.expect("echo 20150")
        assert "- rx: type=filter-dump,file=%s,maxlen=60,status=on" % (tmp_path / "rx") in \
            vm.monitor("info network")
        check_forwarding(vm)
        assert vm.quit() == 0           # between two frames, not in the middle of one
    check_dumps(tmp_path)


@pytest.mark.any_kvm
def test_cards_and_networks_meet_at_a_hub(kernel):
    port = free_port()
    with machine(kernel, "-net", "nic,model=virtio,macaddr=52:54:00:00:00:09,name=card",
                 "-net", "user,dhcpstart=10.0.2.77,hostfwd=tcp:127.0.0.1:%d-10.0.2.15:7" % port
                 ) as vm:
        vm.serial.expect("card virtio 52:54:00:00:00:09")
        vm.serial.expect("offer 10.0.2.77")
        with connect(port) as c:
            assert echoes(c, b"through the hub")
        assert re.fullmatch(
            r"hub 0\n \\ hub0port1: #net\d+: index=0,type=user,net=10.0.2.0,restrict=off\n"
            r" \\ hub0port0: card: index=0,type=nic,model=virtio-net-pci,"
            r"macaddr=52:54:00:00:00:09", vm.monitor("info network"))


@pytest.mark.any_kvm
@pytest.mark.parametrize("card", CARDS)
def test_a_snapshot_keeps_the_card_and_the_network(kernel, card, tmp_path):
    disk, port = blank(tmp_path / "disk.qcow2", "64M"), free_port()
    args = ["-hda", disk, *card_on(card, "user,hostfwd=tcp:127.0.0.1:%d-:7" % port)]
    with machine(kernel, *args) as vm:
        vm.serial.expect("offer")
        with connect(port) as c:
            assert echoes(c, b"before")
            assert vm.monitor("savevm s1", timeout=60) == ""
            assert echoes(c, b"after")
        vm.serial.expect("echo 11")
        assert vm.monitor("loadvm s1", timeout=60) == ""
        with connect(port) as c:
            assert echoes(c, b"went back")
    with machine(kernel, *args, "-loadvm", "s1") as vm:
        with connect(port) as c:
            assert echoes(c, b"another process")
        vm.serial.expect("echo 21")     # the six bytes of before are in the snapshot
    other = [a.replace("hostfwd", "ipv6=off,hostfwd") for a in map(str, args)]
    with machine(kernel, *other, "-S") as vm:
        assert vm.monitor("loadvm s1", timeout=60) == ""
    with machine(kernel, "-hda", disk, "-S") as vm:
        assert "device" in vm.monitor("loadvm s1", timeout=60)


def main_thread_works(vm, seconds):
    """For how much of the time it works, or would if it had a CPU."""
    def wants():
        said = Path("/proc/%d/task/%d/schedstat" % (vm.pid, vm.pid)).read_text(encoding="ascii")
        return sum(map(int, said.split()[:2])) / 1e9
    before, start = wants(), time.monotonic()
    time.sleep(seconds)
    return (wants() - before) / (time.monotonic() - start)


# A program that has opened a tap itself hands it on as descriptor 9.
HANDS_ON = """#!/usr/bin/python3
import fcntl, os, struct, sys
tap = os.open("/dev/net/tun", os.O_RDWR)
fcntl.ioctl(tap, 0x400454CA, struct.pack("16sH22x", b"tap7", 0x5002))
os.dup2(tap, 9)
os.execv("%s", sys.argv)
"""
SET_UP = ("ip link set lo up", "ip addr add 10.0.2.2/24 dev tap7", "ip link set tap7 up")


def executable(path, text):
    path.write_text(text)
    path.chmod(0o755)
    return path


def on_tap(kernel, card, work):
    """Runs in a network namespace of its own."""
    backend = {
        "virtio": "tap,ifname=tap7,script=%s,downscript=%s" % (
            executable(work / "up", "#!/bin/sh -e\necho up $* >>%s/log\n" % work +
                       "\n".join(SET_UP)),
            executable(work / "down", "#!/bin/sh\necho down $* >>%s/log\n" % work)),
        "queues": "tap,ifname=tap7,script=no,downscript=no,queues=3",
        "e1000": "tap,fd=9"}[card]
    program = executable(work / "hands-on", HANDS_ON % COWVM) if card == "e1000" else COWVM
    with machine(kernel, *card_on(card, backend), program=str(program)) as vm:
        for line in SET_UP if card != "virtio" else ():
            subprocess.run(line.split(), check=True)
        vm.serial.expect("ready")
        with connect(7, "10.0.2.15") as c:
            for size in (1, 100, 1460, 20000):
                assert echoes(c, os.urandom(size))
        vm.serial.expect("echo 21561")
        if card == "virtio":
            assert vm.quit() == 0
            assert (work / "log").read_text() == "up tap7\ndown tap7\n"
            return
        assert vm.monitor("info network").endswith("index=0,type=" +
                                                   backend.replace(",queues=3", ""))
        # An interface that somebody takes away is not asked for frames for ever.
        subprocess.run(["ip", "link", "del", "tap7"], check=True)
        vm.wait_for(lambda: main_thread_works(vm, 0.5) < 0.5, 30, lambda: "it never rests")


@pytest.mark.any_kvm
@pytest.mark.parametrize("card", CARDS + ["queues"])
def test_a_guest_talks_to_the_host_through_a_tap(kernel, card, tmp_path):
    unshare = ["unshare", "-n"] if os.geteuid() == 0 else ["unshare", "-rn"]
    if subprocess.run(unshare + ["test", "-w", "/dev/net/tun"], check=False).returncode:
        pytest.skip("this host lets us make no network namespace with a tap in it")
    run = subprocess.run(unshare + [sys.executable, __file__, str(kernel), card,
                                    str(tmp_path)],
                         capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.any_kvm
def test_the_monitor_speaks_of_networks_as_the_reference_does():
    with Vm("-S", "-netdev", "user,id=a,hostfwd=udp:127.0.0.1:%d-:53" % free_port(),
            "-device", "e1000,netdev=a", serial=False) as vm:
        said = vm.monitor
        assert said("info network") == (
            "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56\n"
            " \\ a: index=0,type=user,net=10.0.2.0,restrict=off")
        assert said("info usernet").startswith(
            "Hub -1 (a):\n"
            "  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n"
            "  UDP[HOST_FORWARD]")
        assert said("set_link foo on") == "Error: Device 'foo' not found"
        assert said("set_link a maybe") == \
            'Expected \'on\' or \'off\'\nTry "help set_link" for more information'
        assert said("hostfwd_add foo") == \
            "Invalid host forwarding rule 'foo' (No : separators)"
        assert said("hostfwd_add tcp:foo") == \
            "Invalid host forwarding rule 'tcp:foo' (Missing : separator)"
        assert said("hostfwd_remove zz tcp::1") == "unrecognized netdev id 'zz'"
        assert said("netdev_add user,id=b,net=10.7.0.0/16") == ""
        assert said("info network").endswith(
            "b: index=0,type=user,net=10.7.0.0,restrict=off")
        assert said("netdev_add user,id=b") == "Error: Duplicate ID 'b' for netdev"
        assert said("netdev_del b") == ""
        assert said("netdev_del b") == "Error: Device 'b' not found"
        assert 'netdev = "a"' in said("info qtree")
        assert said("netdev_del a") == ""
        assert 'netdev = ""' in said("info qtree")
        assert said("info network") == (
            "e1000.0: index=0,type=nic,model=e1000,macaddr=52:54:00:12:34:56")
        assert "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport" in \
            said("help hostfwd_add")


def datagrams(form):
    """Networks of two machines that reach each other by datagrams."""
    here, there = free_port(), free_port()
    if form == "mcast":
        return ["socket,mcast=230.0.0.1:%d,localaddr=127.0.0.1" % here] * 2
    return ["socket,udp=127.0.0.1:%d,localaddr=127.0.0.1:%d" % ports
            for ports in ((here, there), (there, here))]


@pytest.mark.any_kvm
@pytest.mark.parametrize("form", ["mcast", "udp"])
def test_machines_reach_each_other_by_datagrams(kernel, form):
    port = free_port()
    ours, theirs = datagrams(form)
    # The first machine has no card: its user network leads to the second one's.
    with Vm("-netdev", "user,id=u,hostfwd=tcp:127.0.0.1:%d-:7" % port,
            "-netdev", ours + ",id=s", "-netdev", "hubport,id=p0,hubid=1,netdev=u",
            "-netdev", "hubport,id=p1,hubid=1,netdev=s", "-S", serial=False) as first:
        assert "type=socket,socket: %s=" % form in first.monitor("info network")
        with machine(kernel, *card_on("virtio", theirs)) as vm:
            vm.serial.expect("offer 10.0.2.15")
            with connect(port) as c:
                assert echoes(c, b"hello")
                assert echoes(c, os.urandom(30000))
            vm.serial.expect("echo 30005")


REFUSED = [
    ("-netdev socket,id=a",
     "-netdev socket,id=a: exactly one of listen=, connect=, mcast= or udp= is required"),
    ("-netdev socket,id=a,mcast=1.2.3.4:5",
     "-netdev socket,id=a,mcast=1.2.3.4:5: specified mcastaddr 1.2.3.4 (0x01020304) does not "
     "contain a multicast address"),
    ("-netdev socket,id=a,udp=127.0.0.1:5",
     "-netdev socket,id=a,udp=127.0.0.1:5: localaddr= is mandatory with udp="),
    ("-netdev socket,id=a,listen=:0,localaddr=:1",
     "-netdev socket,id=a,listen=:0,localaddr=:1: localaddr= is only valid with mcast= or udp="),
    ("-net nic,model=foo", "Unsupported NIC model: foo"),
    ("-netdev user,id=a,net=foo", "-netdev user,id=a,net=foo: Failed to parse netmask"),
    ("-netdev user,id=a,host=1.2.3.4",
     "-netdev user,id=a,host=1.2.3.4: Host doesn't belong to network"),
    ("-netdev user,id=a,dhcpstart=1.2.3.4",
     "-netdev user,id=a,dhcpstart=1.2.3.4: DHCP doesn't belong to network"),
    ("-netdev user,id=a,ipv4=off,ipv6=off",
     "-netdev user,id=a,ipv4=off,ipv6=off: IPv4 and IPv6 disabled"),
    ("-net user,hostfwd=foo",
     "-net user,hostfwd=foo: Invalid host forwarding rule 'foo' (No : separators)"),
    ("-net user,hostfwd=tcp::99999-:22",
     "-net user,hostfwd=tcp::99999-:22: Invalid host forwarding rule 'tcp::99999-:22' "
     "(Bad host port)"),
    ("-net user,guestfwd=foo", "-net user,guestfwd=foo: Invalid guest forwarding rule 'foo'"),
    ("-netdev tap,id=t,fd=99",
     "-netdev tap,id=t,fd=99: t: Can't use file descriptor 99: Bad file descriptor"),
    ("-netdev tap,id=t,fd=3,script=no",
     "-netdev tap,id=t,fd=3,script=no: ifname=, script=, downscript=, vnet_hdr=, helper=, "
     "queues=, fds=, and vhostfds= are invalid with fd="),
    ("-netdev tap,id=t,fds=3:4,queues=2",
     "-netdev tap,id=t,fds=3:4,queues=2: ifname=, script=, downscript=, vnet_hdr=, helper=, "
     "queues=, and vhostfd= are invalid with fds="),
    ("-netdev tap,id=t,script=no,queues=99",
     "-netdev tap,id=t,script=no,queues=99: queues is 99, expected 1..8"),
    ("-netdev tap,id=t,script=no,vhost=on",
     "-netdev tap,id=t,script=no,vhost=on: vhost=on is not available: snapshots would miss what "
     "the host's kernel writes to guest memory"),
    ("-netdev tap,id=t,vhostfd=5", "-netdev tap,id=t,vhostfd=5: vhostfd= is not available: "
     "snapshots would miss what the host's kernel writes to guest memory"),
    ("-vnc :50,id=a -vnc :51,id=a", "-vnc :51,id=a: Duplicate ID 'a' for vnc"),
    ("-object filter-dump,id=f,netdev=zz,file=/dev/null", "-object filter-dump,id=f,netdev=zz,"
     "file=/dev/null: Parameter 'netdev' expects a network backend id"),
    ("-object filter-dump,id=f,netdev=n", "-object filter-dump,id=f,netdev=n: Parameter 'file' is "
     "missing"),
    ("-object filter-dump,id=f,netdev=n,file=x,queue=y", "-object filter-dump,id=f,netdev=n,"
     "file=x,queue=y: Parameter 'queue' does not accept value 'y'"),
    ("-netdev user,id=n -object filter-dump,id=f,netdev=n,file=/nonexistent/x", "-object "
     "filter-dump,id=f,netdev=n,file=/nonexistent/x: net dump: can't open /nonexistent/x: No such "
     "file or directory"),
    ("-device e1000,netdev=x", "-device e1000,netdev=x: Property 'e1000.netdev' can't find value "
     "'x'"),
    ("-device e1000,mac=zz", "-device e1000,mac=zz: Property 'e1000.mac' doesn't take value 'zz'"),
    ("-netdev user,id=n -device virtio-net-pci,netdev=n -device e1000,netdev=n",
     "-device e1000,netdev=n: Property 'e1000.netdev' can't take value 'n', it's in use"),
    ("-net nic,netdev=zz", "-net nic,netdev=zz: netdev 'zz' not found"),
]


@pytest.mark.any_kvm
@pytest.mark.parametrize("args, message", REFUSED, ids=[r[0] for r in REFUSED])
def test_a_bad_option_ends_the_program_with_one_line(args, message):
    run = subprocess.run([COWVM, "-S", "-display", "none", "-monitor", "none"] + args.split(),
                         capture_output=True, text=True, timeout=60 * SLOW, check=False)
    assert run.returncode == 1
    assert run.stderr == "cowvm: %s\n" % message


@pytest.mark.any_kvm
def test_vectors_of_a_card_are_those_asked_for():
    with Vm("-S", "-net", "nic,model=virtio,vectors=0", "-net", "nic,model=e1000,vectors=0",
            "-net", "user", serial=False) as vm:
        assert "vectors = 0 (0x0)" in vm.monitor("info qtree")


@pytest.mark.any_kvm
def test_what_leads_nowhere_is_named():
    with Vm("-S", "-netdev", "user,id=a", "-device", "e1000", "-net", "nic", serial=False) as vm:
        assert "hub 0 is not connected to host network" in vm.banner
        assert "netdev a has no peer" in vm.banner
        assert re.search("nic e1000.1 has no peer", vm.banner)


if __name__ == "__main__":
    on_tap(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
