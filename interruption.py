"""Ctrl-C and its kin: a run stops between two steps, with its checkpoint written."""

import contextlib
import os
import signal
import stat
import sys
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

    Attributes:
        number: of the signal; 0: none came.
    """

    def __init__(self):
        self.number = 0
        heed_signals(self._remember)

    def _remember(self, number: int, frame: object) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)  # the second one ends the program at once
        with contextlib.suppress(OSError):  # nobody may be there to read it
            if number == getattr(signal, "SIGHUP", None):
                leave_terminal()
            print("\nstopping after this step; again to stop at once", file=sys.stderr, flush=True)


def leave_terminal() -> None:
    """Write to nowhere what went to a terminal, where writing fails once it is closed."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
