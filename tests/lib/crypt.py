"""Encrypted images in tests: making them, opening them, and what is in them."""
import os
import re

from lib.tools import COWIMG, TOP, cowimg, qemu_img, run

BLKIO = str(TOP / "build" / os.environ.get("COWVM_BUILD", "release") / "tests/image/blkio")
SECRET = ["--object", "secret,id=s,data=abc123"]
PASS = "abc123"
# How to say each kind of image to `create`, and to open it.
KINDS = {
    "qcow2-luks": ("qcow2", ["encrypt.format=luks", "encrypt.key-secret=s"], "encrypt."),
    "qcow2-aes": ("qcow2", ["encrypt.format=aes", "encrypt.key-secret=s"], "encrypt."),
    "luks": ("luks", ["key-secret=s"], ""),
}


def again(*command, **kw):
    """The reference's LUKS creation fails at times on a busy host: it measures time."""
    for _ in range(30):
        done = run(*command, ok=None, **kw)
        if "Unable to get accurate CPU usage" not in done.stdout:
            break
    assert done.returncode == 0, done.stdout
    return done


def tool(which):
    return COWIMG if which == "ours" else "qemu-img"


def create(which, kind, path, size="4M", extra=()):
    fmt, options, prefix = KINDS[kind]
    options = options + list(extra)
    if kind != "qcow2-aes" and not any("iter-time" in o for o in options):
        options.append(prefix + "iter-time=10")
    again(tool(which), "create", "-q", "-f", fmt, *SECRET, "-o", ",".join(options), path, size)
    return path


def opts(kind, path):
    fmt, _, prefix = KINDS[kind]
    return "driver=%s,%skey-secret=s,file.filename=%s" % (fmt, prefix, path)


def qemu_io(image_opts, *commands, ok=True):
    args = [a for c in commands for a in ("-c", c)]
    done = run("qemu-io", *SECRET, "--image-opts", image_opts, *args)
    bad = "failed" in done.stdout.lower() or "error" in done.stdout.lower()
    assert bad != ok, done.stdout
    return done.stdout


def blkio(kind, path, *commands, **kw):
    return run(BLKIO, "-f", KINDS[kind][0], "-k", kw.pop("passphrase", PASS), path, *commands, **kw)


def io(which, kind, path, *commands):
    if which == "ours":
        return blkio(kind, path, *commands)
    return qemu_io(opts(kind, path), *commands)


def check(kind, path):
    if kind == "luks":
        return
    for which in ("ours", "reference"):
        done = run(tool(which), "check", *SECRET, "--image-opts", opts(kind, path))
        assert "No errors were found on the image." in done.stdout


def content(kind, path):
    """Guest bytes as the reference reads them."""
    raw = str(path) + ".raw"
    qemu_img("convert", *SECRET, "--image-opts", opts(kind, path), "-O", "raw", raw)
    with open(raw, "rb") as f:
        return f.read()


def encrypted(path, kind, sector, passphrase="abc123"):
    """An encrypted disk that starts with the boot sector, written by the reference."""
    secret = ["--object", "secret,id=s,data=" + passphrase]
    fmt, options, prefix = KINDS[kind]
    if kind != "qcow2-aes":
        options = options + [prefix + "iter-time=10"]
    cowimg("create", "-q", "-f", fmt, *secret, "-o", ",".join(options), path, "16M")
    blob = str(path) + ".part"
    with open(blob, "wb") as f:
        f.write(sector)
    out = run("qemu-io", *secret, "--image-opts", opts(kind, path), "-c",
              "write -s %s 0 512" % blob).stdout
    assert "wrote 512/512" in out, out
    return path


def answer(vm, *passphrases, name, command="cont"):
    """Type the command and a passphrase at each question; what was printed in all."""
    vm.spawn.send(command + "\r")
    text = ""
    for p in passphrases:
        vm.spawn.expect(re.escape(name) + r" is encrypted\.\s+Password: ")
        text += vm.spawn.before.decode()
        vm.spawn.send(p + "\r")
    vm.spawn.expect(r"\(cowvm\) ")
    return (text + vm.spawn.before.decode()).replace("\r", "")
