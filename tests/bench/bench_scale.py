"""Time and memory of evaluation at RCV1-v2's size: `python tests/bench/bench_scale.py [test documents ...]`.

Writes synthetic sets of 103 nodes on 4 levels under a temporary folder, trains two tiny models on each, and
evaluates them, alone and as an ensemble, with and without predictions, each in a separate process. Peak
memory is the process's (`ru_maxrss`); the first evaluation also tokenises.
"""

from __future__ import annotations

import itertools
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy

SIZES = (4, 55, 43, 1)


def forest() -> Taxonomy:
    """Return a forest with RCV1-v2's levels."""
    draw = random.Random(0)
    nodes = [Node(f"0.{at}", f"0.{at}", None) for at in range(SIZES[0])]
    for level, (above, size) in enumerate(itertools.pairwise(SIZES), 1):
        nodes += [Node(f"{level}.{at}", "", f"{level - 1}.{draw.randrange(above)}") for at in range(size)]
    return Taxonomy(nodes)


def documents(taxonomy: Taxonomy, split: str, count: int) -> Iterator[Document]:
    """Yield documents of two paths, and some words about them."""
    draw = random.Random(split)
    for number in range(count):
        labels = taxonomy.close(draw.choices(taxonomy.nodes, k=2)[at].id for at in range(2))
        words = " ".join([*sorted(labels), *draw.choices("abcdefgh", k=6)])
        yield Document(f"{split}{number}", words, tuple(labels))


def run(*argv: str) -> tuple[float, float]:
    """Run a program; return its seconds and its peak memory in MB."""
    code = (
        "import resource, runpy, sys; sys.argv = sys.argv[1:]; "
        "runpy.run_module(sys.argv[0], run_name='__main__'); "
        "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code, *argv], check=True, capture_output=True, text=True)
    return time.perf_counter() - started, int(done.stdout.split()[-1]) / 1024  # in KB on Linux


def main(sizes: list[int]) -> None:
    """Measure each size."""
    taxonomy = forest()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print("documents  evaluation            seconds  peak MB")
        for size in sizes:
            data = root / str(size)
            splits = {name: documents(taxonomy, name, n) for name, n in (("train", 500), ("val", 100))}
            splits["test"] = documents(taxonomy, "test", size)
            write_dataset(data, Conversion(taxonomy, splits, {}), converter="bench")
            out = root / f"out{size}"
            # the checkpoints must be of this very data; testing them is the first pass over it
            checkpoints = []
            for direction in ("top_down", "bottom_up"):
                seconds, peak = run(
                    *(
                        "hblm.train",
                        "dataset=custom",
                        f"dataset.path={data}",
                        "encoder=tiny",
                        "trainer=smoke",
                    ),
                    *("encoder.max_length=32", "pooling=mean", f"direction={direction}", f"output_dir={out}"),
                )
                print(f"{size:9,d}  train and test {direction:<9} {seconds:6.0f} {peak:8.0f}", flush=True)
                checkpoints.append(str(next(iter((out / "checkpoints").glob(f"*{direction}*")))))
            for what, given in (
                ("single", checkpoints[0]),
                ("ensemble", f"[{','.join(checkpoints)}]"),
            ):
                for more in ((), ("predictions=true",)):
                    seconds, peak = run("hblm.evaluate", f"checkpoint={given}", *more)
                    name = " ".join([what, *("+ predictions" for _ in more)])
                    print(f"{size:9,d}  {name:<24} {seconds:6.0f} {peak:8.0f}", flush=True)
            results = sorted((out / "results").glob("eval_*.json"))
            rows = [json.loads(path.read_text())["predictions"] for path in results]
            print(f"{'':9}  rows of predictions: {[found['rows'] for found in rows if found]}", flush=True)


if __name__ == "__main__":
    main([int(size) for size in sys.argv[1:]] or [20_000, 781_265])
