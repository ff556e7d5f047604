"""A server of an image in which something fails: it says so to its client and goes on, or ends
with a message, and the image is in order, each sector old or new."""
import subprocess

import pytest

from faults import MOST, SCARCE, faults, qcow2, surroundings, work  # noqa: F401 (a fixture)
from nbd import Server
from tools import COWIMG, SLOW, run

LINES = ("write -P 7 10k 70k", "write -z 256k 64k", "flush", "read 0 1M", "discard 512k 128k",
         "write -P 8 700k 40k", "flush", "read 200k 600k", "write -P 9 1000k 10k")


def serve(folder, program, env):
    """(hurt, words) of a server with one client."""
    try:
        server = Server(folder, "top.img", "-f", "qcow2", "--discard=unmap",
                        program=program, cwd=folder, env=env)
    except AssertionError as e:                         # it ended at once
        return True, str(e)
    args = [a for line in LINES for a in ("-c", line)]
    with subprocess.Popen(["qemu-io", "-f", "raw", "-d", "unmap", *args, server.uri],
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as client:
        said, _ = client.communicate(timeout=30 * SLOW)
    if server.child.poll() is None:
        server.child.terminate()
    words, _ = server.child.communicate(timeout=20 * SLOW)
    assert server.child.returncode in (0, 1), (server.child.returncode, words)
    return server.child.returncode or client.returncode or "failed" in said, words + said


def content(folder, name):
    run(COWIMG, "convert", "-O", "raw", name, "flat", cwd=folder)
    data = (folder / "flat").read_bytes()
    return [data[i:i + 512] for i in range(0, len(data), 512)]


@pytest.mark.parametrize("kind", ["memory", "files"])
def test_what_fails_is_told_and_harmless(work, kind):
    qcow2(work, "fresh", "1M", "cluster_size=4k",
          pattern=("write -P 1 0 300k", "write -P 2 600k 99k"))
    image, count = work / "top.img", work / "count"

    def attempt(nth, counting=None):
        image.write_bytes((work / "fresh").read_bytes())
        if kind == "memory":
            return serve(work, SCARCE, surroundings(counting, COWVM_SCARCE=str(nth)))
        return serve(work, COWIMG, surroundings(counting, **faults("rwst %d 5" % nth)))
    hurt, words = attempt(1000000, count)
    assert not hurt, words
    before, after, calls = content(work, "fresh"), content(work, "top.img"), int(count.read_text())
    assert before != after
    total = 0
    for nth in range(1, calls + 1, max(1, calls // (3 * MOST))):
        hurt, words = attempt(nth)
        total += bool(hurt)
        done = run("qemu-img", "check", "top.img", cwd=work, ok=(0, 3))
        assert all(now in (a, b) for now, a, b in zip(content(work, "top.img"), before, after)), (
            nth, words, done.stdout)
    assert total > 1
