"""Somebody else in the machine that runs the tests, who only wants to wake up every now and
then: if that comes seconds late, it is the machine that stood still.  All that cowvm's threads
do to each other and to their guest does not make it late."""
import threading
import time

INTERVAL = 0.25     # seconds between two looks at the clock
LATE = 2            # a look that comes later than this was kept from coming


class Bystander(threading.Thread):
    """`late`: seconds that passed without it so far; `excused`: complaints of the guest's kernel
    that were put down to that."""

    def __init__(self):
        super().__init__(daemon=True)
        self.late, self.seen, self.excused = 0, 0, set()
        self.ended = threading.Event()

    def run(self):
        before = time.monotonic()
        while not self.ended.wait(INTERVAL):
            now = time.monotonic()
            if now - before > LATE:
                self.late += now - before
            before = now

    def lost(self):
        """Seconds since complaints were looked for the last time."""
        return self.late - self.seen

    def look(self):
        """Complaints are being looked for."""
        self.seen = self.late

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.join()
