"""Ctrl-C and its kin: a run stops between two steps, with its checkpoint written."""

import contextlib
import os
import signal
import stat
import time
from collections.abc import Callable

# What a terminal sends on Ctrl-C, a scheduler or the system to end a job, a closing terminal.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def heed_signals(handler: Callable[[int, object], None]) -> None:
    """Install a handler of all SIGNALS but those that are ignored, as `nohup` has it."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


class Interrupted(Exception):
    """A signal came, and the run has stopped.

    Attributes:
        exit_code: 128 plus the number of the signal, as shells count.
    """

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.exit_code = 128 + number


class StopSignal:
    """Turns the first signal into a request to stop after the step under way.

    What follows within a second is taken for the same one: sent to all processes, it comes once
    more from those that pass it on.

    Attributes:
        number: of the signal; 0: none came.
        time: when it came, in s.
    """

    def __init__(self):
        self.number, self.time = 0, 0.0
        heed_signals(self._remember)

    def _remember(self, number: int, frame: object) -> None:
        if not self.number:
            self.number, self.time = number, time.monotonic()
            with contextlib.suppress(OSError):  # nobody may be there to read it
                if number == getattr(signal, "SIGHUP", None):
                    leave_terminal()
                # Not by print, which may be what the signal has interrupted.
                os.write(2, b"\nstopping after this step; again to stop at once\n")
        elif time.monotonic() > self.time + 1:
            signal.signal(number, signal.SIG_DFL)  # the program ends at once
            signal.raise_signal(number)


def leave_terminal() -> None:
    """Write to nowhere what went to a terminal, where writing fails once it is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
