"""`make demo` as a person at a terminal sees it, nested where it has to be."""
import os

import pexpect
import pytest

from tools import COWVM, SLOW, TOP, check_image, file_on_disk
from vm import PROMPT

pytestmark = [pytest.mark.host, pytest.mark.limit(600)]


@pytest.fixture
def terminal(tmp_path):
    command = [str(TOP / "configs/demo/run"), str(tmp_path)]
    spawn = pexpect.spawn(command[0], command[1:], timeout=60 * SLOW, dimensions=(24, 80),
                          env=dict(os.environ, TERM="vt100", COWVM=COWVM), encoding="utf-8",
                          codec_errors="replace")
    yield spawn
    spawn.close(force=True)


def test_demo_boots_logs_in_and_switches_to_the_monitor(terminal, tmp_path):
    terminal.expect("1. Log in as root")
    terminal.expect("login: ", timeout=400 * SLOW)
    terminal.send("root\r")
    terminal.expect("# ", timeout=60 * SLOW)
    terminal.send("echo hello > /root/x; sync; echo done=$?\r")
    terminal.expect(r"\ndone=0", timeout=60 * SLOW)
    terminal.send("sleep 1000\r")
    terminal.expect("sleep 1000")
    terminal.send("\x03")                       # reaches the guest, not us
    terminal.expect("# ")
    terminal.send("\x01c")                      # Ctrl-a c
    terminal.expect(PROMPT)
    terminal.send("info status\r")
    terminal.expect("VM status: running")
    terminal.expect(PROMPT)
    terminal.send("\x01c\r")
    terminal.expect("# ")
    terminal.send("\x01c\r")
    terminal.expect(PROMPT)
    terminal.send("quit\r")
    terminal.expect(pexpect.EOF, timeout=60 * SLOW)
    terminal.close()
    assert terminal.exitstatus == 0
    check_image(tmp_path / "demo.qcow2")
    assert file_on_disk(tmp_path / "demo.qcow2", "/root/x") == b"hello\n"
