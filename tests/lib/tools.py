"""Programs of ours and of others that tests run."""
import json
import os
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
COWVM = os.environ.get("COWVM") or str(TOP / "build/cowvm")
COWIMG = os.environ.get("COWIMG") or str(TOP / "build/cowimg")
BUILD = os.environ.get("COWVM_BUILD", "release")
SLOW = float(os.environ.get("COWVM_TEST_SLOW", 1))
DEMO = TOP / "build/demo"


def run(*command, ok=(0,), timeout=60, **kw):
    """Run to the end; the result's status must be one of ok (None: any)."""
    done = subprocess.run([str(c) for c in command], stdout=subprocess.PIPE, text=True,
                          stderr=subprocess.STDOUT, timeout=timeout * SLOW,
                          stdin=kw.pop("stdin", subprocess.DEVNULL), **kw)
    assert ok is None or done.returncode in ok, \
        "%s: status %d\n%s" % (" ".join(map(str, command)), done.returncode, done.stdout)
    return done


def cpu_seconds():
    """What programs that we have run and waited for have used of the processors."""
    t = os.times()
    return t.children_user + t.children_system


def cowimg(*args, **kw):
    return run(COWIMG, *args, **kw)


def qemu_img(*args, **kw):
    return run("qemu-img", *args, **kw)


def qemu_io(image, *commands, fmt="qcow2"):
    """qemu-io's output of these commands on the image."""
    args = []
    for c in commands:
        args += ["-c", c]
    done = run("qemu-io", "-f", fmt, *args, image)
    assert "error" not in done.stdout.lower() and "failed" not in done.stdout.lower(), done.stdout
    return done.stdout


def check_image(image):
    """Both tools must call the image clean; returns the reference's report."""
    ours = cowimg("check", image)
    assert "No errors were found on the image." in ours.stdout
    report = json.loads(qemu_img("check", "--output=json", image).stdout)
    assert not report.get("corruptions") and not report.get("leaks"), report
    return report


def overlay(base, path):
    """A fresh qcow2 at path on top of base (never written to)."""
    cowimg("create", "-f", "qcow2", "-b", base, "-F", "qcow2", path)
    return path


def blank(path, size="16M"):
    cowimg("create", "-f", "qcow2", path, size)
    return path


def read_disk(image, start, length, fmt="qcow2"):
    """Guest bytes of an image, read by the reference tool."""
    raw = str(image) + ".raw"
    qemu_img("convert", "-f", fmt, "-O", "raw", image, raw)
    try:
        with open(raw, "rb") as f:
            f.seek(start)
            return f.read(length)
    finally:
        os.unlink(raw)


def file_on_disk(image, path, part_start=1 << 20):
    """Content of a file in the ext4 file system of the image's first partition."""
    raw = str(image) + ".raw"
    qemu_img("convert", "-O", "raw", image, raw)
    try:
        env = dict(os.environ, PATH=os.environ["PATH"] + ":/sbin:/usr/sbin")
        debugfs = shutil.which("debugfs", path=env["PATH"])
        done = subprocess.run([debugfs, "-R", "cat " + path, "%s?offset=%d" % (raw, part_start)],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=env, check=True)
        assert b"File not found" not in done.stderr, done.stderr
        return done.stdout
    finally:
        os.unlink(raw)


def assemble(source, work, origin=0x7C00, bits=16, size=None):
    """Machine code of GNU assembler text, loaded at origin; padded to size."""
    asm, obj, out = (Path(work) / ("guest" + s) for s in (".S", ".o", ".bin"))
    asm.write_text(".code%d\n%s\n" % (bits, source))
    run("as", "--32", "-o", obj, asm)
    run("ld", "-m", "elf_i386", "-Ttext", hex(origin), "-e", hex(origin), "--oformat", "binary",
        "-o", out, obj)
    code = out.read_bytes()
    if size:
        assert len(code) <= size, "%d bytes of code, room for %d" % (len(code), size)
        code = code.ljust(size, b"\0")
    return code


def boot_sector(source, work):
    return assemble(source, work, size=510) + b"\x55\xaa"
