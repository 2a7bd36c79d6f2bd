"""What all tests share: checked tensor shapes, no network, a free working folder."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # several tests run at once; threads waiting for each other cost minutes

import contextlib
import itertools
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock
from jaxtyping import install_import_hook

# the modules whose signatures carry tensor shapes
SHAPED = ["hblm.nn", "hblm.nn.conditional", "hblm.nn.losses", "hblm.engine.metrics", "hblm.engine.thresholds"]
SHAPED += ["hblm.data.batches", "hblm.engine.embeddings"]
install_import_hook(SHAPED, "beartype.beartype")

# --hypothesis-profile=long draws more; a deadline would measure who else uses the machine
for profile, examples in {"long": 500, "short": 10}.items():
    hypothesis.settings.register_profile(profile, deadline=None, max_examples=examples)
hypothesis.settings.load_profile("short")

from hblm.data.writer import Conversion, write_dataset
from hblm.document import Document
from hblm.taxonomy import Node, Taxonomy

_EMPTY: list[Path] = []  # a working folder that the last test left empty


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path_factory):
    """Run every test in an empty folder, so that none depends on, or leaves, files in the checkout."""
    folder = _EMPTY.pop() if _EMPTY else tmp_path_factory.mktemp("cwd")
    before = Path.cwd()
    os.chdir(folder)
    yield
    os.chdir(before)
    with contextlib.suppress(OSError), os.scandir(folder) as entries:  # a test may have moved it
        if next(entries, None) is None:
            _EMPTY.append(folder)  # thousands of new folders take seconds


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
def made_once(tmp_path_factory) -> Callable[[str, Callable[[Path], object]], Path]:
    """Return a function that fills a folder once for all processes of the tests, and returns it to read."""
    root = tmp_path_factory.getbasetemp()
    root = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root

    def make(name: str, fill: Callable[[Path], object]) -> Path:
        folder, done = root / f"once-{name}", root / f"once-{name}.done"
        with FileLock(root / f"once-{name}.lock"):
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                fill(folder)
                done.touch()
        return folder

    return make


@pytest.fixture(scope="session")
def learnable(made_once) -> Path:
    """Return a small dataset; some documents have two paths."""
    return made_once("data", lambda folder: _write_fruit(folder / "fruit", one_path=False)) / "fruit"


@pytest.fixture(scope="session")
def one_path(made_once) -> Path:
    """Return a small dataset whose documents have one path each."""
    return made_once("one-path", lambda folder: _write_fruit(folder / "berries", one_path=True)) / "berries"


@pytest.fixture(scope="session")
def train_once(learnable, made_once, tmp_path_factory) -> Callable[..., list[Path]]:
    """Return a function that trains runs once for all processes and returns a copy of their results."""
    from programs import run

    def make(name: str, *runs: tuple[str, ...]) -> list[Path]:
        def train(folder: Path) -> None:
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(folder)
                made = [run(learnable, *overrides) for overrides in runs]
            (folder / "results.json").write_text(json.dumps([str(path) for path in made]))

        copy = shutil.copytree(made_once(name, train), tmp_path_factory.mktemp(name), dirs_exist_ok=True)
        return [copy / path for path in json.loads((copy / "results.json").read_text())]

    return make


@pytest.fixture(scope="session")
def trained(train_once) -> Path:
    """Return the result of a run that learnt something; tests only read it."""
    from programs import LEARNING

    return train_once("trained", LEARNING)[0]


@pytest.fixture(scope="session")
def tri(train_once) -> Path:
    """Return the result of a joint run that learnt something; tests only read it."""
    from programs import LEARNING

    return train_once("tri", ("joint_variant=tri_head_diffcat", *LEARNING))[0]


@pytest.fixture(scope="session")
def kept(train_once) -> Path:
    """Return the result of a run that tuned thresholds and kept ten documents; tests only read it."""
    from programs import LEARNING

    keys = ("trainer.epochs=4", "trainer.calibration_share=0.5", "tune=node")
    return train_once("kept", (*LEARNING, *keys))[0]


@pytest.fixture(scope="session")
def pair(train_once) -> tuple[Path, Path]:
    """Return the checkpoints of a top-down and a bottom-up run, of two poolings; tests only read them."""
    from programs import LEARNING, checkpoint_of

    short = (*LEARNING, "trainer.epochs=5")
    td, bu = train_once("pair", short, (*short, "direction=bottom_up", "pooling=mean"))
    return checkpoint_of(td), checkpoint_of(bu)


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
