"""-cpu and -smp: the same processors as the reference shows, to a native guest that asks
CPUID on each of them (cpuguest.c), and snapshots that fit one machine only."""
import subprocess
import time

import pytest

import netguest
from tools import COWVM, SLOW, blank, run
from vm import Vm

pytestmark = pytest.mark.any_kvm
L1_SHARING = 0xfff << 14                # the reference says that threads do not share them


def start(program, out, kernel, model, cpus, smp):
    return subprocess.Popen(
        [program, "-enable-kvm", "-m", "32", "-display", "none", "-vga", "none", "-net", "none",
         "-nodefaults", "-serial", "file:%s" % out, "-kernel", str(kernel), "-append",
         "cpus=%d" % cpus, "-smp", smp, "-cpu", model], stderr=subprocess.DEVNULL)


def leaves(process, out):
    """By APIC ID, leaf and subleaf."""
    end = time.monotonic() + 50 * SLOW
    try:
        while not (out.exists() and "done" in out.read_text()):
            assert process.poll() is None and time.monotonic() < end, "no answer from the guest"
            time.sleep(0.1)
    finally:
        process.kill()
        process.wait()
    lines = [[int(word, 16) for word in line.split()[1:]] for line in out.read_text().split("\n")
             if line.startswith("cpuid")]
    ids = {cpu: regs[1] >> 24 for cpu, leaf, _, *regs in lines if leaf == 1}
    return {(ids[cpu], leaf, sub): regs for cpu, leaf, sub, *regs in lines}


def comparable(key, regs):
    _, leaf, sub = key
    if leaf == 4 and sub < 2:
        return [regs[0] & ~L1_SHARING] + regs[1:]
    if leaf == 0x80000008:              # ECX is AMD's
        return regs[:2]
    return regs


@pytest.mark.parametrize("model, cpus, smp", [
    ("EPYC,check=off", 4, "4,sockets=2,cores=1,threads=2"),
    ("Haswell-v2,check=off,vendor=GenuineIntel,model-id=some text,stepping=5,-nx", 2,
     "2,sockets=1,cores=2,threads=1"),
])
def test_the_guest_sees_what_it_sees_on_the_reference(tmp_path, model, cpus, smp):
    kernel = netguest.kernel(tmp_path, "cpuguest")
    names = [(COWVM, tmp_path / "ours"), ("qemu-system-x86_64", tmp_path / "theirs")]
    processes = [start(program, out, kernel, model, cpus, smp) for program, out in names]
    ours, theirs = [leaves(p, out) for p, (_, out) in zip(processes, names)]
    assert len({key[0] for key in ours}) == cpus
    for key in sorted({*ours, *theirs}):
        nothing = [0, 0, 0, 0]
        assert comparable(key, ours.get(key, nothing)) == \
            comparable(key, theirs.get(key, nothing)), "APIC ID %d, leaf %x.%x" % key


def test_a_snapshot_of_another_cpu_is_refused_with_the_difference(tmp_path):
    disk = blank(tmp_path / "disk.qcow2")
    with Vm("-vga", "none", "-S", "-cpu", "qemu64,check=off", "-hda", disk) as vm:
        assert vm.monitor("savevm s") == ""
        assert vm.monitor("loadvm s") == ""
    with Vm("-vga", "none", "-S", "-cpu", "qemu64,check=off,-nx", "-hda", disk) as vm:
        said = vm.monitor("loadvm s")
        assert "cpuid 80000001.0" in said
        assert said.endswith("Error: Snapshot 's' is of a machine that differs from this one")


def test_words_are_those_of_the_reference():
    for option in ("foo", "qemu64,+foo", "host,+vmx,+svm,enforce"):
        said = [run(program, "-enable-kvm", "-S", "-display", "none", "-nodefaults", "-cpu", option,
                    ok=(1,)).stdout
                for program in (COWVM, "qemu-system-x86_64")]
        assert said[0].strip().split(": ")[-1] == said[1].strip().split(": ")[-1]
    listed = run(COWVM, "-cpu", "help").stdout
    for name in ("x86 Haswell-noTSX ", "x86 486 ", "x86 EPYC-Milan ", "x86 host ", " avx512f "):
        assert name in listed
