"""Stop signals: a run that receives one stops after its current step."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator

SIGNALS = (signal.SIGUSR2, signal.SIGTERM) if hasattr(signal, "SIGUSR2") else (signal.SIGTERM,)
_received: list[str] = []
_listening = False


class Stopped(BaseException):
    """The run stopped at the signal named. Not an Exception, so that no `except Exception` catches it."""


def listen() -> None:
    """From now on, SIGNALS (time limit, preemption, requeue) only set a flag in this process.

    In a process forked from this one the handlers do nothing.
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


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Listen in the block; the handlers from before are set again at its end."""
    global _listening
    before = {number: signal.getsignal(number) for number in SIGNALS}
    listen()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _listening = False
        _received.clear()


def is_listening() -> bool:
    """Return whether signals set the flag in this process."""
    return _listening


def ignore(listening: bool, worker: int = 0) -> None:
    """Ignore SIGNALS in a process that loads data, if the run's process listens for them.

    PyTorch's own handler of SIGTERM would end it.
    """
    for number in SIGNALS if listening else ():
        signal.signal(number, signal.SIG_IGN)


def note(name: str) -> None:
    """Count a signal as received, so that `check` raises in the other threads as well."""
    _received.append(name)


def received() -> str | None:
    """Return the name of the first signal received; None for none."""
    return _received[0] if _received else None


def check() -> None:
    """Raise Stopped if a signal was received."""
    if _received:
        raise Stopped(_received[0])
