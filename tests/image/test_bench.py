"""cowimg bench next to qemu-img bench: same words, same places, same complaints."""
import re
import subprocess

import pytest

from tools import COWIMG, SLOW, check_image, qemu_img, qemu_io


def image(work):
    path = work / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", path, "100M")
    return path


def bench(program, *args, cwd):
    done = subprocess.run([program, "bench", *map(str, args)], cwd=cwd, text=True,
                          timeout=60 * SLOW, stdin=subprocess.DEVNULL, capture_output=True)
    return (done.returncode, re.sub(r"in [\d.]+ seconds", "in X seconds", done.stdout),
            done.stderr.replace("qemu-img", "cowimg"))


@pytest.mark.parametrize("args", [
    ("-c", 100), ("-c", 0), ("-c", 1000, "-d", 4, "-s", "8k", "-S", "12k", "-o", "4k", "-q"),
    ("-c", 500, "-d", 4, "-w", "--flush-interval=10", "--pattern=7"),
    ("-c", 500, "-d", 4, "-w", "--flush-interval=10", "--no-drain"),
    ("-c", 10, "-s", "1k", "-o", 100, "-S", 100, "-d", 1), ("-c", 2, "-f", "qcow2", "-s", 0),
    ("-c", 1, "-i", "threads"), ("-c", 1, "-t", "none", "-n"), ("-c", 1, "-U"),
    ("-c", 2, "-s", "200M"), ("-c", 1, "-o", "200M"),
    ("--flush-interval=10",), ("-w", "--flush-interval=1"), ("-i", "foo"), ("-c", "1k"),
    ("-d", "x"), ("-w", "--pattern=300"), ("-w", "--pattern=x"), ("-o=-1",), ("-o", "-1"),
    ("-S", "-1"), ("-s", "3G"), ("-S", "3G"), ("-s", "8P"), ("-w", "--flush-interval=x"),
    ("-n", "-c", 1), ("-i", "native", "-c", 1), ("-f", "raw", "nosuch", "a"), ("-t", "foo"),
    ("-w", "-U", "-c", 1)], ids=str)
def test_it_says_what_the_reference_says(tmp_path, args):
    name = image(tmp_path).name
    ours, theirs = (bench(program, *args, name, cwd=tmp_path) for program in (COWIMG, "qemu-img"))
    assert ours == theirs


def test_writes_lie_where_the_reference_puts_them(tmp_path):
    for depth in (1, 8):
        path = image(tmp_path)
        assert bench(COWIMG, "-w", "-c", 1000, "-d", depth, "-s", "4k", "-S", "300k", "-o", "64k",
                     "--pattern=9", path, cwd=tmp_path)[0] == 0
        check_image(path)
        other = tmp_path / "b.qcow2"
        qemu_img("create", "-q", "-f", "qcow2", other, "100M")
        qemu_img("bench", "-w", "-c", 1000, "-d", depth, "-s", "4k", "-S", "300k", "-o", "64k",
                 "--pattern=9", other)
        qemu_img("compare", path, other)
        qemu_io(path, "read -P 9 64k 4k")
