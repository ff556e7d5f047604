"""Packs a raw disk image into a qcow2 file, without any program but Python.

Writes version 3, 64 KiB clusters, 16-bit refcounts; clusters of zeros are left
out.  Layout, in clusters: header, refcount table, refcount blocks, L1, L2 tables,
data.  Format: docs/interop/qcow2.txt of the QEMU project, sections Header,
Host cluster management, Cluster mapping.
"""
import os
import struct

CLUSTER_BITS = 16
CLUSTER = 1 << CLUSTER_BITS
ENTRIES = CLUSTER // 8                  # in an L2 table
REFS = CLUSTER // 2                     # in a refcount block
COPIED = 1 << 63


def ceil_div(a, b):
    return -(-a // b)


def data_clusters(raw, size):
    """Numbers of the clusters of the raw file that are not all zeros."""
    zeros = bytes(CLUSTER)
    found, at = [], 0
    while at < size:
        try:
            at = os.lseek(raw.fileno(), at, os.SEEK_DATA) & ~(CLUSTER - 1)
        except OSError:                 # no data behind this place
            break
        raw.seek(at)
        data = raw.read(CLUSTER)
        if data != zeros[:len(data)]:
            found.append(at // CLUSTER)
        at += CLUSTER
    return found


def layout(n_l1, n_l2, n_data):
    """Cluster numbers of each part; the refcount blocks count themselves too."""
    blocks = 1
    while True:
        total = 2 + blocks + ceil_div(n_l1 * 8, CLUSTER) + n_l2 + n_data
        if ceil_div(total, REFS) <= blocks:
            break
        blocks += 1
    l1 = 2 + blocks
    l2 = l1 + ceil_div(n_l1 * 8, CLUSTER)
    return blocks, l1, l2, l2 + n_l2, total


def header(size, n_l1, l1):
    return struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, CLUSTER_BITS, size, 0, n_l1,
                       l1 * CLUSTER, 1 * CLUSTER, 1, 0, 0) + \
        struct.pack(">QQQIIB7xII", 0, 0, 0, 4, 112, 0, 0, 0)


def pack(raw_path, out_path):
    size = os.path.getsize(raw_path)
    assert size % 512 == 0
    with open(raw_path, "rb") as raw, open(out_path + ".new", "wb") as out:
        used = data_clusters(raw, size)
        n_l1 = ceil_div(size, CLUSTER * ENTRIES)
        tables = sorted({c // ENTRIES for c in used})
        blocks, l1, l2, data, total = layout(n_l1, len(tables), len(used))
        assert blocks <= ENTRIES

        l1_table = [0] * n_l1
        l2_tables = {t: [0] * ENTRIES for t in tables}
        for i, t in enumerate(tables):
            l1_table[t] = (l2 + i) * CLUSTER | COPIED
        for i, c in enumerate(used):
            l2_tables[c // ENTRIES][c % ENTRIES] = (data + i) * CLUSTER | COPIED

        def put(cluster, content):
            out.seek(cluster * CLUSTER)
            out.write(content)

        put(0, header(size, n_l1, l1))
        put(1, struct.pack(">%dQ" % blocks, *[(2 + i) * CLUSTER for i in range(blocks)]))
        counts = [1] * total + [0] * (blocks * REFS - total)
        put(2, struct.pack(">%dH" % len(counts), *counts))
        put(l1, struct.pack(">%dQ" % n_l1, *l1_table))
        for i, t in enumerate(tables):
            put(l2 + i, struct.pack(">%dQ" % ENTRIES, *l2_tables[t]))
        for i, c in enumerate(used):
            raw.seek(c * CLUSTER)
            put(data + i, raw.read(CLUSTER).ljust(CLUSTER, b"\0"))
        out.truncate(total * CLUSTER)
    os.rename(out_path + ".new", out_path)
