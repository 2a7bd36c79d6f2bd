"""Threads of one core each: results in order, and the caller's number of threads stays."""

from __future__ import annotations

import threading

import torch

from hblm.inference.single_threads import SingleThreads


def test_results_are_in_order_and_each_thread_has_one_core():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        seen = list(SingleThreads().map(lambda item: (item, torch.get_num_threads()), range(20)))
        assert seen == [(item, 1) for item in range(20)]
        assert torch.get_num_threads() == 3
        counts: list[int] = []
        thread = threading.Thread(target=lambda: counts.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert counts == [3]  # of the threads of others
    finally:
        torch.set_num_threads(before)
