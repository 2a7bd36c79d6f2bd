"""Print the time of one ScoreCounter.update: python tests/bench/bench_metrics.py [threads]."""

from __future__ import annotations

import itertools
import statistics
import sys
import time

import torch

from hblm.engine.metrics import ScoreCounter
from hblm.taxonomy import Node, Taxonomy

# (documents in a batch, nodes of each level): deep, then about RCV1-v2, WOS, BGC. The largest comes first:
# until glibc has freed a block of some size once, it takes such blocks from the system, page by page.
SHAPES = [
    (256, (9, 70, 200, 400, 350, 157)),
    (128, (9, 70, 200, 400, 350, 157)),
    (64, (9, 70, 200, 400, 350, 157)),
    (128, (4, 55, 43, 1)),
    (128, (7, 134)),
    (128, (7, 46, 77, 16)),
]
REPEATS = 300


def forest(sizes: tuple[int, ...]) -> Taxonomy:
    """Return a forest with these levels, each node's parent drawn at random."""
    generator = torch.Generator().manual_seed(0)
    nodes = [Node(f"0.{at}", "", None) for at in range(sizes[0])]
    for level, (above, size) in enumerate(itertools.pairwise(sizes), 1):
        parents = torch.randint(above, (size,), generator=generator).tolist()
        nodes += [Node(f"{level}.{at}", "", f"{level - 1}.{parent}") for at, parent in enumerate(parents)]
    return Taxonomy(nodes)


def main(threads: int) -> None:
    """Time every shape on the CPU, after a warm-up."""
    torch.set_num_threads(threads)
    print(f"torch {torch.__version__}, {threads} thread(s), {REPEATS} updates a shape")
    # The processor's time beside the clock's: on a busy machine only the first says what the code costs.
    print("documents  nodes  levels   update µs: fastest  median  processor   compute ms")
    for n_documents, sizes in SHAPES:
        counter = ScoreCounter(forest(sizes), 0.5)
        generator = torch.Generator().manual_seed(1)
        scores = torch.rand(n_documents, sum(sizes), generator=generator) ** 7  # about a tenth is predicted
        targets = torch.rand(n_documents, sum(sizes), generator=generator) < 0.01
        for _ in range(20):
            counter.update(scores, targets)
        seconds = []
        cpu = time.process_time()
        for _ in range(REPEATS):
            start = time.perf_counter()
            counter.update(scores, targets)
            seconds.append(time.perf_counter() - start)
        cpu = 1e6 * (time.process_time() - cpu) / REPEATS
        start = time.perf_counter()
        counter.compute()
        compute = 1e3 * (time.perf_counter() - start)
        print(
            f"{n_documents:9d} {sum(sizes):6d} {len(sizes):7d} {1e6 * min(seconds):20.0f} "
            f"{1e6 * statistics.median(seconds):7.0f} {cpu:10.0f} {compute:12.1f}"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else torch.get_num_threads())
