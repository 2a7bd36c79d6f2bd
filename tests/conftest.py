"""What all tests share: checked tensor shapes, no network, a free working folder."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # several tests run at once; threads waiting for each other cost minutes

import itertools
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# the modules whose signatures carry tensor shapes
SHAPED = ["hblm.nn", "hblm.nn.conditional", "hblm.nn.losses", "hblm.engine.metrics", "hblm.engine.thresholds"]
SHAPED += ["hblm.data.batches", "hblm.engine.embeddings"]
install_import_hook(SHAPED, "beartype.beartype")

from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path_factory, monkeypatch):
    """Run every test in an empty folder, so that none depends on, or leaves, files in the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))


def _write_fruit(folder: Path, *, one_path: bool) -> Path:
    """Write a prepared dataset that a tiny model learns: three uneven levels, a word for each node."""
    words = dict(zip(("a", "b", "a1", "a2", "b1", "a1x", "a1y"), "ABCDEFG", strict=True))  # a byte each
    parents = {"a": None, "b": None, "a1": "a", "a2": "a", "b1": "b", "a1x": "a1", "a1y": "a1"}
    taxonomy = Taxonomy(Node(node, words[node], parent) for node, parent in parents.items())
    draw = random.Random(0)
    ends = ["a1x", "a1y", "a2", "b1", "b"]

    def documents(split: str, count: int):
        for number, end in zip(range(count), itertools.cycle(ends), strict=False):
            labels = taxonomy.close([end, *(["b1"] if number % 7 == 0 and not one_path else [])])
            text = [words[label] for label in labels] + draw.choices("xyz", k=draw.randint(1, 6))
            draw.shuffle(text)
            yield Document(f"{split}{number}", " ".join(text), tuple(labels))

    splits = {"train": documents("train", 60), "val": documents("val", 20), "test": documents("test", 23)}
    write_dataset(folder, Conversion(taxonomy, splits, {}), converter="tests")
    return folder


@pytest.fixture(scope="session")
def learnable(tmp_path_factory) -> Path:
    """Return a small dataset; some documents have two paths."""
    return _write_fruit(tmp_path_factory.mktemp("data") / "fruit", one_path=False)


@pytest.fixture(scope="session")
def one_path(tmp_path_factory) -> Path:
    """Return a small dataset whose documents have one path each."""
    return _write_fruit(tmp_path_factory.mktemp("data") / "berries", one_path=True)


@pytest.fixture(scope="session")
def trained(learnable, tmp_path_factory) -> Path:
    """Return the result of a run that learnt something; tests only read it."""
    from programs import LEARNING, run

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("trained"))
        return run(learnable, *LEARNING).resolve()


@pytest.fixture
def shared() -> Iterator[Path]:
    """Give a folder of Ann's and the group's, which hands its group on, as working folder (see users.py)."""
    import users

    before = Path.cwd()
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own are closed to others
    os.chown(folder, users.ANN, users.GROUP)
    folder.chmod(0o2775)
    os.chdir(folder)
    yield folder
    os.chdir(before)
    shutil.rmtree(folder)
