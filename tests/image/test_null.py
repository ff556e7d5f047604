"""Images without content: they read as zeros, and forget."""
import json

from tools import COWIMG, run

QEMU_IMG = "qemu-img"


def info(program, *args):
    return run(program, "info", *args).stdout.replace("json:{", "json: {")


def test_what_info_says_is_what_the_reference_says():
    for args in (["null-co://"], ["--image-opts", "driver=null-aio"]):
        assert info(COWIMG, *args) == info(QEMU_IMG, *args)
    for options in ("driver=null-co,size=4M", "driver=null-aio,size=1000,latency-ns=5"):
        said = [json.loads(run(p, "info", "--output=json", "--image-opts", options).stdout)
                for p in (COWIMG, QEMU_IMG)]
        assert said[0]["virtual-size"] == said[1]["virtual-size"]
        assert said[0]["format"] == said[1]["format"]


def test_reads_zeros_and_forgets(tmp_path):
    out, full = tmp_path / "out.raw", tmp_path / "full.raw"
    run(COWIMG, "convert", "--image-opts", "driver=null-co,size=1M", "-O", "raw", out)
    assert out.read_bytes() == bytes(1 << 20)
    full.write_bytes(b"x" * (1 << 20))
    run(COWIMG, "convert", "-n", "-f", "raw", "--target-image-opts", full,
        "driver=null-co,size=1M")
    for program in COWIMG, QEMU_IMG:
        said = json.loads(run(program, "map", "--output=json", "--image-opts",
                              "driver=null-co,size=1M,read-zeroes=on").stdout)
        assert [(m["start"], m["length"], m["zero"]) for m in said] == [(0, 1 << 20, True)]


def test_what_cannot_be_is_refused():
    for args, says in ((["null-co://x"], "The only allowed filename for this driver is"),
                       (["--image-opts", "driver=null-co,zork=1"], "doesn't support the option"),
                       (["--image-opts", "driver=null-co,size=x"], "size"),
                       (["--image-opts", "driver=null-co,latency-ns=1T"], "latency-ns is")):
        said = run(COWIMG, "info", *args, ok=(1,))
        assert says in said.stdout and said.stdout.count("\n") == 1
