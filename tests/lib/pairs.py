"""The same command line given to cowimg and to qemu-img."""
import os
import shlex
import subprocess

from tools import COWIMG, SLOW


class Pair:
    """Two runs of one command line in one folder: what they printed and returned."""

    def __init__(self, work):
        self.work = work
        # Messages begin with the program's name: give ours the reference's.
        self.ours = os.path.join(str(work), "bin", "qemu-img")
        os.makedirs(os.path.dirname(self.ours), exist_ok=True)
        if not os.path.lexists(self.ours):
            os.symlink(os.path.realpath(COWIMG), self.ours)

    def run(self, program, args, cwd=None):
        done = subprocess.run([program, *args], cwd=str(cwd or self.work), timeout=60 * SLOW,
                              stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              errors="replace")
        return done.returncode, done.stdout, done.stderr

    def both(self, line, cwds=(None, None)):
        args = shlex.split(line) if isinstance(line, str) else [str(a) for a in line]
        return (self.run(self.ours, args, cwds[0]), self.run("qemu-img", args, cwds[1]))

    def same(self, line, cwds=(None, None)):
        """Run with both, and require the same words and exit codes; returns ours."""
        ours, theirs = self.both(line, cwds)
        assert ours == theirs, "%s\nours:   %r\ntheirs: %r" % (line, ours, theirs)
        return ours
