"""kill -9 at any moment of savevm, delvm, loadvm and the replacement of a tag, with two and
three drives: no image is worse than leaking, and a set of snapshots is whole or is not.

The guest counts in memory and on every drive; it says "torn" when they differ.
COWVM_KILL_ROUNDS=N kills so often in each test (make check-kill)."""
import json
import os
import random
import re
import signal
import time

import pytest

import guests
from tools import COWVM, cowimg, qemu_img, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
NUMBER = r"([0-9A-F]{4})\n"
ROUNDS = int(os.environ.get("COWVM_KILL_ROUNDS", 12))
TAGS = ["base", "one"]
MEMORY = 16
GONE = "Snapshot '%s' does not exist in one or more devices"


def counts_on_drives(work, drives):
    """Counts in memory and at LBA 8 of each BIOS drive, compares, and says each number."""
    return guests.boot_sector(guests.HEAD + """
main:	mov	word ptr [0x8000], 0
	jmp	store
count:	mov	di, 0x4280
	mov	word ptr [packet + 4], 0x8200
5:	call	disk
	mov	ax, [0x8000]
	cmp	ax, [0x8200]
	jne	torn
	inc	di
	cmp	di, 0x4280 + %d
	jne	5b
	inc	word ptr [0x8000]
store:	mov	di, 0x4380
	mov	word ptr [packet + 4], 0x8000
6:	call	disk
	inc	di
	cmp	di, 0x4380 + %d
	jne	6b
	mov	cx, 4
	mov	bx, [0x8000]
7:	rol	bx, 4
	mov	al, bl
	and	al, 15
	add	al, '0'
	cmp	al, '9'
	jbe	8f
	add	al, 7
8:	call	putc
	loop	7b
	mov	al, 10
	call	putc
	jmp	count
torn:	mov	si, offset text
	call	puts
	jmp	halt
disk:	mov	ax, di
	mov	dl, al
	xor	al, al
	mov	si, offset packet
	push	di
	int	0x13
	pop	di
	jc	failed
	ret
failed:	mov	si, offset error
	call	puts
""" % (drives, drives) + guests.HALT + guests.say("torn\r\n") +
                              guests.say("disk error\r\n", "error") + """
packet:	.byte	16, 0
	.word	1, 0x8000, 0
	.quad	8
""", work)


class Machine:
    """Drives that outlive the processes that are killed, and what is known of their sets."""

    def __init__(self, work, drives, seed):
        self.random = random.Random(seed)
        self.files = [guests.qcow2_with(work / ("%d.qcow2" % i), counts_on_drives(work, drives))
                      for i in range(drives)]
        self.sets = {}                  # tag -> the numbers that it may hold: low, high

    def arguments(self):
        return ["-hda", self.files[0], "-hdb", self.files[1]] + [
            a for f in self.files[2:] for a in ("-drive", "file=%s,if=virtio" % f)]

    def entries(self):
        """What each drive lists, in the order of its list."""
        found = []
        for f in self.files:
            info = json.loads(qemu_img("info", "--output=json", f).stdout)
            found.append([(s["name"], s["date-sec"], s["date-nsec"], s["vm-clock-sec"],
                           s["vm-clock-nsec"], s["vm-state-size"])
                          for s in info.get("snapshots", [])])
        return found

    def whole(self):
        """Tags of sets that are in every drive, with VM state in the first."""
        lists = self.entries()
        rest = [[e[:5] for e in entries] for entries in lists[1:]]
        return {e[0] for e in lists[0] if e[5] and all(e[:5] in r for r in rest)}

    def check(self):
        """Leaks at most; they can be freed."""
        for f in self.files:
            qemu_img("check", f, ok=(0, 3))
            cowimg("check", "-r", "leaks", f)
            assert "No errors" in qemu_img("check", f).stdout

    def look(self, vm, counts=3):
        """The first number that is said from here on; the guest goes on counting."""
        vm.serial.expect(NUMBER)
        first = int(vm.serial.spawn.match.group(1), 16)
        for _ in range(counts):
            vm.serial.expect(NUMBER)
        assert "torn" not in vm.serial.text and "error" not in vm.serial.text
        return first


def last_number(vm):
    """The last number that the guest has said by now."""
    vm.serial.drain(0.05)
    return int(re.findall(NUMBER, vm.serial.text)[-1], 16)


def kill_during(m, vm, command, most):
    """Type the command, kill after a part of `most` seconds; the numbers that it may see."""
    low = last_number(vm)
    vm.spawn.send(command + "\r")
    time.sleep(m.random.random() * most)
    os.kill(vm.pid, signal.SIGKILL)
    vm.spawn.wait()
    high = last_number(vm)
    return low, high


def start(m, tag):
    """A machine that goes on from this set, which must be whole, or starts anew."""
    vm = Vm(*m.arguments(), *(["-loadvm", tag] if tag in m.sets else []), memory=MEMORY)
    try:
        number = m.look(vm)
        if tag in m.sets:
            fits = [r for r in m.sets[tag] if r[0] <= number <= r[1] + 1]
            assert fits, (tag, number, m.sets[tag])
            m.sets[tag] = fits
    except AssertionError:
        vm.close()
        raise
    return vm


def is_refused(m, tag):
    """A set that is not whole: one line, and no machine."""
    done = run(COWVM, "-display", "none", "-serial", "null", "-monitor", "none", "-S",
               "-enable-kvm", "-m", MEMORY, "-net", "none", *m.arguments(), "-loadvm", tag,
               ok=None)
    assert done.returncode == 1 and done.stdout.count("\n") == 1, done.stdout
    assert GONE % tag in done.stdout


def one_round(m, tag):
    """Go on from that set, or from the first; an operation is killed; what must be there then is
    there.  The tag that was meant."""
    with start(m, tag if tag in m.sets else "first") as vm:
        low = last_number(vm)
        began = time.monotonic()
        assert "Error" not in vm.monitor("savevm base")
        took = time.monotonic() - began
        m.sets["base"] = [(low, last_number(vm) + 1)]
        verb = m.random.choice(["savevm", "savevm", "delvm", "loadvm"])
        tag = m.random.choice(TAGS if verb == "savevm" else sorted(set(m.sets) - {"first"}))
        low, high = kill_during(m, vm, "%s %s" % (verb, tag), took * 1.2)
    m.check()
    whole = m.whole()
    old = m.sets.pop(tag, [])
    if verb == "savevm" and tag in whole:
        m.sets[tag] = old + [(low, high + 1)]
    elif verb == "loadvm" or tag in whole:
        m.sets[tag] = old
    assert whole == set(m.sets) and (tag in whole or not old or verb == "delvm"), (verb, tag)
    print("%s %s, sets: %s" % (verb, tag, sorted(m.sets)))
    if tag not in m.sets:
        is_refused(m, tag)
    return tag


@pytest.mark.limit(120 + 15 * ROUNDS)
@pytest.mark.parametrize("drives", [2, 3])
def test_a_set_of_snapshots_is_whole_or_is_not(tmp_path, drives):
    seed = int(os.environ.get("COWVM_KILL_SEED", drives))
    m = Machine(tmp_path, drives, seed)
    with start(m, None) as vm:          # the only one that takes the way through the firmware
        low = last_number(vm)
        assert "Error" not in vm.monitor("savevm first")
        m.sets["first"] = [(low, last_number(vm) + 1)]
        assert vm.quit() == 0
    tag = "first"
    for _ in range(ROUNDS):
        tag = one_round(m, tag)
    for tag in sorted(m.sets):
        with start(m, tag) as vm:
            assert vm.quit() == 0
    m.check()


def test_a_mixed_set_is_refused(tmp_path):
    """The same name in every drive is not enough: it has to be one moment."""
    m = Machine(tmp_path, 2, 1)
    with start(m, None) as vm:
        assert "Error" not in vm.monitor("savevm one")
        assert vm.quit() == 0
    assert m.whole() == {"one"}
    qemu_img("snapshot", "-d", "one", m.files[1])
    assert m.whole() == set()
    is_refused(m, "one")
    qemu_img("snapshot", "-c", "one", m.files[1])
    assert m.whole() == set()
    is_refused(m, "one")
    qemu_img("snapshot", "-c", "two", m.files[0])
    qemu_img("snapshot", "-c", "two", m.files[1])
    is_refused(m, "two")
