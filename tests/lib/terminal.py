"""A person at a terminal: a shell, the image tool, a machine's monitor.

    terminal = Terminal(folder)
    terminal.type("cowimg create -f qcow2 a.qcow2 1G")
    terminal.start_machine("cowvm -hda a.qcow2 -monitor stdio")
    terminal.monitor("info status")
"""
import os

import pexpect

from tools import COWIMG, COWVM, SLOW
from vm import ESCAPES, PROGRESS

PROMPT = "typed> "
MONITOR = "(cowvm) "


class Terminal:
    """A shell in a folder, with both programs on its path; `before`: words before /bin/sh."""

    def __init__(self, folder, before=()):
        tools = folder / "bin"
        tools.mkdir()
        (tools / "cowimg").symlink_to(COWIMG)
        (tools / "cowvm").symlink_to(COWVM)
        env = dict(os.environ, PATH="%s:%s" % (tools, os.environ["PATH"]), PS1=PROMPT,
                   TERM="dumb")
        command = [*before, "/bin/sh"]
        self.shell = pexpect.spawn(command[0], command[1:], cwd=str(folder), env=env,
                                   encoding="utf-8", timeout=30 * SLOW, dimensions=(50, 400))
        self.shell.delaybeforesend = None
        self.shell.expect_exact(PROMPT)

    def type(self, line, passphrases=()):
        """What appears after a command line; each passphrase is waited for."""
        self.shell.sendline(line)
        self.shell.expect_exact(line + "\r\n")
        shown = ""
        for name, text in passphrases:
            self.shell.expect_exact("Disk image '%s' is encrypted.\r\npassword: " % name)
            shown += self.shell.before
            self.shell.sendline(text)
        self.shell.expect_exact(PROMPT)
        shown += self.shell.before.replace("\r\n", "\n")
        self.shell.sendline("echo =$?=")
        self.shell.expect(r"\r\n=(\d+)=\r\n")
        status = int(self.shell.match.group(1))
        self.shell.expect_exact(PROMPT)
        assert status == 0, shown
        for _, text in passphrases:
            assert text not in shown
        return shown

    def start_machine(self, line):
        """What appears before the first prompt of its monitor."""
        self.shell.sendline(line)
        self.shell.expect_exact(line + "\r\n")
        self.shell.expect_exact(MONITOR)
        return self.shell.before.replace("\r\n", "\n")

    def monitor(self, line, passphrase=None):
        """What the monitor prints after a line; the passphrase is waited for."""
        self.shell.sendline(line)
        shown = ""
        if passphrase is not None:
            self.shell.expect_exact("Password: ")
            shown = self.shell.before + self.shell.after
            self.shell.sendline(passphrase)
        self.shell.expect_exact(MONITOR)
        shown += self.shell.before
        shown = PROGRESS.sub("", ESCAPES.sub("", shown)).replace("\r", "")
        return shown.split("\n", 1)[-1].rstrip("\n")

    def quit_machine(self):
        self.shell.sendline("quit")
        self.shell.expect_exact(PROMPT)
