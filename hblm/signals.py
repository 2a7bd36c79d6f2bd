"""A run that is asked to stop by a signal stops at its next step, not wherever the signal found it."""

from __future__ import annotations

import os
import signal

SIGNALS = (signal.SIGUSR2, signal.SIGTERM) if hasattr(signal, "SIGUSR2") else (signal.SIGTERM,)


_received: list[str] = []


_listening = False


class Stopped(BaseException):
    """The run was asked to stop, by the signal named; no `except Exception` takes it for a failure."""


def listen() -> None:
    """From now on the signals that announce a time limit, a preemption or a requeue only set a flag.

    In a process forked from this one the handler does nothing.
    """
    global _listening
    owner = os.getpid()
    _received.clear()
    _listening = True

    def note(number: int, frame: object) -> None:
        if os.getpid() == owner:
            _received.append(signal.Signals(number).name)

    for number in SIGNALS:
        signal.signal(number, note)


def is_listening() -> bool:
    """Return whether signals set the flag in this process."""
    return _listening


def ignore(listening: bool, worker: int = 0) -> None:
    """Go on whatever signals say, in a process that loads the data of one that listens.

    Its SIGTERM would otherwise be PyTorch's, which ends it.
    """
    for number in SIGNALS if listening else ():
        signal.signal(number, signal.SIG_IGN)


def received() -> str | None:
    """Return the name of the first signal that has come; None as long as there is none."""
    return _received[0] if _received else None


def check() -> None:
    """Raise Stopped if a signal has come."""
    if _received:
        raise Stopped(_received[0])
