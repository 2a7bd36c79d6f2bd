"""Compare prediction by a checkpoint's model, by its ONNX folder, and by its 8-bit ONNX folder, on a CPU.

    python tests/bench/bench_onnx.py CHECKPOINT FOLDER INT8_FOLDER [--texts N] [--rounds 5]

The texts are those of the checkpoint's test split. The three take turns; ratios are of medians of one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

from hblm.config.stored_model import StoredModel
from hblm.inference.predictor import open_predictor
from hblm.runs.checkpoint import open_checkpoint, open_data

FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "avx512_bf16")


def main() -> None:
    """Print seconds, texts a second and ratios."""
    parser = argparse.ArgumentParser()
    parser.add_argument("checkpoint")
    parser.add_argument("fp32")
    parser.add_argument("int8")
    parser.add_argument("--texts", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    info = Path("/proc/cpuinfo").read_text().split()
    print("processor:", " ".join(flag for flag in FLAGS if flag in info))
    documents = open_data(open_checkpoint(Path(given.checkpoint)), None).documents("test")
    texts = [document.text for document, _ in zip(documents, range(given.texts), strict=False)]
    places = {"torch": given.checkpoint, "onnx": given.fp32, "onnx int8": given.int8}
    predictors = {
        name: open_predictor(StoredModel(checkpoint=[place], device="cpu", precision="fp32"))
        for name, place in places.items()
    }
    seconds: dict[str, list[float]] = {name: [] for name in places}
    for number in range(given.rounds + 1):
        for name, predictor in predictors.items():
            start = time.process_time(), time.perf_counter()
            predictor.scores(texts)
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - start[1])
                print(f"{name}: {seconds[name][-1]:.2f} s, CPU {time.process_time() - start[0]:.2f} s")
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    for name, median in medians.items():
        ratio = medians["onnx"] / median
        print(f"{name}: {len(texts) / median:.0f} texts/s, {ratio:.2f} x onnx")


if __name__ == "__main__":
    main()
