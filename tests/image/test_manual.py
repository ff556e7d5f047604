"""Manual pages, --help and option parsers say the same."""
import concurrent.futures
import os
import re
import subprocess

import pytest

from tools import COWIMG, SLOW, TOP, cowimg, qemu_img

IMG = TOP / "block/img"
MANUALS = [IMG / "cowimg.1", TOP / "block/cowvm-images.7"]
OPTION = re.compile(r"(?<![\w-])--?[A-Za-z][\w-]*")
HELP = cowimg("--help").stdout
COMMANDS = re.findall(r"^  (\w+) ", HELP.split("Command syntax:")[1].split("\n\n")[0], re.M)
# Every long option there is in the sources; which command takes which, it says itself.
LONG = sorted({name for path in sorted(IMG.glob("*.[ch]"))
               for name in re.findall(r'\{?\s*"([a-z][a-z-]+)",\s*(?:no|required)_argument',
                                      path.read_text())})


LETTERS = sorted({c for path in sorted(IMG.glob("*.c"))
                  for text in re.findall(r'img_getopt\([^"]*"([^"]+)"', path.read_text())
                  for c in text if c.isalnum()})


def takes(command, option, cwd):
    # resize takes its last two words off first.
    rest = ["x", "1M"] if command == "resize" else []
    done = subprocess.run([COWIMG, command, option, *rest], capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, cwd=cwd, timeout=60 * SLOW)
    return "unrecognized option" not in done.stderr


def accepted(command, cwd):
    """What the parser takes, by asking it."""
    candidates = ["-" + c for c in LETTERS] + ["--" + name for name in LONG]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda o: takes(command, o, cwd), candidates))
    every = {o for o, yes in zip(candidates, taken) if yes}
    short = {o for o in every if len(o) == 2}
    long = every - short
    source = (IMG / (command + ".c")).read_text()
    # getopt takes the start of a name, too.
    long = {o for o in long if not any(o != p and p.startswith(o) for p in long) or
            '"%s"' % o[2:] in source}
    return short | long


@pytest.fixture(scope="module")
def parsers(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("parsers")
    found = {command: accepted(command, cwd) for command in COMMANDS}
    assert not os.listdir(cwd)
    assert {"-f", "--force-share", "-h", "--help"} <= found["info"], found["info"]
    return found


def usage(command):
    return re.search(r"^  (%s .*)$" % command, HELP, re.M).group(1)


def help_part(title):
    """A paragraph of --help, without its title."""
    m = re.search(r"^%s:\n((?:  .*\n)+)" % title, HELP, re.M)
    return m.group(1) if m else ""


def help_of(command):
    return usage(command) + "\n" + help_part("Parameters to %s subcommand" % command)


def plain(text):
    """Text of a line of troff."""
    return re.sub(r"\\f.|\\&", "", text).replace("\\-", "-").replace("\\e", "\\")


class Manual:
    """cowimg(1): usage lines and tags of its sections."""

    def __init__(self):
        self.usage, self.tags, self.standard, self.common = {}, {}, set(), set()
        where, lines = None, (IMG / "cowimg.1").read_text().split("\n")
        for n, line in enumerate(lines):
            if line.startswith((".SH", ".SS")):
                where = self.section(plain(line[4:]))
            elif line == ".TP" and where is not None:
                where |= set(OPTION.findall(plain(lines[n + 1]).split(" ")[0] + " " +
                                            plain(lines[n + 1])))

    def section(self, title):
        if title.split(" ")[0] in COMMANDS:
            name = title.split(" ")[0]
            self.usage[name] = title
            return self.tags.setdefault(name, set())
        return {"Standard options": self.standard,
                "COMMON OPTIONS": self.common}.get(title.strip())


MANUAL = Manual()


def test_every_subcommand_is_in_help_and_manual():
    handlers = set(re.findall(r"int img_(\w+)\(struct img \*ctx, int argc",
                              (IMG / "img.h").read_text())) - {"getopt"}
    assert handlers == set(COMMANDS) == set(MANUAL.usage)
    assert COMMANDS == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_manual_has_the_usage_line_of_help(command):
    assert MANUAL.usage[command] == usage(command)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_help(parsers, command):
    said = set(OPTION.findall(help_of(command) + HELP.split("Command syntax")[0] +
                              help_part("Command parameters")))
    assert parsers[command] <= said, parsers[command] - said


@pytest.mark.parametrize("command", COMMANDS)
def test_help_names_no_option_that_is_not_taken(parsers, command):
    assert set(OPTION.findall(help_of(command))) <= parsers[command]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_usage_line_names_all_short_options(parsers, command):
    said = set(OPTION.findall(usage(command)))
    assert {o for o in parsers[command] if len(o) == 2} <= said | {"-h"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_in_the_manual_and_no_other(parsers, command):
    own = MANUAL.tags[command]
    assert own <= parsers[command], own - parsers[command]
    missing = parsers[command] - own - MANUAL.common - MANUAL.standard
    assert not missing


def test_common_options_are_taken_by_several(parsers):
    for option in MANUAL.common - {"--quiet"}:
        assert sum(option in taken for taken in parsers.values()) > 1, option


@pytest.mark.parametrize("command", COMMANDS)
def test_help_after_a_subcommand_is_the_same(command):
    rest = ["x", "1M"] if command == "resize" else []
    for option in ("-h", "--help"):
        assert cowimg(command, option, *rest).stdout == HELP


def test_supported_formats_can_be_opened():
    formats = re.search(r"^Supported formats: (.*)$", HELP, re.M).group(1).split()
    assert formats == sorted(formats)
    for name in formats:
        said = cowimg("info", "--image-opts", "driver=" + name, ok=(0, 1)).stdout
        assert "Unknown" not in said, said
    theirs = qemu_img("--help").stdout.split("Supported formats: ")[1].split("\n")[0].split()
    for name in set(theirs) - set(formats):
        assert "Unknown" in cowimg("info", "--image-opts", "driver=" + name, ok=(1,)).stdout


@pytest.mark.parametrize("fmt", ["qcow2", "raw", "luks"])
def test_create_options_are_in_the_manual(fmt):
    tags = {m for line in re.findall(r"^\.T[PQ]\n(.*)$", MANUALS[1].read_text(), re.M)
            for m in re.findall(r"[a-z][\w.-]+(?==)", plain(line))}
    shown = set(re.findall(r"^  ([\w.-]+)=<",
                           cowimg("create", "-f", fmt, "-o", "help", "x").stdout, re.M))
    assert shown and shown <= tags, shown - tags


@pytest.mark.parametrize("command", ["check -U -r leaks", "snapshot -U -c x", "bench -w -U"])
def test_nobody_writes_to_an_image_opened_in_spite_of_a_writer(tmp_path, command):
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a", "1M")
    name, *rest = command.split()
    for tool in (cowimg, qemu_img):
        said = tool(name, *rest, "-f", "qcow2", "a", cwd=tmp_path, ok=(1,)).stdout \
            if name != "snapshot" else tool(name, *rest, "a", cwd=tmp_path, ok=(1,)).stdout
        assert said.endswith(
            "Could not open 'a': force-share=on can only be used with read-only images\n")


def test_a_target_whose_passphrase_nobody_gives_is_removed(tmp_path):
    cowimg("create", "-q", "-f", "qcow2", tmp_path / "a", "1M")
    cowimg("convert", "-o", "encryption", "-O", "qcow2", "a", "b", cwd=tmp_path, ok=(1,))
    assert os.listdir(tmp_path) == ["a"]


@pytest.mark.parametrize("path", MANUALS, ids=lambda p: p.name)
def test_manuals_are_correct_troff(path):
    done = subprocess.run(["groff", "-man", "-t", "-ww", "-z", "-Tutf8", path],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_install_brings_the_manuals(tmp_path):
    done = subprocess.run(["make", "-s", "-C", TOP, "install-manuals", "PREFIX=/usr",
                           "DESTDIR=%s" % tmp_path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "usr/share/man/man1/cowimg.1").read_bytes() == MANUALS[0].read_bytes()
    assert (tmp_path / "usr/share/man/man7/cowvm-images.7").is_file()
