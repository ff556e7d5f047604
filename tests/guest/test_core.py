"""vmm/core under KVM: a C program that runs guests of a few instructions."""
import os
import subprocess

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = os.path.join("build", os.environ.get("BUILD", "release"), "tests/guest/core_kvm")


def test_vcpus_memory_and_buses_work_under_kvm():
    run = subprocess.run([PROGRAM], cwd=TOP, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                         text=True, timeout=300)
    print(run.stdout)
    assert run.returncode == 0
    assert "[  PASSED  ]" in run.stdout
