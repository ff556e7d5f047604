"""A Debian system with systemd and Debian's generic kernel: what a guest of every day
does with its disk, network cards, keyboard, mouse, screen, ports and clocks.

The tests of this file share one machine that is booted once, on virtio; the last of
them ends it.  One more boots from IDE, again by a reboot.
"""
import os
import re
import socket
import time
from types import SimpleNamespace

import pytest

from bystander import Bystander
from debian import (GUESTS, Events, LargeFrames, Namespace, Peer, check_kernel, log_in, shell,
                    system_args)
from rfb import Rfb
from tools import SLOW, check_image, overlay
from vm import Vm
from vnc_vm import vnc_vm

pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(400)]
CARDS = ["virtio", "e1000"]
MIB = {"virtio": 4, "e1000": 2}         # to transfer, each way
DRIVER = {"virtio": "virtio-net-pci", "e1000": "e1000"}
TAP = {"virtio": "10.9.1", "e1000": "10.9.3"}
USER = {"virtio": "10.0.2", "e1000": "10.0.3"}
# The virtio card on a tap has a pair of queues for each CPU.
QUEUES = {"virtio": ("queues=2", "mq=on,"), "e1000": ("queues=1", "")}
PORT = "org.test.0"


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def is_up(vm):
    """All of systemd's work is done, and nothing has failed."""
    state = shell(vm, "systemctl is-system-running --wait || systemctl --failed --no-legend", 300)
    assert state.split("\n")[0] == "running", state
    assert shell(vm, "systemctl is-active multi-user.target") == "active"


def network_args(space, work, ports):
    """Two cards on user networks, two on taps: Debian tells them by their addresses."""
    args = []
    for n, card in enumerate(CARDS):
        script = space.script(work / card, TAP[card] + ".1/24")
        backends = [
            "tap,id=tap%d,ifname=cowtap%d,script=%s,downscript=no,%s" % (n, n, script,
                                                                         QUEUES[card][0]),
            "user,id=user%d,net=%s.0/24,hostfwd=tcp:127.0.0.1:%d-:5001" % (n, USER[card],
                                                                           ports[card])]
        for kind, backend in zip(("tap", "user"), backends):
            mac = 2 * n + (1 if kind == "tap" else 2)
            more = QUEUES[card][1] if kind == "tap" else ""
            args += ["-netdev", backend, "-device", "%s,%snetdev=%s%d,mac=52:54:00:aa:00:%02x,"
                     "romfile=" % (DRIVER[card], more, kind, n, mac)]
    return args


def port_args(work):
    """A console on a pty, a port on a socket, and a source of entropy."""
    return ["-chardev", "pty,id=console", "-chardev",
            "socket,id=port,path=%s,server=on,wait=off" % (work / "port"),
            "-device", "virtio-serial-pci,id=ports", "-device", "virtconsole,chardev=console",
            "-device", "virtserialport,bus=ports.0,chardev=port,name=" + PORT,
            "-device", "virtio-rng-pci"]


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    work = tmp_path_factory.mktemp("debian")
    disk = overlay(GUESTS / "debian.qcow2", work / "disk.qcow2")
    ports = {card: free_port() for card in CARDS}
    with Bystander() as bystander, Namespace() as space, vnc_vm(
            *system_args(), "-drive", "file=%s,if=virtio" % disk, "-smp", "2",
            *network_args(space, work, ports), *port_args(work), "-mem-path", work,
            "-device", "virtio-keyboard-pci", "-device", "virtio-tablet-pci", "-device",
            "virtio-balloon-pci", memory=384) as (vm, address):
        log_in(vm)
        is_up(vm)
        yield SimpleNamespace(vm=vm, disk=disk, ports=ports, space=space, vnc=address,
                              port=work / "port", bystander=bystander)


def test_systemd_comes_up_to_multi_user_on_virtio(debian):
    vm = debian.vm
    assert shell(vm, "nproc") == "2"
    assert shell(vm, "findmnt -no SOURCE,FSTYPE /").split() == ["/dev/vda", "ext4"]
    assert "rw" in shell(vm, "findmnt -no OPTIONS /")
    check_kernel(vm, debian.bystander)


def test_a_person_logs_in_at_the_screen(debian):
    vm = debian.vm
    # A screen that has scrolled begins elsewhere in video memory than wait_screen looks.
    shell(vm, "systemctl restart getty@tty1")
    vm.wait_screen("debian login:")
    for key in (*"root", "ret"):
        vm.monitor("sendkey " + key)
    vm.wait_screen(r"(?m)^#$")
    for key in ("t", "t", "y", "ret"):
        vm.monitor("sendkey " + key)
    vm.wait_screen(r"/dev/tty1")


def wait_address(vm, address):
    shell(vm, "until ip -4 -br addr | grep -q %s; do sleep 1; done" % address, 120)


@pytest.mark.parametrize("card", CARDS)
def test_tcp_both_ways_through_the_user_network(debian, card):
    vm, net = debian.vm, USER[card]
    wait_address(vm, net + ".15")       # by DHCP
    peer = Peer(vm, MIB[card])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        peer.called(listener, net + ".2")
    peer.calls(socket.socket(), ("127.0.0.1", debian.ports[card]))
    check_kernel(vm, debian.bystander)


@pytest.mark.parametrize("card", CARDS)
def test_tcp_both_ways_through_a_tap(debian, card):
    vm, net, space = debian.vm, TAP[card], debian.space
    wait_address(vm, net + ".2")
    peer = Peer(vm, MIB[card])
    before = space.counters(net + ".1")
    large = LargeFrames(space, "cowtap%d" % CARDS.index(card))
    queues = queue_bytes(vm, card)
    with space.socket() as listener:
        listener.bind((net + ".1", 0))
        listener.listen()
        peer.called(listener, net + ".1", run="taskset -c 0")
    peer.calls(space.socket(), (net + ".2", 5001), run="taskset -c 1")
    for side, now in zip(before, space.counters(net + ".1")):
        assert now["bytes"] - side["bytes"] > 2 * peer.bytes
        assert now["errors"] == 0
    large = large.counts()
    if card == "virtio":
        # Segments go over the tap in one piece; how many of them is up to both TCPs' timing.
        assert min(large) > 0, large
        carried = {q: n - queues[q] for q, n in queue_bytes(vm, card).items()}
        assert len(carried) == 4 and min(carried.values()) > 1 << 16, carried
    else:
        assert large == [0, 0]
    check_kernel(vm, debian.bystander)


def interface(vm, card):
    """The name of the card on the tap."""
    return shell(vm, "grep -l 52:54:00:aa:00:0%d /sys/class/net/*/address | cut -d/ -f5" % (
        2 * CARDS.index(card) + 1))


def queue_bytes(vm, card):
    """How many each queue of the card has carried; e1000 does not count by queue."""
    said = shell(vm, "ethtool -S %s" % interface(vm, card))
    return {q: int(n) for q, n in re.findall(r"([rt]x_queue_\d+_bytes): (\d+)", said)}


def test_virtio_has_as_many_queues_as_wanted(debian):
    vm = debian.vm
    name = interface(vm, "virtio")
    for queues in "1", "2":
        shell(vm, "ethtool -L %s combined %s" % (name, queues))
        said = shell(vm, "ethtool -l %s" % name)
        assert re.findall(r"Combined:\s+(\d+)", said) == ["2", queues], said
        shell(vm, "busybox ping -c 2 %s.1" % TAP["virtio"])


def test_virtio_offers_its_offloads(debian):
    vm = debian.vm
    said = shell(vm, "ethtool -k " + interface(vm, "virtio"))
    for feature in ("tx-checksumming", "rx-checksumming", "tcp-segmentation-offload",
                    "tx-tcp6-segmentation", "scatter-gather"):
        assert re.search(r"%s: on\b" % feature, said), said


def test_entropy_comes_from_the_host(debian):
    vm = debian.vm
    where = "/sys/class/misc/hw_random/"
    assert shell(vm, "cat %srng_current" % where).startswith("virtio_rng")
    assert shell(vm, "head -c 4096 /dev/hwrng | wc -c") == "4096"
    assert len(set(shell(vm, "head -c 64 /dev/hwrng | od -An -v -tx1").split())) > 24
    assert shell(vm, "head -c 4096 /dev/urandom | wc -c") == "4096"
    check_kernel(vm, debian.bystander)


def test_a_virtio_console_talks_both_ways(debian):
    vm = debian.vm
    pty = re.search(r"(/dev/pts/\d+) \(label console\)", vm.banner).group(1)
    fd = os.open(pty, os.O_RDWR | os.O_NOCTTY)
    try:
        shell(vm, "exec 4<>/dev/hvc0; stty raw -echo <&4; echo hello from hvc0 >&4")
        with os.fdopen(os.dup(fd), "rb", buffering=0) as reader:
            got = b""
            while b"hvc0\n" not in got:
                got += reader.read(100)
        assert got == b"hello from hvc0\n"
        os.write(fd, b"hello from the host\n")
        assert shell(vm, "read line <&4; exec 4>&-; echo $line") == "hello from the host"
    finally:
        os.close(fd)
    check_kernel(vm, debian.bystander)


def test_a_port_carries_bytes_both_ways(debian):
    peer = Peer(debian.vm, 1.5)
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(60 * SLOW)
        s.connect(str(debian.port))
        peer.by_port(s, "/dev/virtio-ports/" + PORT)
    check_kernel(debian.vm, debian.bystander)


def test_linux_hears_the_ps2_keyboard_and_mouse(debian):
    vm = debian.vm
    with Events(vm, "AT Translated Set 2") as events:
        vm.monitor("sendkey shift-a")
        vm.monitor("sendkey up")
        events.wait("KEY_LEFTSHIFT 1", "KEY_A 1", "KEY_A 0", "KEY_LEFTSHIFT 0", "KEY_UP 1",
                    "KEY_UP 0")
    with Events(vm, "PS/2.*Mouse") as events:
        vm.monitor("mouse_move 10 -5")
        vm.monitor("mouse_move 0 0 1")
        vm.monitor("mouse_button 1")
        vm.monitor("mouse_button 0")
        events.wait("REL_X 10", "REL_Y -5", "REL_WHEEL 1", "BTN_LEFT 1",
                    "BTN_LEFT 0")


def test_linux_hears_virtio_input_and_the_pointer_of_vnc(debian):
    vm = debian.vm
    shell(vm, "modprobe virtio_input; udevadm settle")
    with Events(vm, "Virtio Keyboard") as events:
        vm.monitor("sendkey ctrl-b")
        events.wait("KEY_LEFTCTRL 1", "KEY_B 1", "KEY_B 0", "KEY_LEFTCTRL 0")
    with Rfb(debian.vnc) as vnc, Events(vm, "Virtio Tablet") as events:
        width, height, _ = vnc.picture()
        vnc.pointer(width - 1, 0)
        vnc.pointer(0, height - 1, 1)
        vnc.pointer(0, height - 1)
        events.wait(r"ABS_X 32[67]\d\d", r"ABS_Y 32[67]\d\d", "ABS_X 0", "BTN_LEFT 1",
                    "BTN_LEFT 0")


def test_the_balloon_takes_memory_and_gives_it_back(debian):
    vm = debian.vm

    def total():
        return int(shell(vm, "awk '/MemTotal/ { print $2 }' /proc/meminfo")) // 1024

    def has(mib):
        vm.wait_for(lambda: "actual=%d" % mib in vm.monitor("info balloon"), 60,
                    lambda: vm.monitor("info balloon"))
    has(384)
    before = total()
    assert vm.monitor("balloon 288") == ""
    has(288)
    assert before - total() == 96
    assert vm.monitor("balloon 384") == ""
    has(384)
    assert total() == before
    check_kernel(vm, debian.bystander)


def test_time_stands_still_while_the_machine_does(debian):
    vm = debian.vm
    clock = "/sys/devices/system/clocksource/clocksource0/current_clocksource"
    assert shell(vm, "cat " + clock) == "kvm-clock"

    def uptime():
        return float(shell(vm, "cut -d' ' -f1 /proc/uptime"))
    start, first = time.monotonic(), uptime()
    vm.monitor("stop")
    time.sleep(10)
    vm.monitor("cont")
    second, took = uptime(), time.monotonic() - start
    assert 0 <= second - first < took - 9, (first, second, took)
    start, first = time.monotonic(), uptime()
    shell(vm, "sleep 5")
    second, took = uptime(), time.monotonic() - start
    assert 4.9 < second - first < took + 1, (first, second, took)
    for source in shell(vm, "cat " + clock.replace("current", "available")).split():
        shell(vm, "echo %s >%s; sleep 2" % (source, clock))
    shell(vm, "echo kvm-clock >%s" % clock)
    check_kernel(vm, debian.bystander)


def test_system_powerdown_ends_systemd_in_good_order(debian):
    vm = debian.vm
    shell(vm, "md5sum /bin/* >/root/sums 2>/dev/null; sync", 120)
    vm.monitor("system_powerdown")
    vm.serial.expect("Power down", 200)
    assert vm.wait_exit() == 0
    check_image(debian.disk)


def test_systemd_comes_up_on_ide_and_reboots(tmp_path):
    disk = overlay(GUESTS / "debian.qcow2", tmp_path / "disk.qcow2")
    with Vm(*system_args(), "-hda", disk, memory=256) as vm:
        log_in(vm)
        is_up(vm)
        assert shell(vm, "findmnt -no SOURCE,FSTYPE /").split() == ["/dev/sda", "ext4"]
        shell(vm, "head -c 3000000 /dev/urandom >/root/big; md5sum /root/big >/root/sum")
        check_kernel(vm)
        vm.serial.send("systemctl reboot\r")
        log_in(vm)
        is_up(vm)
        assert "/root/big: OK" in shell(vm, "md5sum -c /root/sum")
        check_kernel(vm)
        vm.monitor("system_powerdown")
        vm.serial.expect("Power down", 200)
        assert vm.wait_exit() == 0
    check_image(disk)
