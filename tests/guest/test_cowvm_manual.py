"""cowvm(1), cowvm-monitor(7), -help, the monitor's help and completion in bash say the same."""
import re
import subprocess

import pexpect
import pytest

from tools import COWIMG, COWVM, SLOW, TOP, run
from vm import Vm

MANUALS = TOP / "vmm/cowvm.1", TOP / "monitor/cowvm-monitor.7"
HELP = run(COWVM, "-help").stdout


def plain(text):
    """Text of a line of troff."""
    return re.sub(r"\\f.|\\&|\\:", "", text).replace("\\-", "-").replace("\\e", "\\")


def sections():
    """Title of .SH -> its lines."""
    found, here = {}, None
    for line in "\n".join(m.read_text() for m in MANUALS).split("\n"):
        if line.startswith(".SH "):
            here = found.setdefault(plain(line[4:]), [])
        elif here is not None:
            here.append(line)
    return found


PARTS = sections()


def tags(lines, depth=0):
    """(tag, text up to the next one of the same depth) of each .TP."""
    found, deep = [], 0
    for n, line in enumerate(lines):
        deep += {".RS": 1, ".RE": -1}.get(line, 0)
        if line == ".TP" and deep == depth:
            found.append([plain(lines[n + 1]), ""])
        elif found and not line.startswith(".S"):
            found[-1][1] += plain(line) + "\n"
    return found


def names(tag):
    return re.findall(r"(?:^|, )-(\w[\w-]*)", tag)


def help_rows():
    """Option -> what -help shows before its meaning, of all its forms."""
    rows, name = {}, None
    for line in HELP.split("\n"):
        m = re.match(r"-([\w-]+)", line)
        if m:
            name = m.group(1)
            rows.setdefault(name, "")
        if not line:
            name = None
        elif name and (line.startswith("-") or not line.startswith(" " * 16)):
            rows[name] += line + "\n"
    return rows


ROWS = help_rows()


def manual_of(option):
    return "".join(tag + "\n" + text for tag, text in tags(PARTS["OPTIONS"])
                   if option in names(tag))


def test_every_option_has_an_entry_and_every_entry_an_option():
    entries = {name for tag, _ in tags(PARTS["OPTIONS"]) for name in names(tag)}
    assert len(ROWS) > 50
    assert entries == set(ROWS)


@pytest.mark.parametrize("option", sorted(o for o in ROWS if "=" in ROWS[o]))
def test_every_key_of_an_option_is_in_its_entry(option):
    said = manual_of(option)
    for key in re.findall(r"[\[,(]([a-z][\w.-]*)=", ROWS[option]):
        assert key in said, (option, key)


def test_every_monitor_command_has_an_entry_and_the_other_way_round():
    with Vm("-net", "none") as vm:
        for command, part in (("help", "COMMANDS"), ("help info", "WHAT INFO SHOWS")):
            said = vm.monitor(command).replace("\r", "")
            said = re.findall(r"^(\w[^\n]*?) +-- ", said, re.M)
            entries = [tag for tag, _ in tags(PARTS[part])]
            assert len(said) > 15
            assert sorted(entries) == sorted(said)
            assert entries == sorted(entries)


def devices():
    return re.findall(r'^name "([^"]+)"', run(COWVM, "-device", "help").stdout, re.M)


def test_every_device_has_an_entry_and_the_other_way_round():
    entries = {name for tag, _ in tags(PARTS["DEVICES"]) for name in tag.split(", ")}
    assert entries == set(devices())


@pytest.mark.parametrize("manual", MANUALS, ids=lambda m: m.name)
def test_a_manual_is_correct_troff(manual):
    done = subprocess.run(["groff", "-man", "-t", "-ww", "-z", "-Tutf8", manual],
                          capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


# --- completion ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Where `make install` puts completions."""
    top = tmp_path_factory.mktemp("installed")
    done = subprocess.run(["make", "-s", "-C", TOP, "install-completions", "install-manuals",
                           "PREFIX=/usr", "DESTDIR=%s" % top], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for manual in MANUALS:
        to = top / "usr/share/man" / ("man" + manual.suffix[1:]) / manual.name
        assert to.read_bytes() == manual.read_bytes()
    return top / "usr/share/bash-completion/completions"


class Bash:
    """A bash on a terminal; what it shows of a line after the Tab key."""

    def __init__(self, completions, cwd):
        self.p = pexpect.spawn("bash", ["--norc", "--noprofile"], cwd=str(cwd), timeout=60 * SLOW,
                               encoding="utf-8", dimensions=(50, 2000),
                               env={"PATH": "/usr/bin:/bin", "TERM": "dumb", "PS1": "$ ",
                                    "INPUTRC": "/dev/null"})
        for line in ("set +o history", "bind 'set show-all-if-ambiguous on'",
                     "bind 'set page-completions off'", "bind 'set bell-style none'",
                     "bind 'set completion-query-items 0'", "bind 'set enable-bracketed-paste off'",
                     "cowvm() { '%s' \"$@\"; }; cowimg() { '%s' \"$@\"; }" % (COWVM, COWIMG),
                     ". %s/cowvm; . %s/cowimg" % (completions, completions), "PS1='ready> '"):
            self.p.sendline(line)
        self.p.expect("\nready> ")

    def tab(self, line):
        """The line as completed, and what it may become."""
        self.p.send(line + "\t")
        self.p.send("\x01echo '\x05' # END\r")          # ctrl-a, ctrl-e: show it, do nothing
        self.p.expect("END\r*\n(.*?)\r*\nready> ")
        shown = self.p.before.replace("\r", "\n").split("ready> ")
        words = " ".join(shown[:-1]).split() if len(shown) > 1 else []
        return self.p.match.group(1), words


@pytest.fixture(scope="module")
def bash(installed, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("files")
    (cwd / "disk.qcow2").touch()
    (cwd / "folder").mkdir()
    b = Bash(installed, cwd)
    yield b
    b.p.close(force=True)


def one(bash, line):
    return bash.tab(line)[0]


@pytest.mark.parametrize("line, result", [
    ("cowvm -enable", "cowvm -enable-kvm "),
    ("cowvm -hda di", "cowvm -hda disk.qcow2 "),
    ("cowvm -drive file=di", "cowvm -drive file=disk.qcow2 "),
    ("cowvm -drive file=x,detect-z", "cowvm -drive file=x,detect-zeroes="),
    ("cowvm -drive file=x,cache=writet", "cowvm -drive file=x,cache=writethrough "),
    ("cowvm -drive if=virt", "cowvm -drive if=virtio "),
    ("cowvm -device virtio-bl", "cowvm -device virtio-blk-pci "),
    ("cowvm -device virtio-blk-pci,num", "cowvm -device virtio-blk-pci,num-queues="),
    ("cowvm -netdev us", "cowvm -netdev user "),
    ("cowvm -nic user,hostf", "cowvm -nic user,hostfwd="),
    ("cowvm -S -vga s", "cowvm -S -vga std "),
    ("cowvm di", "cowvm disk.qcow2 "),
    ("cowvm -trace qc", "cowvm -trace qcow2 "),
    ("cowimg conv", "cowimg convert "),
    ("cowimg create -f qc", "cowimg create -f qcow2 "),
    ("cowimg create -f qcow2 -o cluster", "cowimg create -f qcow2 -o cluster_size="),
    ("cowimg create -f qcow2 -o cluster_size=4k,laz",
     "cowimg create -f qcow2 -o cluster_size=4k,lazy_refcounts="),
    ("cowimg info --output=j", "cowimg info --output=json "),
    ("cowimg info di", "cowimg info disk.qcow2 "),
    ("cowimg convert -t writeb", "cowimg convert -t writeback "),
])
def test_tab_completes(bash, line, result):
    # The trailing blank may be eaten by echo's quotes: compare what was put in.
    assert one(bash, line).rstrip() == result.rstrip()


def completions(installed, line, cwd):
    """All that the function offers for a line that ends in a blank."""
    words = line.split() + [""]
    script = (". '%s/%s'; COMP_LINE=$1; COMP_POINT=${#1}; _%s '%s'; "
              "printf '%%s\\n' \"${COMPREPLY[@]}\"")
    tool = words[0]
    done = subprocess.run(["bash", "--norc", "-c", script % (
        installed, tool, tool, COWVM if tool == "cowvm" else COWIMG), "x", line],
        capture_output=True, text=True, cwd=cwd, timeout=30 * SLOW)
    return set(done.stdout.split())


def test_all_options_and_devices_are_offered(installed, tmp_path):
    assert completions(installed, "cowvm -", tmp_path) == {"-" + name for name in ROWS}
    assert completions(installed, "cowvm -device ", tmp_path) == set(devices()) | {"help"}


def keys_offered(installed, option, first, cwd):
    """What may come behind the first part of a list."""
    offered = completions(installed, "cowvm -%s %s," % (option, first), cwd)
    assert all(word.startswith(first + ",") for word in offered)
    return {word[len(first) + 1:] for word in offered}


def test_options_are_offered_behind_those_that_take_no_argument(installed, tmp_path):
    flags = [m.group(1) for m in re.finditer(r"^-([\w-]+)(?:  |(?<=^.{15}) )", HELP, re.M)]
    assert {"mem-prealloc", "S", "no-user-config"} <= set(flags) and len(flags) > 12
    for flag in flags:
        assert "-append" in completions(installed, "cowvm -%s -" % flag, tmp_path), flag


@pytest.mark.parametrize("option", sorted(o for o in ROWS if "=" in ROWS[o]))
def test_every_key_of_an_option_is_offered(installed, tmp_path, option):
    keys = set(re.findall(r"[\[,(]([a-z][\w.-]*)=", ROWS[option]))
    if option in ("device", "object", "global", "cpu"):     # each driver and type has its own
        return
    assert keys <= {k.rstrip("=") for k in keys_offered(installed, option, "x", tmp_path)}


def test_every_object_has_an_entry_and_its_keys_are_offered(installed, tmp_path):
    types = run(COWVM, "-object", "help").stdout.split()[5:]
    assert "secret" in types and completions(installed, "cowvm -object ", tmp_path) == {
        "help", *types}
    for name in types:
        said = run(COWVM, "-object", name + ",help").stdout
        keys = set(re.findall(r"^  ([\w-]+=)", said, re.M)) | {"id="}
        assert keys_offered(installed, "object", name, tmp_path) == keys
        assert name in manual_of("object")


def test_all_subcommands_and_their_options_are_offered(installed, tmp_path):
    said = run(COWIMG, "--help").stdout
    commands = re.findall(r"^  (\w+) ", said.split("Command syntax:")[1].split("\n\n")[0], re.M)
    assert completions(installed, "cowimg ", tmp_path) == set(commands) | {"--help", "--version"}
    for command in commands:
        offered = completions(installed, "cowimg %s -" % command, tmp_path)
        usage = re.search(r"^  %s (.*)$" % command, said, re.M).group(1)
        wanted = set(re.findall(r"(?<![\w-])--?[A-Za-z][A-Za-z-]*", usage))
        assert wanted <= {o.rstrip("=") for o in offered}, command
