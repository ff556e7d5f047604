"""Random operations by both tools on copies of an image: see tests/fuzz/differential."""
import subprocess

import pytest

from tools import SLOW, TOP, check_image, cowimg, qemu_img, qemu_io

PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_random_sequences_end_the_same_by_either_tool(part):
    """A fixed range of seeds, as many as a few seconds allow; all looks by both tools and
    many more seeds: make fuzz-nightly."""
    count = 50 if SLOW == 1 else 12
    done = subprocess.run([TOP / "tests/fuzz/differential", "--seed", str(1000 * part), "-j", "2",
                           "-l", "--count", str(count), "--seconds", "7"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, done.stdout[-8000:]


@pytest.mark.parametrize("backing", ["", "64k"])
@pytest.mark.parametrize("compat", ["0.10", "1.1"])
def test_rebase_keeps_zeros_that_only_the_new_backing_file_has_data_at(tmp_path, compat, backing):
    """Seed 3039: in a v2 image whose old backing file is missing or shorter, the reference
    writes nothing there, and then shows the new file's data."""
    top, old, new = (tmp_path / (name + ".qcow2") for name in ("top", "old", "new"))
    qemu_img("create", "-q", "-f", "qcow2", new, "1M")
    qemu_io(new, "write -P 41 123904 2048", "write -P 42 935424 5632")
    args = ["-o", "compat=%s,cluster_size=16k" % compat]
    if backing:
        qemu_img("create", "-q", "-f", "qcow2", old, backing)
        args += ["-b", old, "-F", "qcow2"]
    qemu_img("create", "-q", "-f", "qcow2", *args, top, "948736")
    qemu_io(top, "write -P 221 837632 63488")
    cowimg("rebase", "-b", new, "-F", "qcow2", top)
    qemu_io(top, "read -P 0 0 837632", "read -P 221 837632 63488", "read -P 0 901120 47616")
    check_image(top)
