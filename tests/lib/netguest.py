"""The guest of tests/guest/netguest.c as a multiboot file."""
from pathlib import Path

from beat import LAYOUT
from tools import TOP, run


def kernel(work):
    work = Path(work)
    obj, out = work / "netguest.o", work / "netguest"
    (work / "netguest.ld").write_text(LAYOUT)
    run("gcc", "-m32", "-O2", "-ffreestanding", "-fno-pic", "-fno-stack-protector", "-nostdlib",
        "-fno-tree-loop-distribute-patterns", "-c", "-o", obj, TOP / "tests/guest/netguest.c")
    run("ld", "-m", "elf_i386", "-N", "--no-warn-rwx-segments", "-T", work / "netguest.ld", "-e",
        "_start", "-o", out, obj)
    return out
