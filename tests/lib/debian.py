"""The Debian systems of build/guests (configs/guests/build) as machines under test, and
the other ends of their networks."""
import ctypes
import hashlib
import json
import os
import re
import socket
import struct
import threading
import warnings

from tools import SLOW, TOP, run

GUESTS = TOP / "build/guests"
BOOT = 300                              # seconds until the shell, at worst
# What a kernel says when its machine does not keep time, or loses interrupts.  (Not RCU's
# complaints: a nested machine's emulator may itself stand still for so long.)
TROUBLE = re.compile(r"soft lockup|hung_task|blocked for more than|BUG:|Oops|I/O error|"
                     r"clocksource.*unstable|nobody cared|lost interrupt|Tx Unit Hang|"
                     r"NETDEV WATCHDOG|timeout, completed")
# Patience of cards' drivers in seconds, which no option makes longer.
CARD_PATIENCE = re.compile("Tx Unit Hang|NETDEV WATCHDOG"), 5


def kernel_args(*words):
    return ["-kernel", GUESTS / "vmlinuz", "-initrd", GUESTS / "initrd.img", "-append",
            " ".join(words)]


def system_args(*words):
    """The generic kernel on the Debian system's disk, wherever that is.  Its watchdogs have
    as much patience as the tests."""
    return kernel_args("console=tty0 console=ttyS0 loglevel=4 root=LABEL=cowvm-debian",
                       "watchdog_thresh=%d" % (10 * SLOW), *words)


def log_in(vm):
    vm.serial.expect(r"debian login: root \(automatic login\)", BOOT)
    vm.serial.expect("# ")
    shell(vm, "set +m; dmesg -n 1")     # no words about jobs, nor of the kernel between others


def into_step(vm):
    """After a command that did not end in time: end it, and all that it left running."""
    vm.serial.send("\x03")
    # dash knows no jobs in $( ).
    vm.serial.send("\rjobs -p >/dev/shm/jobs; kill $(cat /dev/shm/jobs) 2>/dev/null; "
                   "exec 3>&- 4>&-; echo step=$((%d+1))\r" % vm.commands)
    vm.serial.expect(r"step=%d\r\n" % (vm.commands + 1))
    vm.serial.expect("# ")


def shell(vm, command, timeout=60):
    """Output of a command in the guest, which must succeed."""
    if vm.out_of_step:
        into_step(vm)
    vm.commands += 1
    vm.out_of_step = True
    mark = "status%d=" % vm.commands
    vm.serial.send("%s; echo %s$?\r" % (command, mark))
    out = vm.serial.expect(r"\n%s(?=\d+\r)" % mark, timeout)
    status = vm.serial.expect(r"\r\n")
    vm.serial.expect("# ")
    vm.out_of_step = False
    out = out.replace("\r", "").split("\n", 1)[-1].strip("\n")
    assert status == "0", "%s: status %s\n%s" % (command, status, out)
    return out


def check_kernel(vm, bystander=None):
    """It has nothing to complain about, but for cards that were slow while the machine that
    all of this runs in stood still."""
    log = shell(vm, "dmesg")
    found = [line for line in log.split("\n") if TROUBLE.search(line)]
    if bystander:
        cards, patience = CARD_PATIENCE
        for line in found if bystander.lost() >= patience else []:
            if cards.search(line) and line not in bystander.excused:
                warnings.warn("excused: " + line)
                bystander.excused.add(line)
        bystander.look()
        found = [line for line in found if line not in bystander.excused]
    assert not found, "%s\n(the machine stood still for %.1f s)" % (
        "\n".join(found), bystander.late if bystander else 0)


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

    def socket(self, *kind):
        """A socket in here.  Only a thread of its own goes where it is made."""
        made = []

        def make():
            with open("/run/netns/" + self.name, encoding="ascii") as f:
                libc = ctypes.CDLL(None, use_errno=True)
                if libc.setns(f.fileno(), 0):
                    made.append(OSError(ctypes.get_errno(), "setns"))
                else:
                    made.append(socket.socket(*kind))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]


class LargeFrames:
    """How many frames that no Ethernet carries, segments still to be cut, an interface in
    a namespace takes from the guest and gives to it."""

    LONGEST = 1518
    ALL, OUTGOING = 3, 4                # ETH_P_ALL, PACKET_OUTGOING

    def __init__(self, space, interface):
        self.sockets = [self.watch(space, interface, to_guest) for to_guest in (False, True)]

    def watch(self, space, interface, to_guest):
        # BPF: the length, then the direction
        code = [(0x80, 0, 0, 0), (0x25, 0, 3, self.LONGEST), (0x20, 0, 0, 0xfffff004),
                (0x15, 0 if to_guest else 1, 1 if to_guest else 0, self.OUTGOING),
                (0x06, 0, 0, 64), (0x06, 0, 0, 0)]
        raw = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *c) for c in code))
        s = space.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        s.setsockopt(socket.SOL_SOCKET, 26,     # SO_ATTACH_FILTER
                     struct.pack("HP", len(code), ctypes.addressof(raw)))
        s.bind((interface, self.ALL))
        return s

    def counts(self):
        """(from the guest, to the guest)"""
        found = []
        for s in self.sockets:
            packets, _ = struct.unpack("II", s.getsockopt(263, 6, 8))   # PACKET_STATISTICS
            found.append(packets)
            s.close()
        return found


def exchange(connection, data):
    """Sends the data and takes as many bytes at the same time; their MD5."""
    connection.settimeout(120 * SLOW)
    sender = threading.Thread(target=connection.sendall, args=(data,), daemon=True)
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
    """Exchanges random bytes with the guest, both ways at once: over TCP, or by a port."""

    def __init__(self, vm, mib):
        self.vm, self.bytes = vm, int(mib * (1 << 20))
        shell(vm, "head -c %d /dev/urandom >/dev/shm/blob" % self.bytes)
        self.guest_sum = shell(vm, "md5sum </dev/shm/blob").split()[0]
        self.data = os.urandom(self.bytes)
        self.own_sum = hashlib.md5(self.data).hexdigest()

    def check(self, guest, here):
        """What md5sum said in the guest, and the digest of what came here."""
        assert guest.split()[-2] == self.own_sum, "to the guest: " + guest
        assert here == self.guest_sum, "from the guest"

    def serve(self, connect, command):
        """What the command in the guest says, while we exchange with what connect() gives."""
        got = []

        def exchange_there():
            with connect() as connection:
                got.append(exchange(connection, self.data))
        thread = threading.Thread(target=exchange_there, daemon=True)
        thread.start()
        said = shell(self.vm, command, 240)
        thread.join()
        self.check(said, got[0])

    def called(self, listener, name, run=""):
        """By the guest, at the listening socket, which it knows by that name."""
        listener.settimeout(120 * SLOW)
        self.serve(lambda: listener.accept()[0], "%s busybox nc %s %d </dev/shm/blob | md5sum" % (
            run, name, listener.getsockname()[1]))

    def by_port(self, connection, device):
        """At the other end of a port, which can be opened once at a time."""
        self.serve(lambda: connection, "exec 3<>%s; cat /dev/shm/blob >&3 & "
                   "head -c %d <&3 | md5sum; wait; exec 3>&-" % (device, self.bytes))

    def calls(self, caller, address, port=5001, run=""):
        """The guest, which listens at a port, from the socket."""
        shell(self.vm, "(%s busybox nc -l -p %d </dev/shm/blob | md5sum >/dev/shm/sum) & "
                       "until ss -ltn | grep -q :%d; do sleep 0.2; done" % (run, port, port))
        with caller:
            caller.settimeout(60 * SLOW)
            caller.connect(address)
            got = exchange(caller, self.data)
        said = shell(self.vm, "wait; cat /dev/shm/sum", 120)
        self.check(said, got)
