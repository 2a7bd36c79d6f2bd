"""Prepare the small AAPD of the README's comparison: `python tests/bench/aapd.py data/aapd1000`.

The original validation set (1,000 documents) is split once, by a fixed seed, into 800 documents to train and
200 to validate; the original test set (1,000) stays the test set. The files are read from HBLM_SHARED_DATA,
or from ../shared/data beside the checkout.
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Iterator
from pathlib import Path

from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy

SHARED = Path(os.environ.get("HBLM_SHARED_DATA", Path(__file__).parents[3] / "shared" / "data"))
N_TRAIN, SEED = 800, 20_261_122


def read_taxonomy(path: Path) -> Taxonomy:
    """Read the tab-separated lines `parent child child ...`, in any order; Root is not a node."""
    parents: dict[str, str | None] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        parent, *children = line.split("\t")
        for child in children:
            parents[child] = None if parent == "Root" else parent
    names = json.loads((path.parent / "label_mapping.json").read_text(encoding="utf-8"))
    return Taxonomy(Node(node, names[node], parent) for node, parent in parents.items())


def documents(path: Path) -> Iterator[Document]:
    """Yield the documents of a file, named by file and line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = json.loads(line)
        yield Document(f"{path.stem}{number}", found["token"], tuple(dict.fromkeys(found["label"])))


def main() -> None:
    """Write the prepared folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("target", type=Path)
    target = parser.parse_args().target
    raw = SHARED / "aapd_hjcl"
    pool = list(documents(raw / "val.jsonl"))
    random.Random(SEED).shuffle(pool)
    splits = {"train": pool[:N_TRAIN], "val": pool[N_TRAIN:], "test": documents(raw / "test.jsonl")}
    conversion = Conversion(
        read_taxonomy(raw / "aapd.taxonomy"), splits, {"seed": SEED}, licence="as redistributed: Apache-2.0"
    )
    manifest = write_dataset(target, conversion, converter="tests/bench/aapd.py")
    print({split: counts["documents"] for split, counts in manifest["counts"].items()})


if __name__ == "__main__":
    main()
