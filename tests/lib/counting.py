"""Watching the guest of guests.keeps_count, and the images that its disk is made of."""
import json
import os
import re

import guests
from tools import check_image, qemu_img, qemu_io, read_disk

NUMBER = r"([0-9A-F]{4})\n"
SECOND_PORT = ["-serial", "null"]               # its scratch register is the device's count


def number(vm):
    """The last number that the guest has said by now."""
    said = ""
    while not re.search(NUMBER, said):
        start = len(vm.serial.text)
        vm.serial.drain(0.1)
        said = vm.serial.text[start:]
    return int(re.findall(NUMBER, said)[-1], 16)


def goes_on(vm):
    start = number(vm)
    while number(vm) < start + 2:
        pass
    assert "torn" not in vm.serial.text and "error" not in vm.serial.text


def landed(vm, start):
    """Where the guest went on, when it was set to another moment after its serial text had that
    length: a number or two behind the last one that does not follow from the one before."""
    found = []

    def come():
        vm.serial.drain(0.1)
        said = [(m.end(), int(m.group(1), 16)) for m in re.finditer(NUMBER, vm.serial.text)]
        last = max((i for i, (end, _) in enumerate(said) if end <= start), default=0)
        said = [number for _, number in said[last:]]
        jumps = [i for i in range(1, len(said)) if said[i] != said[i - 1] + 1]
        # A number may be half of it from before and half from after.
        found[:] = said[jumps[-1] + 1:] if jumps else []
        return len(found) > 2
    vm.wait_for(come, 60, lambda: "it never went elsewhere: " + vm.serial.text[-200:])
    return found[0]


def last_number(vm):
    """Of a machine that has ended: all that it said, which on a busy host takes its time."""
    return int(re.findall(NUMBER, vm.serial.drain(30))[-1], 16)


def count_in(image, fmt="qcow2"):
    """What the guest's counter is on the disk."""
    return int.from_bytes(read_disk(image, 8 * 512, 2, fmt), "little")


def chain(image):
    """Names of the image's files, top first, as the reference follows them."""
    return [os.path.basename(row["filename"]) for row in json.loads(
        qemu_img("info", "-U", "--backing-chain", "--output=json", image).stdout)]


def make_chain(work):
    """a <- b <- c in the current folder, each with something of its own, and the guest
    in the first one."""
    guests.qcow2_with("a.qcow2", guests.keeps_count(work))
    qemu_io("a.qcow2", "write -P 1 1M 4M")
    for name, behind, pattern in (("b", "a", 2), ("c", "b", 3)):
        qemu_img("create", "-f", "qcow2", "-F", "qcow2", "-b", behind + ".qcow2",
                 name + ".qcow2")
        qemu_io(name + ".qcow2", "write -P %d %dM 2M" % (pattern, 2 * pattern))
    return "c.qcow2"


def content_is_right(image):
    """What make_chain has put there."""
    qemu_io(image, "read -P 1 1M 3M", "read -P 2 4M 2M", "read -P 3 6M 2M", "read -P 0 8M 8M")


def wait_idle(vm):
    vm.wait_for(lambda: vm.monitor("info block-jobs") == "No active jobs", 60,
                lambda: vm.monitor("info block-jobs"))


def end(vm, image):
    """Quit; the disk is what the guest said and what was there before it."""
    assert vm.quit() == 0
    last = last_number(vm)
    check_image(image)
    content_is_right(image)
    count = count_in(image)
    assert last <= count <= last + 1, (last, count)
