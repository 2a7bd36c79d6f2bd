"""Print throughput and latency: `python tests/bench/bench_serve.py CHECKPOINT [FOLDER] [ROUNDS] [KEY=VALUE]`.

The service and its clients are two processes on one machine. One client, then eight, each with a connection
of its own, send one text a request for three seconds: the texts of a prepared FOLDER's test split, by default
the checkpoint's. The rounds of both take turns, so that other work on the machine meets both. Prints for each
round requests a second, the median and the 99th percentile of a request's milliseconds; then the medians of
two ratios: throughput of 8 clients to 1, and p99 of 8 clients to the median of 1.
"""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

SECONDS = 3.0


def texts_of(checkpoint: Path, folder: str | None) -> list[str]:
    """Return the texts of a prepared folder's test split."""
    place = folder or json.loads((checkpoint / "hblm.json").read_text())["dataset"]["path"]
    lines = (Path(place) / "test.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines]


def requests(url: str, texts: Sequence[str], first: int, end: float) -> Iterator[float]:
    """Send texts one after the other until a time; yield the seconds of each request."""
    with httpx.Client(base_url=url, timeout=60) as client:
        at = first
        while (started := time.perf_counter()) < end:
            client.post("/predict", json={"text": texts[at % len(texts)]}).raise_for_status()
            yield time.perf_counter() - started
            at += 1


def measured(url: str, texts: Sequence[str], clients: int) -> tuple[float, float, float]:
    """Return requests a second, and the median and the 99th percentile in milliseconds."""
    end = time.perf_counter() + SECONDS
    with ThreadPoolExecutor(clients) as threads:
        runs = [
            threads.submit(lambda first: [*requests(url, texts, first, end)], 7919 * number)
            for number in range(clients)
        ]
        times = [1000 * seconds for run in runs for seconds in run.result()]
    return len(times) / SECONDS, float(np.median(times)), float(np.percentile(times, 99))


def main(checkpoint: Path, folder: str | None, rounds: int, *keys: str) -> None:
    """Measure."""
    texts = texts_of(checkpoint, folder)
    characters = statistics.median(map(len, texts))
    print(f"{len(texts):,} texts, median {characters:g} characters")
    command = [sys.executable, "-m", "hblm.serve", f"checkpoint={checkpoint}", "port=0", *keys]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as service:
        try:
            assert service.stdout is not None
            lines = iter(service.stdout.readline, "")
            url = next(found[1] for line in lines if (found := re.search(r"listening at (\S+)", line)))
            while httpx.get(f"{url}/health").status_code != 200:
                time.sleep(0.2)
            measured(url, texts, 8)  # the first requests of a process are slower
            ratios = [one_round(url, texts) for _ in range(rounds)]
        finally:
            service.terminate()
    faster, slower = (statistics.median(each) for each in zip(*ratios, strict=True))
    print(f"8 clients to 1, medians: throughput {faster:.2f} x, p99 {slower:.1f} x the median of 1")


def one_round(url: str, texts: Sequence[str]) -> tuple[float, float]:
    """Measure one client, then eight; return the ratios of throughput and latency."""
    one, eight = measured(url, texts, 1), measured(url, texts, 8)
    for clients, (rate, median, late) in ((1, one), (8, eight)):
        print(f"{clients} clients: {rate:6.1f} requests/s, median {median:6.1f} ms, p99 {late:6.1f} ms")
    return eight[0] / one[0], eight[2] / one[1]


if __name__ == "__main__":
    paths = [word for word in sys.argv[1:] if "=" not in word]
    given = [word for word in sys.argv[1:] if "=" in word]
    main(Path(paths[0]), paths[1] if len(paths) > 1 else None, int(paths[2]) if len(paths) > 2 else 5, *given)
