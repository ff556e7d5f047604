"""Names and options that say how to open: the words of both tools."""
import os
import shlex

import pytest

from pairs import Pair
from tools import cowimg, qemu_img, qemu_io, run

QCOW2_OPTIONS = """
lazy-refcounts=on lazy-refcounts=maybe overlap-check=all overlap-check=none overlap-check=foo
overlap-check.template=all overlap-check.main-header=on cache-size=1M l2-cache-size=1x
l2-cache-size=-1 l2-cache-size=4G,cache-size=1G l2-cache-entry-size=4096 l2-cache-entry-size=5
refcount-cache-size=1M cache-clean-interval=10 pass-discard-request=on pass-discard-snapshot=on
pass-discard-other=foo discard-no-unref=on detect-zeroes=unmap detect-zeroes=foo
detect-zeroes=unmap,discard=unmap discard=unmap discard=foo cache.direct=on cache.direct=foo
cache.no-flush=on cache.writeback=off read-only=off read-only=foo auto-read-only=on
force-share=on node-name=foo node-name=1% file.locking=on file.locking=foo file.aio=io_uring
file.aio=foo file.aio=native file.drop-cache=on file.pr-manager=foo encrypt.key-secret=foo
backing.driver=raw,backing.file.filename=base.raw throttling.foo=1 encrypt=foo size=10 offset=0
file=foo backing.driver=qcow2 foo=bar file.foo=bar backing= file.node-name=a%
"""
RAW_OPTIONS = """
offset=512 offset=513 offset=1048576 offset=20971520 size=512 size=513 size=20M
offset=512,size=10485760 offset=1048576,size=0 offset=foo size=foo l2-cache-size=1
offset=512,size=512,read-only=on size=0 offset=1,size=1 backing.driver=raw
backing.file.filename=x
"""
LINES = r"""
info --image-opts file.filename=nosuch
info --image-opts driver=qcow2,file.driver=foo,file.filename=nosuch
info --image-opts driver=qcow2,file.driver=file
info --image-opts driver=qcow2
info --image-opts ''
info ''
info --image-opts driver=qcow2,file.filename=
info --image-opts driver=qcow2,filename=o.qcow2
info --image-opts filename=o.qcow2
info --image-opts o.qcow2
info --image-opts driver=foo,file.filename=o.qcow2
info --image-opts driver=file,filename=o.qcow2
info --image-opts driver=file,filename=o.qcow2,foo=bar
info -f file o.qcow2
info --image-opts driver=qcow2,file.driver=raw,file.file.filename=o.qcow2
info -f qcow2 --image-opts driver=qcow2,file.filename=o.qcow2
resize --image-opts driver=raw,offset=512,size=1024,file.filename=base.raw 1M
resize --image-opts driver=qcow2,file.filename=o.qcow2,read-only=on 3M
info 'json:{'
info 'json:[]'
info 'json:'
info 'json:{}'
info 'json:"a"'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"nosuch"}}'
info -f raw 'json:{"driver":"qcow2","file":{"driver":"file","filename":"o.qcow2"}}'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":1}}'
info 'json:{"driver":"qcow2","file":"node0"}'
info 'json:{"driver":"qcow2","lazy-refcounts":"maybe", "file":{"driver":"file",\
"filename":"o.qcow2"}}'
info 'json:{"driver":"qcow2","backing":null, "file":{"driver":"file","filename":"o.qcow2"}}'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"o.qcow2"},"foo":{"bar":1,\
"baz":[1,2]}}'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"o.qcow2"},"l2-cache-size":1e3}'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"o.qcow2"},"lazy-refcounts":true}'
info 'json:{"driver":"qcow2","file":{"driver":"file","filename":"o.qcow2"},"file.filename":"x"}'
info 'json:{"driver":"qcow2","driver":"raw", "file":{"driver":"file","filename":"o.qcow2"}}'
info "json:{'driver':'qcow2','file.filename':'o.qcow2'}"
info 'json:{"driver":"qcow2","file.filename":"o.qcow2"} x'
info 'json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file",\
"filename":"o.qcow2"}}'
info --output=json 'json:{"driver":"raw","offset":512,"size":1024,"file":{"driver":"file",\
"filename":"o.qcow2"}}'
info file:o.qcow2
info foo:o.qcow2
info ./o.qcow2
info p.qcow2
info --backing-chain p.qcow2
info --backing-chain d/p.qcow2
info --backing-chain d/q.qcow2
info --backing-chain e/p.qcow2
check --image-opts driver=qcow2,file.filename=d/q.qcow2 -f qcow2
check --image-opts driver=qcow2,file.filename=d/q.qcow2
check -f foo d/q.qcow2
check -T foo d/q.qcow2
info --object foo d/q.qcow2
info --object foo,id=x d/q.qcow2
""".strip().replace("\\\n", "").split("\n")


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    work = tmp_path_factory.mktemp("names")
    raw_json = 'json:{"driver":"raw","offset":512,"file":{"driver":"file","filename":"%s"}}'
    script = [
        ("-f", "raw", "base.raw", "2M"),
        ("-f", "qcow2", "-b", "base.raw", "-F", "raw", "o.qcow2", "1M"),
        ("-f", "qcow2", "-b", raw_json % "base.raw", "-F", "raw", "p.qcow2"),
    ]
    for args in script:
        run("qemu-img", "create", "-q", *args, cwd=work)
    for name in ("d", "e"):
        os.mkdir(work / name)
    run("qemu-img", "create", "-q", "-f", "raw", "base.raw", "1M", cwd=work / "d")
    run("qemu-img", "create", "-q", "-f", "raw", "only.raw", "1M", cwd=work / "e")
    for folder, name, backing in (("d", "p.qcow2", raw_json % "base.raw"),
                                  ("d", "q.qcow2", "base.raw"),
                                  ("e", "p.qcow2", raw_json % "only.raw")):
        run("qemu-img", "create", "-q", "-f", "qcow2", "-b", backing, "-F", "raw", name,
            cwd=work / folder)
    return Pair(work)


@pytest.mark.parametrize("option", QCOW2_OPTIONS.split())
def test_a_qcow2_option_is_taken_or_refused_as_the_reference_does(pair, option):
    pair.same("info --image-opts driver=qcow2,file.filename=o.qcow2," + option)


@pytest.mark.parametrize("option", RAW_OPTIONS.split())
def test_a_raw_option_is_taken_or_refused_as_the_reference_does(pair, option):
    pair.same("info --image-opts driver=raw,file.filename=base.raw," + option)


@pytest.mark.parametrize("line", LINES)
def test_a_name_or_list_of_options_opens_as_in_the_reference(pair, line):
    pair.same(line)


def test_writing_to_a_raw_image_by_probing_is_warned_of(pair):
    code, out, err = pair.same("resize base.raw 3M")
    assert code == 0 and "probing guessed raw" in err
    assert "probing" not in pair.same("resize -f raw base.raw 2M")[2]


def test_a_window_of_a_raw_file_is_that_part_of_it(tmp_path):
    whole = tmp_path / "whole.raw"
    whole.write_bytes(b"a" * 1024 + b"b" * 2048 + b"c" * 1024)
    name = ('json:{"driver":"raw","offset":1024,"size":2048,'
            '"file":{"driver":"file","filename":"%s"}}')
    cowimg("compare", "-f", "raw", "-F", "raw", name % whole, part(tmp_path, b"b" * 2048))
    run("qemu-img", "compare", name % whole, tmp_path / "part")
    # Behind an overlay, too, and what is written stays out of the rest.
    top = tmp_path / "top.qcow2"
    cowimg("create", "-f", "qcow2", "-b", name % whole, "-F", "raw", top)
    qemu_io(top, "read -P 0x62 0 2k", "write -P 0x64 512 512")
    cowimg("commit", top)
    assert whole.read_bytes() == b"a" * 1024 + b"b" * 512 + b"d" * 512 + b"b" * 1024 + b"c" * 1024


def part(tmp_path, data):
    (tmp_path / "part").write_bytes(data)
    return tmp_path / "part"


def test_a_qcow2_image_inside_a_raw_window_can_be_read(tmp_path):
    inner, outer = tmp_path / "inner.qcow2", tmp_path / "outer"
    qemu_img("create", "-q", "-f", "qcow2", inner, "1M")
    qemu_io(inner, "write -P 7 0 64k")
    outer.write_bytes(b"x" * 4096 + inner.read_bytes())
    name = "driver=qcow2,file.driver=raw,file.offset=4096,file.file.filename=%s" % outer
    cowimg("compare", "--image-opts", name, "driver=qcow2,file.filename=%s" % inner)
    # As the file of an image a raw layer grows.
    cowimg("resize", "--image-opts", name, "4M")
    assert "4 MiB" in qemu_img("info", "--image-opts", name).stdout


def test_colons_in_file_names_need_file_dot_filename(tmp_path):
    qemu_img("create", "-q", "-f", "qcow2", "file:" + str(tmp_path / "a:b.qcow2"), "1M")
    pair = Pair(tmp_path)
    assert pair.same("info a:b.qcow2")[0] == 1
    pair.same("info ./a:b.qcow2")
    pair.same("info --image-opts driver=qcow2,file.driver=file,file.filename=a:b.qcow2")


@pytest.mark.parametrize("name", [
    "json:" + "{\"a\":" * 5000 + "1" + "}" * 5000,
    "json:" + "[" * 60000,
    "json:{" + ",".join("\"k%d\":1" % i for i in range(5000)) + "}",
    "json:{\"driver\":\"qcow2\"" + " " * 70000 + "}",
    "json:{\"driver\":\"raw\",\"file\":" * 20 + "\"x\"" + "}" * 20,
    "json:{\"driver\":" + "{\"driver\":\"raw\",\"file\":" * 20 + "1" + "}" * 21,
    "json:{'driver", "json:{\"driver\":\"\\", "json:{\"a\":\"\\u0000\"}", "json:\xff",
])
def test_a_hostile_json_name_is_refused_in_one_line(name):
    done = cowimg("info", name, ok=(1,), timeout=10)
    assert "Could not open" in done.stdout


def test_formats_nest_only_so_deep(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 4096)
    deep = "driver=raw" + "".join(",%sdriver=raw" % ("file." * i) for i in range(1, 20))
    done = cowimg("info", "--image-opts", deep + ",%sfilename=%s" % ("file." * 20, tmp_path / "x"),
                  ok=(1,))
    assert "formats over one another" in done.stdout


def test_a_chain_through_nested_names_that_bites_its_tail_ends(tmp_path):
    name = 'json:{"driver":"raw","file":{"driver":"qcow2","file":{"driver":"file","filename":"a"}}}'
    run("qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", name, "-F", "raw", "a", "1M",
        cwd=tmp_path)
    done = cowimg("map", "a", cwd=tmp_path, ok=(1,), timeout=20)
    assert "infinite loop" in done.stdout or "over one another" in done.stdout


def test_backing_options_of_the_command_line_replace_the_images_own(tmp_path):
    pair = Pair(tmp_path)
    for name, fill in (("one.raw", b"1"), ("two.raw", b"2")):
        (tmp_path / name).write_bytes(fill * 65536)
    run("qemu-img", "create", "-q", "-f", "qcow2", "-b", "one.raw", "-F", "raw", "top",
        cwd=tmp_path)
    top = "driver=qcow2,file.filename=top,"
    for options in ("backing.driver=raw,backing.file.filename=two.raw",
                    "backing.file.filename=one.raw",
                    "backing.driver=qcow2", "backing.foo=1", "backing.file.foo=1",
                    "backing.driver=raw,backing.offset=512,backing.file.filename=two.raw"):
        pair.same(["map", "--output=json", "--image-opts", top + options])
        pair.same(["compare", "--image-opts", top + options, "driver=raw,file.filename=two.raw"])
