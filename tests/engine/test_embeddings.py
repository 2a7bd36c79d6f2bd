"""Embeddings of a frozen encoder: computed once, the same to the bit from the cache, never damaged ones."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from programs import TINY, checkpoint_of, compose, evaluation, numbers, run

from hblm.config.train import TrainConfig
from hblm.data.batches import PooledSplit, collate, subsample
from hblm.data.dataset import open_prepared
from hblm.data.tokens import tokenise
from hblm.encoders.encoder import encoder_from_folder, frozen_encoder_hash, load_encoder, save_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build, device, embeddings
from hblm.engine.embeddings import Embedder
from hblm.nn.classifier import Classifier

FROZEN = ("encoder.trainable=false", "pooling=mean", "film=logit", "cache_dir=cache")
QUIET = partial(lambda description, total: lambda steps: None)


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    """Return the folder of an encoder with weights of its own, whatever the run's seed."""
    folder = tmp_path_factory.mktemp("bert")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(5)
    transformers.AutoModel.from_config(transformers.BertConfig(**size, vocab_size=300)).save_pretrained(
        folder
    )
    load_tokenizer(locate("tiny")).save_pretrained(folder)
    return folder


def embedder(learnable: Path, bert: Path, *overrides: str, max_length: int = 24):
    """Return an embedder of a model of this configuration, and the tokenised splits."""
    given = ("encoder.trainable=false", f"encoder.model_name={bert}", "pooling=mean", *overrides)
    config = compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *given)
    prepared, source = open_prepared(learnable), locate(config.encoder.model_name)
    accelerator = device.accelerator("cpu", config.trainer.precision, fallback="fp32")
    encoder = load_encoder(source, dropout=config.encoder.dropout, gradient_checkpointing=False)
    tokenizer = load_tokenizer(source)
    splits = tokenise(prepared, tokenizer, max_length=max_length, cache_dir=Path("cache"))
    scoring = build.scoring(
        config,
        prepared.taxonomy,
        tokenizer,
        build.TrainingCounts.of(splits["train"], prepared.taxonomy),
        threshold=0.5,
        batch_size=build.eval_batch_size(config),
        num_workers=config.trainer.num_workers,
    )
    model = build.classifier(config, prepared.taxonomy, encoder)
    del splits["nodes"]
    return Embedder(model, tokenizer, scoring, accelerator, Path("cache")), splits


def entries() -> set[Path]:
    return {path for path in Path("cache/embeddings").iterdir() if path.is_dir()}


def rows(split: PooledSplit) -> np.ndarray:
    return split.vectors(np.arange(len(split))).numpy()


@pytest.fixture
def never_run(monkeypatch):
    """Return a function after which running an encoder is a failure."""

    def refuse(*_):
        raise AssertionError("the encoder was run")

    return lambda: monkeypatch.setattr(Classifier, "pool", refuse)


@pytest.mark.parametrize("at_once", [2, pytest.param(512, marks=pytest.mark.slow)])
def test_vectors_are_the_encoders_in_the_order_of_the_split(learnable, bert, monkeypatch, at_once):
    monkeypatch.setattr(embeddings, "_BATCH_SIZE", 7)
    monkeypatch.setattr(embeddings, "_BATCHES_AT_ONCE", at_once)
    maker, splits = embedder(learnable, bert, "trainer.precision=fp32")
    splits = {**splits, "part": subsample(splits["train"], 0.4)}
    steps: dict[str, list[int]] = {}
    found = maker.embed(splits, lambda description, total: steps.setdefault(description, []).append)
    assert {name: sum(counts) for name, counts in steps.items()} == {
        f"embedding {name}": len(split) for name, split in splits.items()
    }
    for name, split in splits.items():
        vectors = rows(found[name])
        assert vectors.shape == (len(split), 16)
        assert vectors.dtype == np.float32
        for position in range(len(split)):  # alone, so that nothing is padded
            batch = collate(split, np.array([position]), n_nodes=7, pad_id=0)
            with torch.inference_mode():
                expected = maker.model.pool(**batch.inputs)[0].numpy()
            np.testing.assert_allclose(vectors[position], expected, atol=1e-5)
    assert found["part"].lengths.tolist() == splits["part"].lengths.tolist()


def test_a_split_travels_as_its_place_and_is_mapped(learnable, bert):
    maker, splits = embedder(learnable, bert)
    part = maker.embed({"part": subsample(splits["train"], 0.4)}, QUIET)["part"]
    assert isinstance(part._vectors.base, np.memmap)
    packed = pickle.dumps(part)
    assert len(packed) < 2000
    assert np.array_equal(rows(pickle.loads(packed)), rows(part))


def test_the_second_time_nothing_is_run(learnable, bert, never_run):
    maker, splits = embedder(learnable, bert)
    cold = {name: rows(split) for name, split in maker.embed(splits, QUIET).items()}
    assert len(entries()) == 3
    never_run()
    warm = maker.embed(splits, lambda *_: pytest.fail("there is nothing to show"))
    assert all(np.array_equal(rows(warm[name]), cold[name]) for name in splits)
    assert not list(Path("cache/embeddings").glob(".*.tmp"))


@pytest.mark.parametrize("damage", ["bit", "cut", "missing", "gone"])
def test_a_damaged_entry_is_computed_anew(learnable, bert, damage):
    maker, splits = embedder(learnable, bert)
    first = maker.embed({"test": splits["test"]}, QUIET)["test"]
    before, file = rows(first), first.file
    written = file.read_bytes()
    if damage == "bit":
        damaged = bytearray(written)
        damaged[len(damaged) // 2] ^= 4
        file.write_bytes(damaged)
    elif damage == "cut":
        file.write_bytes(written[:-4])
    elif damage == "missing":
        file.unlink()
    else:
        for path in file.parent.iterdir():
            path.unlink()
        file.parent.rmdir()
    again = maker.embed({"test": splits["test"]}, QUIET)["test"]
    assert again.file == file
    assert file.read_bytes() == written
    assert np.array_equal(rows(again), before)


def test_embedding_draws_no_random_number(learnable, bert):
    """Or a run from the cache would draw other dropout masks."""
    maker, splits = embedder(learnable, bert)
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    maker.embed(splits, QUIET)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize(
    ("change", "shared"),
    [
        ("seed=2", True),
        ("trainer.batch_size=3", True),
        ("trainer.gradient_accumulation=4", True),
        ("encoder.dropout=0.3", True),
        ("film=none", True),
        ("method=dual", True),
        ("pooling=max", False),
        ("trainer.precision=bf16", False),
    ],
)
def test_what_a_vector_depends_on_makes_the_key(learnable, bert, change, shared):
    for more in ((), (change,)):
        maker, splits = embedder(learnable, bert, "trainer.precision=fp32", *more)
        maker.embed({"val": splits["val"]}, QUIET)
    assert len(entries()) == (1 if shared else 2)


def test_batches_do_not_depend_on_how_a_run_trains(learnable, bert, monkeypatch):
    """Or a vector would depend, in its last bits, on which run came first."""
    right, shapes = Classifier.pool, []

    def pool(model, input_ids, attention_mask):
        shapes[-1].append(tuple(input_ids.shape))
        return right(model, input_ids, attention_mask)

    monkeypatch.setattr(Classifier, "pool", pool)
    for number, size in enumerate((3, 60)):
        shapes.append([])
        maker, splits = embedder(learnable, bert, f"trainer.batch_size={size}")
        replace(maker, cache_dir=Path(f"cache{number}")).embed(splits, QUIET)
    assert shapes[0] == shapes[1]
    assert [documents for documents, _ in shapes[0]] == [32, 28, 20, 23]


def test_the_encoders_content_makes_the_key(learnable, bert):
    def embed(maker: Embedder) -> int:
        maker.embed({"val": splits["val"]}, QUIET)
        return len(entries())

    maker, splits = embedder(learnable, bert)
    assert embed(maker) == 1
    before, maker.tokenizer.pad_token = maker.tokenizer.pad_token, "[SEP]"
    assert embed(maker) == 2
    maker.tokenizer.pad_token = before
    config = maker.model.encoder.config
    config.layer_norm_eps *= 2
    assert embed(maker) == 3
    config.layer_norm_eps /= 2
    weight = next(maker.model.encoder.parameters())
    with torch.no_grad():
        weight.view(torch.int32)[-1, -1] ^= 1  # one bit
    assert embed(maker) == 4
    with torch.no_grad():
        weight.view(torch.int32)[-1, -1] ^= 1
    assert embed(maker) == 4
    _, cut = embedder(learnable, bert, max_length=5)
    maker.embed({"val": cut["val"]}, QUIET)
    assert len(entries()) == 5


@pytest.mark.parametrize("name", ["tiny", "sentence-transformers/all-MiniLM-L6-v2"])
def test_an_encoder_is_known_by_its_content(name, tmp_path):
    """Also one that was rebuilt from what a checkpoint keeps."""
    source = locate(name)
    torch.manual_seed(0)
    encoder = load_encoder(source, dropout=0.3, gradient_checkpointing=True)
    known = frozen_encoder_hash(encoder)
    save_encoder(tmp_path, encoder, load_tokenizer(source))
    kept, _ = encoder_from_folder(tmp_path)
    assert frozen_encoder_hash(kept) != known  # random weights
    kept.load_state_dict(encoder.state_dict())
    assert frozen_encoder_hash(kept) == known
    torch.manual_seed(1)
    other = load_encoder(source, dropout=None, gradient_checkpointing=False)
    assert (frozen_encoder_hash(other) == known) == (name != "tiny")


@pytest.mark.precision
@pytest.mark.parametrize(
    "more",
    [(), pytest.param(("dataset_fraction=0.5", "trainer.num_workers=1"), marks=pytest.mark.slow)],
)
@pytest.mark.slow
def test_a_run_from_the_cache_gives_the_same_numbers(learnable, never_run, more):
    cold = run(learnable, *FROZEN, *more, "output_dir=cold")
    made = entries()
    assert len(made) == 3
    never_run()
    warm = run(learnable, *FROZEN, *more, "output_dir=warm")
    assert numbers(cold) == numbers(warm)
    assert entries() == made
    weights = [(checkpoint_of(result) / "model.safetensors").read_bytes() for result in (cold, warm)]
    assert weights[0] == weights[1]
    for split in ("train", "val", "test"):
        found = evaluation(checkpoint_of(warm), f"split={split}", "cache_dir=cache")
        if split != "train":
            assert found[split] == json.loads(warm.read_text())[split]


def test_the_best_epochs_scores_are_the_final_ones(learnable):
    record = numbers(run(learnable, *FROZEN, "trainer.precision=bf16"))
    best = record["history"][record["best_epoch"] - 1]
    final = record["val"]["single"]
    assert best["val_macro_f1"] == final["overall"]["macro_f1"]
    assert best["val_micro_f1"] == final["overall"]["micro_f1"]
    assert best["modulation"]["single"] == final["modulation"]


@pytest.mark.slow
def test_runs_of_one_encoder_share_its_embeddings(learnable, bert, never_run):
    given = (*FROZEN, f"encoder.model_name={bert}")
    run(learnable, *given)
    assert len(entries()) == 3
    never_run()
    for more in (("seed=2",), ("method=dual", "head=linear"), ("trainer.batch_size=4",)):
        run(learnable, *given, *more)
    assert len(entries()) == 3


@pytest.mark.slow
def test_an_ensemble_reads_the_embeddings_of_its_trainings(learnable, bert, never_run):
    given = (*FROZEN, f"encoder.model_name={bert}")
    td, bu = run(learnable, *given), run(learnable, *given, "direction=bottom_up")
    never_run()
    found = evaluation(
        (checkpoint_of(td), checkpoint_of(bu)), "ensemble_weight=auto", "predictions=true", "cache_dir=cache"
    )
    for view, result in (("td", td), ("bu", bu)):
        expected = json.loads(result.read_text())["test"]["single"]
        assert found["test"][view]["overall"] == expected["overall"]


def test_an_evaluation_embeds_only_the_split_that_it_scores(learnable):
    result = run(learnable, *FROZEN, "dataset_fraction=0.5")
    found = evaluation(checkpoint_of(result), "cache_dir=other", "split=val")
    assert found["val"] == json.loads(result.read_text())["val"]
    assert len(list(Path("other/embeddings").glob("*/vectors"))) == 1


def test_a_trained_encoder_has_no_embeddings(learnable):
    run(learnable, "cache_dir=cache")
    assert not Path("cache/embeddings").exists()


TWO = ("trainer.epochs=1", "trainer.precision=fp32", "trainer.processes=2")


@pytest.mark.slow
@pytest.mark.long
def test_two_processes_embed_together(learnable, bert, never_run):
    """Each embeds a part and the first writes; one process then finds what it would have computed."""
    given = (*FROZEN, *TWO, f"encoder.model_name={bert}")
    run(learnable, *given)
    together = {path.name: np.fromfile(path / "vectors", np.float32) for path in entries()}
    maker, splits = embedder(learnable, bert, "trainer.precision=fp32", max_length=32)
    alone = replace(maker, cache_dir=Path("alone"))
    for split in alone.embed(splits, QUIET).values():
        assert np.array_equal(rows(split).ravel(), together.pop(split.file.parent.name))
    assert not together
    never_run()
    maker.embed(splits, QUIET)


@pytest.mark.long
def test_two_processes_read_what_is_there(learnable, bert):
    given = (*FROZEN, *TWO, f"encoder.model_name={bert}")
    cold = run(learnable, *given)
    written = {path: path.stat().st_mtime_ns for path in Path("cache/embeddings").glob("*/*")}
    warm = run(learnable, *given, "output_dir=warm")
    assert numbers(cold) == numbers(warm)
    assert {path: path.stat().st_mtime_ns for path in Path("cache/embeddings").glob("*/*")} == written
    damaged = next(path for path in written if path.name == "vectors")
    damaged.write_bytes(bytes(damaged.stat().st_size))
    again = run(learnable, *given, "output_dir=again")
    assert numbers(cold) == numbers(again)
    assert any(damaged.read_bytes())
