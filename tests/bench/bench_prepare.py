"""Documents per second and peak memory of preparing: `python tests/bench/bench_prepare.py 20000 100000`.

For each number of documents, made-up texts of 200 words are written in each raw format and prepared in a
separate process: converter, writing, and statistics with MiniLM tokens of at most 15,000 texts.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

WORDS = [f"word{number}" for number in range(5000)]
Rows = Iterator[tuple[str, list[str]]]


def rows(count: int) -> Rows:
    """Yield text and path: 10 tops, 100 nodes below them, 400 leaves."""
    draw = random.Random(1)
    for _ in range(count):
        a, b, c = draw.randrange(10), draw.randrange(10), draw.randrange(5)
        path = [f"t{a}", f"t{a}s{b}", *([f"t{a}s{b}u{c}"] if c else [])]
        yield " ".join(draw.choices(WORDS, k=200)), path


def write_csv(folder: Path, found: Rows) -> None:
    """Write one CSV with a path column."""
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["text", "path"])
        writer.writerows((text, " > ".join(path)) for text, path in found)


def write_jsonl(folder: Path, found: Rows) -> None:
    """Write HiAGM's JSONL and taxonomy."""
    tree: dict[str, None] = {}
    with (folder / "data.jsonl").open("w", encoding="utf-8") as stream:
        for text, path in found:
            stream.write(json.dumps({"token": text.split(), "label": path}) + "\n")
            tree |= dict.fromkeys(
                f"{parent}\t{child}" for parent, child in zip(["Root", *path], path, strict=False)
            )
    (folder / "x.taxonomy").write_text("\n".join(tree) + "\n", encoding="utf-8")


def write_books(folder: Path, found: Rows) -> None:
    """Write blurbs and their hierarchy."""
    tree: dict[str, None] = {}
    with (folder / "blurbs.txt").open("w", encoding="utf-8") as stream:
        for number, (text, path) in enumerate(found):
            topics = "".join(f"<d{level}>{name}</d{level}>" for level, name in enumerate(path))
            stream.write(
                f"<book>\n<title>T</title>\n<body>{text}</body>\n<metadata>\n<topics>{topics}</topics>\n"
                f"<isbn>{number}</isbn>\n</metadata>\n</book>\n"
            )
            tree |= dict.fromkeys(f"{parent}\t{child}" for parent, child in itertools.pairwise(path))
    (folder / "hierarchy.txt").write_text("\n".join(tree) + "\n", encoding="utf-8")


FORMS: dict[str, tuple[str, Callable[[Path, Rows], None]]] = {
    "custom, CSV": ("custom", write_csv),
    "custom, JSONL and tree": ("custom", write_jsonl),
    "bgc": ("bgc", write_books),
}


def main() -> None:
    """Print a line for each form and number."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("documents", type=int, nargs="+")
    for count in parser.parse_args().documents:
        for name, (dataset, write) in FORMS.items():
            with tempfile.TemporaryDirectory() as place:
                raw = Path(place) / "raw"
                raw.mkdir()
                write(raw, rows(count))
                size = sum(path.stat().st_size for path in raw.iterdir())
                command = [*(sys.executable, "-m", "hblm.prepare", f"dataset={dataset}", f"raw={raw}")]
                command += [f"dataset.path={place}/made", "encoder=minilm", "allow_mismatch=true"]
                started = time.perf_counter()
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
                seconds = time.perf_counter() - started
            peak = (
                resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
            )  # of the largest child so far
            print(
                f"{name:<24} {count:>9,} documents {size / 1e6:7.0f} MB {seconds:6.1f} s "
                f"{count / seconds:8,.0f} documents/s, peak so far {peak} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
