"""Signals that ask a run to stop set a flag, and processes that load its data go on."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hblm import signals
from hblm.engine.scoring import loader


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    signals._received.clear()
    signals._listening = False
    for number, handler in before.items():
        signal.signal(number, handler)


class Documents:
    """A split of four documents."""

    def __len__(self) -> int:
        return 4


def signalled(split: Any, positions: Any) -> tuple[int, int]:
    """Collate a batch, met by every signal."""
    for number in signals.SIGNALS:
        os.kill(os.getpid(), number)
    return int(positions[0]), os.getpid()


def test_a_process_that_loads_data_goes_on():
    signals.listen()
    scoring: Any = SimpleNamespace(collate=signalled, num_workers=1)
    batches = [np.array([position]) for position in range(4)]
    loaded = list(loader(Documents(), batches, scoring))  # type: ignore[arg-type]
    assert [position for position, _ in loaded] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in loaded}
    assert signals.received() is None


@pytest.mark.parametrize("number", signals.SIGNALS)
def test_a_signal_is_heard_at_the_next_step(number):
    assert not signals.is_listening()
    signals.listen()
    signals.check()
    os.kill(os.getpid(), number)
    assert signals.received() == number.name
    with pytest.raises(signals.Stopped, match=number.name):
        signals.check()
    assert not issubclass(signals.Stopped, Exception)
