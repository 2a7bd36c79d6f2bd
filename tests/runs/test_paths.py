from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import made_results
import pytest
from programs import compose

from hblm.config import identity
from hblm.config.schema import leaves, typed
from hblm.config.train import TrainConfig
from hblm.errors import DataError
from hblm.runs import paths
from hblm.runs.paths import Run
from hblm.runs.result import read_result

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
}


def identify(data: str = DATA, encoder: dict[str, Any] = ENCODER, **values: Any) -> paths.Run:
    return paths.identify(config(**values), data=data, encoder=encoder, tag=TAG)


def other(leaf: Any) -> Any:
    """Return a value that is allowed and not the default."""
    if leaf.rules["choices"]:
        choice = next(
            choice for choice in leaf.rules["choices"] if choice not in (leaf.default, "all", "auto")
        )
        return [choice] if isinstance(leaf.default, list) else choice
    if isinstance(leaf.default, bool):
        return not leaf.default
    if isinstance(leaf.default, (int, float)):
        return leaf.default / 2 or 0.5 if isinstance(leaf.default, float) else leaf.default + 1
    return 0.25 if "dropout" in leaf.name or "rate" in leaf.name else 7 if "dim" in leaf.name else "another"


DUAL = {"joint_variant__joint_variant": "dual"}
TRI = {"joint_variant__joint_variant": "tri_head_diffcat"}
ACTS_WITH = {  # keys that need another key to act
    "loss.gamma": {"loss__loss": "focal"},
    "head.label_text_gain": {"head__output_init": "label_text"},
    "loss.tau": {"loss__loss": "conditional_softmax"},
    "joint_variant.joint_objective": DUAL | {"joint_variant__joint_loss_fused": 0.5},
    **{f"joint_variant.joint_{key}": DUAL for key in ("eval_view", "loss_fused", "loss_td", "loss_bu")},
    "joint_variant.joint_loss_mix": TRI,
    **{f"joint_variant.tri_fuse_{view}": TRI for view in ("td", "bu", "mix")},
}
NAMES_OF_CONTENT = ("encoder.model_name", "encoder.revision", "init_from")  # the content is identified
CHANGEABLE = [
    leaf
    for leaf in leaves(TrainConfig)
    if len(leaf.rules["choices"]) != 1 and not isinstance(leaf.default, dict)
]


@pytest.mark.parametrize("leaf", CHANGEABLE, ids=lambda leaf: leaf.name)
def test_exactly_the_keys_that_can_change_numbers_change_the_id(leaf):
    context = ACTS_WITH.get(leaf.name, {})
    changed = identify(**{**context, leaf.name.replace(".", "__"): other(leaf)}).id != identify(**context).id
    expected = leaf.rules["identity"] and leaf.name not in NAMES_OF_CONTENT
    assert changed == expected


def test_a_frozen_encoder_leaves_one_rate():
    """That of the heads, however it was given."""
    frozen = {"encoder__trainable": False}
    by_head = identify(**frozen, trainer__learning_rate=1e-4, trainer__head_learning_rate=5e-3)
    assert by_head.id == identify(**frozen, trainer__learning_rate=5e-3).id
    assert by_head.id == identify(**frozen, trainer__head_learning_rate=5e-3).id
    assert by_head.id != identify(**frozen, trainer__learning_rate=1e-4).id


def test_the_same_rate_for_the_heads_is_no_rate_of_their_own():
    assert identify(trainer__head_learning_rate=3e-5).id == identify().id
    assert identify(trainer__head_learning_rate=1e-4).id != identify().id


# ids that 0.1 gave: formulas 1, schema 1
OF_0_1 = [
    (("method=flat",), "c1b00d0c37e241a740fc47b2eece5b4117dac0b276d02914a9dfeadcff8d26e7"),
    (
        ("film=none", "head=linear", "encoder.project_embedding=false", "loss=conditional_softmax"),
        "83a6ce0943afe75a7e8046b21d366916c1fe76b1009b8822f50223b8070f91fa",
    ),
    (("direction=top_down",), "4ece298a4223118fe36b0f1c4f533db3e1cea3d4f2dcc7649e2dccbef54b1724"),
    (("direction=bottom_up", "seed=2"), "052b810e0cd5a4f97f5043cdb1f85b58605187cfa8614c2bc24b1636f3e20d02"),
    (("film=none",), "710a06cda052aafa829fc5e87180b207f6d233915129ffb92ea83f60802b0fa2"),
    (("film=logit", "head=wide_mlp"), "80fb9159d3832ec408b8d782073f6e82c1597fc0e53d6afd0897365bc0b0ae72"),
    (("joint_variant=dual",), "a361b171d4d9a6202fc1f5e0dbe891bd3319571ae74088f643d9a04901413847"),
    (
        ("joint_variant=tri_head_diffcat", "head=residual_mlp"),
        "85972c57cc95ce4305b7f0af853c63cd4f8aeb6b1c16bd8efc650c478f6e4d7e",
    ),
    (
        ("encoder.project_embedding=false", "head=linear"),
        "6ff14dc2e2997ae695caece62cbc7dba051cd3020a4c52f2e52c2a1e1d5898cc",
    ),
    (
        ("loss.level_reduction=nodes", "trainer=small", "pooling=mean"),
        "731d717df371ef451ce3c6d157e7f90170d7f25811c97bc711a546e621a00038",
    ),
]


@pytest.mark.slow
def test_no_id_of_0_1_comes_up(monkeypatch):
    """A result of other formulas never counts as done, that of the flat baseline included."""

    base = ("dataset=wos", "encoder=tiny", "trainer=original")  # the last trainer= counts

    def ids() -> list[str]:
        made = (compose("train", TrainConfig, *base, *overrides) for overrides, _ in OF_0_1)
        found = (paths.identify(each, data=DATA, encoder={"model_name": "tiny"}, tag=TAG) for each in made)
        return [run.id for run in found]

    before = {run_id for _, run_id in OF_0_1}
    assert not before & {*ids()}
    monkeypatch.setattr(paths, "SCHEMA_VERSION", 1)
    assert before & {*ids()}  # the number is what tells them apart: some keys and defaults are as they were


@pytest.mark.parametrize("loss", ["conditional_softmax", "conditional"])
def test_keys_of_other_losses_do_not_change_the_id_of_a_conditional_one(loss):
    plain = identify(loss__loss=loss).id
    assert identify(loss__loss=loss, loss__level_reduction="levels", loss__gamma=5.0).id == plain
    assert (identify(loss__loss=loss, loss__tau=0.5).id == plain) == (loss == "conditional")


def test_data_and_encoder_change_the_id():
    assert identify(data="2" * 64).id != identify().id
    assert identify(encoder={"weights": "2" * 64}).id != identify().id


@pytest.mark.parametrize(
    ("context", "key", "value"),
    [
        (DUAL, "direction__cascade_direction", "bottom_up"),
        (TRI, "direction__cascade_direction", "bottom_up"),
        (DUAL, "joint_variant__joint_loss_mix", 0.3),
        (DUAL, "joint_variant__tri_fuse_mix", 0.3),
        (DUAL, "joint_variant__joint_eval_view", "all"),  # monitors the fused view
        (DUAL | {"joint_variant__joint_objective": "aux_only"}, "joint_variant__joint_loss_fused", 0.3),
        ({}, "joint_variant__joint_objective", "aux_only"),
        ({}, "joint_variant__joint_eval_view", "td"),
        ({}, "joint_variant__joint_loss_td", 0.3),
        ({}, "joint_variant__joint_loss_fused", 0.3),
        ({}, "joint_variant__tri_fuse_td", 0.3),
        ({}, "loss__gamma", 1.0),
        ({}, "loss__tau", 0.5),
        ({"loss__loss": "focal"}, "loss__tau", 0.5),
        (ACTS_WITH["loss.tau"], "loss__level_reduction", "levels"),
        (ACTS_WITH["loss.tau"], "loss__gamma", 1.0),
        (FLAT | ACTS_WITH["loss.tau"], "loss__level_reduction", "levels"),
        ({"film__propagation_method": "none"}, "direction__cascade_direction", "bottom_up"),
        ({"film__propagation_method": "none"}, "film__propagation_space", "parent_space"),
        ({"film__propagation_method": "none"}, "film__film_scale", 0.5),
        ({"film__propagation_method": "none"}, "film__detach_parent_signal", False),
        ({"film__propagation_method": "multi_hot"}, "film__detach_parent_signal", False),
        ({"encoder__trainable": False}, "encoder__gradient_checkpointing", True),
        ({"encoder__trainable": False}, "encoder__dropout", 0.3),
        ({"encoder__project_embedding": False}, "encoder__projection_dropout", 0.3),
        ({"head__classification_head_type": "linear"}, "head__dropout", 0.3),
        ({}, "head__label_text_gain", 3.0),
    ],
)
def test_inert_keys_leave_id_and_name(context, key, value):
    plain, inert = identify(**context), identify(**context | {key: value})
    assert (plain.id, plain.name) == (inert.id, inert.name)
    if value != "all":  # the key is not inert everywhere
        context = ACTS_WITH.get(key.replace("__", "."), {})
        assert identify(**context).id != identify(**context | {key: value}).id


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
    assert independent.name == "wos_single_independent_minilm_seed1"
    deviating = identify(film__propagation_method="none", head__classification_head_type="residual_mlp")
    assert deviating.name == f"wos_single_independent_minilm_seed1-{deviating.id[:8]}"


def test_names_of_joint_runs():
    assert identify(**DUAL).name == "wos_joint_dual_full_minilm_seed1"
    aux = DUAL | {"joint_variant__joint_objective": "aux_only"}
    assert identify(**aux, seed=2).name == "wos_joint_dual_aux_only_minilm_seed2"
    assert identify(**TRI).name == "wos_joint_tri_head_diffcat_minilm_seed1"
    ablation = identify(**TRI, joint_variant__joint_loss_mix=0.5)
    assert ablation.name == f"wos_joint_tri_head_diffcat_minilm_seed1-{ablation.id[:8]}"
    independent = identify(**DUAL, film__propagation_method="none")
    assert independent.name == f"wos_joint_dual_full_minilm_seed1-{independent.id[:8]}"


def test_dual_full_without_the_fused_loss_is_aux_only(monkeypatch, tmp_path):
    """One run id; whichever name its files bear, it is found."""
    monkeypatch.chdir(tmp_path)
    aux = DUAL | {"joint_variant__joint_objective": "aux_only"}
    assert identify(**DUAL).id == identify(**aux).id
    assert identify(**DUAL, joint_variant__joint_loss_fused=0.1).id != identify(**aux).id
    assert identity.twins(config(**DUAL)) == [config(**aux)]
    assert identity.twins(config(**aux)) == [config(**DUAL)]
    assert not identity.twins(config(**DUAL, joint_variant__joint_loss_fused=0.1))
    assert not identity.twins(config(**TRI))
    assert not identity.twins(config())
    mine = identify(**aux)
    mine.result.parent.mkdir(parents=True)
    mine.result.write_text(json.dumps({"run_id": mine.id}))
    assert identify(**DUAL).name == mine.name == "wos_joint_dual_aux_only_minilm_seed1"
    assert identify(**DUAL).is_done
    ablation = DUAL | {"trainer__epochs": 3}
    other = identify(**ablation, joint_variant__joint_objective="aux_only")
    other.result.write_text(json.dumps({"run_id": other.id}))
    assert identify(**ablation).name == other.name


def test_a_revision_or_another_runs_weights_make_no_main_run():
    for key in ("encoder__revision", "init_from"):
        assert identify(**{key: "v1"}).name.startswith("wos_single_top_down_minilm_seed1-")


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


def test_what_is_replaced_moves_and_is_never_overwritten(tmp_path):
    run = paths.Run("id", "name", tmp_path / "outputs")
    run.result.parent.mkdir(parents=True)
    run.checkpoint.parent.mkdir()
    for number in range(3):
        fresh = tmp_path / f"fresh{number}"
        (fresh / "name").mkdir(parents=True)
        (fresh / "name/hblm.json").write_text(f"checkpoint {number}")
        for suffix in (".json", ".nodes.csv", ".csv"):
            (fresh / f"name{suffix}").write_text(f"{suffix} {number}")
        run.replace_by(fresh, fresh / "name")
    assert run.result.read_text() == ".json 2"
    assert (run.checkpoint / "hblm.json").read_text() == "checkpoint 2"
    texts = [file.read_text() for file in (run.output_dir / "superseded").rglob("*") if file.is_file()]
    kinds = (".json", ".nodes.csv", ".csv", "checkpoint")
    assert sorted(texts) == sorted(f"{kind} {number}" for kind in kinds for number in range(2))


def test_evaluations_get_a_counter_when_the_second_is_taken(tmp_path):
    first = paths.evaluation_path(tmp_path, config(), TAG)
    assert first.name.startswith("eval_single_wos_top_down_minilm_")
    first.parent.mkdir()
    first.touch()
    second = paths.untaken(first)
    assert second.name == f"{first.stem}_2.json"
    folder = tmp_path / "wos_single_flat_bge-small-en-v1.5_seed1"
    folder.mkdir()
    assert paths.untaken(folder).name == f"{folder.name}_2"
    joint = paths.evaluation_path(tmp_path, config(**DUAL), TAG)
    assert re.fullmatch(r"eval_joint_wos_dual_minilm_\d{8}T\d{6}\.json", joint.name)
    joint = paths.evaluation_path(tmp_path, config(**TRI), TAG)
    assert re.fullmatch(r"eval_joint_wos_tri_head_diffcat_minilm_\d{8}T\d{6}\.json", joint.name)
    ensemble = paths.ensemble_path(tmp_path, "wos")
    assert re.fullmatch(r"eval_ensemble_wos_\d{8}T\d{6}\.json", ensemble.name)


ODD_RESULTS = [
    None,
    [],
    {},
    {"single": {}},
    {"single": {"overall": 7, "per_level": [], "repath": None}},
    "text",
]


@pytest.mark.parametrize("test", ODD_RESULTS, ids=str)
def test_a_finished_run_with_a_damaged_result_is_named_with_the_way_out(test):
    this = Run("a" * 64, "x", Path("outputs"))
    for record in ({"test": test}, {}):
        made_results.write(Path("outputs"), "x", {"run_id": this.id, **record})
        assert this.is_done
        with pytest.raises(DataError, match=r"results/x.json: damaged .*force=true"):
            read_result(this, ("single",))


def test_a_finished_run_with_a_sound_result_is_read():
    record = {**made_results.result(seed=1), "run_id": "a" * 64}
    made_results.write(Path("outputs"), "x", record)
    assert read_result(Run("a" * 64, "x", Path("outputs")), ("single",)) == record
