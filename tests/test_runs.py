from __future__ import annotations

import json
from typing import Any

import pytest

from hblm import runs
from hblm.config import TrainConfig
from hblm.schema import leaves, typed

DATA, ENCODER, TAG = "0" * 64, {"weights": "1" * 64}, "minilm"


def config(**values: Any) -> TrainConfig:
    """Return a configuration from `film__film_scale=0.3` and the like."""
    tree: dict[str, Any] = {"dataset": {"name": "wos", "path": "data/wos"}, "output_dir": "out"}
    for key, value in values.items():
        node = tree
        *groups, last = key.split("__")
        for group in groups:
            node = node.setdefault(group, {})
        node[last] = value
    return typed(tree, TrainConfig)


FLAT = {
    "film__propagation_method": "none",
    "head__classification_head_type": "linear",
    "encoder__project_embedding": False,
    "loss__level_reduction": "nodes",
}


def identify(data: str = DATA, encoder: dict[str, Any] = ENCODER, **values: Any) -> runs.Run:
    return runs.identify(config(**values), data=data, encoder=encoder, tag=TAG)


def other(leaf: Any) -> Any:
    """Return a value that is allowed and not the default."""
    if leaf.rules["choices"]:
        choice = next(choice for choice in leaf.rules["choices"] if choice != leaf.default)
        return [choice] if isinstance(leaf.default, list) else choice
    if isinstance(leaf.default, bool):
        return not leaf.default
    if isinstance(leaf.default, (int, float)):
        return leaf.default / 2 if isinstance(leaf.default, float) else leaf.default + 1
    return 0.25 if "dropout" in leaf.name or "rate" in leaf.name else 7 if "dim" in leaf.name else "another"


CHANGEABLE = [
    leaf
    for leaf in leaves(TrainConfig)
    if len(leaf.rules["choices"]) != 1 and not isinstance(leaf.default, dict)
]


@pytest.mark.parametrize("leaf", CHANGEABLE, ids=lambda leaf: leaf.name)
def test_exactly_the_keys_that_can_change_numbers_change_the_id(leaf):
    changed = identify(**{leaf.name.replace(".", "__"): other(leaf)}).id != identify().id
    expected = leaf.rules["identity"] and leaf.name not in ("encoder.model_name", "encoder.revision")
    assert changed == expected


def test_data_and_encoder_change_the_id():
    assert identify(data="2" * 64).id != identify().id
    assert identify(encoder={"weights": "2" * 64}).id != identify().id


@pytest.mark.parametrize(
    ("context", "key", "value"),
    [
        ({"film__propagation_method": "none"}, "direction__cascade_direction", "bottom_up"),
        ({"film__propagation_method": "none"}, "film__propagation_space", "parent_space"),
        ({"film__propagation_method": "none"}, "film__film_scale", 0.5),
        ({"film__propagation_method": "none"}, "film__detach_parent_signal", False),
        ({"film__propagation_method": "multi_hot"}, "film__detach_parent_signal", False),
        ({"encoder__trainable": False}, "encoder__gradient_checkpointing", True),
        ({"encoder__trainable": False}, "encoder__dropout", 0.3),
        ({"encoder__project_embedding": False}, "encoder__projection_dropout", 0.3),
        ({"head__classification_head_type": "linear"}, "head__dropout", 0.3),
    ],
)
def test_inert_keys_leave_id_and_name(context, key, value):
    plain, inert = identify(**context), identify(**context, **{key: value})
    assert (plain.id, plain.name) == (inert.id, inert.name)
    assert identify().id != identify(**{key: value}).id  # the key is not inert everywhere


def test_names():
    assert identify().name == "wos_single_top_down_minilm_seed1"
    assert identify(seed=3).name == "wos_single_top_down_minilm_seed3"
    up = identify(direction__cascade_direction="bottom_up")
    assert up.name == "wos_single_bottom_up_minilm_seed1"
    assert identify(**FLAT).name == "wos_single_flat_minilm_seed1"
    ablation = identify(film__film_scale=0.3)
    assert ablation.name == f"wos_single_top_down_minilm_seed1-{ablation.id[:8]}"
    deviating = identify(**FLAT, threshold=0.4)
    assert deviating.name == f"wos_single_flat_minilm_seed1-{deviating.id[:8]}"
    independent = identify(film__propagation_method="none")
    assert independent.name == f"wos_single_none_minilm_seed1-{independent.id[:8]}"


def test_a_revision_is_no_main_run():
    assert identify(encoder__revision="v1").name.startswith("wos_single_top_down_minilm_seed1-")


def test_a_name_taken_by_another_run_gets_the_id(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    mine = identify()
    mine.result.parent.mkdir(parents=True)
    mine.result.write_text(json.dumps({"run_id": mine.id}))
    assert identify().name == mine.name
    mine.result.write_text(json.dumps({"run_id": "another"}))
    assert identify().name == f"{mine.name}-{mine.id[:8]}"
    mine.result.unlink()
    mine.checkpoint.mkdir(parents=True)
    (mine.checkpoint / "hblm.json").write_text(json.dumps({"run_id": "another"}))
    assert identify().name == f"{mine.name}-{mine.id[:8]}"


def test_supersede_moves_all_of_a_result_and_never_overwrites(tmp_path):
    run = runs.Run("id", "name", tmp_path)
    run.result.parent.mkdir()
    for round_ in range(2):
        run.result.write_text(f"json {round_}")
        run.result.with_name("name.nodes.csv").write_text(f"csv {round_}")
        run.supersede()
    assert not list(run.result.parent.iterdir())
    texts = {file.read_text() for file in (tmp_path / "superseded").iterdir()}
    assert texts == {"json 0", "csv 0", "json 1", "csv 1"}


def test_evaluations_get_a_counter_when_the_second_is_taken(tmp_path):
    first = runs.evaluation_path(tmp_path, config(), TAG)
    assert first.name.startswith("eval_single_wos_top_down_minilm_")
    first.parent.mkdir()
    first.touch()
    second = runs.untaken(first)
    assert second.name == f"{first.stem}_2.json"
