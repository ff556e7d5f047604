"""A virtual machine under test: started, listened to, typed at, ended.

    with Vm("-hda", disk) as vm:
        vm.serial.expect("login: ")
        vm.serial.send("root\\r")
        assert "running" in vm.monitor("info status")

The serial port is a socket that we listen on, so nothing it says is lost; the
monitor is on a pseudo-terminal; SeaBIOS's debug port goes to a file.
"""
import os
import re
import shutil
import signal
import socket
import tempfile
import time

import pexpect
import pexpect.fdpexpect

from tools import COWVM, SLOW

PROMPT = r"\((?:cowvm|qemu)\) "
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
PROGRESS = re.compile(r"\r *\d+ % of \d+ MiB")       # of a savevm that takes its time


class Serial:
    """The guest's serial port: wait for text, send keys, read all that came."""

    def __init__(self, listener, process):
        self.listener, self.process, self.spawn = listener, process, None
        self.text = ""

    def connected(self):
        if not self.spawn:
            self.listener.settimeout(30 * SLOW)
            self.conn, _ = self.listener.accept()
            self.conn.setblocking(True)
            self.spawn = pexpect.fdpexpect.fdspawn(self.conn.fileno(), timeout=60)
            self.spawn.logfile_read = self
        return self.spawn

    # pexpect's log file: keeps everything for messages and assertions
    def write(self, data):
        self.text += data.decode("utf-8", "replace")

    def flush(self):
        pass

    def expect(self, pattern, timeout=60):
        """Wait for a regular expression; returns the match object's text before it."""
        spawn = self.connected()
        try:
            spawn.expect(pattern.encode(), timeout=timeout * SLOW)
        except (pexpect.TIMEOUT, pexpect.EOF) as e:
            raise AssertionError("serial: %s waiting for %r; it said:\n%s" % (
                type(e).__name__, pattern, self.text[-3000:])) from None
        return ESCAPES.sub("", spawn.before.decode("utf-8", "replace"))

    def send(self, text):
        os.write(self.connected().child_fd, text.encode())

    def drain(self, seconds=1):
        """Everything that comes within these seconds, or until the port closes; at least all
        that is there by now, however long the host lets us wait for a turn."""
        had = -1
        while had < len(self.text):
            had = len(self.text)
            try:
                self.connected().expect([pexpect.EOF], timeout=seconds)
            except pexpect.TIMEOUT:
                seconds = 0
        return self.text

    def take(self):
        """What is there now, kept for those who wait for it later."""
        try:
            self.spawn.buffer += self.spawn.read_nonblocking(1 << 16, 0)
        except (pexpect.TIMEOUT, pexpect.EOF):
            pass

    def close(self):
        if self.spawn:
            self.conn.close()
        self.listener.close()


class Vm:
    def __init__(self, *args, kvm=True, memory=64, serial=True, program=COWVM, env=None):
        self.work = tempfile.mkdtemp(prefix="cowvm-vm.")
        self.commands, self.out_of_step = 0, False      # of debian.shell
        self.words = 0                                  # of into_step
        command = ["-m", str(memory), "-display", "none", "-monitor", "stdio", "-net", "none"]
        if kvm and not os.environ.get("COWVM_TEST_TCG"):    # the reference can do without
            command.append("-enable-kvm")
        self.bios_log = os.path.join(self.work, "bios")
        command += ["-chardev", "file,id=bios,path=" + self.bios_log,
                    "-device", "isa-debugcon,iobase=0x402,chardev=bios"]
        self.serial = None
        listener = None
        if serial:
            path = os.path.join(self.work, "serial")
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(path)
            listener.listen(1)
            command += ["-serial", "unix:" + path]
        environment = dict(os.environ, TERM="dumb", **(env or {}))
        self.spawn = pexpect.spawn(program, command + [str(a) for a in args], timeout=30 * SLOW,
                                   env=environment, dimensions=(50, 200))
        self.spawn.delaybeforesend = None
        if serial:
            self.serial = Serial(listener, self)
        try:
            self.spawn.expect(PROMPT)
        except (pexpect.TIMEOUT, pexpect.EOF):
            said = self.spawn.before.decode("utf-8", "replace")
            self.close()
            raise AssertionError("no monitor prompt: " + said) from None
        self.banner = self.spawn.before.decode("utf-8", "replace")

    @property
    def pid(self):
        return self.spawn.pid

    def monitor(self, command, timeout=30):
        """Type a command, return what it printed."""
        self.spawn.send(command + "\r")
        try:
            self.spawn.expect(PROMPT, timeout=timeout * SLOW)
        except (pexpect.TIMEOUT, pexpect.EOF):
            raise AssertionError("monitor: no prompt after %r: %s" % (
                command, self.spawn.before.decode("utf-8", "replace"))) from None
        text = PROGRESS.sub("", ESCAPES.sub("", self.spawn.before.decode()))
        lines = text.replace("\r", "").split("\n")
        return "\n".join(lines[1:]).rstrip("\n")        # without the echo

    def into_step(self):
        """After words of the program's own, which show the prompt once more: all is read."""
        self.words += 1
        self.spawn.send("word%d\r" % self.words)
        self.spawn.expect("unknown command: 'word%d'" % self.words)
        self.spawn.expect(PROMPT)

    def bios(self):
        with open(self.bios_log, encoding="latin-1") as f:
            return f.read()

    def wait_bios(self, text, timeout=60):
        """Until SeaBIOS's log holds the text."""
        self.wait_for(lambda: text in self.bios(), timeout,
                      lambda: "BIOS log without %r:\n%s" % (text, self.bios()[-2000:]))

    def wait_status(self, status, timeout=60):
        self.wait_for(lambda: "VM status: " + status in self.monitor("info status"), timeout,
                      lambda: self.monitor("info status"))

    @staticmethod
    def wait_for(condition, timeout, message):
        end = time.monotonic() + timeout * SLOW
        while True:
            start = time.monotonic()
            if condition():
                return
            assert time.monotonic() < end, message()
            # Looking takes time that the guest needs, too, where both share a CPU.
            time.sleep(max(0.1, min(time.monotonic() - start, 2)))

    def cells(self):
        """Video memory of the text screen: attribute << 8 | character."""
        dump = self.monitor("xp /2000xh 0xb8000")
        return [int(w, 16) for line in dump.split("\n")
                for w in re.findall(r"0x([0-9a-f]{4})\b", line.split(":", 1)[-1])]

    def screen(self):
        """The text screen as lines, read from video memory through the monitor."""
        cells = self.cells()
        text = "".join(chr(c & 0xFF) if 32 <= c & 0xFF < 127 else " " for c in cells)
        return [text[i:i + 80].rstrip() for i in range(0, len(text), 80)]

    def wait_screen(self, pattern, timeout=60):
        self.wait_for(lambda: re.search(pattern, "\n".join(self.screen())), timeout,
                      lambda: "screen without %r:\n%s" % (pattern, "\n".join(self.screen())))

    def wait_exit(self, timeout=60):
        """Until the process has ended by itself; its exit status."""
        deadline = time.monotonic() + timeout * SLOW
        while self.spawn.expect([pexpect.EOF, pexpect.TIMEOUT], timeout=0.1) == 1:
            if time.monotonic() > deadline:
                raise AssertionError("still running; serial:\n%s" % (
                    self.serial.text[-2000:] if self.serial else ""))
            # At its end it waits a second for what was said to be taken, then drops it.
            if self.serial and self.serial.spawn:
                self.serial.take()
        self.spawn.close()
        assert self.spawn.signalstatus is None, "ended by signal %d" % self.spawn.signalstatus
        return self.spawn.exitstatus

    def quit(self):
        self.spawn.send("quit\r")
        return self.wait_exit()

    def close(self):
        if not self.spawn.closed:
            if self.spawn.isalive():
                # pexpect's own close waits a tenth of a second for the process to end;
                # on a busy host the kernel takes longer over a virtual machine.
                self.spawn.kill(signal.SIGKILL)
                self.spawn.wait()
            self.spawn.close(force=True)
        if self.serial:
            self.serial.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
