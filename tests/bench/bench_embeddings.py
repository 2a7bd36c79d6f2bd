"""Print the time saved by stored embeddings: `python tests/bench/bench_embeddings.py [documents]`.

Writes a set of 2,000 documents (by default) to train, 500 to validate and 500 to test under a temporary
folder. Frozen MiniLM with mean pooling, one thread, three runs that differ in their seed: the first computes
the embeddings (cold), the others read them (warm). Prints the ratio of the times of whole runs, then of two
evaluations.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))  # whose programs these are
sys.path.insert(0, str(Path(__file__).resolve().parent))
from bench_scale import documents, forest
from programs import checkpoint_of, evaluation, run

from hblm.data.writer import Conversion, write_dataset

GIVEN = (
    *("encoder=minilm", "encoder.trainable=false", "encoder.max_length=128", "pooling=mean"),
    *("trainer.epochs=5", "trainer.batch_size=32", "trainer.precision=fp32", "cache_dir=cache"),
)


def main(size: int) -> None:
    """Measure."""
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        taxonomy = forest()
        sizes = {"train": size, "val": size // 4, "test": size // 4}
        splits = {name: documents(taxonomy, name, count) for name, count in sizes.items()}
        write_dataset(Path("data"), Conversion(taxonomy, splits, {}), converter="bench")
        times, results = [], []
        for seed in (1, 2, 3):
            started = time.perf_counter()
            results.append(run(Path("data"), *GIVEN, f"seed={seed}"))
            times.append(time.perf_counter() - started)
        for cache in ("elsewhere", "cache"):
            started = time.perf_counter()
            evaluation(checkpoint_of(results[0]), f"cache_dir={cache}")
            times.append(time.perf_counter() - started)
    cold, warm = times[0], min(times[1:3])
    print(f"{size:,} documents to train: cold {cold:.1f} s, warm {warm:.1f} s, ratio {cold / warm:.1f}")
    cold, warm = times[3:]
    print(f"evaluation: cold {cold:.1f} s, warm {warm:.1f} s, ratio {cold / warm:.1f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_000)
