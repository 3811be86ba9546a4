"""Ctrl-C and its kin: a run stops between two steps, with its checkpoint written."""

import signal
import sys

# What a terminal sends on Ctrl-C, a scheduler or the system to end a job, a closing terminal.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


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
        for number in SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: object) -> None:
        self.number = number
        signal.signal(number, signal.SIG_DFL)  # the second one ends the program at once
        print("\nstopping after this step; again to stop at once", file=sys.stderr, flush=True)
