"""cowimg amend against the reference: words, and images that both call sound."""
import json

import pytest

from lib.tools import check_image, cowimg, qemu_img, qemu_io, read_disk

BAD = """
-|-o|-o help i.q|-f qcow2 -o help|-f raw -o help|i.q|-o compat=0.10|-o foo=1 i.q|-o compat=2 i.q
-o cluster_size=4096 i.q|-o preallocation=full i.q|-o encryption=on i.q|-o encrypt.format=luks i.q
-o refcount_bits=3 i.q|-o refcount_bits=128 i.q|-o refcount_bits=0 i.q|-o compat=v2 -o size=1M i.q
-o refcount_bits=8,compat=0.10 i.q|-o lazy_refcounts=on,compat=0.10 i.q|-o size=x i.q
-o data_file=x i.q|-o data_file_raw=on i.q|-o data_file_raw=off i.q|-o backing_file=bk i.q
-o backing_fmt=raw i.q|-o backing_file=bk,backing_fmt=raw i.q|-o backing_file= i.q
-o extended_l2=on i.q|-o compression_type=zstd i.q|-f raw -o size=2M r.raw|-f raw -o foo=1 r.raw
-o compat=1.1 nosuch.q|-t foo -o compat=1.1 i.q|-q -o compat=0.10 i.q|--bogus i.q
-o compat=1.1 i.q i.q|-f nosuch -o compat=1.1 i.q|-U -o compat=1.1 i.q|-o nocow=on i.q
--image-opts -f qcow2 -o compat=1.1 driver=qcow2,file.filename=i.q
--image-opts -o compat=0.10 driver=qcow2,file.filename=i.q
-o lazy_refcounts=maybe i.q|-o compat= i.q|-o compat i.q|-o encrypt.iter-time=10 i.q
-o encrypt.state=active i.q|-f nosuch -o help|--force -o refcount_bits=64 i.q|-o size=100 i.q
-o backing_file=r.raw o.q|-o backing_file=r.raw,backing_fmt=raw o.q|-o backing_fmt=raw o.q
-o compat=0.10 bits8.q|-o compat=0.10 snap.q|-o refcount_bits=1 shared.q
-o refcount_bits=2 shared.q|-o compat=v3 i.q|-o compat=0.10 zsnap.q
""".strip().replace("\n", "|").split("|")


def make_images(folder):
    def create(name, *args):
        qemu_img("create", "-f", "qcow2", *args, name, cwd=folder)

    create("i.q", "-o", "size=4M")
    qemu_img("create", "-f", "raw", "r.raw", "1M", cwd=folder)
    create("o.q", "-b", "r.raw", "-F", "raw")
    create("bits8.q", "-o", "refcount_bits=8,size=4M")
    create("snap.q", "-o", "size=4M")
    qemu_img("snapshot", "-c", "s", "snap.q", cwd=folder)
    qemu_img("resize", "snap.q", "8M", cwd=folder)
    create("zsnap.q", "-o", "size=4M,compression_type=zstd")
    qemu_img("snapshot", "-c", "s", "zsnap.q", cwd=folder)
    qemu_img("resize", "zsnap.q", "8M", cwd=folder)
    create("shared.q", "-o", "refcount_bits=8,size=4M")
    qemu_io(folder / "shared.q", "write 0 64k")
    for s in "ab":
        qemu_img("snapshot", "-c", s, "shared.q", cwd=folder)
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def info(image):
    data = json.loads(qemu_img("info", "--output=json", image).stdout)
    return data["virtual-size"], data["format-specific"]["data"]


def test_command_lines_say_what_the_reference_says(tmp_path):
    images = make_images(tmp_path)
    for line in BAD:
        seen = []
        for tool in (qemu_img, cowimg):
            for name, data in images.items():
                (tmp_path / name).write_bytes(data)
            done = tool("amend", *(line.split() if line != "-" else []), cwd=tmp_path, ok=None)
            named = next((w for w in line.split() if w in images and w.endswith(".q")), "i.q")
            after = info(tmp_path / named)
            seen.append((done.returncode, done.stdout.replace("cowimg", "qemu-img"), after))
        assert seen[0] == seen[1], line
        check_image(tmp_path / named)


PATTERN = ["write -P 1 0 300k", "write -z 512k 512k", "write -P 2 1M 64k", "write -z 1M 32k",
           "write -z -u 0 64k", "write -z 3M 1M", "discard 2M 64k"]


@pytest.mark.parametrize("cluster", [512, 4096, 65536])
@pytest.mark.parametrize("backing", [None, "3500k", "4M"])
def test_down_to_version_2_and_up_again(tmp_path, cluster, backing):
    image = tmp_path / "i.q"
    args = []
    if backing:
        qemu_img("create", "-f", "raw", tmp_path / "b", backing)
        qemu_io(tmp_path / "b", "write -P 9 0 %s" % backing, fmt="raw")
        args = ["-b", tmp_path / "b", "-F", "raw"]
    cowimg("create", "-f", "qcow2", "-o", "cluster_size=%d" % cluster, *args, image, "4M")
    qemu_io(image, *PATTERN)
    qemu_img("snapshot", "-c", "one", image)
    qemu_io(image, "write -z 100k 200k", "write -P 5 1M 4k")
    qemu_img("snapshot", "-c", "two", image)
    qemu_io(image, "write -P 6 3M 64k", "write -z 0 32k")
    qemu_img("bitmap", "--add", image, "gone")

    def contents():
        texts = [read_disk(image, 0, 4 << 20)]
        for s in ("one", "two"):
            qemu_img("convert", "-l", s, "-O", "raw", image, tmp_path / "s")
            texts.append((tmp_path / "s").read_bytes())
        return texts

    before = contents()
    cowimg("amend", "-o", "compat=v2", image)
    check_image(image)
    assert info(image)[1]["compat"] == "0.10"
    assert "bitmaps" not in qemu_img("info", image).stdout
    assert contents() == before
    cowimg("amend", "-o", "compat=1.1,lazy_refcounts=on", image)
    check_image(image)
    assert info(image)[1]["lazy-refcounts"] is True
    assert contents() == before
    qemu_img("amend", "-o", "compat=0.10", image)
    cowimg("check", image)
    qemu_img("amend", "-o", "compat=1.1", image)
    assert contents() == before


@pytest.mark.parametrize("cluster", [512, 65536])
def test_every_width_of_refcounts(tmp_path, cluster):
    image = tmp_path / "i.q"
    cowimg("create", "-f", "qcow2", "-o", "cluster_size=%d" % cluster, image, "8M")
    qemu_io(image, "write -P 3 0 700k", "write -P 4 7M 300k", "discard 0 64k")
    before = read_disk(image, 0, 8 << 20)
    for bits in (1, 64, 2, 32, 4, 16, 8, 64, 1):
        cowimg("amend", "-o", "refcount_bits=%d" % bits, image)
        assert info(image)[1]["refcount-bits"] == bits
        check_image(image)
        qemu_io(image, "write -P 4 7M 4k")
    assert read_disk(image, 0, 8 << 20) == before
    cowimg("amend", "-o", "refcount_bits=16", image)
    qemu_img("snapshot", "-c", "s", image)
    qemu_img("snapshot", "-c", "t", image)
    done = cowimg("amend", "-o", "refcount_bits=1", image, ok=(1,))
    assert "Cannot decrease refcount entry width to 1 bits" in done.stdout
    cowimg("amend", "-o", "refcount_bits=2", image)
    check_image(image)


def test_progress_ends_with_100_percent(tmp_path):
    image = tmp_path / "i.q"
    cowimg("create", "-f", "qcow2", image, "8M")
    assert cowimg("amend", "-p", "-o", "refcount_bits=32", image).stdout.endswith("(100.00/100%)\n")
    assert cowimg("amend", "-p", "-q", "-o", "refcount_bits=8", image).stdout == ""


def test_names_of_features_come_with_version_3(tmp_path):
    image = tmp_path / "i.q"
    qemu_img("create", "-f", "qcow2", "-o", "compat=0.10", image, "1M")
    assert b"dirty bit" not in image.read_bytes()
    cowimg("amend", "-o", "compat=1.1", image)
    assert b"dirty bit" in image.read_bytes()[:512]
    cowimg("amend", "-o", "size=3M", image)
    assert info(image)[0] == 3 << 20
    check_image(image)
