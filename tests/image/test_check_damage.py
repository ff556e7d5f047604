"""check and its repairs on damaged images: word for word what the reference says."""
import struct

import pytest

from lib.tools import COWIMG, check_image, cowimg, qemu_img, qemu_io, read_disk, run

CLUSTER = 65536
COPIED = 1 << 63
MODES = ((), ("-r", "leaks"), ("-r", "all"), ("--output=json",), ("-r", "all", "--output=json"),
         ("-r", "leaks", "--output=json"))


class Image:
    """A small image whose metadata can be damaged; its places are those of a fresh one."""

    def __init__(self, folder, snapshot=False):
        self.path = folder / "x.q"
        qemu_img("create", "-f", "qcow2", self.path, "8M")
        qemu_io(self.path, "write -P 5 0 1M", "write -P 6 2M 256k", "write -z 4M 64k")
        if snapshot:
            qemu_img("snapshot", "-c", "s", self.path)
            qemu_io(self.path, "write 0 128k")
        self.data = bytearray(self.path.read_bytes())
        self.l1, self.reftable = self.get(40), self.get(48)
        self.block = self.get(self.reftable)
        self.l2 = self.get(self.l1) & 0xfffffffffffe00

    def get(self, at):
        return struct.unpack_from(">Q", self.data, at)[0]

    def put(self, at, value):
        struct.pack_into(">Q", self.data, at, value)

    def change(self, at, clear=0, add=0):
        self.put(at, self.get(at) & ~clear | add)

    def refcount(self, cluster, value):
        struct.pack_into(">H", self.data, self.block + 2 * cluster, value)


def leaks(i):
    i.data += bytes(CLUSTER * 3)
    i.refcount(len(i.data) // CLUSTER - 1, 1)
    i.refcount(len(i.data) // CLUSTER - 3, 2)


def lost_refcounts(i):
    i.refcount(6, 0)
    i.refcount(8, 0)


def lost_and_high(i):
    lost_refcounts(i)
    i.refcount(7, 5)


def high(i):
    i.refcount(7, 5)


def copied_of_data(i):
    i.change(i.l2, clear=COPIED)


def copied_of_both(i):
    i.change(i.l2, clear=COPIED)
    i.change(i.l1, clear=COPIED)


def copied_with_snapshot(i):
    i.change(i.l2 + 40, add=COPIED)


def data_far_away(i):
    i.put(i.l2, COPIED | 1 << 40)


def table_far_away(i):
    i.put(i.l1, COPIED | 1 << 40)


def data_beyond_the_end(i):
    i.put(i.l2, COPIED | (len(i.data) + 10 * CLUSTER))


def unaligned_data(i):
    i.put(i.l2 + 8, COPIED | 0x50200)


def unaligned_zero(i):
    unaligned_data(i)
    i.put(i.l2 + 16, COPIED | 0x60201)


def unaligned_table(i):
    i.put(i.l1, COPIED | 0x40200)


def data_twice(i):
    i.put(i.l2 + 8, i.get(i.l2))


def data_on_a_table(i):
    i.put(i.l2 + 8, COPIED | i.l1)


def block_twice(i):
    i.put(i.reftable + 8, i.block)


def dirty_bit(i):
    i.data[79] |= 1


def corrupt_bit(i):
    i.data[79] |= 2


def corrupt_and_lost(i):
    corrupt_bit(i)
    i.refcount(6, 0)


def reserved_in_l2(i):
    i.change(i.l2 + 8, add=1 << 60)


def reserved_in_l1(i):
    i.change(i.l1, add=1 << 60)


DAMAGE = [leaks, lost_refcounts, lost_and_high, high, copied_of_data, copied_of_both,
          copied_with_snapshot, data_far_away, table_far_away, data_beyond_the_end, unaligned_data,
          unaligned_zero, unaligned_table, data_twice, data_on_a_table, block_twice, dirty_bit,
          corrupt_bit, corrupt_and_lost, reserved_in_l2, reserved_in_l1]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_words_and_repairs_are_the_references(tmp_path, damage):
    image = Image(tmp_path, snapshot=damage is copied_with_snapshot)
    damage(image)
    for mode in MODES:
        if mode and mode[0] == "-r" and damage is unaligned_table:
            continue  # whatever lies there, we do not write to it
        seen = []
        for tool in (qemu_img, cowimg):
            image.path.write_bytes(image.data)
            done = tool("check", *mode, "x.q", cwd=tmp_path, ok=None)
            text = "\n".join(line for line in done.stdout.replace("cowimg", "qemu-img").split("\n"))
            after = qemu_img("check", "--output=json", "x.q", cwd=tmp_path, ok=None).stdout
            seen.append((done.returncode, sorted(text.split("\n")), after if mode else ""))
        assert seen[0] == seen[1], mode


def no_block(i):
    i.put(i.reftable, 0)


def unaligned_block(i):
    i.put(i.reftable, 0x20200)


def block_outside(i):
    i.put(i.reftable, 1 << 36)


def block_is_a_table(i):
    i.put(i.reftable, i.l2)


def garbage_table(i):
    i.data[i.reftable:i.reftable + CLUSTER] = bytes((k * 7 + 3) % 256 for k in range(CLUSTER))


def reserved_in_reftable(i):
    i.change(i.reftable, add=1)


def table_unaligned(i):
    i.put(48, 0x10200)


def table_nowhere(i):
    i.put(48, 1 << 60)


@pytest.mark.parametrize("damage", [no_block, unaligned_block, block_outside, block_is_a_table,
                                    garbage_table, reserved_in_reftable, table_unaligned,
                                    table_nowhere], ids=lambda f: f.__name__)
def test_a_garbage_refcount_structure_is_made_anew(tmp_path, damage):
    """The reference gives up on some of these, or lets the file grow by gigabytes."""
    image = Image(tmp_path)
    before = read_disk(image.path, 0, 8 << 20)
    damage(image)
    image.path.write_bytes(image.data)
    cowimg("check", image.path, ok=(2,))
    cowimg("check", "-r", "all", image.path)
    check_image(image.path)
    assert image.path.stat().st_size < len(image.data) + 8 * CLUSTER
    assert read_disk(image.path, 0, 8 << 20) == before


def damaged(folder, entry_of):
    """A copy whose third data cluster's L2 entry is what entry_of makes of it."""
    image = folder / "d.q"
    qemu_img("create", "-q", "-f", "qcow2", "-o", "cluster_size=4k", image, "256k")
    qemu_io(image, "write -P 3 0 64k")
    data = bytearray(image.read_bytes())
    l1 = int.from_bytes(data[40:48], "big")
    at = (int.from_bytes(data[l1:l1 + 8], "big") & 0xfffffffffffe00) + 16
    data[at:at + 8] = entry_of(int.from_bytes(data[at:at + 8], "big")).to_bytes(8, "big")
    image.write_bytes(data)
    return image


@pytest.mark.parametrize("kind", ["unaligned", "far", "compressed"])
def test_an_entry_that_points_astray_is_counted_and_salvaged_alike(tmp_path, kind):
    image = damaged(tmp_path, {"unaligned": lambda e: e + 0x200,
                               "far": lambda e: 1 << 63 | 0x10000000,
                               "compressed": lambda e: 1 << 62 | (e & 0xffffffff)}[kind])
    said = [run(tool, "check", image, ok=(0, 2)).stdout for tool in ("qemu-img", COWIMG)]
    assert said[0] == said[1]
    quiet, content = [], []
    for tool in ("qemu-img", COWIMG):
        done = run(tool, "convert", "-q", "--salvage", "-O", "raw", image, tmp_path / "out")
        quiet.append(done.stdout.replace("cowimg: warning: %s: " % image, ""))
        content.append((tmp_path / "out").read_bytes())
    assert quiet[0] == quiet[1]
    assert content[0] == content[1]
