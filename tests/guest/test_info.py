"""What `info` says of interrupt controllers and page tables, as the reference does."""
import re

import pytest

from tools import COWVM
from vm import Vm

pytestmark = pytest.mark.any_kvm
REFERENCE = "qemu-system-x86_64"
COMMANDS = ("info lapic", "info pic", "info mem", "info tlb", "info memory_size_summary")


def answers(program):
    with Vm("-S", "-vga", "none", serial=False, program=program) as vm:
        said = {c: vm.monitor(c).split("\n") for c in COMMANDS}
    # The reference shows a line over and over as it is typed, and warns of CPU features;
    # LINT0 is here as KVM has it, open for the PIC.
    return {c: "\n".join(x for x in lines
                         if "inf" not in x[:6] and "warning" not in x and x[:4] != "LVT0")
            for c, lines in said.items()}


def test_a_machine_before_its_first_instruction_is_that_of_the_reference():
    ours, theirs = answers(COWVM), answers(REFERENCE)
    for command in COMMANDS:
        # Pins that firmware or a board has not touched; lines that are up from the start.
        clean = [re.sub(r"irr=\w+", "irr", re.sub(r"elcr=\w+", "elcr", text[command]))
                 for text in (ours, theirs)]
        assert clean[0].split() == clean[1].split(), command


def test_a_guest_without_page_tables_says_so():
    with Vm("-vga", "none", memory=64) as vm:
        vm.wait_bios("No bootable device")
        assert vm.monitor("info mem") == "PG disabled"
        assert "APIC enabled" in vm.monitor("info lapic")
        assert "irq_base=08" in vm.monitor("info pic") and "pin 23" in vm.monitor("info pic")
        assert vm.monitor("info lapic 7") == "Error: CPU#7 not available"
        assert vm.monitor("info memdev").startswith("memory backend: pc.ram\n  size:  67108864\n")
