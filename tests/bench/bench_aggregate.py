"""Time and memory of a table of ten thousand results: python tests/bench/bench_aggregate.py [RESULTS]

Writes made-up results (methods x datasets x film scales x seeds, 20 epochs of history each) into a temporary
folder, runs `python -m hblm.aggregate` on them in a separate process, and prints seconds and peak memory.
"""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "helpers"))
import made_results

METHODS = ("flat", "top_down", "bottom_up", "dual", "tri_head_diffcat")
SEEDS = 5


def main(count: int) -> None:
    """Measure with `count` results."""
    with tempfile.TemporaryDirectory() as place:
        for number in range(count):
            rest, seed = divmod(number, SEEDS)
            rest, method = divmod(rest, len(METHODS))
            scale, dataset = divmod(rest, len(made_results.LEVELS))
            made = made_results.result(
                METHODS[method],
                seed + 1,
                list(made_results.LEVELS)[dataset],
                micro=0.8 + 0.001 * seed + 0.002 * method,
                macro=0.7 + 0.001 * seed + 0.003 * method,
                epochs=20,
                trainer__learning_rate=1e-5 * (scale + 1),
            )
            made_results.write(Path(place), f"r{number:06}", made)
        command = [sys.executable, "-m", "hblm.aggregate", f"results={place}", f"output_dir={place}/out"]
        for more in ([], ["rows=[method,trainer.learning_rate]", "frame=parquet"]):
            started = time.perf_counter()
            subprocess.run([*command, *more], check=True, stdout=subprocess.DEVNULL)
            took = time.perf_counter() - started
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            print(f"{count:,} results {' '.join(more)}: {took:.1f} s, at most {peak:.0f} MB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
