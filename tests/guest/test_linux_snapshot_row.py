"""Many snapshots in a row of a Debian kernel at work: ext4 on virtio under a verified writer,
connections through the user network, its clock.

COWVM_SNAPSHOTS=N takes N of each kind in a row: 50 in `make check-snapshots`, 4 every day.

A watchdog of the guest's may bark because of us, or because the machine that all of this
runs in got no time: see Bystander."""
import os
import re
import shutil
import socket
import statistics
import subprocess
import threading
import time

import pytest

from bystander import Bystander
from test_demo import DRIVES, log_in, shell
from tools import DEMO, SLOW, check_image, cowimg, overlay, run
from vm import Vm

COUNT = int(os.environ.get("COWVM_SNAPSHOTS", 4))
pytestmark = [pytest.mark.full_kvm, pytest.mark.limit(300 + 60 * COUNT)]
# What a kernel says that stood still, and what it must not say whatever happens.
LATE = r"soft lockup|hung_task|blocked for more|rcu.*stall"
BAD = LATE + r"|BUG:|I/O error|EXT4-fs error|Oops|clocksource.*unstable"
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
cat >/root/state <<'END'
echo $(cat /dev/shm/n) $(date +%s)
END
cat >/root/talk <<'END'
exec 2>/dev/null
i=0
echo $1 >/tmp/in
until tail -n1 /tmp/out | grep -qx $1 || [ $((i=i+1)) = 60 ]; do sleep 1; done
tail -n1 /tmp/out
END
cat >/root/lives <<'END'
i=0
a=$(cat /dev/shm/n)
while [ $(cat /dev/shm/n) = $a ] && [ $((i=i+1)) -lt 60 ]; do sleep 1; done
[ $i -lt 60 ] || echo "the writer stands still"
dmesg | grep -nEA 30 "$(cat /root/bad)"
sh /root/verify
END
echo 'PATTERN' >/root/bad
mount -t tmpfs none /dev/shm 2>/dev/null; (sh /root/writer &)""".replace("PATTERN", BAD)
# The emulator that nested machines run on may itself stand still for a while.
PATIENCE = ("dmesg -n 1; echo %d >/sys/module/rcupdate/parameters/rcu_cpu_stall_timeout; "
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

    def __init__(self, vm, bystander):
        self.vm, self.bystander, self.states = vm, bystander, {}

    def state(self):
        """What the writer has got to, in memory, and the guest's time."""
        return [int(n) for n in shell(self.vm, "sh /root/state").split()]

    def lives(self):
        *ill, files = shell(self.vm, "sh /root/lives", 300).split("\n")
        heads = {line for line in ill if re.match(r"\d+:", line)}
        for line in heads - self.bystander.excused:
            assert self.excuses(line), "\n".join(ill)
            self.bystander.excused.add(line)
        self.bystander.look()
        assert "the writer stands still" not in ill
        assert re.fullmatch(r"good [1-9]", files), files

    def excuses(self, complaint):
        """Half of a watchdog's patience (PATIENCE) passed without anybody running."""
        return re.search(LATE, complaint) and self.bystander.lost() >= 10 * SLOW

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

    def connect(self, echo):
        shell(self.vm, "mkfifo /tmp/in; (sleep 100000 >/tmp/in &); "
                       "(nc 10.0.2.2 %d </tmp/in >/tmp/out &)" % echo.port)

    def talk(self, word):
        """There and back through the connection."""
        assert shell(self.vm, "sh /root/talk " + word, 120) == word

    def save(self, name):
        """Microseconds that the guest stood still, and milliseconds in all."""
        before = self.state()
        assert "Error" not in self.vm.monitor("savevm " + name, timeout=120)
        self.states[name] = before, self.state()
        said = self.vm.monitor("info snapshot-job")
        return [int(n) for n in re.search(r"for (\d+) us, (\d+) ms in all", said).groups()]

    def load(self, name):
        start = time.monotonic()
        assert self.vm.monitor("loadvm " + name, timeout=120) == ""
        took = time.monotonic() - start
        self.awake()
        (count, clock), (low, high) = self.state(), self.states[name]
        assert low[0] <= count <= high[0] + 100, name
        # Its clock goes on from where it was, at the same rate.
        assert low[1] <= clock <= high[1] + time.monotonic() - start + 4 * SLOW, name
        self.lives()
        return took


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


@pytest.fixture
def bystander():
    with Bystander() as it:
        yield it


@pytest.fixture
def tell(capsys):
    """Figures, for those who wait half an hour for them."""
    def say(what, values=(), unit=""):
        with capsys.disabled():
            print("\n%7.0f s: %s" % (time.monotonic(), what), end="")
            if values:
                print(": median %.1f, largest %.1f %s (%d)" % (
                    statistics.median(values), max(values), unit, len(values)), end="")
    return say if COUNT > 8 else lambda *_: None


def start(vm, bystander):
    log_in(vm)
    shell(vm, PATIENCE)
    shell(vm, NETWORK)
    shell(vm, WRITER.replace("\n", "\r"))
    vm.wait_for(lambda: shell(vm, "cat /dev/shm/n").isdigit(), 60, lambda: "no writer")
    return Guest(vm, bystander)


def power_off(vm):
    vm.serial.send("poweroff\r")
    vm.serial.expect("Power down", 120)
    assert vm.wait_exit() == 0


def test_a_connection_and_the_clock_survive(disk, echo, bystander):
    """A connection that was idle meanwhile is the same before and after."""
    with Vm(*DRIVES["virtio"](disk), "-nic", "user,model=virtio", memory=192) as vm:
        guest = start(vm, bystander)
        guest.connect(echo)
        guest.talk("first")
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
        guest.talk("again")
        assert shell(vm, "cat /tmp/out") == "first\nagain" and echo.connections == 1
        guest.lives()
        power_off(vm)
    check_image(disk)


def used(path):
    return os.stat(path).st_blocks / 2048       # MiB


def save_all(guest, disk, names, tell):
    pauses, totals, growth = [], [], []
    for n, name in enumerate(names):
        before = used(disk)
        pause, total = guest.save(name)
        pauses.append(pause / 1000)
        totals.append(total)
        growth.append(used(disk) - before)
        if n == 0:
            guest.load(name)
        if n % 10 == 9:
            tell("%d snapshots" % (n + 1))
    tell("pause of savevm", pauses, "ms")
    tell("savevm", totals, "ms")
    tell("growth of the image, first %.1f, then" % growth[0], growth[1:], "MiB")


def load_all(guest, names, tell):
    took = []
    for n, name in enumerate(names):
        took.append(guest.load(name) * 1000)
        if n % 10 == 9:
            tell("%d loads" % (n + 1))
    tell("loadvm", took, "ms")


def put_overlays(guest, disk, tell):
    files, took = [disk], []
    for n in range(COUNT):
        files.append(disk.parent / ("over%02d.qcow2" % n))
        start = time.monotonic()
        assert "Formatting" in guest.vm.monitor("snapshot_blkdev virtio0 %s" % files[-1])
        took.append((time.monotonic() - start) * 1000)
        if n % 5 == 0:
            guest.lives()
    tell("snapshot_blkdev", took, "ms")
    return files


def test_snapshots_in_a_row_and_back_to_each(disk, echo, bystander, tell):
    names = ["s%02d" % n for n in range(COUNT)]
    with Vm(*DRIVES["virtio"](disk), "-nic", "user,model=virtio", memory=192) as vm:
        guest = start(vm, bystander)
        guest.connect(echo)
        guest.talk("first")
        tell("the guest is up")
        save_all(guest, disk, names, tell)
        guest.lives()
        load_all(guest, names[1::2] + names[::2], tell)
        # What was sent since a snapshot cannot be sent again: the other side has it.  So
        # nothing was, and then it goes on.
        guest.talk("loaded")
        files = put_overlays(guest, disk, tell)
        guest.lives()
        guest.talk("last")
        assert echo.connections == 1
        assert "chain depth: %d" % (COUNT + 1) in vm.monitor("info block virtio0")
        power_off(vm)
    tell("the machine stood still for %.0f s, complaints excused by it: %d" % (
        bystander.late, len(bystander.excused)))
    check_image(disk)
    cowimg("snapshot", "--verify", disk, timeout=300)
    tell("verified")
    for name in some(names, 3):
        file_system_is_clean(disk, "-l", "snapshot.name=" + name)
    for name in some(files, 3):
        check_image(name)
        file_system_is_clean(name)
