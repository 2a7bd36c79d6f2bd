"""Evaluations of other labelled data than that of training: the whole taxonomy, a part of it, or refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from programs import LEARNING, checkpoint_of, compose, evaluation, reseal, run
from sklearn.metrics import f1_score

from hblm.config.evaluate import EvaluateConfig
from hblm.errors import CheckpointError, ConfigError, DataError

OTHER = "other_data=true"
PART = ("b", "a", "a2", "a1")  # of the nodes a, b, a1, a2, b1, a1x, a1y


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture
def other(learnable: Path, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a folder, by hand, of the run's documents with some nodes in an order."""

    def write(name: str, nodes: Sequence[str] | None = None, splits: Sequence[str] = ("test",)) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        by_id = {row["id"]: row for row in json.loads((learnable / "taxonomy.json").read_text())["nodes"]}
        nodes = [*by_id] if nodes is None else nodes
        taxonomy = {"nodes": [by_id[node] | {"name": f"the {node}"} for node in nodes]}
        (folder / "taxonomy.json").write_text(json.dumps(taxonomy))
        for split in splits:
            rows = rows_of(learnable / f"{split}.jsonl")
            kept = [row | {"labels": [label for label in row["labels"] if label in nodes]} for row in rows]
            write_rows(folder / f"{split}.jsonl", kept)
        return folder

    return write


def near(scores: Any) -> Any:
    """Return nested scores as approximate: sums over nodes in another order differ in the last digits."""
    if isinstance(scores, dict):
        return {name: near(value) for name, value in scores.items()}
    if isinstance(scores, list):
        return list(map(near, scores))
    return pytest.approx(scores) if isinstance(scores, float) else scores


def test_the_same_nodes_in_another_order_give_the_same_scores(trained, other, capsys):
    own = json.loads(trained.read_text())
    folder = other("mail", nodes=("b", "b1", "a", "a2", "a1", "a1y", "a1x"))
    found = evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER, "predictions=true")
    assert found["test"] == near(own["test"])  # also by_frequency, of the run's training documents
    assert found["made"].name.startswith("eval_single_fruit_top_down_tiny_other_mail_")
    assert (found["dataset"]["name"], found["dataset"]["path"]) == ("mail", str(folder))
    assert found["dataset"]["documents"] == {"test": 23}
    assert found["settings"]["other_data"] is True
    trained_on = {key: own["dataset"][key] for key in ("name", "path", "fingerprint")}
    assert found["other_data"] == {"trained_on": trained_on, "nodes": 7, "nodes_of_checkpoint": 7}
    nodes = pd.read_csv(found["made"].with_suffix(".nodes.csv"))
    assert list(nodes["name"][:3]) == ["the b", "the a", "the b1"]  # in the order of the folder, by level
    predicted = pd.read_parquet(found["predictions"]["path"])
    assert f1_score(predicted["target"], predicted["predicted"]) == pytest.approx(
        own["test"]["single"]["overall"]["micro_f1"]
    )
    shown = capsys.readouterr().out
    assert f"{folder} has the checkpoint's 7 nodes" in shown
    assert "test of mail, not the data of training" in shown


def test_nodes_outside_a_part_are_neither_predicted_nor_counted(trained, other, capsys):
    folder = other("part", nodes=PART)
    write_rows(
        folder / "test.jsonl", [*rows_of(folder / "test.jsonl"), {"id": "x", "text": "A", "labels": []}]
    )
    found = evaluation(
        checkpoint_of(trained), f"dataset.path={folder}", OTHER, "predictions=true", "predictions_floor=0"
    )
    assert found["dataset"]["levels"] == [2, 2]
    assert (found["other_data"]["nodes"], found["other_data"]["nodes_of_checkpoint"]) == (4, 7)
    assert (
        "4 of the checkpoint's 7 nodes: the other 3 are neither predicted nor count"
        in capsys.readouterr().out
    )
    own = evaluation(checkpoint_of(trained), "predictions=true", "predictions_floor=0")
    of_run, of_part = (
        pd.read_parquet(each["predictions"]["path"]).astype({"node": str}).sort_values(["document", "node"])
        for each in (own, found)
    )
    assert set(of_part["node"]) == set(PART)
    kept, same = of_run[of_run["node"].isin(PART)], of_part[of_part["document"] != "x"]
    for column in ("score", "predicted", "target"):  # nothing is normalised anew
        assert list(same[column]) == pytest.approx(list(kept[column]))
    overall = found["test"]["single"]["overall"]
    assert f1_score(of_part["target"], of_part["predicted"]) == pytest.approx(overall["micro_f1"])
    pivoted = [
        of_part.pivot(index="document", columns="node", values=each) for each in ("target", "predicted")
    ]
    assert f1_score(*pivoted, average="macro", zero_division=0) == pytest.approx(overall["macro_f1"])
    assert sum(bucket["nodes"] for bucket in found["test"]["single"]["by_frequency"]) == 4


def test_the_other_folders_training_documents_change_nothing(trained, other):
    folder = other("more", splits=("train", "val", "test"))
    write_rows(folder / "train.jsonl", [{"id": "1", "text": "x", "labels": ["b"]}])
    found = evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER)
    assert found["test"] == json.loads(trained.read_text())["test"]
    assert evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER, "split=train")["train"]


def test_another_hash_is_refused_and_the_key_named_where_the_taxonomy_fits(trained, other, one_path):
    folder = other("part", nodes=PART, splits=("train", "val", "test"))
    write_rows(folder / "train.jsonl", [{"id": "1", "text": "x", "labels": ["b"]}])
    for given in (folder, one_path):
        with pytest.raises(CheckpointError, match=rf"has the hash .*dataset\.path={given} other_data=true$"):
            evaluation(checkpoint_of(trained), f"dataset.path={given}")
    taxonomy = {"nodes": [{"id": "b", "name": "", "parent": None}, {"id": "c", "name": "", "parent": None}]}
    (folder / "taxonomy.json").write_text(json.dumps(taxonomy))
    with pytest.raises(CheckpointError, match="has the hash") as error:
        evaluation(checkpoint_of(trained), f"dataset.path={folder}")
    assert "other_data" not in str(error.value)


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ({"id": "a1z", "parent": "a"}, "node 'a1z' is not one of its 7 nodes; did you mean"),
        ({"id": "b1", "parent": "a"}, "node 'b1' is below 'a', and there it is below 'b'"),
        ({"id": "a2", "parent": None}, "node 'a2' is a root, and there it is below 'a'"),
    ],
)
def test_a_node_that_does_not_fit_is_named(trained, other, row, why):
    folder = other("odd", nodes=("a", "b"))
    nodes = [*json.loads((folder / "taxonomy.json").read_text())["nodes"], row | {"name": "new"}]
    (folder / "taxonomy.json").write_text(json.dumps({"nodes": nodes}))
    with pytest.raises(DataError, match=f"taxonomy.json: neither the taxonomy of .* nor a part of it: {why}"):
        evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER)


def test_a_split_that_is_missing_is_named(trained, other):
    folder = other("mail")
    with pytest.raises(
        DataError, match=r"no val.jsonl \(it holds .*holds taxonomy.json, val.jsonl as dataset"
    ):
        evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER, "split=val")


def test_a_label_outside_the_part_is_refused(trained, other):
    folder = other("part", nodes=PART)
    write_rows(folder / "test.jsonl", [{"id": "x", "text": "A", "labels": ["a", "a1", "a1x"]}])
    with pytest.raises(DataError, match="'a1x' is not a node of the taxonomy"):
        evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER)


def test_the_dataset_of_training_is_no_other_data(trained, learnable, caplog):
    with caplog.at_level("INFO", logger="hblm"):
        found = evaluation(checkpoint_of(trained), f"dataset.path={learnable}", OTHER)
    assert "is the dataset of training: other_data=true changes nothing" in caplog.text
    assert "_other_" not in found["made"].name
    assert "other_data" not in found["settings"].keys() | found.keys()
    assert found["test"] == json.loads(trained.read_text())["test"]


def test_other_data_needs_a_folder():
    with pytest.raises(ConfigError, match=r"other_data=true scores the documents of dataset\.path=DIR"):
        compose("evaluate", EvaluateConfig, "checkpoint=x", OTHER)


def test_a_name_that_no_file_can_have_is_refused(trained, other):
    folder = other("n" * 230)
    with pytest.raises(ConfigError, match=r"too long.*give the folder of dataset\.path= another name"):
        evaluation(checkpoint_of(trained), f"dataset.path={folder}", OTHER)


@pytest.mark.slow
def test_an_ensemble_and_its_weight_on_a_part(pair, other):
    folder = other("part", nodes=PART, splits=("val", "test"))
    found = evaluation(pair, f"dataset.path={folder}", OTHER, "ensemble_weight=auto")
    assert found["made"].name.startswith("eval_ensemble_fruit_other_part_")
    search = found["settings"]["ensemble_weight_search"]
    tried = {entry["weight"]: entry["macro_f1"] for entry in search["tried"]}
    weight = found["settings"]["ensemble_weight"]
    on_val = evaluation(pair, f"dataset.path={folder}", OTHER, f"ensemble_weight={weight}", "split=val")
    assert on_val["val"]["fused"]["overall"]["macro_f1"] == pytest.approx(tried[weight])
    for view, place in zip(("td", "bu"), pair, strict=True):
        alone = evaluation(place, f"dataset.path={folder}", OTHER)["test"]["single"]["overall"]
        assert found["test"][view]["overall"]["micro_f1"] == pytest.approx(alone["micro_f1"])
    folder = other("test-only", nodes=PART)
    with pytest.raises(DataError, match=r"no val.jsonl"):
        evaluation(pair, f"dataset.path={folder}", OTHER, "ensemble_weight=auto")


@pytest.mark.slow
def test_a_joint_model_with_a_frozen_encoder_on_a_part(learnable, other):
    result = run(learnable, "method=tri_head_diffcat", "encoder.trainable=false", "trainer.epochs=2")
    folder = other("part", nodes=PART)
    found = evaluation(checkpoint_of(result), f"dataset.path={folder}", OTHER, "joint_eval_view=all")
    assert list(found["test"]) == ["fused", "td", "bu", "mix"]
    assert found["made"].name.startswith("eval_joint_fruit_tri_head_diffcat_tiny_other_part_")
    own = json.loads(result.read_text())["test"]
    for view in own:  # roots are all in the part
        root, of_part = own[view]["per_level"][0], found["test"][view]["per_level"][0]
        assert of_part["micro_f1"] == pytest.approx(root["micro_f1"])


@pytest.mark.slow
def test_a_conditional_loss_takes_its_counts_from_the_checkpoint(learnable, other, tmp_path):
    """An early checkpoint has none, and they are counted in the dataset of training, if it is there."""
    data = shutil.copytree(learnable, tmp_path / "fruit")
    result = run(data, *LEARNING, "loss=conditional", "dataset_fraction=0.5")
    place, given = checkpoint_of(result), f"dataset.path={other('mail')}"
    own = json.loads(result.read_text())["test"]
    early = shutil.copytree(place, tmp_path / "checkpoints" / "early")
    reseal(early, training_counts=None)
    assert evaluation(early, given, OTHER)["test"] == own
    data.rename(tmp_path / "moved")
    assert evaluation(place, given, OTHER)["test"] == own
    with pytest.raises(CheckpointError, match=r"has no counts of its training .* scores of loss=conditional"):
        evaluation(early, given, OTHER)


def test_without_counts_of_training_there_is_no_by_frequency(trained, other, tmp_path, caplog):
    early = shutil.copytree(checkpoint_of(trained), tmp_path / "checkpoints" / "early")
    meta = json.loads((early / "hblm.json").read_text())
    reseal(early, training_counts=None)
    given = f"dataset.path={other('mail')}"
    own = json.loads(trained.read_text())["test"]
    assert evaluation(early, given, OTHER)["test"] == own  # counted in the dataset of training
    reseal(early, dataset=meta["dataset"] | {"path": str(tmp_path / "nowhere")})
    found = evaluation(early, given, OTHER)["test"]["single"]
    for block, of_run in (
        (found, own["single"]),
        *((found[key], own["single"][key]) for key in ("repath", "cap")),
    ):
        assert "by_frequency" not in block
        assert block["overall"] == of_run["overall"]
    assert "the result has no by_frequency" in caplog.text
