"""Key slots of LUKS images, changed by amend."""
import pytest

from lib.crypt import KINDS, SECRET, blkio, create, opts, tool
from lib.tools import cowimg, qemu_img, run

NEW = ["--object", "secret,id=n,data=newpw"]


def amend(which, kind, image, words, *flags, ok=(0,)):
    prefix = KINDS[kind][2]
    text = ",".join(prefix + w for w in words.split())
    for _ in range(30):
        done = run(tool(which), "amend", *flags, *SECRET, *NEW, "--image-opts", opts(kind, image),
                   "-o", text, ok=None)
        if "Unable to get accurate CPU usage" not in done.stdout:
            break
    assert done.returncode in ok, done.stdout
    return done.stdout.replace("cowimg:", "qemu-img:")


def opens(image, passphrase, kind):
    for which in ("ours", "reference"):
        text = opts(kind, image)
        objects = ["--object", "secret,id=s,data=" + passphrase]
        done = run(tool(which), "map", *objects, "--image-opts", text, ok=(0, 1))
        yield "Invalid password" not in done.stdout


@pytest.mark.parametrize("kind", ["luks", "qcow2-luks"])
@pytest.mark.parametrize("maker", ["ours", "reference"])
def test_key_slots_change_both_ways(tmp_path, kind, maker):
    other = "reference" if maker == "ours" else "ours"
    image = create(maker, kind, tmp_path / "a")
    blkio(kind, image, "write -P 3 0 1M")
    amend(other, kind, image, "state=active new-secret=n iter-time=10")
    assert all(opens(image, "newpw", kind)) and all(opens(image, "abc123", kind))
    amend(maker, kind, image, "state=active new-secret=n iter-time=10 keyslot=6")
    amend(other, kind, image, "state=inactive keyslot=1")
    assert all(opens(image, "newpw", kind))
    amend(maker, kind, image, "state=inactive old-secret=s")
    assert not any(opens(image, "abc123", kind))
    assert all(opens(image, "newpw", kind))
    blkio(kind, image, "read -P 3 0 1M", passphrase="newpw")
    assert cowimg("info", image).stdout == qemu_img("info", image).stdout


MISTAKES = ["state=active", "new-secret=n", "state=foo", "state=inactive",
            "state=inactive keyslot=5", "state=inactive keyslot=9",
            "state=inactive new-secret=n", "state=inactive keyslot=0 old-secret=n",
            "state=inactive old-secret=n", "state=inactive keyslot=0",
            "state=inactive old-secret=s", "state=active new-secret=n keyslot=0 iter-time=10",
            "state=active new-secret=n keyslot=8", "state=active new-secret=z",
            "state=active new-secret=n old-secret=s"]


@pytest.mark.parametrize("kind", ["luks", "qcow2-luks"])
def test_mistakes_are_told_in_the_reference_s_words(tmp_path, kind):
    image = create("ours", kind, tmp_path / "a")
    for words in MISTAKES:
        assert amend("ours", kind, image, words, ok=(1,)) == \
            amend("reference", kind, image, words, ok=(1,)), words
    assert all(opens(image, "abc123", kind))


def test_only_luks_has_key_slots(tmp_path):
    image = create("ours", "qcow2-aes", tmp_path / "a")
    words = "state=inactive keyslot=0"
    assert amend("ours", "qcow2-aes", image, words, ok=(1,)) == \
        amend("reference", "qcow2-aes", image, words, ok=(1,))


def test_the_last_slot_goes_only_by_force(tmp_path):
    image = create("ours", "luks", tmp_path / "a")
    amend("ours", "luks", image, "state=inactive keyslot=0", "--force")
    assert not any(opens(image, "abc123", "luks"))
