"""Many snapshots in a row of a Debian kernel at work: ext4 on virtio under a verified writer,
connections through the user network, its clock.

COWVM_SNAPSHOTS=N takes N of each kind in a row: 50 in `make check-snapshots`, 4 every day."""
import os
import re
import shutil
import socket
import subprocess
import threading
import time

import pytest

from test_demo import DRIVES, log_in, shell
from tools import DEMO, SLOW, check_image, cowimg, overlay, run
from vm import Vm

COUNT = int(os.environ.get("COWVM_SNAPSHOTS", 4))
pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(300 + 60 * COUNT)]
BAD = (r"soft lockup|hung_task|blocked for more|rcu.*stall|BUG:|I/O error|EXT4-fs error|Oops|"
       r"clocksource.*unstable")
PATH = os.environ["PATH"] + ":/sbin:/usr/sbin"
# Files that are called after their own sum, replaced one after the other for ever; the number
# of the last round is in memory and on the disk.
WRITER = """mkdir -p /root/v; cat >/root/writer <<'END'
n=0
while :; do
	n=$((n + 1)); k=$((n % 6))
	dd if=/dev/urandom of=/root/new bs=32k count=8 conv=fsync 2>/dev/null
	sum=$(md5sum </root/new | cut -c1-32); old=$(echo /root/v/$k.*)
	mv /root/new /root/v/$k.$sum; rm -f "$old"
	echo $n >/root/n; echo $n >/dev/shm/m; mv /dev/shm/m /dev/shm/n
done
END
cat >/root/verify <<'END'
echo 3 >/proc/sys/vm/drop_caches
good=0
for f in /root/v/*; do
	sum=$(md5sum <$f | cut -c1-32)
	if [ "${f##*.}" = "$sum" ]; then good=$((good + 1)); elif [ -e $f ]; then echo bad $f; fi
done 2>/dev/null
echo good $good
END
mount -t tmpfs none /dev/shm 2>/dev/null; (sh /root/writer &)"""
# The emulator that nested machines run on may itself stand still for a while.
PATIENCE = ("echo %d >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; "
            "echo %d >/proc/sys/kernel/watchdog_thresh; true" % (21 * SLOW, 10 * SLOW))
NETWORK = ("modprobe virtio_net; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; "
           "ip route add default via 10.0.2.2")


class Echo:
    """A server on the loopback interface that sends back what it gets."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.connections = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self.serve, args=[connection], daemon=True).start()

    @staticmethod
    def serve(connection):
        with connection:
            while data := connection.recv(4096):
                connection.sendall(data)


class Guest:
    """The system in the machine, and what is known of it at each snapshot."""

    def __init__(self, vm):
        self.vm, self.counts = vm, {}

    def count(self):
        """What the writer has got to, in memory."""
        return int(shell(self.vm, "cat /dev/shm/n"))

    def lives(self):
        first = self.count()
        self.vm.wait_for(lambda: self.count() > first, 60, lambda: "the writer stands still")
        said = shell(self.vm, "dmesg")
        bad = re.search(BAD, said)
        assert not bad, said[bad.start() - 200:bad.start() + 4000]
        said = shell(self.vm, "sh /root/verify", 120)
        assert re.fullmatch(r"good [1-9]", said), said

    def awake(self):
        """After loadvm: what was typed last is gone, or comes again."""
        self.vm.serial.send("\r")
        self.vm.serial.expect("# ")
        self.vm.serial.drain(0.5)

    def ahead(self):
        """Seconds by which the guest's clock is ahead of ours."""
        before = time.time()
        said = float(shell(self.vm, "date +%s")) + 0.5
        return said - (before + time.time()) / 2

    def save(self, name):
        before = self.count()
        assert "Error" not in self.vm.monitor("savevm " + name, timeout=120)
        self.counts[name] = before, self.count()

    def load(self, name):
        assert self.vm.monitor("loadvm " + name, timeout=120) == ""
        self.awake()
        low, high = self.counts[name]
        assert low <= self.count() <= high + 100, name
        self.lives()


def e2fsck(file, *args):
    return subprocess.run([shutil.which("e2fsck", path=PATH), *args, file],
                          capture_output=True, text=True, check=False)


def file_system_is_clean(image, *args):
    """As after a power cut: the journal is replayed, and then there is nothing to repair."""
    raw = str(image) + ".raw"
    cowimg("convert", "-f", "qcow2", "-O", "raw", *args, image, raw, timeout=120)
    # e2fsck forgets an offset when it opens a file again, after the journal.
    run("dd", "if=" + raw, "of=" + raw + "1", "bs=1M", "skip=1", "conv=sparse", timeout=120)
    os.unlink(raw)
    replayed = e2fsck(raw + "1", "-p")
    done = e2fsck(raw + "1", "-fn")
    os.unlink(raw + "1")
    assert replayed.returncode <= 1 and done.returncode == 0, replayed.stdout + done.stdout


def some(names, n):
    """The first, the last, and some between."""
    return sorted({names[i * (len(names) - 1) // (n - 1)] for i in range(n)}, key=names.index)


@pytest.fixture
def disk(tmp_path):
    return overlay(DEMO / "base.qcow2", tmp_path / "disk.qcow2")


@pytest.fixture
def echo():
    it = Echo()
    yield it
    it.listener.close()


def start(vm):
    log_in(vm)
    shell(vm, PATIENCE)
    shell(vm, NETWORK)
    shell(vm, WRITER.replace("\n", "\r"))
    vm.wait_for(lambda: shell(vm, "cat /dev/shm/n").isdigit(), 60, lambda: "no writer")
    return Guest(vm)


def power_off(vm):
    vm.serial.send("poweroff\r")
    vm.serial.expect("Power down", 120)
    assert vm.wait_exit() == 0


def said_to(vm, text):
    """All that has come back through the connection, a moment after saying this."""
    shell(vm, "echo %s >/tmp/in; sleep 2" % text)
    return shell(vm, "tr '\\n' ' ' </tmp/out; echo")


def test_a_connection_and_the_clock_survive(disk, echo):
    """A connection that was idle meanwhile is the same before and after."""
    port = str(echo.port)
    with Vm(*DRIVES["virtio"](disk), "-nic", "user,model=virtio", memory=192) as vm:
        guest = start(vm)
        shell(vm, "mkfifo /tmp/in; (sleep 100000 >/tmp/in &); "
                  "(nc 10.0.2.2 %s </tmp/in >/tmp/out &)" % port)
        assert said_to(vm, "first") == "first "
        ahead = guest.ahead()
        for n in range(3):
            guest.save("net%d" % n)
            assert abs(guest.ahead() - ahead) < 3 * SLOW
        saved = time.time()
        guest.save("last")
        assert vm.monitor("stop") == ""
        time.sleep(5)
        away = time.time() - saved
        assert vm.monitor("loadvm last", timeout=120) == "" and vm.monitor("cont") == ""
        guest.awake()
        # Its clock goes on from where it was, at the same rate.
        assert abs(guest.ahead() - ahead + away) < 4 * SLOW
        assert said_to(vm, "again") == "first again " and echo.connections == 1
        guest.lives()
        power_off(vm)
    check_image(disk)


def test_snapshots_in_a_row_and_back_to_each(disk):
    names = ["s%02d" % n for n in range(COUNT)]
    back = names if COUNT <= 8 else some(names, 12)
    with Vm(*DRIVES["virtio"](disk), "-nic", "user,model=virtio", memory=192) as vm:
        guest = start(vm)
        for name in names:
            guest.save(name)
        guest.lives()
        for name in back[1::2] + back[::2]:
            guest.load(name)
        files = [disk]
        for n in range(COUNT):
            files.append(disk.parent / ("over%02d.qcow2" % n))
            assert "Formatting" in vm.monitor("snapshot_blkdev virtio0 %s" % files[-1])
            if n % 5 == 0:
                guest.lives()
        guest.lives()
        assert "chain depth: %d" % (COUNT + 1) in vm.monitor("info block virtio0")
        power_off(vm)
    check_image(disk)
    cowimg("snapshot", "--verify", disk, timeout=300)
    for name in some(back, 3):
        file_system_is_clean(disk, "-l", "snapshot.name=" + name)
    for name in some(files, 3):
        check_image(name)
        file_system_is_clean(name)
