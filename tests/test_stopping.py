"""Signals that ask a run to stop set a flag, and processes that load its data go on."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from hblm import stopping


@pytest.fixture(autouse=True)
def _handlers_as_before():
    before = {number: signal.getsignal(number) for number in stopping.SIGNALS}
    yield
    stopping._asked.clear()
    stopping._listening = False
    for number, handler in before.items():
        signal.signal(number, handler)


class Signalled(Dataset[Any]):
    """Documents whose loading is met by every signal."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, position: int) -> torch.Tensor:
        for number in stopping.SIGNALS:
            os.kill(os.getpid(), number)
        return torch.tensor([position, os.getpid()])


def test_a_process_that_loads_data_goes_on():
    stopping.listen()
    loaded = [batch.tolist() for batch in DataLoader(Signalled(), batch_size=None, num_workers=1)]
    assert [position for position, _ in loaded] == [0, 1, 2, 3]
    assert os.getpid() not in {process for _, process in loaded}
    assert stopping.asked() is None
    stopping.check()


@pytest.mark.parametrize("number", stopping.SIGNALS)
def test_a_signal_is_heard_at_the_next_step(number):
    assert not stopping.is_listening()
    stopping.listen()
    stopping.check()
    os.kill(os.getpid(), number)
    assert stopping.asked() == number.name
    with pytest.raises(stopping.Stopped, match=number.name):
        stopping.check()
    assert not issubclass(stopping.Stopped, Exception)
