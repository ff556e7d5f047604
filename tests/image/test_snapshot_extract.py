"""cowimg snapshot -e: one snapshot's disk becomes an image, as `qemu-img convert -l` makes it."""
import signal
import subprocess
import time

import pytest

from tools import COWIMG, SLOW, cowimg, qemu_img, qemu_io, run


@pytest.fixture
def image(tmp_path):
    """Three snapshots and an active state, all different."""
    base, path = tmp_path / "base.qcow2", tmp_path / "a.qcow2"
    qemu_img("create", "-q", "-f", "qcow2", base, "8M")
    qemu_io(base, "write -P 9 6M 1M")
    qemu_img("create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
    for i, name in enumerate(("one", "two", "a, b")):
        qemu_io(path, "write -P %d %dM 1536k" % (i + 1, i), "write -z %dM 100k" % (i + 3))
        qemu_img("snapshot", "-c", name, path)
    qemu_io(path, "write -P 7 0 8M")
    return path


@pytest.mark.parametrize("fmt, options", [
    ("raw", ()), ("qcow2", ()), ("qcow2", ("-o", "cluster_size=4k,compat=0.10")),
    ("qcow2", ("-o", "extended_l2=on"))])
@pytest.mark.parametrize("name, stamp", [("one", "1"), ("2", "2"), ("a, b", "3")])
def test_what_comes_out_is_what_the_reference_extracts(tmp_path, image, name, stamp, fmt, options):
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    cowimg("snapshot", "-e", name, "-O", fmt, *options, image, ours)
    qemu_img("convert", "-l", name, "-O", fmt, *options, image, theirs)
    compared = qemu_img("compare", "-s", "-f", fmt, "-F", fmt, ours, theirs).stdout
    assert "Images are identical." in compared
    qemu_io(ours, "read -P %s %dM 512k" % (stamp, int(stamp) - 1), "read -P 9 6500k 500k", fmt=fmt)
    if fmt == "qcow2":
        qemu_img("check", ours)


def test_the_image_stays_and_the_size_is_the_snapshots(tmp_path, image):
    qemu_img("resize", "-q", image, "12M")
    before = image.read_bytes()
    cowimg("snapshot", "-e", "two", image, tmp_path / "out")     # raw, as convert
    assert image.read_bytes() == before
    assert (tmp_path / "out").stat().st_size == 8 << 20


def test_progress_goes_to_the_end(tmp_path, image):
    assert "(100.00/100%)" in cowimg("snapshot", "-p", "-e", "two", image, tmp_path / "out").stdout


@pytest.mark.parametrize("args, words", [
    (("-e", "nosuch", "IMAGE", "OUT"),
     "Could not extract snapshot 'nosuch': snapshot not found"),
    (("-e", "one", "IMAGE"), "Expecting one image file name and the name of the image to make"),
    (("-e", "one", "-l", "IMAGE", "OUT"), "Cannot mix '-l', '-a', '-c', '-d', '-e', '--tree'"),
    (("-l", "-O", "qcow2", "IMAGE"), "-O, -o and -p are for -e"),
    (("-e", "one", "-O", "nosuch", "IMAGE", "OUT"), "Unknown file format 'nosuch'"),
    (("-e", "one", "-o", "nosuch=1", "IMAGE", "OUT"), "nosuch"),
    (("-e", "one", "NOFILE", "OUT"), "Could not open"),
    (("-e", "one", "-O", "qcow2", "IMAGE", "IMAGE"), "lock"),
])
def test_errors_are_said_and_leave_nothing(tmp_path, image, args, words):
    before = image.read_bytes()
    names = {"IMAGE": image, "OUT": tmp_path / "out", "NOFILE": tmp_path / "no"}
    done = cowimg("snapshot", *(names.get(a, a) for a in args), ok=(1,))
    assert words in done.stdout
    assert not (tmp_path / "out").exists()
    assert image.read_bytes() == before


def test_help_for_options_of_the_format(tmp_path, image):
    out = tmp_path / "out"
    text = cowimg("snapshot", "-e", "one", "-O", "qcow2", "-o", "help", image, out).stdout
    assert "cluster_size" in text and not out.exists()


def test_a_full_disk_leaves_no_target(tmp_path, image):
    import resource

    def narrow():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    done = run(COWIMG, "snapshot", "-e", "a, b", "-O", "qcow2", image, tmp_path / "out", ok=(1,),
               preexec_fn=narrow)
    assert "error" in done.stdout
    assert not (tmp_path / "out").exists()


def test_an_interruption_leaves_no_target(tmp_path):
    path, out = tmp_path / "big.qcow2", tmp_path / "out"
    qemu_img("create", "-q", "-f", "qcow2", path, "256M")
    qemu_io(path, "write -P 1 0 256M")
    qemu_img("snapshot", "-c", "one", path)
    for _ in range(8):          # some runs may be over too soon
        with subprocess.Popen([COWIMG, "snapshot", "-e", "one", "-O", "qcow2", path, out],
                              stderr=subprocess.PIPE) as process:
            while process.poll() is None and not (out.exists() and out.stat().st_size > 2 << 20):
                time.sleep(0.0005)
            process.send_signal(signal.SIGINT)
            words = process.communicate(timeout=30 * SLOW)[1]
        if process.returncode:
            break
        out.unlink()
    assert process.returncode == 1 and b"interrupted" in words
    assert not out.exists()
