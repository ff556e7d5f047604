"""The Debian systems of build/guests (configs/guests/build) as machines under test, and
the other ends of their networks."""
import ctypes
import hashlib
import json
import os
import re
import socket
import threading

from tools import SLOW, TOP, run

GUESTS = TOP / "build/guests"
BOOT = 300                              # seconds until the shell, at worst
# What a kernel says when its machine does not keep time, or loses interrupts.  (Not RCU's
# complaints: a nested machine's emulator may itself stand still for so long.)
TROUBLE = re.compile(r"soft lockup|hung_task|blocked for more than|BUG:|Oops|I/O error|"
                     r"clocksource.*unstable|nobody cared|lost interrupt|Tx Unit Hang|"
                     r"NETDEV WATCHDOG|timeout, completed")


def kernel_args(*words):
    return ["-kernel", GUESTS / "vmlinuz", "-initrd", GUESTS / "initrd.img", "-append",
            " ".join(words)]


def system_args(*words):
    """The generic kernel on the Debian system's disk, wherever that is."""
    return kernel_args("console=tty0 console=ttyS0 loglevel=4 root=LABEL=cowvm-debian", *words)


def log_in(vm):
    vm.serial.expect(r"debian login: root \(automatic login\)", BOOT)
    vm.serial.expect("# ")
    shell(vm, "set +m")                 # no words about jobs


def shell(vm, command, timeout=60):
    """Output of a command in the guest, which must succeed."""
    vm.serial.send(command + "; echo status=$?\r")
    out = vm.serial.expect(r"\nstatus=(?=\d+\r)", timeout)
    status = vm.serial.expect(r"\r\n")
    vm.serial.expect("# ")
    out = out.replace("\r", "").split("\n", 1)[-1].strip("\n")
    assert status == "0", "%s: status %s\n%s" % (command, status, out)
    return out


def check_kernel(vm):
    """It has nothing to complain about."""
    log = shell(vm, "dmesg")
    assert [line for line in log.split("\n") if TROUBLE.search(line)] == []


# --- input ----------------------------------------------------------------------------


class Events:
    """What a device in /dev/input says, from now on: by evtest in the guest."""

    def __init__(self, vm, name):
        self.vm = vm
        shell(vm, "rm -f /dev/shm/events; cd /sys/class/input; "
                  "n=$(grep -l '%s' event*/device/name | cut -d/ -f1); cd; "
                  "test -n \"$n\"; (exec stdbuf -oL evtest /dev/input/$n >/dev/shm/events 2>&1) & "
                  "until grep -q Testing /dev/shm/events; do sleep 0.2; done" % name)

    def wait(self, *wanted):
        """Until all these have been said, as "KEY_A 1"."""
        def come():
            said = re.findall(r"\(\w+\), value -?\d+", shell(self.vm, "cat /dev/shm/events"))
            said = [s.replace("), value", "")[1:] for s in said]
            return all(any(re.fullmatch(w, s) for s in said) for w in wanted)
        self.vm.wait_for(come, 30, lambda: shell(self.vm, "tail -30 /dev/shm/events"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        shell(self.vm, "kill $!; wait")


# --- networks --------------------------------------------------------------------------


class Namespace:
    """A network namespace: it ends with the block."""

    def __init__(self):
        self.name = "cowvm-%d" % os.getpid()

    def __enter__(self):
        run("ip", "netns", "add", self.name)
        return self

    def __exit__(self, *_):
        run("ip", "netns", "del", self.name)

    def script(self, path, address):
        """For a tap's script=: moves the tap in here and gives it the address."""
        path.write_text("#!/bin/sh -e\nip link set $1 netns %s\nip -n %s addr add %s dev $1\n"
                        "ip -n %s link set $1 up\n" % (self.name, self.name, address, self.name))
        path.chmod(0o755)
        return path

    def counters(self, address):
        """Statistics of the tap that has the address: (from the guest, to the guest)."""
        links = json.loads(run("ip", "-n", self.name, "-s", "-j", "addr", "show").stdout)
        for link in links:
            if any(a["local"] == address for a in link["addr_info"]):
                return link["stats64"]["rx"], link["stats64"]["tx"]
        raise AssertionError("no tap with address %s: %r" % (address, links))

    def socket(self):
        """A socket in here.  Only a thread of its own goes where it is made."""
        made = []

        def make():
            with open("/run/netns/" + self.name, encoding="ascii") as f:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(f.fileno(), 0):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                else:
                    made.append(socket.socket())
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]


def exchange(connection, data):
    """Sends the data and takes as many bytes at the same time; their MD5."""
    connection.settimeout(120 * SLOW)
    sender = threading.Thread(target=connection.sendall, args=(data,))
    sender.start()
    digest, left = hashlib.md5(), len(data)
    while left:
        piece = connection.recv(min(left, 1 << 18))
        assert piece, "the guest hung up, %d bytes before the end" % left
        digest.update(piece)
        left -= len(piece)
    sender.join()
    return digest.hexdigest()


class Peer:
    """Exchanges random bytes with the guest over TCP, both ways at once."""

    def __init__(self, vm, mib):
        self.vm, self.bytes = vm, mib << 20
        shell(vm, "head -c %d /dev/urandom >/dev/shm/blob" % self.bytes)
        self.guest_sum = shell(vm, "md5sum </dev/shm/blob").split()[0]
        self.data = os.urandom(self.bytes)
        self.own_sum = hashlib.md5(self.data).hexdigest()

    def check(self, guest, here):
        """What md5sum said in the guest, and the digest of what came here."""
        assert guest.split()[-2] == self.own_sum, "to the guest: " + guest
        assert here == self.guest_sum, "from the guest"

    def called(self, listener, name):
        """By the guest, at the listening socket, which it knows by that name."""
        got = []

        def serve():
            connection, _ = listener.accept()
            with connection:
                got.append(exchange(connection, self.data))
        listener.settimeout(120 * SLOW)
        thread = threading.Thread(target=serve)
        thread.start()
        said = shell(self.vm, "busybox nc %s %d </dev/shm/blob | md5sum" % (
            name, listener.getsockname()[1]), 240)
        thread.join()
        self.check(said, got[0])

    def calls(self, caller, address, port=5001):
        """The guest, which listens at a port, from the socket."""
        shell(self.vm, "(busybox nc -l -p %d </dev/shm/blob | md5sum >/dev/shm/sum) & "
                       "until ss -ltn | grep -q :%d; do sleep 0.2; done" % (port, port))
        with caller:
            caller.settimeout(60 * SLOW)
            caller.connect(address)
            got = exchange(caller, self.data)
        said = shell(self.vm, "wait; cat /dev/shm/sum", 120)
        self.check(said, got)
