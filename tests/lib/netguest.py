"""Guests in C (tests/guest/tiny.h) as multiboot files: the one of netguest.c and others."""
from pathlib import Path

from beat import LAYOUT
from tools import TOP, run


def kernel(work, name="netguest"):
    work = Path(work)
    obj, out = work / (name + ".o"), work / name
    (work / "guest.ld").write_text(LAYOUT)
    run("gcc", "-m32", "-O2", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-nostdlib",
        "-fno-tree-loop-distribute-patterns", "-Wall", "-Werror", "-c", "-o", obj,
        TOP / ("tests/guest/%s.c" % name))
    run("ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-T", work / "guest.ld", "-e",
        "_start", "-o", out, obj)
    return out
