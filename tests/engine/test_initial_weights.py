"""Runs that start from another run: what is taken, what is not, what it is recorded and identified as."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from programs import LEARNING, TINY, checkpoint_of, compose, evaluation, numbers, reseal, run
from safetensors.torch import load_file, save_file
from torch import Tensor

from hblm.config import identity
from hblm.config.train import TrainConfig
from hblm.encoders.encoder import load_encoder, save_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build, session, training
from hblm.engine.encoder_source import source_of
from hblm.engine.initial_weights import Origin
from hblm.errors import CheckpointError, ConfigError
from hblm.nn.classifier import Classifier
from hblm.nn.heads import OutputStart
from hblm.runs import paths
from hblm.runs.checkpoint import Checkpoint, open_checkpoint, save_checkpoint
from hblm.taxonomy import Node, Taxonomy

PARENTS = {"a": None, "b": None, "a1": "a", "a2": "a", "b1": "b", "a1x": "a1", "a1y": "a1", "b1x": "b1"}
TREE = Taxonomy(Node(node, node, parent) for node, parent in PARENTS.items())
# b comes first, c is new, b1x is gone, b1 hangs under c, a1z is new, and a2 has moved a level down
OTHER_PARENTS = {"b": None, "c": None, "a": None, "b1": "c", "a1": "a", "a2": "a1", "a1x": "a1", "a1z": "a1"}
OTHER = Taxonomy(Node(node, node, parent) for node, parent in OTHER_PARENTS.items())
TOKENS = torch.randint(3, 250, (6, 9), generator=torch.Generator().manual_seed(0))


def config(*overrides: str) -> TrainConfig:
    made: TrainConfig = compose("train", TrainConfig, *TINY, "dataset.path=fruit", *overrides)
    return made


def stored(*overrides: str, taxonomy: Taxonomy = TREE) -> Checkpoint:
    """Write a checkpoint whose every tensor has left its start, as training would leave it."""
    torch.manual_seed(1)
    mine, source = config(*overrides), locate("tiny")
    encoder = load_encoder(source, dropout=None, gradient_checkpointing=False)
    model = build.classifier(mine, taxonomy, encoder)
    model.branches.initialise_output(OutputStart(torch.linspace(-4, -2, len(taxonomy))))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    folder = Path("outputs/checkpoints/other").absolute()
    meta = {
        "run_id": "ab" * 32,
        "name": "other",
        "tag": "tiny",
        "training": "0123",
        "precision": "fp32",
        "dataset": {"name": "d", "path": "d", "fingerprint": "f"},
        "encoder": {},
        "eval_batch_size": 8,
    }
    save_checkpoint(
        folder,
        model=model,
        save_encoder=lambda place: save_encoder(place, encoder, load_tokenizer(source)),
        config=mine,
        taxonomy=taxonomy,
        meta=meta,
    )
    return open_checkpoint(folder)


def started(
    checkpoint: Checkpoint, *overrides: str, taxonomy: Taxonomy = TREE
) -> tuple[Classifier, Origin, dict[str, Tensor]]:
    """Return a model that starts from a checkpoint, its origin, and its tensors as they would be without."""
    torch.manual_seed(2)
    mine = config(*overrides, f"init_from={checkpoint.folder}")
    encoder = load_encoder(source_of(mine), dropout=None, gradient_checkpointing=False)
    model = build.classifier(mine, taxonomy, encoder)
    priors = torch.linspace(-6, -5, len(taxonomy))
    alone = build.classifier(mine, taxonomy, encoder)
    alone.load_state_dict(model.state_dict())
    alone.branches.initialise_output(OutputStart(priors))
    before = {name: tensor.clone() for name, tensor in alone.state_dict().items()}
    origin = Origin(mine, taxonomy)
    origin.copy_layers(model)
    model.branches.initialise_output(OutputStart(priors))
    origin.copy_nodes(model)
    return model.eval(), origin, before


def taken(model: Classifier, before: dict[str, Tensor], part: str) -> bool:
    """Return whether the tensors of a part are others than they would be without the checkpoint."""
    state = model.state_dict()
    return any(not torch.equal(state[name], before[name]) for name in before if name.startswith(part))


@torch.no_grad()
def answers(model: Classifier) -> dict[str, Tensor]:
    return dict(model.eval()(TOKENS, torch.ones_like(TOKENS)).views)


SAME = [
    (),
    ("direction=bottom_up", "film=logit"),
    ("film=multi_hot", "film.propagation_space=parent_space", "encoder.projection_dim=24"),
    ("film=none", "head=wide_mlp"),
    ("method=flat",),
    ("joint_variant=dual", "film.propagation_space=parent_space"),
    ("joint_variant=tri_head_diffcat", "head=residual_mlp"),
    ("loss=conditional_softmax", "film=none"),
]


@pytest.mark.parametrize(
    "overrides",
    [
        pytest.param(overrides, id=" ".join(overrides) or "defaults", marks=[pytest.mark.slow] * (at % 2))
        for at, overrides in enumerate(SAME)
    ],
)
def test_the_same_kind_of_model_starts_as_the_same_function(overrides: tuple[str, ...]) -> None:
    """FiLM is centred anew, where the trained biases now are, and is the function that it was."""
    checkpoint = stored(*overrides)
    model, origin, _ = started(checkpoint, *overrides)
    expected = answers(session.stored_model(checkpoint, checkpoint.config)[0])
    found = answers(model)
    assert found.keys() == expected.keys()
    for view, logits in expected.items():
        torch.testing.assert_close(found[view], logits, rtol=1e-4, atol=1e-5)
    record = origin.entry()
    assert set(record["taken"]["nodes"].values()) == {len(TREE)}
    assert record["not_taken"] == []


@pytest.mark.parametrize("space", ["child_space", "parent_space"])
def test_film_is_centred_on_the_biases_that_were_taken(space: str) -> None:
    checkpoint = stored(f"film.propagation_space={space}")
    model, origin, before = started(checkpoint, f"film.propagation_space={space}")
    cascade = model.branches.single
    for level in (1, 2):
        film, bias = cascade.films[str(level)], cascade.heads[level - 1].output.bias
        torch.testing.assert_close(film.c0, film.space(bias[None].sigmoid())[0])
        assert not torch.equal(film.c0, before[f"branches.single.films.{level}.c0"])
    assert origin.entry()["taken"]["films"] == {"single": 2}


def test_nodes_of_another_taxonomy_are_found_by_id_and_level() -> None:
    checkpoint = stored()
    model, origin, before = started(checkpoint, taxonomy=OTHER)
    source = session.stored_model(checkpoint, checkpoint.config)[0]
    shared = {0: ["b", "a"], 1: ["b1", "a1"], 2: ["a1x"]}
    for level, places in enumerate(OTHER.levels):
        new, old = model.branches.single.heads[level], source.branches.single.heads[level]
        torch.testing.assert_close(new.hidden.weight, old.hidden.weight)
        for row, at in enumerate(places):
            node = OTHER.nodes[at].id
            if node in shared[level]:
                there = TREE.index[node] - TREE.levels[level].start
                assert torch.equal(new.output.weight[row], old.output.weight[there])
                assert new.output.bias[row] == old.output.bias[there]
            else:
                name = f"branches.single.heads.{level}.output"
                assert torch.equal(new.output.weight[row], before[f"{name}.weight"][row])
                assert new.output.bias[row] == before[f"{name}.bias"][row]
    assert not taken(model, before, "branches.single.films.1.generator")
    assert not taken(model, before, "branches.single.films.2.generator")
    record = origin.entry()
    assert (record["taken"]["nodes"], record["n_nodes"]) == ({"single": 5}, 8)
    assert record["taken"]["films"] == {"single": 0}
    assert "encoder, projection, 5 of 8 nodes" in str(origin)


def test_generators_between_levels_that_agree_are_taken() -> None:
    parents = {node: parent for node, parent in PARENTS.items() if node != "a1y"}
    fewer = Taxonomy(Node(node, "another name", parent) for node, parent in parents.items())
    model, origin, before = started(stored(), taxonomy=fewer)
    assert taken(model, before, "branches.single.films.1.generator")
    assert not taken(model, before, "branches.single.films.2.generator")
    assert origin.entry()["taken"]["films"] == {"single": 1}


def test_a_taxonomy_of_more_levels() -> None:
    deeper = Taxonomy([*TREE.nodes, Node("a1xx", "", "a1x")])
    model, origin, before = started(stored(), taxonomy=deeper)
    assert origin.entry()["taken"] == {
        "encoder": True,
        "projection": True,
        "nodes": {"single": 8},
        "films": {"single": 2},
    }
    assert not taken(model, before, "branches.single.heads.3.")


def test_a_single_model_gives_its_heads_to_both_branches() -> None:
    checkpoint = stored("direction=bottom_up")
    model, origin, before = started(checkpoint, "joint_variant=tri_head_diffcat")
    expected = answers(session.stored_model(checkpoint, checkpoint.config)[0])["single"]
    torch.testing.assert_close(answers(model)["bu"], expected, rtol=1e-4, atol=1e-5)
    state = model.state_dict()
    for level in range(3):
        name = f"heads.{level}.output.weight"
        assert torch.equal(state[f"branches.td.{name}"], state[f"branches.bu.{name}"])
    assert not taken(model, before, "branches.td.films.1.generator")
    assert not taken(model, before, "branches.mix")
    record = origin.entry()
    assert record["taken"]["nodes"] == {"td": 8, "bu": 8}
    assert record["taken"]["films"] == {"td": 0, "bu": 2}
    assert record["not_taken"] == [
        "mix heads (joint_variant=none there)",
        "2 FiLM layers of td (another direction or other nodes there)",
    ]


@pytest.mark.parametrize(("direction", "view"), [("top_down", "td"), ("bottom_up", "bu")])
def test_a_joint_model_gives_the_branch_of_the_direction(direction: str, view: str) -> None:
    checkpoint = stored("joint_variant=dual")
    model, _, _ = started(checkpoint, f"direction={direction}")
    expected = answers(session.stored_model(checkpoint, checkpoint.config)[0])[view]
    torch.testing.assert_close(answers(model)["single"], expected, rtol=1e-4, atol=1e-5)


# what the new run asks for -> parts that are taken, and the message about the others
APART: list[tuple[tuple[str, ...], str, list[str]]] = [
    (
        ("pooling=mean",),
        "encoder.",
        ["projection, heads and FiLM (pooling=cls there, mean here)"],
    ),
    (
        ("encoder.project_embedding=false",),
        "encoder.",
        ["projection, heads and FiLM (encoder.project_embedding=true there, false here)"],
    ),
    (
        ("encoder.projection_dim=24",),
        "encoder.",
        ["projection, heads and FiLM (encoder.projection_dim=null there, 24 here)"],
    ),
    (
        ("head=linear",),
        "encoder. projection. branches.single.films.",
        ["heads (head=mlp there, linear here)"],
    ),
    (
        ("film=logit", "film.film_scale=0.3"),
        "encoder. projection. branches.single.heads.",
        [
            "FiLM (film=sigmoid there, logit here and film.film_scale=0.2 there, 0.3 here)",
        ],
    ),
    (("film=none",), "encoder. projection. branches.single.heads.", []),
    (
        ("film=none", "loss=conditional_softmax"),
        "encoder. projection.",
        ["heads (loss=bce there, conditional_softmax here)"],
    ),
    (
        ("loss=conditional",),  # FiLM reads what the loss makes of logits
        "encoder. projection.",
        ["heads (loss=bce there, conditional here)", "FiLM (loss=bce there, conditional here)"],
    ),
    (
        ("direction=bottom_up",),
        "encoder. projection. branches.single.heads.",
        ["2 FiLM layers of single (another direction or other nodes there)"],
    ),
    (("loss=focal",), "encoder. projection. branches.single.heads. branches.single.films.", []),
]
PARTS = ("encoder.", "projection.", "branches.single.heads.", "branches.single.films.")


@pytest.mark.parametrize(
    ("overrides", "parts", "messages"), APART, ids=[" ".join(overrides) for overrides, *_ in APART]
)
@pytest.mark.slow
def test_what_does_not_fit_is_not_taken_and_that_is_said(
    overrides: tuple[str, ...], parts: str, messages: list[str]
) -> None:
    model, origin, before = started(stored(), *overrides)
    # c0 follows the heads, so generators tell whether FiLM was taken
    trained = {name: tensor for name, tensor in before.items() if not name.endswith("c0")}
    assert [part for part in PARTS if taken(model, trained, part)] == parts.split()
    assert origin.not_taken() == messages
    assert all(part in str(origin) for part in messages)


def test_the_encoders_own_dropout_can_be_set() -> None:
    checkpoint = stored()
    mine = config("encoder.dropout=0.3", f"init_from={checkpoint.folder}")
    encoder = load_encoder(source_of(mine), dropout=0.3, gradient_checkpointing=False)
    assert encoder.config.hidden_dropout_prob == 0.3


# --- refused


def test_another_encoder_is_refused() -> None:
    folder = stored().folder
    with pytest.raises(ConfigError) as caught:
        source_of(config("encoder.model_name=me/other", "encoder.revision=v1", f"init_from={folder}"))
    for part in (
        f"init_from={folder}",
        "encoder.model_name=tiny encoder.revision=null",
        "encoder.model_name=me/other encoder.revision=v1",
    ):
        assert part in str(caught.value)


def test_a_checkpoint_that_is_not_there_is_refused() -> None:
    place = stored().folder.with_name("none")
    with pytest.raises(CheckpointError, match=r"^init_from=.* is not a folder; .* has other"):
        source_of(config(f"init_from={place}"))


def test_a_damaged_checkpoint_is_refused() -> None:
    checkpoint = stored()
    mine = config(f"init_from={checkpoint.folder}")
    (checkpoint.folder / "model.safetensors").write_bytes(b"\0" * 50)
    with pytest.raises(CheckpointError, match="not the file that was written"):
        Origin(mine, TREE)
    (checkpoint.folder / "hblm.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        source_of(mine)


def test_weights_that_are_not_those_of_the_taxonomy_are_refused() -> None:
    checkpoint = stored()
    (checkpoint.folder / "taxonomy.json").write_text(Taxonomy(TREE.nodes[:-1]).to_json())
    reseal(checkpoint.folder)
    with pytest.raises(
        CheckpointError, match=r"does not fit .* branches.single.heads.2.output.weight is float32 of"
    ):
        started(checkpoint)


def _changed(change: Callable[[dict[str, Tensor]], Any]) -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file)

    return damage


PROJECTION = "projection.linear.weight"
WRONG_WEIGHTS = {
    "a tensor is missing": (_changed(lambda tensors: tensors.pop(PROJECTION)), f"{PROJECTION} is not there"),
    "a tensor is too much": (
        _changed(lambda tensors: tensors.update(more=torch.zeros(1))),
        "more is not in the model",
    ),
    "another shape": (
        _changed(lambda tensors: tensors.update({PROJECTION: tensors[PROJECTION][:, :3].clone()})),
        rf"{PROJECTION} is float32 of shape \(64, 3\), expected float32 of shape \(64, 64\)",
    ),
    "another type": (
        _changed(lambda tensors: tensors.update({PROJECTION: tensors[PROJECTION].long()})),
        f"{PROJECTION} is int64 of",
    ),
    "NaN": (_changed(lambda tensors: tensors[PROJECTION][0, 0].fill_(math.nan)), f"{PROJECTION} holds"),
    "an infinity": (_changed(lambda tensors: tensors[PROJECTION][0, 0].fill_(-math.inf)), "not finite"),
    "a header of 2^62 bytes": (lambda file: file.write_bytes(b"\0" * 7 + b"\x40{}"), "cannot be read"),
    "no header": (lambda file: file.write_bytes(b""), "cannot be read"),
    "an unknown type": (
        lambda file: file.write_bytes(file.read_bytes().replace(b'"F32"', b'"F99"', 1)),
        "cannot be read",
    ),
    "cut": (lambda file: file.write_bytes(file.read_bytes()[:-4]), "cannot be read"),
}


@pytest.mark.parametrize("damage", WRONG_WEIGHTS)
@pytest.mark.slow
def test_weights_that_are_not_those_of_the_model_are_refused(damage: str) -> None:
    """Where the new run would take nothing of them but the encoder, too."""
    checkpoint = stored()
    change, message = WRONG_WEIGHTS[damage]
    change(checkpoint.folder / "model.safetensors")
    reseal(checkpoint.folder)
    for overrides in ((), ("pooling=mean",)):
        with pytest.raises(CheckpointError, match=message):
            started(checkpoint, *overrides)
    again = open_checkpoint(checkpoint.folder)
    with pytest.raises(CheckpointError, match=message):
        session.stored_model(again, again.config)


# --- identified


def identified(*overrides: str) -> paths.Run:
    mine = config(*overrides)
    source = source_of(mine)
    return paths.identify(mine, data="1" * 64, encoder=source.identity(), tag=source.tag)


def test_a_run_is_identified_by_the_content_it_starts_from() -> None:
    folder = stored().folder
    found = identified(f"init_from={folder}")
    moved = shutil.copytree(folder, folder.with_name("copy"))
    assert identified(f"init_from={moved}").id == found.id
    assert identified().id != found.id
    weights = moved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(bytes(content))
    assert identified(f"init_from={moved}").id != found.id


def test_the_names_of_nodes_and_the_run_are_part_of_what_it_starts_from() -> None:
    """They decide what is taken of the same weights."""
    folder = stored().folder
    found = identified(f"init_from={folder}")
    for file, old, new in (("taxonomy.json", '"id": "', '"id": "x'), ("hblm.json", "abab", "cdcd")):
        other = shutil.copytree(folder, folder.with_name(file))
        content = (other / file).read_text()
        (other / file).write_text(content.replace('"parent": "', '"parent": "x').replace(old, new))
        reseal(other)
        assert identified(f"init_from={other}").id != found.id
    assert identified(f"init_from={folder}").id == found.id


def test_no_checkpoint_leaves_the_id_as_it_was() -> None:
    assert identified("init_from=null").id == identified().id
    assert "init_from" not in identity.identity_values(config())


# --- whole runs


@pytest.mark.precision
@pytest.mark.slow
def test_a_run_goes_on_from_another(
    trained: Path, learnable: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """It starts where the other one ended, says so, is not done twice, and needs the other no longer."""
    source = shutil.copytree(checkpoint_of(trained), Path("elsewhere/checkpoints/source"))
    once = (*LEARNING, "trainer.epochs=1", "trainer.learning_rate=1e-5", f"init_from={source}", "seed=3")
    with caplog.at_level(logging.INFO):
        result = run(learnable, *once)
    record, other = (json.loads(file.read_text()) for file in (result, trained))
    best = other["val"]["single"]["overall"]["micro_f1"]
    assert record["val"]["single"]["overall"]["micro_f1"] == pytest.approx(best, abs=0.02)
    assert other["init_from"] is None
    assert record["init_from"] == {
        "path": str(source.resolve()),
        "name": trained.stem,
        "run_id": other["run_id"],
        "training": other["training"],
        "taken": {"encoder": True, "projection": True, "nodes": {"single": 7}, "films": {"single": 2}},
        "n_nodes": 7,
        "not_taken": [],
    }
    lines = [line for line in caplog.messages if line.startswith("starts from")]
    run_id = other["run_id"][:8]
    assert lines == [
        f"starts from {trained.stem} (run {run_id}): encoder, projection, 7 of 7 nodes, 2 FiLM layers"
    ]
    training.run(compose("train", TrainConfig, *TINY, f"dataset.path={learnable}", *once))
    assert "done before" in capsys.readouterr().out
    shutil.rmtree(source)
    assert evaluation(checkpoint_of(result))["test"] == record["test"]


@pytest.mark.slow
def test_the_encoders_own_files_may_be_gone(learnable: Path) -> None:
    folder = Path("bert")
    size: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    transformers.BertModel(transformers.BertConfig(**size, intermediate_size=32)).save_pretrained(folder)
    load_tokenizer(locate("tiny")).save_pretrained(folder)
    first = run(learnable, "encoder.model_name=bert", "output_dir=first")
    shutil.rmtree(folder)
    second = run(
        learnable, "encoder.model_name=bert", "output_dir=second", f"init_from={checkpoint_of(first)}"
    )
    record = json.loads(second.read_text())
    assert record["encoder"]["model_name"] == "bert"
    assert record["encoder"]["weights"] != json.loads(first.read_text())["encoder"]["weights"]
    assert second.stem.startswith("fruit_single_top_down_bert_seed1-")


@pytest.mark.long
def test_two_processes_start_from_the_same(trained: Path, learnable: Path) -> None:
    more = ("pooling=max", "trainer.batch_size=6", f"init_from={checkpoint_of(trained)}")
    still = ("encoder.dropout=0", "encoder.projection_dropout=0", "head.dropout=0", "trainer.precision=fp32")
    alone = run(learnable, *more, *still, "output_dir=alone")
    shared = run(learnable, *more, *still, "output_dir=shared", "trainer.processes=2")
    losses = [[entry["train_loss"] for entry in numbers(each)["history"]] for each in (alone, shared)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    taken = [json.loads(each.read_text())["init_from"]["taken"] for each in (alone, shared)]
    assert taken[0] == taken[1]
