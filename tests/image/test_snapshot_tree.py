"""cowimg snapshot --tree: figures as expected, and as deleting really frees."""
import json
import struct

import pytest

from tools import check_image, cowimg, qemu_img, qemu_io


def tree(image):
    return json.loads(cowimg("snapshot", "--tree", "--output=json", image).stdout)


def by_name(image):
    return {s.get("snapshot", {}).get("name"): s for s in tree(image)["states"]}


def used_clusters(image):
    """Clusters whose refcount (16 bits wide) is not 0."""
    data = image.read_bytes()
    bits, = struct.unpack(">I", data[20:24])
    at, clusters = struct.unpack(">QI", data[48:60])
    used = 0
    for (block,) in struct.iter_unpack(">Q", data[at:at + (clusters << bits)]):
        if block:
            body = data[block:block + (1 << bits)]
            used += sum(1 for (n,) in struct.iter_unpack(">H", body) if n)
    return used


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "1G")
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "one", path)         # 16 clusters
    qemu_io(path, "write -P 2 0 256k")              # 4 of them replaced
    qemu_img("snapshot", "-c", "two", path)
    qemu_io(path, "write -P 3 128k 256k", "write -P 3 700M 64k")
    return path


K = 1024
C = 64 * K


def test_figures_of_a_small_image(image):
    one, two, active = tree(image)["states"]
    # Each: 16 clusters of data, an L2 table and an L1 table; the active one has a
    # cluster of data and an L2 table more.
    assert (one["bytes"], two["bytes"], active["bytes"]) == (18 * C, 18 * C, 20 * C)
    assert one["alone-bytes"] == (4 + 2) * C        # what two replaced, the tables
    assert two["alone-bytes"] == (2 + 2) * C        # 128k to 256k
    assert active["alone-bytes"] == (4 + 1 + 3) * C
    assert [s["shared-bytes"] for s in (one, two, active)] == [12 * C, 14 * C, 12 * C]
    assert two["shared-with"] == [{"state": 0, "bytes": 12 * C}, {"state": 2, "bytes": 12 * C}]
    assert active["from"] == 1 and two["from"] == 0 and "from" not in one
    assert active["active"] and not one["active"] and one["vm-state-bytes"] == 0


@pytest.mark.parametrize("options", [(), ("-o", "cluster_size=512"), ("-o", "extended_l2=on"),
                                     ("-o", "compat=0.10,cluster_size=4k"),
                                     ("-o", "cluster_size=2M")], ids=str)
def test_deleting_frees_what_a_snapshot_holds_alone(tmp_path, options):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", *options, path, "64M")
    bits = struct.unpack(">I", path.read_bytes()[20:24])[0]
    for i in range(6):
        qemu_io(path, "write -P %d %dk 700k" % (i + 1, i * 300), "write -P %d %dk 3k" %
                (i + 1, 20000 + i), "write -z %dk 200k" % (i * 500))
        qemu_img("snapshot", "-c", "s%d" % i, path)
        if i == 3:
            qemu_img("snapshot", "-a", "s1", path)
    for name in ("s3", "s0", "s5", "s1"):
        alone, before = by_name(path)[name]["alone-bytes"], used_clusters(path)
        cowimg("snapshot", "-d", name, path)
        assert before - used_clusters(path) == alone >> bits
        check_image(path)


def test_compressed_clusters_are_counted_once(tmp_path):
    raw, path = tmp_path / "raw", tmp_path / "a.qcow2"
    raw.write_bytes(bytes(i // 1000 % 251 for i in range(1 << 20)))
    qemu_img("convert", "-c", "-O", "qcow2", raw, path)
    qemu_img("snapshot", "-c", "one", path)
    qemu_io(path, "write -P 1 0 1M")
    qemu_img("snapshot", "-c", "two", path)     # the table of snapshots stays
    alone, before = by_name(path)["one"]["alone-bytes"], used_clusters(path)
    cowimg("snapshot", "-d", "one", path)
    assert before - used_clusters(path) == alone // C


def test_branches_are_drawn_where_they_leave(image):
    qemu_img("snapshot", "-c", "three", image)
    qemu_img("snapshot", "-a", "one", image)
    qemu_io(image, "write -P 4 512k 64k")
    lines = cowimg("snapshot", "--tree", image).stdout.splitlines()
    assert lines[0].split()[:4] == ["TAG", "ID", "REFERS", "TO"]
    assert [line.split()[0] for line in lines[1:]] == ["one", "two", "three", "`-(active)"]
    assert lines[4].endswith("with one") and lines[3].endswith("with two")
    assert tree(image)["states"][3]["from"] == 0


def test_an_image_without_snapshots_has_its_active_state(tmp_path):
    path = tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "64M")
    (active,) = tree(path)["states"]
    assert active["active"] and active["bytes"] == active["alone-bytes"] == C


def test_more_snapshots_than_pairs_are_kept_for(tmp_path):
    path = tmp_path / "a.qcow2"
    cowimg("create", "-q", "-f", "qcow2", path, "64M")
    qemu_io(path, "write -P 1 0 1M")
    for i in range(70):
        cowimg("snapshot", "-c", "s%d" % i, path)
    qemu_io(path, "write -P 2 0 64k")
    states = tree(path)["states"]
    assert len(states) == 71 and "shared-with" not in states[0]
    assert states[5]["shared-bytes"] == 17 * C and states[5]["alone-bytes"] == C
    assert states[70]["alone-bytes"] == 3 * C and states[70]["from"] == 69


@pytest.mark.parametrize("damage", ["l1", "l2", "unaligned", "size"])
def test_damage_is_counted_not_followed(image, damage):
    data = bytearray(image.read_bytes())
    table, = struct.unpack(">Q", data[64:72])
    l1, = struct.unpack(">Q", data[table:table + 8])
    l2, = struct.unpack(">Q", data[l1:l1 + 8])
    if damage == "l1":
        data[l1:l1 + 8] = struct.pack(">Q", 1 << 50)
    elif damage == "l2":
        l2 &= (1 << 56) - 1
        data[l2:l2 + 8] = struct.pack(">Q", (1 << 55) | 1 << 63)
    elif damage == "unaligned":
        l2 &= (1 << 56) - 1
        data[l2:l2 + 8] = struct.pack(">Q", 0x10200)
    else:
        data[table + 8:table + 12] = struct.pack(">I", 1 << 22)
    image.write_bytes(data)
    assert tree(image)["damaged-references"] >= 1
    assert "damaged" in cowimg("snapshot", "--tree", image).stdout


def test_words(tmp_path, image):
    assert "Cannot mix" in cowimg("snapshot", "--tree", "-l", image, ok=(1,)).stdout
    assert "--output is for --tree" in cowimg("snapshot", "-l", "--output=json", image,
                                              ok=(1,)).stdout
    assert "must be used with" in cowimg("snapshot", "--tree", "--output=x", image,
                                         ok=(1,)).stdout
    (tmp_path / "r").write_bytes(bytes(65536))
    assert "has no internal snapshots" in cowimg("snapshot", "--tree", tmp_path / "r",
                                                 ok=(1,)).stdout
    assert "--tree" in cowimg("--help").stdout
