"""Token caches and batches: each document once, in time, and nothing trusted that is not whole."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from hblm.data import batches, tokens
from hblm.data.batches import (
    JoinedSplit,
    calibration_positions,
    collate,
    evaluation_batches,
    hold_back,
    subsample,
    training_steps,
)
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.tokens import TokenisedSplit, tokenise, tokenizer_hash
from hblm.document import Document
from hblm.encoders.encoder import load_encoder, save_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Node, Taxonomy

TAXONOMY = Taxonomy(
    [Node("b", "B", None), Node("a/x", "X", "a"), Node("a", "A", None), Node("a/y", "Y", "a")]
)
TEXTS = ["", "short", "naïve – “quotes” 😀 \u2028 end", "a text that is longer than the others " * 4, "\t\n"]
LABELS = [("a",), ("b",), ("a/x", "a"), ("b", "a", "a/y"), ("a", "a/y", "a/x")]
TINY = locate("tiny", None)


def write(folder: Path, copies: int = 3) -> Prepared:
    folder.mkdir(parents=True)
    (folder / "taxonomy.json").write_text(TAXONOMY.to_json())
    for split in ("train", "val", "test"):
        lines = [
            Document(f"{split}-{copy}-{number}", text, LABELS[number]).to_json()
            for copy in range(copies)
            for number, text in enumerate(TEXTS)
        ]
        if split != "train":
            lines.append(Document("none", "no label", ()).to_json())
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n")
    return open_prepared(folder)


@pytest.fixture
def prepared(tmp_path):
    return write(tmp_path / "data")


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(TINY)


@pytest.fixture
def splits(prepared, tokenizer, tmp_path):
    return tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")


@pytest.fixture
def never(monkeypatch):
    """Make reading documents or writing a cache a failure."""

    def refuse(*args, **kwargs):
        raise AssertionError("the cache should have been enough")

    monkeypatch.setattr(Prepared, "documents", refuse)
    monkeypatch.setattr(tokens, "_write", refuse)


def rows(split: TokenisedSplit) -> list[list[int]]:
    owners, ids = split.tokens(np.arange(len(split)))
    return [ids[owners == row].tolist() for row in range(len(split))]


def folder_of(tmp_path: Path) -> Path:
    (folder,) = [path for path in (tmp_path / "cache" / "tokens").iterdir() if path.is_dir()]
    return folder


def test_the_tokens_are_the_tokenizers(splits, tokenizer):
    sizes = {"train": 15, "val": 16, "test": 16, "nodes": len(TAXONOMY)}
    assert {name: len(split) for name, split in splits.items()} == sizes
    expected = tokenizer(TEXTS * 3, truncation=True, max_length=40)["input_ids"]
    assert rows(splits["train"]) == expected
    assert splits["train"].lengths.tolist() == [len(ids) for ids in expected]
    assert splits["train"].lengths.max() == 40
    assert splits["train"].tokens(np.array([0]))[1].dtype == np.uint16
    assert len(expected[0]) == 2, "an empty text is its special tokens"


def test_the_labels_are_positions_in_taxonomy_order(splits):
    owners, labels = splits["train"].labels(np.arange(5))
    for row, given in enumerate(LABELS):
        assert {TAXONOMY.nodes[at].id for at in labels[owners == row]} == set(given)
    assert splits["train"].label_counts(len(TAXONOMY)).tolist() == [6, 12, 6, 6]
    assert splits["val"].label_counts(5).tolist() == [6, 12, 6, 6, 0]


def test_ids_are_kept(splits):
    assert splits["val"].document_ids()[-1] == "none"
    assert splits["train"].document_ids()[:2] == ["train-0-0", "train-0-1"]


def test_texts_are_streamed_in_portions(prepared, tokenizer, tmp_path, splits, monkeypatch):
    monkeypatch.setattr(tokens, "_AT_ONCE", 4)
    monkeypatch.setattr(tokens, "_CHARACTERS_AT_ONCE", 60)
    told = []

    def progress(description, total):
        told.append((description, total, steps := []))
        return steps.append

    again = tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "other", progress=progress)
    for name, split in splits.items():
        assert rows(again[name]) == rows(split)
        assert again[name].document_ids() == split.document_ids()
    assert [(description, sum(steps)) for description, _, steps in told] == [
        ("tokenising train", 15),
        ("tokenising val", 16),
        ("tokenising test", 16),
        ("tokenising nodes", len(TAXONOMY)),
    ]
    assert max(max(steps) for _, _, steps in told) <= 4


def test_the_second_time_nothing_is_read(prepared, tokenizer, tmp_path, splits, never):
    again = tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert rows(again["train"]) == rows(splits["train"])


def test_a_split_travels_as_its_place(splits):
    part = subsample(splits["train"], 0.4)
    packed = pickle.dumps(part)
    assert len(packed) < 1000
    assert rows(pickle.loads(packed)) == rows(part)


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
def test_the_documents_held_back_for_calibration_are_in_no_other_part(splits, share):
    whole = subsample(splits["train"], 0.8)
    rest, kept = hold_back(whole, share)
    assert len(kept) == round(share * len(whole))
    assert sorted(rest.document_ids() + kept.document_ids()) == sorted(whole.document_ids())
    every = whole.document_ids()
    chosen = calibration_positions(len(whole), share)
    assert kept.document_ids() == [every[position] for position in chosen]


def test_a_share_that_leaves_no_document_is_refused(splits):
    with pytest.raises(ConfigError, match=r"trainer.calibration_share=0.001 keeps 0 of the"):
        hold_back(splits["train"], 0.001)


def test_what_it_was_made_from_makes_the_key(prepared, tokenizer, tmp_path):
    cache = tmp_path / "cache"

    def keys():
        return {path.name for path in (cache / "tokens").iterdir() if path.is_dir()}

    tokenise(prepared, tokenizer, max_length=40, cache_dir=cache)
    tokenise(prepared, tokenizer, max_length=41, cache_dir=cache)
    assert len(keys()) == 2
    tokenise(write(tmp_path / "more", copies=4), tokenizer, max_length=40, cache_dir=cache)
    assert len(keys()) == 3
    tokenise(write(tmp_path / "copy"), tokenizer, max_length=40, cache_dir=cache)
    assert len(keys()) == 3, "the same files elsewhere are the same dataset"
    other = load_tokenizer(TINY)
    other.add_tokens(["short"])
    tokenise(prepared, other, max_length=40, cache_dir=cache)
    assert len(keys()) == 4


@pytest.mark.parametrize("name", ["tiny", "sentence-transformers/all-MiniLM-L6-v2"])
def test_a_tokenizer_is_known_by_what_it_does(name, tmp_path):
    source = locate(name, None)
    tokenizer = load_tokenizer(source)
    before = tokenizer_hash(tokenizer)
    tokenizer(["some text"], truncation=True, max_length=7, padding="max_length")
    assert tokenizer_hash(tokenizer) == before
    save_encoder(tmp_path, load_encoder(TINY, dropout=None, gradient_checkpointing=False), tokenizer)
    kept = load_tokenizer(locate_files(tmp_path))
    assert tokenizer_hash(kept) == before
    kept.truncation_side = "left"
    assert tokenizer_hash(kept) != before


def locate_files(folder: Path):
    return type(TINY)(str(folder), None, folder)


def test_the_tokenizer_is_left_as_it_was(prepared, tmp_path):
    tokenizer = load_tokenizer(TINY)
    before = tokenizer.backend_tokenizer.to_str()
    tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert tokenizer.backend_tokenizer.to_str() == before


@pytest.mark.parametrize(
    "name",
    [
        *("train.tokens", "train.offsets", "train.labels", "train.label_offsets", "train.ids"),
        *("val.labels", "test.tokens", "dtypes.json"),
    ],
)
def test_one_flipped_bit_makes_it_again(name, prepared, tokenizer, tmp_path, splits):
    file = folder_of(tmp_path) / name
    written = file.read_bytes()
    damaged = bytearray(written)
    damaged[len(damaged) // 2] ^= 1
    file.write_bytes(damaged)
    tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert file.read_bytes() == written


def test_tokens_are_told_apart(prepared, tokenizer, tmp_path, splits):
    split = splits["train"]
    known = [split, splits["val"], subsample(split, 0.4), subsample(split, 0.8)]
    cut = tokenise(prepared, tokenizer, max_length=30, cache_dir=tmp_path / "cache")["train"]
    made = [each.identity() for each in (*known, cut)]
    assert all(one not in made[:at] for at, one in enumerate(made))
    elsewhere = tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "other")["train"]
    assert elsewhere.identity() == split.identity()
    assert subsample(elsewhere, 0.4).identity() == subsample(split, 0.4).identity()


@pytest.mark.parametrize("damage", ["cut", "longer", "missing", "meta", "foreign", "offsets"])
def test_a_damaged_cache_is_made_again(damage, prepared, tokenizer, tmp_path, splits):
    expected = rows(splits["test"])
    folder = folder_of(tmp_path)
    tokens, meta = folder / "train.tokens", folder / "meta.json"
    if damage == "cut":
        tokens.write_bytes(tokens.read_bytes()[:-2])
    elif damage == "longer":
        tokens.write_bytes(tokens.read_bytes() + b"\0\0")
    elif damage == "missing":
        (folder / "test.labels").unlink()
    elif damage == "meta":
        meta.write_text(meta.read_text()[:50])
    elif damage == "foreign":
        content = json.loads(meta.read_text())
        content["made_from"]["max_length"] = 39
        meta.write_text(json.dumps(content))
    else:
        (folder / "train.offsets").write_bytes(bytes((folder / "train.offsets").stat().st_size))
    again = tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert rows(again["test"]) == expected
    assert not list(folder.parent.glob(".*.tmp"))


def test_a_broken_test_split_is_found_and_leaves_nothing(prepared, tokenizer, tmp_path):
    with (prepared.folder / "test.jsonl").open("a") as file:
        file.write('{"id": "x", "text": "y", "labels": ["a/x"]}\n')
    with pytest.raises(DataError, match=r"test\.jsonl:17"):
        tokenise(open_prepared(prepared.folder), tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] in ([], [".lock"])


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_documents_that_were_replaced_after_they_were_hashed_leave_nothing(
    split, prepared, tokenizer, tmp_path
):
    file = prepared.folder / f"{split}.jsonl"
    old = file.read_text()
    file.write_text(old.replace('"id": "', '"id": "_'))
    with pytest.raises(DataError, match=rf"{split}\.jsonl: changed while it was read"):
        tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")
    assert [path.suffix for path in (tmp_path / "cache" / "tokens").iterdir()] in ([], [".lock"])
    file.write_text(old)
    tokenise(prepared, tokenizer, max_length=40, cache_dir=tmp_path / "cache")


def test_no_room_for_text(prepared, tokenizer, tmp_path):
    with pytest.raises(ConfigError, match=r"max_length=2 leaves no room .* at least 3"):
        tokenise(prepared, tokenizer, max_length=2, cache_dir=tmp_path)


# A process of its own, that tokenises slowly: says when it is ready and when it writes, at last what it has.
WORKER = """
import sys, time
from pathlib import Path
from hblm.data import tokens as batches
from hblm.data.dataset import open_prepared
from transformers import PreTrainedTokenizerFast  # importing hblm.encoders.encoder would take twice as long
prepared, cache, seconds = open_prepared(Path(sys.argv[1])), Path(sys.argv[2]), float(sys.argv[3])
tokenizer = PreTrainedTokenizerFast(tokenizer_file=sys.argv[4])
write = batches._write
def slow(*args):
    write(*args)
    print("wrote", flush=True)
    time.sleep(seconds)
batches._write = slow
print("ready", flush=True)
sys.stdin.readline()
splits = batches.tokenise(prepared, tokenizer, max_length=40, cache_dir=cache)
print(int(splits["train"].lengths.sum()), flush=True)
"""


def worker(prepared: Prepared, tmp_path: Path, seconds: float) -> subprocess.Popen[str]:
    arguments = [prepared.folder, tmp_path / "cache", seconds, tmp_path / "tokenizer.json"]
    command = [sys.executable, "-c", WORKER, *map(str, arguments)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_of_two_processes_one_tokenises_and_one_that_is_killed_leaves_nothing(prepared, tokenizer, tmp_path):
    tokenizer.backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    killed, *others = [worker(prepared, tmp_path, seconds) for seconds in (60, 0.5, 0.5)]
    for process in (killed, *others):
        assert process.stdout.readline() == "ready\n"
    killed.stdin.write("go\n")
    killed.stdin.flush()
    assert killed.stdout.readline() == "wrote\n"
    killed.kill()
    killed.communicate()
    folder = tmp_path / "cache" / "tokens"
    assert len(list(folder.glob(".*.tmp"))) == 1, "all is written, but not under its name"
    for process in others:
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].splitlines() for process in others]
    lengths = [len(ids) for ids in tokenizer(TEXTS * 3, truncation=True, max_length=40)["input_ids"]]
    assert sorted(said) == sorted([[str(sum(lengths))], ["wrote", str(sum(lengths))]])
    assert not list(folder.glob(".*.tmp"))


@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.34, 0.5, 0.9, 1.0])
def test_a_subsample_is_nested_and_fixed(splits, fraction):
    train = splits["train"]
    part = subsample(train, fraction)
    assert len(part) == max(1, round(fraction * len(train)))
    ids = part.document_ids()
    assert subsample(train, fraction).document_ids() == ids
    assert ids == [name for name in train.document_ids() if name in set(ids)], "in the file's order"
    for larger in (fraction, 0.95, 1.0):
        if larger >= fraction:
            assert set(ids) <= set(subsample(train, larger).document_ids())
    everything = dict(zip(train.document_ids(), rows(train), strict=True))
    assert rows(part) == [everything[name] for name in ids]
    targets = collate(part, np.arange(len(part)), n_nodes=4, pad_id=0).targets
    assert part.label_counts(4).tolist() == targets.sum(0).tolist()
    stops = targets.clone()
    for node, parent in enumerate(TAXONOMY.parents):
        if parent >= 0:
            stops[:, parent] *= 1 - targets[:, node]
    assert part.stop_counts(TAXONOMY.parents).tolist() == stops.sum(0).tolist()


def test_the_subsample_never_changes(splits):
    """Drawn by a promise of numpy's: these are the documents of 0.2, on every machine."""
    assert subsample(splits["train"], 0.2).document_ids() == ["train-0-3", "train-1-4", "train-2-3"]


def test_a_subsample_of_a_subsample(splits):
    part = subsample(subsample(splits["train"], 0.8), 0.5)
    assert len(part) == 6
    assert len(set(part.document_ids())) == 6


@pytest.mark.parametrize("fraction", [0.0, -1.0, 1.01])
def test_a_fraction_that_is_none(splits, fraction):
    with pytest.raises(ConfigError, match="dataset_fraction="):
        subsample(splits["train"], fraction)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (8, 8), (9, 8), (1442, 32), (5000, 16), (7, 1)])
def test_every_document_once_per_epoch(count, batch_size):
    lengths = np.random.default_rng(0).integers(2, 512, count)
    for epoch in (0, 1):
        steps = training_steps(lengths, batch_size=batch_size, seed=1, epoch=epoch)
        assert sorted(np.concatenate(steps).tolist()) == list(range(count))
        assert [len(step) for step in steps[:-1]] == [batch_size] * (len(steps) - 1)
        assert len(steps) == -(-count // batch_size)


def test_the_seed_and_epoch_decide_the_order():
    lengths = np.random.default_rng(0).integers(2, 512, 500)

    def order(seed, epoch):
        return [step.tolist() for step in training_steps(lengths, batch_size=16, seed=seed, epoch=epoch)]

    assert order(1, 3) == order(1, 3)
    assert order(1, 3) != order(1, 4)
    assert order(1, 3) != order(2, 3)
    assert {frozenset(step) for step in order(1, 3)}.isdisjoint({frozenset(step) for step in order(1, 4)})


@pytest.mark.parametrize(("count", "waste"), [(1442, 1.25), (20_000, 1.06)])
def test_similar_lengths_come_together(count, waste):
    lengths = np.random.default_rng(0).lognormal(5, 0.6, count).astype(np.int64).clip(3, 256)

    def padded(steps):
        return sum(len(step) * lengths[step].max() for step in steps) / lengths.sum()

    steps = training_steps(lengths, batch_size=32, seed=1, epoch=0)
    assert padded(steps) < waste
    assert padded(np.array_split(np.arange(count), count // 32)) > 1.5
    widths = [lengths[step].max() for step in steps]
    assert np.abs(np.corrcoef(widths, np.arange(len(widths)))[0, 1]) < 0.3, "no order among the steps"


def test_evaluation_takes_the_longest_first():
    lengths = np.array([3, 9, 9, 1, 5])
    found = evaluation_batches(lengths, batch_size=2)
    assert [batch.tolist() for batch in found] == [[1, 2], [4, 0], [3]]
    assert evaluation_batches(lengths[:0], batch_size=2) == []


def test_collating_is_the_tokenizers_padding_on_the_right(splits, tokenizer):
    chosen = np.array([3, 0, 7, 1])
    batch = collate(splits["train"], chosen, n_nodes=4, pad_id=tokenizer.pad_token_id)
    texts = [(TEXTS * 3)[position] for position in chosen]
    expected = tokenizer(
        texts, truncation=True, max_length=40, padding=True, padding_side="right", return_tensors="pt"
    )
    assert torch.equal(batch.inputs["input_ids"], expected["input_ids"])
    assert torch.equal(batch.inputs["attention_mask"], expected["attention_mask"])
    for row, position in enumerate(chosen):
        nodes = {TAXONOMY.nodes[at].id for at in batch.targets[row].nonzero()[:, 0]}
        assert nodes == set((LABELS * 3)[position])
    assert len(batch) == len(batch.to("cpu")) == 4


def test_a_width_can_be_rounded_up(splits):
    batch = collate(splits["train"], np.array([1]), n_nodes=4, pad_id=0, multiple_of=8)
    assert batch.inputs["input_ids"].shape == (1, 8)
    assert batch.inputs["attention_mask"].sum() == 7


def test_a_document_without_labels(splits):
    batch = collate(splits["val"], np.array([15]), n_nodes=4, pad_id=0)
    assert batch.targets.sum() == 0


def test_nodes_are_documents_of_their_own(tokenizer, tmp_path):
    """Each says what its node says, and bears the node and its ancestors."""
    taxonomy = Taxonomy([Node("r", "Top_level", None, "A description."), Node("r/c", "Child_of_it", "r")])
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "taxonomy.json").write_text(taxonomy.to_json())
    for split in ("train", "val", "test"):
        (folder / f"{split}.jsonl").write_text(Document("1", "text", ("r",)).to_json() + "\n")
    nodes = tokenise(open_prepared(folder), tokenizer, max_length=40, cache_dir=tmp_path / "cache")["nodes"]
    assert rows(nodes) == tokenizer(["A description.", "Child of it"])["input_ids"]
    assert nodes.document_ids() == ["r", "r/c"]
    assert batches.targets_of(nodes, np.arange(2), 2).tolist() == [[1, 0], [1, 1]]


def test_a_joined_split_is_both(splits):
    """Whatever the order, a batch holds each document as its own split has it."""
    joined = JoinedSplit(splits["train"], splits["nodes"])
    assert len(joined) == 15 + len(TAXONOMY)
    options = {"n_nodes": len(TAXONOMY), "pad_id": 0}
    for indices in (np.array([16, 3, 15, 0, 18]), np.array([2, 1]), np.array([17, 16])):
        batch = collate(joined, indices, **options)
        for row, index in enumerate(indices):
            name, position = ("train", index) if index < 15 else ("nodes", index - 15)
            alone = collate(splits[name], np.array([position]), **options)
            length = joined.lengths[index]
            assert length == alone.inputs["attention_mask"].sum() == batch.inputs["attention_mask"][row].sum()
            assert torch.equal(batch.inputs["input_ids"][row, :length], alone.inputs["input_ids"][0])
            assert not batch.inputs["input_ids"][row, length:].any()
            assert torch.equal(batch.targets[row], alone.targets[0])
    again = collate(pickle.loads(pickle.dumps(joined)), indices, **options)
    assert torch.equal(again.inputs["input_ids"], batch.inputs["input_ids"])
