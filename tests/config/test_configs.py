from __future__ import annotations

import functools
import itertools
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from hblm.config.aggregate import AggregateConfig
from hblm.config.compose import SCHEMAS, Composed, Composer, compose
from hblm.config.evaluate import EvaluateConfig
from hblm.config.groups import read_yaml
from hblm.config.prepare import PrepareConfig
from hblm.config.schema import leaves, read_leaf, typed
from hblm.config.sweep import SweepConfig
from hblm.config.train import AUTO, CHOSEN_BY_AUTO, TrainConfig
from hblm.errors import ConfigError
from hblm.nn.cascade import DIRECTIONS, SPACES
from hblm.nn.film import PROPAGATIONS
from hblm.nn.heads import HEADS
from hblm.nn.losses import LOSSES
from hblm.nn.pooling import POOLINGS

WOS = {"dataset": {"name": "wos"}}
CONF = Path(str(resources.files("hblm.conf")))
PRESETS = ("method", "experiment", "sweep")
GROUPS = sorted(path.name for path in CONF.iterdir() if path.is_dir() and path.name != "__pycache__")
OPTIONS = sorted(
    f"{group}={file.stem}" for group in GROUPS for file in (CONF / group).glob("*.yaml")
)  # walks the tree, so a new option is tested by being there


@functools.cache
def composed(*overrides: str) -> Composed:
    return Composer("train", TrainConfig).compose(overrides)


def run(*overrides: str) -> TrainConfig:
    """Return the configuration of a run; with no dataset among the overrides that of wos."""
    found = composed("dataset=wos", "dataset.path=data/wos", *overrides)
    assert not found.faults
    assert not found.config.conflicts()
    return found.config


# the options of the groups, several in one composition: the first of each group, the second ...
BY_GROUP = [
    [option for option in OPTIONS if option.startswith(f"{group}=")]
    for group in GROUPS
    if group not in PRESETS
]
AT_ONCE = [list(filter(None, row)) for row in itertools.zip_longest(*BY_GROUP)]
PRESET_OPTIONS = [option for option in OPTIONS if option.split("=")[0] in PRESETS]


@pytest.mark.parametrize("options", [*AT_ONCE, *([option] for option in PRESET_OPTIONS)], ids=" ".join)
def test_every_option_composes_into_the_typed_configuration(options):
    choices = run(*options).choices()
    for group, name in (option.split("=") for option in options):
        if group in choices and group not in ("dataset", "encoder"):
            assert choices[group] == name


@pytest.mark.parametrize("option", [option for option in OPTIONS if option not in PRESET_OPTIONS])
def test_an_options_file_has_only_what_differs_from_the_defaults(option):
    group, name = option.split("=")
    node = getattr(TrainConfig(), group)
    carriers = [leaf.field.name for leaf in leaves(TrainConfig) if leaf.rules["option_of"] == group]
    for key, value in read_yaml(CONF / group / f"{name}.yaml").items():
        if key not in (*carriers, "model_name", "defaults"):
            assert value != getattr(node, key), key


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_says_in_its_first_comment_what_it_is(option):
    group, name = option.split("=")
    lines = (CONF / group / f"{name}.yaml").read_text().splitlines()
    comments = [line for line in lines[:2] if line.startswith("# ") and "@package" not in line]
    assert len(comments) == 1
    assert (lines[0] == "# @package _global_") == (group in PRESETS)


def test_default_options_are_the_schema_defaults():
    """So that "not at the default", which run ids and names are made of, is the same in both places."""
    config = run("trainer=original")
    assert config.left_open == ()
    for leaf in leaves(TrainConfig):
        if leaf.name.startswith("dataset.") or leaf.name == "cache_dir":
            continue
        value = config
        for part in leaf.name.split("."):
            value = getattr(value, part)
        assert value == leaf.default, leaf.name


def test_originals_setting():
    config = run("direction=bottom_up", "trainer=original")
    assert config == run("direction=bottom_up", "trainer=default")
    assert (config.encoder.model_name, config.encoder.max_length) == ("FacebookAI/roberta-large", 512)
    assert (config.trainer.learning_rate, config.trainer.epochs, config.trainer.batch_size) == (3e-5, 65, 32)
    assert (config.threshold, config.film.film_scale, config.pooling.pooling) == (0.5, 0.2, "cls")
    assert config.encoder.project_embedding
    assert config.film.detach_parent_signal
    assert config.choices()["direction"] == "bottom_up"
    assert config.dataset.path == "data/wos"


@pytest.mark.slow
def test_auto_leaves_open_what_it_chooses_and_nothing_else():
    auto, original = run("trainer=auto"), run("trainer=original")
    assert auto == run()
    assert auto.trainer == replace(original.trainer, **dict.fromkeys(CHOSEN_BY_AUTO))
    config = run("loss=auto", "head.output_init=auto")
    assert config.left_open == (
        *(f"trainer.{name}" for name in CHOSEN_BY_AUTO),
        "loss.loss",
        "head.output_init",
    )
    given = run("trainer.learning_rate=1e-4")
    # without a rate of its own, the head has the encoder's
    assert given.left_open == ("trainer.epochs", "trainer.batch_size", "trainer.patience")


@pytest.mark.parametrize(
    ("group", "registry"),
    [
        ("pooling", POOLINGS),
        ("head", HEADS),
        ("film", PROPAGATIONS),
        ("direction", DIRECTIONS),
        ("loss", LOSSES),
    ],
)
def test_options_and_classes_are_the_same_names(group, registry):
    allowed = next(leaf.rules["choices"] for leaf in leaves(TrainConfig) if leaf.rules["option_of"] == group)
    assert set(registry) == set(allowed) - {AUTO}


def test_spaces_are_the_allowed_ones():
    allowed = next(leaf for leaf in leaves(TrainConfig) if leaf.name == "film.propagation_space").rules[
        "choices"
    ]
    assert set(SPACES) == set(allowed)


def test_all_faults_come_in_one_message():
    tree = {
        "seed": "abc",
        "threshold": 2,
        "trainer": {"epochs": 0, "lr": 1},
        "film": 3,
        "dataset": {"name": "x"},
    }
    with pytest.raises(ConfigError) as caught:
        typed(tree, TrainConfig)
    lines = str(caught.value).splitlines()
    assert [line.split("=")[0] for line in lines] == [
        "seed",
        "threshold",
        "trainer.epochs",
        "trainer.lr",
        "film",
    ]
    assert "did you mean trainer.learning_rate?" in lines[3]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("seed", -1),
        ("seed", 1.5),
        ("seed", True),
        ("threshold", float("nan")),
        ("threshold", "inf"),
        ("dataset_fraction", 0),
        ("dataset_fraction", 1.01),
        ("trainer.learning_rate", 0),
        ("trainer.learning_rate", "fast"),
        ("trainer.batch_size", 0),
        ("trainer.warmup_ratio", 1.1),
        ("trainer.precision", "int8"),
        ("encoder.dropout", 1.0),
        ("encoder.max_length", 3),
        ("encoder.projection_dim", 0),
        ("encoder.trainable", 2),
        ("film.film_scale", -0.1),
        ("film.propagation_space", "sibling_space"),
        ("trackers", ["excel"]),
        ("trackers", "wandb"),
        ("output_dir", ""),
        ("output_dir", None),
        ("device", "tpu"),
    ],
)
def test_a_value_out_of_type_or_range_is_refused_with_its_key(key, value):
    tree: dict = {}
    node = tree
    *groups, last = key.split(".")
    for group in groups:
        node = node.setdefault(group, {})
    node[last] = value
    with pytest.raises(ConfigError, match=key.replace(".", r"\.")):
        typed(tree, TrainConfig)


def test_the_edges_of_a_range_are_inside():
    config = typed({**WOS, "threshold": 0, "dataset_fraction": 1, "encoder": {"dropout": 0}}, TrainConfig)
    assert (config.threshold, config.encoder.dropout) == (0.0, 0.0)


def test_conflicts_name_both_keys():
    with pytest.raises(ConfigError, match=r"projection_dim.*project_embedding"):
        typed({**WOS, "encoder": {"projection_dim": 8, "project_embedding": False}}, TrainConfig)
    with pytest.raises(ConfigError, match=r"gradient_accumulation.*batch_size"):
        typed({**WOS, "trainer": {"gradient_accumulation": 64}}, TrainConfig)
    with pytest.raises(ConfigError, match=r"fp16.*device"):
        typed({**WOS, "trainer": {"precision": "fp16"}, "device": "cpu"}, TrainConfig)
    with pytest.raises(ConfigError, match=r"dataset\.name"):
        typed({"dataset": {"name": "a/b"}}, TrainConfig)
    with pytest.raises(ConfigError, match="check"):
        typed({"check": True, "force": True}, PrepareConfig)


TRI = {"joint_variant": "tri_head_diffcat"}
DUAL = {"joint_variant": "dual"}


@pytest.mark.parametrize(
    ("joint", "named"),
    [
        (TRI | {"joint_objective": "aux_only"}, ["tri_head_diffcat", "joint_objective"]),
        (DUAL | {"joint_eval_view": "mix"}, ["joint_variant=dual", "joint_eval_view=mix"]),
        (DUAL | {"joint_loss_td": 0, "joint_loss_bu": 0}, ["joint_loss_fused=0", "_td=0", "_bu=0", "dual"]),
        (
            DUAL
            | {"joint_objective": "aux_only"}
            | {"joint_loss_fused": 1, "joint_loss_td": 0, "joint_loss_bu": 0},
            ["joint_loss_td=0", "joint_loss_bu=0", "dual"],
        ),
        (
            TRI | {"joint_loss_td": 0, "joint_loss_bu": 0, "joint_loss_mix": 0},
            ["joint_loss_td=0", "joint_loss_bu=0", "joint_loss_fused=0", "joint_loss_mix=0"],
        ),
        (TRI | {"tri_fuse_td": 0, "tri_fuse_bu": 0, "tri_fuse_mix": 0}, ["tri_fuse_td=0", "tri_fuse_mix=0"]),
        (DUAL | {"joint_loss_td": -0.1}, ["joint_variant.joint_loss_td=-0.1"]),
        (TRI | {"tri_fuse_bu": -1}, ["joint_variant.tri_fuse_bu=-1"]),
    ],
)
def test_joint_keys_that_do_not_go_together(joint, named):
    with pytest.raises(ConfigError) as caught:
        typed({**WOS, "joint_variant": joint}, TrainConfig)
    assert len(str(caught.value).splitlines()) == 1
    for part in named:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "joint",
    [
        DUAL | {"joint_loss_td": 0},
        DUAL | {"joint_loss_td": 0, "joint_loss_bu": 0, "joint_loss_fused": 1},
        TRI | {"joint_loss_td": 0, "joint_loss_bu": 0},
        TRI | {"tri_fuse_td": 0, "tri_fuse_bu": 0},
        TRI | {"joint_eval_view": "mix"},
        {"joint_objective": "aux_only", "joint_eval_view": "mix"},  # a single model: neither acts
        DUAL | {"tri_fuse_td": 0, "tri_fuse_bu": 0, "tri_fuse_mix": 0},
    ],
)
def test_joint_keys_that_do(joint):
    typed({**WOS, "joint_variant": joint}, TrainConfig)


def test_what_each_objective_weighs():
    def weights(**joint):
        return typed({**WOS, "joint_variant": joint}, TrainConfig).joint_variant.loss_weights

    assert weights() == {"single": 1.0}
    assert weights(**DUAL, joint_loss_fused=0.3) == {"fused": 0.3, "td": 0.5, "bu": 0.5}
    assert weights(**DUAL, joint_objective="aux_only", joint_loss_fused=0.3) == {"td": 0.5, "bu": 0.5}
    assert weights(**TRI) == {"fused": 0.0, "td": 0.5, "bu": 0.5, "mix": 1.0}


def test_what_is_monitored():
    def monitored(**joint):
        return typed({**WOS, "joint_variant": joint}, TrainConfig).joint_variant.monitored

    assert monitored(joint_eval_view="td") == "single"
    assert monitored(**DUAL) == monitored(**DUAL, joint_eval_view="all") == "fused"
    assert monitored(**TRI, joint_eval_view="mix") == "mix"


def test_one_checkpoint_or_two():
    def read(**keys):
        return typed({"checkpoint": ["a", "b"], **keys}, EvaluateConfig)

    assert read(checkpoint="one").checkpoint == ["one"]
    assert read().weight == 0.5
    assert read(ensemble_weight=0).weight == 0.0
    assert read(ensemble_weight="0.25").weight == 0.25
    assert read(ensemble_weight="auto").weight is None
    for wrong in (1.5, -1, "nan", "half"):
        with pytest.raises(ConfigError, match=f"ensemble_weight={wrong} is not a number between 0 and 1"):
            read(ensemble_weight=wrong)
    with pytest.raises(ConfigError, match="an ensemble has two"):
        read(checkpoint=["a", "b", "c"])
    with pytest.raises(ConfigError, match="acts between two checkpoints"):
        read(checkpoint="a", ensemble_weight=0.5)
    with pytest.raises(ConfigError, match=r"checkpoint=\[\] names no folder"):
        read(checkpoint=[])
    assert read(checkpoint=123).checkpoint == ["123"]
    assert read(predictions=True, predictions_floor=0).predictions_floor == 0.0
    with pytest.raises(ConfigError, match=r"predictions_floor=0.5 acts with predictions=true"):
        read(predictions_floor=0.5)
    with pytest.raises(ConfigError, match="is required"):
        typed({"checkpoint": "???"}, EvaluateConfig)


@pytest.mark.slow
def test_only_the_flat_preset_is_flat():
    assert run("method=flat").is_flat
    assert run("method=flat", "loss=auto").is_flat
    changes = ("film=logit", "head=mlp", "encoder.project_embedding=true", "loss=conditional_softmax")
    for change in (*changes, "loss=conditional"):
        assert not run("method=flat", change).is_flat


def test_a_custom_dataset_is_named_after_its_folder():
    config = run("dataset=custom", "dataset.path=/some/place/mine")
    assert config.dataset_name == "mine"
    assert replace(config, dataset=replace(config.dataset, name="other")).dataset_name == "other"


def test_other_programs_compose():
    evaluation = Composer("evaluate", EvaluateConfig).compose(["checkpoint=x", "split=val"])
    preparation = Composer("prepare", PrepareConfig).compose(["dataset=docstrings"])
    assert not evaluation.faults
    assert not preparation.faults
    assert (evaluation.config.split, preparation.config.dataset.converter) == ("val", "docstrings")
    aggregation = Composer("aggregate", AggregateConfig).compose(["sweep=main"])
    assert aggregation.config == AggregateConfig(sweep="main")


def test_converters_named_in_conf_exist():
    scripts = {file.stem for file in (Path(__file__).parents[2] / "datasets").glob("*.py")}
    for file in (CONF / "dataset").glob("*.yaml"):
        converter = read_yaml(file).get("converter")
        assert converter is None or converter in scripts, file.name


@pytest.mark.parametrize(
    ("program", "given"),
    [("train", "dataset=wos"), ("evaluate", "checkpoint=x"), ("prepare", "dataset=wos")],
)
def test_grids_leave_the_folder_multirun_alone(program, given):
    """Hydra's own default is multirun/, which in a checkout is a folder of the project."""
    assert compose(program, [given]).hydra.sweep.dir.startswith("outputs/hydra/")


@pytest.mark.parametrize("leaf", [*leaves(TrainConfig)], ids=lambda leaf: leaf.name)
def test_no_value_is_resolved_while_it_is_typed(leaf, monkeypatch):
    """What a stored configuration says stays as it is or is refused: it cannot read the environment."""
    monkeypatch.setenv("SECRET", "1")
    text = "${oc.env:SECRET}"
    for value in (text, f"a{text}", [text], {"key": text}, {"key": [text]}, "${seed}", "${"):
        checked, why = read_leaf(leaf, value)
        assert why or checked == ([value] if leaf.rules["one"] and isinstance(value, str) else value)


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), SweepConfig])
def test_every_whole_number_has_a_bound_that_libraries_take(schema):
    for leaf in leaves(schema):
        if type(leaf.default) is int or "int" in str(leaf.field.type):
            for value in (10**20, 2**63, -(10**20), 10**400):
                assert read_leaf(leaf, value)[1], leaf.name


@pytest.mark.parametrize("schema", [*SCHEMAS.values(), SweepConfig])
def test_no_number_is_nan_or_infinite(schema):
    for leaf in leaves(schema):
        if "float" in str(leaf.field.type):
            for value in (float("nan"), float("inf"), float("-inf"), 10**400, "nan", "1e400"):
                assert read_leaf(leaf, value)[1], leaf.name


@pytest.mark.parametrize("name", ["n" * 300, "a\udc80", "a\0", "a\x1b[31m", "..", "a/b", "", "\n"])
def test_a_name_that_cannot_be_a_files_is_refused(name):
    config = TrainConfig()
    config.dataset.name, config.dataset.path = name, "data/x"
    assert "cannot name a file" in config.conflicts()[0]
    assert "cannot name a folder" in SweepConfig(sweep="main", name=name).conflicts()[0]
    if name not in ("", ".."):  # what follows the name makes it one
        assert "cannot name a file" in AggregateConfig(name=name).conflicts()[0]
