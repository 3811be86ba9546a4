"""Ctrl-C and its kin: a run stops between two steps, with its checkpoint written."""

import contextlib
import os
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterator
from typing import TextIO

# What a terminal sends on Ctrl-C, a scheduler or the system to end a job, a closing terminal.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


def heed_signals(handler: Callable[[int, object], None] | signal.Handlers) -> None:
    """Install a handler of all SIGNALS but those that are ignored, as `nohup` has it."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextlib.contextmanager
def without_handlers() -> Iterator[None]:
    """Have each of SIGNALS end the program at once, unless it is ignored."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
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
        end_at_next_signal()
        with contextlib.suppress(OSError):  # nobody may be there to read it
            leave_closed_terminal(number)
            # Not by print, which may be what the signal has interrupted.
            os.write(2, b"\nstopping after this step; again to stop at once\n")


class Stopped(KeyboardInterrupt):
    """A signal came, Ctrl-C or another; raised wherever the main thread was.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int):
        super().__init__()
        self.number = number


def raise_at_signal() -> None:
    """Have the first signal raise Stopped, and a later one end the program."""

    def stop(number: int, frame: object) -> None:
        end_at_next_signal()
        leave_closed_terminal(number)
        raise Stopped(number)

    heed_signals(stop)


def end_at_next_signal() -> None:
    """Have the next signal end the program at once.

    What follows within a second is taken for the one before: sent to all processes, it comes once
    more from those that pass it on.
    """
    start = time.monotonic()

    def end(number: int, frame: object) -> None:
        if time.monotonic() > start + 1:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    heed_signals(end)


def escape_names() -> None:
    """Have print escape what can't be encoded: the name of a file need not be text."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def say(line: str, file: TextIO | None = None) -> None:
    """Print a line, by default to stdout, and go on where nobody reads it any more."""
    try:
        print(line, file=file, flush=True)
    except BrokenPipeError:
        leave_closed_pipe()


def leave_closed_pipe() -> None:
    """After BrokenPipeError, as before `| head -1`: write to nowhere, also what is buffered."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def leave_closed_terminal(number: int) -> None:
    """On SIGHUP, write to nowhere what went to the terminal: that is closed, and writing fails."""
    if number != getattr(signal, "SIGHUP", None):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        if stat.S_ISCHR(os.fstat(stream).st_mode):
            os.dup2(nowhere, stream)
