from __future__ import annotations

import functools
import itertools
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hblm.cli import check, help, main, programs
from hblm.cli.programs import AGGREGATE, EVALUATE, EXPORT, PREPARE, TRAIN
from hblm.config import overrides, schema
from hblm.config.compose import Composer, parse
from hblm.config.groups import OptionGroups
from hblm.config.train import TrainConfig
from hblm.errors import CheckpointError, ConfigError
from hblm.runs.checkpoint import open_checkpoint


@functools.cache
def composer_of(name: str, schema: type) -> Composer:
    return Composer(name, schema)


@pytest.fixture(autouse=True)
def _one_composer(monkeypatch):
    """Compose the shipped options once for all tests; a user's own may be another in each test."""

    def shared(name: str, schema: type, search_path: Sequence[str] = ()) -> Composer:
        return Composer(name, schema, search_path) if search_path else composer_of(name, schema)

    monkeypatch.setattr(check, "Composer", shared)


def faults(*argv: str, program: programs.Program = TRAIN) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        check.check(program, list(argv))
    return str(caught.value).splitlines()


def only_fault(*argv: str, program: programs.Program = TRAIN) -> str:
    (fault,) = faults(*argv, program=program)
    return fault


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        (
            "film=sigmiod",
            "film=sigmiod is not one of logit, multi_hot, none, sigmoid; did you mean sigmoid?",
        ),
        ("film=null", "film=null is not one of"),
        ("method=null", "method=null is not one of"),
        ("film=[sigmoid,logit]", "film=['sigmoid', 'logit'] is not one of"),
        ("film.propagation_method=logit", "write film=logit"),
        ("direction.cascade_direction=bottom_up", "write direction=bottom_up"),
        ("pooling.pooling=mean", "write pooling=mean"),
        ("head.classification_head_type=mlp", "write head=mlp"),
        ("trainer.lr=3e-5", "trainer.lr=3e-5 is not a key; did you mean trainer.learning_rate?"),
        ("lr=3e-5", "or trainer.learning_rate?"),
        ("film_scale=0.3", "film_scale=0.3 is not a key; did you mean film.film_scale?"),
        ("dropout=0.3", "did you mean encoder.dropout or head.dropout?"),
        ("sed=1", "sed=1 is not a key; did you mean seed?"),
        ("hed=mlp", "hed=mlp is not a key; did you mean head?"),
        ("zzzz=1", "zzzz=1 is not a key"),
        ("+stray=1", "stray=1 is not a key"),
        ("++trainer.stray=1", "trainer.stray=1 is not a key"),
        ("~seed", "~seed: a key cannot be removed"),
        ("~film", "~film: a key cannot be removed"),
        ("bottom_up", "bottom_up is not of the form key=value"),
        ("data_dir=a (1)", "data_dir=a (1) is not of the form key=value; quote special characters twice: "),
        ("data_dir=a (1)", "twice: 'data_dir=\"a (1)\"'"),
        ("hydra/job_logging=true", "the value is the name of an option"),
        ("hydra.job.chdir=true", "would move relative paths"),
        ("seed=" + "9" * 5_000, "is not of the form key=value"),
        ("dataset.prepare=" + "[" * 200 + "]" * 200, "is not of the form key=value"),
        ("lyrl=/x", "lyrl=/x is not a key; did you mean dataset.prepare.lyrl?"),
        ("overlaps=keep", "did you mean dataset.prepare.overlaps?"),
        ("=3", "=3 is not of the form key=value"),
        ("+=a=b", "+=a=b is not of the form key=value"),
        (".=a=b", ".=a=b is not of the form key=value"),
        (f"film={'x' * 5000}", "is not one of logit, multi_hot, none, sigmoid"),
        ("x" * 5000, "is not of the form key=value"),
        ("seed=abc", "seed=abc is not a whole number between 0 and 4294967295"),
        ("seed=1.5", "seed=1.5 is not a whole number"),
        ("seed=-1", "seed=-1 is out of range"),
        ("seed=", "seed= is not a whole number"),
        ("seed=null", "seed=null is not a whole number"),
        ("threshold=1.5", "threshold=1.5 is out of range; write a number between 0 and 1"),
        ("threshold=nan", "threshold=nan is not a number between 0 and 1"),
        ("dataset_fraction=0", "write a number above 0 and at most 1"),
        ("trainer.epochs=0", "trainer.epochs=0 is out of range; write a whole number of at least 1, or null"),
        ("trainer.precision=float16", "is not one of auto, fp32, bf16, fp16"),
        ("encoder.trainable=maybe", "encoder.trainable=maybe is not true or false"),
        ("encoder.projection_dim=wide", "is not a whole number between 1 and 16384, or null"),
        ("trackers=[excel]", "holds excel, which is not one of tensorboard, mlflow, wandb"),
        ("trainer={epochs:3}", "is not one of auto, default, original, small, smoke"),
        ("seed=1,2", "add -m"),
        ("film=logit,none", "add -m"),
        ("hydra.sweep.subdri=x", "Could not override 'hydra.sweep.subdri'"),
        ("dataset.prepare.min_suport=3", "did you mean min_support?"),
        ("output_dir=${nowhere}", "nowhere"),
        ("seed=${threshold}", "seed=0.5 is not a whole number"),
        ("seed=1-5", "several values are written 'seed=range(1,6)', with -m"),
        ("seed=[1,2,3]", "several values are written seed=1,2,3, with -m"),
        ("head=[mlp,linear]", "several values are written head=mlp,linear, with -m"),
        ("trackers=mlflow,wandb", "trackers=mlflow,wandb is not a list; write 'trackers=[mlflow,wandb]'"),
        ("encoder.revision=None", "encoder.revision=None is a text; write encoder.revision=null"),
        ("trainer.epochs=None", "write trainer.epochs=null"),
        ("trainer.learning_rate=3e-5,", "trainer.learning_rate=3e-5, is not a number above 0, or null"),
        ("seed==3", "seed==3 is not a whole number"),
        ("film=a=b", "film=a=b is not one of logit, multi_hot, none, sigmoid; --config-dir"),
        ("trainer.epochs:3", "trainer.epochs:3 is not of the form key=value; write trainer.epochs=3"),
        ("trainer=trainer.small", "did you mean small?"),
        ("trainer=conf/trainer/small.yaml", "did you mean small?"),
        ("experiment=quickstart.yaml", "did you mean quickstart?"),
        ("film=None", "did you mean none?"),
        ("encoder=roberta-large", "did you mean roberta_large?"),
        ("encoder=bert-base-uncased", "did you mean bert_base? encoder.model_name= takes a model of the hub"),
        ("encoder=org/model", "takes a model of the hub or a folder: encoder.model_name=org/model"),
        ("bs=8", "did you mean trainer.batch_size?"),
        ("Trainer.Epochs=1", "did you mean trainer.epochs?"),
        ("cascade_direction=top_down", "did you mean direction?"),
    ],
)
def test_one_fault_is_one_line_which_says_what_would_be_right(argument, expected):
    assert expected in only_fault("dataset=docstrings", argument)


def test_keys_that_do_not_go_together_are_refused_as_soon_as_both_are_known():
    given = ["dataset=wos", "trainer.gradient_accumulation=64"]
    assert "trainer.batch_size=32" in only_fault(*given, "trainer=original")
    check.check(TRAIN, given)  # trainer=auto chooses the batch size when the documents are there


def test_all_faults_of_a_command_line_come_at_once():
    found = faults("film=sigmiod", "trainer.lr=1", "seed=abc", "foo")
    assert [line.split("=")[0].split()[0] for line in found] == [
        "film",
        "trainer.lr",
        "seed",
        "foo",
        "dataset",
    ]


def test_the_dataset_is_required():
    assert only_fault().startswith("dataset= is required: one of aapd, ")
    assert only_fault("dataset=custom").startswith("dataset=custom needs dataset.path=DIR, or dataset.name=")
    assert "did you mean wos?" in only_fault("dataset=woss")


@pytest.mark.slow
def test_every_value_of_a_sweep_is_checked():
    assert "x is not a whole number" in only_fault("-m", "dataset=wos", "seed=1,x")
    assert "did you mean aapd?" in only_fault("-m", "dataset=wos,aap")
    assert "is not a key" in only_fault("-m", "dataset=wos", "flim=glob(*)")
    check.check(TRAIN, ["-m", "dataset=wos", "film=glob(*)"])
    assert "write the values one by one" in only_fault("-m", "dataset=wos", "threshold=interval(0,1)")
    check.check(TRAIN, ["-m", "dataset=wos,aapd", "seed=range(1,4)", "film=choice(logit,none)"])


def test_every_combination_of_a_grid_is_checked():
    given = ["dataset=wos", "trainer=original", "seed=1,2"]
    fault = only_fault("-m", *given, "trainer.gradient_accumulation=1,64")
    assert "trainer.gradient_accumulation=64" in fault
    assert "dataset=custom needs dataset.path=DIR" in only_fault("-m", "dataset=wos,custom")


@pytest.mark.parametrize(
    "argv",
    [
        ["dataset=wos", "direction=bottom_up"],
        ["dataset=custom", "dataset.path=DIR"],
        ["experiment=quickstart"],
        ["dataset=wos", "method=flat"],
        ["dataset=wos", "output_dir=${data_dir}/runs"],
        ["dataset=wos", "hydra.job.chdir=false", "hydra/job_logging=stdout"],
        ["dataset=docstrings", "dataset.prepare.max_documents=10"],
        ["dataset=docstrings", "+dataset.prepare.note=x"],  # the converter judges its own options
        ["dataset=wos", "trackers=[tensorboard]"],
        ["dataset=wos", "--cfg", "job"],
        ["--hydra-help"],
    ],
)
def test_right_command_lines_pass(argv):
    check.check(TRAIN, argv)


OPTION_GROUPS = OptionGroups()
COMPOSER = composer_of("train", TrainConfig)
METHODS = sorted(OPTION_GROUPS.groups["method"])
BESIDE = [
    *(
        f"{group}={option}"
        for group in ("film", "head", "joint_variant", "direction", "loss")
        for option in OPTION_GROUPS.groups[group]
    ),
    *("encoder.project_embedding=true", "encoder.project_embedding=false"),
    *("loss.level_reduction=nodes", "loss.level_reduction=levels"),
]


def require_kept_or_refused(method: str, option: str) -> None:
    def run(method: str, *options: str) -> list[str]:
        return [f"method={method}", "dataset=wos", *options]

    assert COMPOSER.compose(run(method)).config.method == method
    config = COMPOSER.compose(run(method, option)).config
    found = list(check.composition_faults(COMPOSER, OPTION_GROUPS, [], run(method, option)))
    if config.method == method:
        assert found == config.conflicts()
    else:
        assert found == [
            *config.conflicts(),
            f"method={method} contradicts {option}: together they make method={config.method}; "
            f"leave {option} out, or write method={config.method} {option}",
        ]
        assert COMPOSER.compose(run(config.method, option)).config.method == config.method


# each option beside one method, the methods in turn
PAIRS = list(zip(BESIDE, itertools.cycle(METHODS), strict=False))


@pytest.mark.parametrize(("option", "method"), PAIRS)
@pytest.mark.slow
def test_an_option_beside_a_method_keeps_it_or_is_refused(option: str, method: str) -> None:
    require_kept_or_refused(method, option)


@pytest.mark.long
@pytest.mark.parametrize("method", METHODS)
def test_each_option_beside_each_method_keeps_it_or_is_refused(method: str) -> None:
    """Walks conf/, so that a new method and a new option are tested by being there."""
    for option in BESIDE:
        require_kept_or_refused(method, option)


@pytest.mark.parametrize(
    ("given", "contradicting"),
    [
        (["method=flat", "film=logit", "head=mlp", "direction=bottom_up"], ["film=logit", "head=mlp"]),
        (["method=flat", "film=none", "head=linear", "joint_variant=dual"], ["joint_variant=dual"]),
        (["method=flat", "loss=conditional_softmax", "seed=3"], ["loss=conditional_softmax"]),
        (["method=top_down", "film=none", "head=linear"], ["film=none"]),
        (["method=bottom_up", "direction=top_down"], ["direction=top_down"]),
        (["method=dual", "joint_variant=none", "film=none"], ["joint_variant=none"]),
        (
            ["method=independent", "head=linear", "trainer.epochs=3", "encoder.project_embedding=false"],
            ["head=linear", "encoder.project_embedding=false"],
        ),
    ],
)
@pytest.mark.slow
def test_what_contradicts_a_method_is_named_and_nothing_else(given, contradicting):
    fault = only_fault("dataset=wos", *given)
    assert fault.startswith(f"{given[0]} contradicts {' and '.join(contradicting)}: ")
    assert fault.endswith(f" {' '.join(contradicting)}")


@pytest.mark.parametrize(
    "given",
    [
        ["method=flat", "film=none", "head=linear", "joint_variant=none", "encoder.project_embedding=false"],
        ["method=flat", "loss=focal", "direction=bottom_up"],
        ["method=independent", "head=residual_mlp", "direction=bottom_up", "loss=conditional_softmax"],
        ["method=dual", "film=none"],
        ["method=tri_head_diffcat", "film=none", "direction=bottom_up"],
        ["method=top_down", "film=logit", "head=linear", "encoder.project_embedding=false"],
    ],
)
def test_what_leaves_a_method_as_it_is_passes(given):
    check.check(TRAIN, ["dataset=wos", *given])


def test_contradictions_come_with_all_other_faults():
    found = faults("method=flat", "film=logit", "sed=1")
    assert [line.split("=")[0] for line in found] == ["sed", "dataset", "method"]


@pytest.mark.slow
def test_each_contradiction_of_a_grid_is_named_once():
    found = faults("-m", "dataset=wos,aapd", "method=flat,top_down", "film=none,logit", "seed=1,2")
    assert [line.partition(":")[0] for line in found] == [
        "method=flat contradicts film=logit",
        "method=top_down contradicts film=none",
    ]


@pytest.mark.slow
def test_an_experiment_that_contradicts_a_method_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    given = ["--config-dir", str(tmp_path), "dataset=wos", "experiment=mine", "seed=2"]
    file.write_text("# @package _global_\ndefaults:\n  - override /film: none\n")
    assert "method=top_down contradicts experiment=mine: " in only_fault(*given, "method=top_down")
    check.check(TRAIN, [*given, "method=independent"])
    file.write_text("# @package _global_\ndefaults:\n  - override /film: logit\n  - override /head: mlp\n")
    check.check(TRAIN, [*given, "method=flat"])  # a method comes after an experiment, and wins
    file.write_text("# @package _global_\nhead:\n  classification_head_type: mlp\n")
    assert "method=flat contradicts experiment=mine: " in only_fault(*given, "method=flat")


@pytest.mark.slow
def test_a_method_of_ones_own_is_no_fact(tmp_path):
    (tmp_path / "method").mkdir()
    own = "# @package _global_\ndefaults:\n  - override /film: none\n"
    (tmp_path / "method" / "mine.yaml").write_text(own)
    check.check(TRAIN, ["--config-dir", str(tmp_path), "dataset=wos", "method=mine", "film=logit"])
    (tmp_path / "method" / "flat.yaml").write_text(own)  # Hydra takes the shipped one
    given = ["--config-dir", str(tmp_path), "dataset=wos", "method=flat", "head=mlp"]
    assert "method=flat contradicts head=mlp" in only_fault(*given)


@pytest.mark.slow
def test_a_run_beyond_those_checked_before_the_start_is_refused_at_its_turn(monkeypatch, capsys):
    monkeypatch.setattr(check, "_CELLS_CHECKED", 1)
    started = []
    argv = ["-m", "dataset=wos", "method=flat,top_down", "film=none"]
    with pytest.raises(SystemExit) as end:
        main.run_program(TRAIN, lambda config: started.append(config.method), argv)
    assert (end.value.code, started) == (2, ["flat"])
    assert "method=top_down contradicts the other options: together they make method=independent" in (
        capsys.readouterr().err
    )


def test_faults_in_a_yaml_file_are_placed(tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "mine.yaml").write_text(
        "# @package _global_\ntrainer:\n  epochs: many\n  lerning_rate: 1\nsede: 3\n"
    )
    found = faults("--config-dir", str(tmp_path), "dataset=wos", "experiment=mine")
    assert all(line.startswith("experiment/mine.yaml: ") for line in found)
    assert [line.split(": ")[1].split("=")[0] for line in found] == [
        *("trainer.epochs", "trainer.lerning_rate", "sede")
    ]
    assert "did you mean trainer.learning_rate?" in found[1]


def test_an_option_of_ones_own(tmp_path):
    (tmp_path / "film").mkdir()
    option = tmp_path / "film" / "strong.yaml"
    option.write_text("propagation_method: logit\nfilm_scale: 0.5\n")
    given = ["--config-dir", str(tmp_path), "dataset=wos", "film=strong", "film.detach_parent_signal=false"]
    check.check(TRAIN, given)
    option.write_text("propagation_method: logit\nfilm_scale: high\n")
    assert only_fault("--config-dir", str(tmp_path), "dataset=wos", "film=strong").startswith(
        "film/strong.yaml: "
    )
    option.write_text("film_scale: [\n")
    assert "strong.yaml" in only_fault("--config-dir", str(tmp_path), "dataset=wos", "film=strong")
    assert "is not a folder" in only_fault("--config-dir", str(tmp_path / "no"), "dataset=wos")


def test_other_programs_know_their_own_keys():
    assert "did you mean checkpoint?" in faults("chekpoint=x", program=EVALUATE)[0]
    assert only_fault(program=EVALUATE) == "checkpoint= is required"
    assert "is not one of train, val, test" in only_fault("checkpoint=x", "split=dev", program=EVALUATE)
    assert "did you mean docstrings?" in only_fault("dataset=docstring", program=PREPARE)
    assert "film=logit is not a key" in only_fault("dataset=wos", "film=logit", program=PREPARE)


def test_a_file_of_a_checkpoint_or_its_result_names_the_checkpoint() -> None:
    folder = Path("outputs/checkpoints/run")
    files = [folder / name for name in ("hblm.json", "model.safetensors", "encoder/config.json")]
    for file in (*files, result := Path("outputs/results/run.json")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    meant = f"did you mean checkpoint={folder}?"
    for file in (*files, result):
        with pytest.raises(CheckpointError) as caught:
            open_checkpoint(file)
        assert str(caught.value).endswith(meant)
        assert only_fault(str(file), program=EVALUATE).endswith(meant)
    assert only_fault(str(folder), program=EVALUATE).endswith(meant)


PROGRAMS = {program.name: program for program in (TRAIN, EVALUATE, PREPARE, AGGREGATE)}
MISSPELT = (
    *("predictions", "prediction", "raw", "text", "texts", "checkpoint", "lr", "bs", "epochs", "sed", "SEED"),
    *("flim", "film", "cascade_direction", "propagation_method", "model_name", "max_len", "path", "dropout"),
    *(
        "metrics",
        "spilt",
        "treshold",
        "encoder.batch_size",
        "dataset.prepare.text",
        "lyrl",
        "joint_eval_view",
    ),
)


def faults_of_key(program: str, text: str) -> list[str]:
    return list(check.override_faults(PROGRAMS[program], OPTION_GROUPS, parse(text), False, {}))


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_is_proposed_for_a_key_is_one_that_the_program_named_takes(program: str) -> None:
    proposed = 0
    for key in MISSPELT:
        for fault in faults_of_key(program, f"{key}=x"):
            if "is not a key" not in fault:
                continue
            given = re.search(r"did you mean ([^?]+)\?", fault)
            taken = [(program, f"{name}=x") for name in given[1].split(" or ")] if given else []
            command = re.search(r"python -m hblm\.(\w+) (.*)", fault)
            taken += [(command[1], text) for text in command[2].split() if "=" in text] if command else []
            for name, text in taken:
                assert not [each for each in faults_of_key(name, text) if "is not a key" in each], fault
                assert "is set by choosing" not in " ".join(faults_of_key(name, text)), fault
            proposed += bool(taken)
    assert proposed > len(MISSPELT) / 2


@pytest.mark.parametrize(
    ("program", "text", "expected"),
    [
        ("train", "predictions=true", "python -m hblm.evaluate checkpoint=DIR predictions=true"),
        ("train", "prediction=true", "predictions= is a key of hblm.evaluate: "),
        ("train", "raw=x", "raw= is a key of hblm.prepare: python -m hblm.prepare dataset=NAME raw=x"),
        ("train", "checkpoint=x", "python -m hblm.evaluate checkpoint=x"),
        ("train", "metric=[a,b]", "python -m hblm.aggregate 'metric=[a,b]'"),
        ("evaluate", "text=y", "python -m hblm.prepare dataset=custom dataset.prepare.text=y"),
        ("evaluate", "sweep=main", "python -m hblm.sweep VERB sweep=main"),
        ("prepare", "film=logit", "python -m hblm.train dataset=NAME film=logit"),
        ("aggregate", "propagation_method=logit", "python -m hblm.train dataset=NAME film=logit"),
    ],
)
def test_a_key_of_another_program_is_explained_as_such(program: str, text: str, expected: str) -> None:
    (fault,) = faults_of_key(program, text)
    assert expected in fault
    assert "did you mean" not in fault


def test_a_prepared_folder_is_named_where_it_is_given_for_an_option(learnable: Path) -> None:
    Path("data").mkdir()
    shutil.copytree(learnable, "data/gt")
    shutil.copytree(learnable, "elsewhere")
    fault = only_fault("dataset=gt", "dataset.prepare.max_documents=3")
    assert fault.endswith("; data/gt is a prepared folder: write dataset=custom dataset.name=gt")
    check.check(TRAIN, ["dataset=custom", "dataset.name=gt"])
    assert only_fault("elsewhere").endswith("write dataset=custom dataset.path=elsewhere")
    Path("news.csv").write_text("")

    def hint(text: str, program: programs.Program = TRAIN, **given: str) -> str:
        (fault,) = check.override_faults(program, OPTION_GROUPS, parse(f"dataset={text}"), False, given)
        return fault

    assert hint("gt", data_dir="other").endswith("/dataset/NAME.yaml")
    assert hint("elsewhere").endswith("write dataset=custom dataset.path=elsewhere")
    assert hint("elsewhere", PREPARE).endswith("dataset.path=elsewhere check=true")
    assert hint("data/wos").endswith("did you mean wos?")
    assert hint("news.csv").endswith("python -m hblm.prepare dataset=custom raw=news.csv")
    assert hint("news.csv", PREPARE).endswith("did you mean dataset=custom raw=news.csv?")


@pytest.mark.parametrize("group", OPTION_GROUPS.of_runs)
def test_a_missing_option_names_the_folder_of_ones_own(group: str, tmp_path: Path) -> None:
    (fault,) = check.override_faults(TRAIN, OPTION_GROUPS, parse(f"{group}=zzzz"), True, {})
    assert fault.endswith(f"--config-dir DIR adds options of your own, as DIR/{group}/NAME.yaml")
    (fault,) = check.override_faults(TRAIN, OptionGroups(str(tmp_path)), parse(f"{group}=zzzz"), True, {})
    assert fault.endswith(f"options of your own are files {tmp_path / group}/NAME.yaml")


@pytest.mark.parametrize(
    "program", [TRAIN, EVALUATE, EXPORT, PREPARE, AGGREGATE], ids=lambda program: program.name
)
def test_a_working_folder_of_its_own_is_refused(program: programs.Program) -> None:
    needed = {"train": ["dataset=wos"], "evaluate": ["checkpoint=x"], "prepare": ["dataset=wos"]}
    needed["export"] = ["checkpoint=x", "to=onnx"]
    given = [*needed.get(program.name, []), "hydra.job.chdir=true"]
    assert only_fault(*given, program=program).startswith("hydra.job.chdir=true would move relative paths")


@pytest.mark.parametrize(
    ("program", "argv"),
    [
        (TRAIN, ["dataset=custom", "dataset.path=a=b"]),
        (TRAIN, ["dataset=custom", "dataset.pth=ab"]),
        (TRAIN, ["dataset=custom", "--dataset-path", "ab"]),
        (PREPARE, ["dataset=custom", "raw=a=b"]),
        (EVALUATE, ["checkpoint=a=b"]),
        (EVALUATE, ["chekpoint=ab"]),
        (TRAIN, ["wos"]),
        (TRAIN, ["dataset", "=", "wos"]),
        (TRAIN, ["experiment=conf/experiment/quickstart.yaml"]),
    ],
)
def test_what_was_given_wrongly_is_not_missing_as_well(program: programs.Program, argv: list[str]) -> None:
    assert only_fault(*argv, program=program)


FLAGS = [["-m"], ["--multirun"], ["-multirun"], ["--config-dir", "own"], ["--config-dir=own"], ["-cd", "own"]]


@pytest.mark.parametrize("flag", [*FLAGS, ["--cfg", "job"], ["-c", "job"]], ids=" ".join)
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.slow
def test_a_flag_stands_in_any_place(flag: list[str], place: int) -> None:
    Path("own").mkdir()
    words = ["dataset=wos", "film=logit"]
    first, *others = check.check(TRAIN, [*words[:place], *flag, *words[place:]])
    assert first in ("--multirun", "--config-dir=own", "--cfg=job")
    assert others == words


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("--epochs 3", "--epochs 3 is not a flag of hblm.train; write trainer.epochs=3"),
        ("-epochs 3", "write trainer.epochs=3"),
        ("--seed=1", "write seed=1"),
        ("--learning-rate 1e-3", "write trainer.learning_rate=1e-3"),
        ("--cascade_direction bottom_up", "write direction=bottom_up"),
        ("--dataset_name wos", "write dataset=wos"),
        ("--force", "write force=true"),
        ("--predictions", "python -m hblm.evaluate checkpoint=DIR predictions=true"),
        ("--train_mode single", "keys are written KEY=VALUE, and --help lists them"),
        ("--config-name mine", "--config-dir DIR experiment=NAME"),
        ("\u2013m", "a flag begins with a plain hyphen"),
        ("force", "write force=true"),
        ("bottom_up", "did you mean direction=bottom_up or method=bottom_up?"),
        ("seed = 1", "seed = 1: write seed=1, without spaces"),
        ("seed= 1", "write seed=1, without spaces"),
        ("seed =1", "write seed=1, without spaces"),
        ("trackers=[mlflow, wandb]", "write trackers=[mlflow,wandb], without spaces"),
    ],
)
def test_another_programs_way_to_write_arguments_is_translated(given: str, expected: str) -> None:
    assert expected in only_fault("dataset=docstrings", *given.split())


def test_the_program_prints_faults_without_a_traceback_and_leaves_nothing():
    argv = [sys.executable, "-m", "hblm.train", "film=sigmiod", "seed=abc"]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0] == "hblm.train: 3 faults"
    assert not list(Path().iterdir())


@pytest.mark.parametrize("argv", [["--sed"], ["--cfg"], ["--config-dir"]])
def test_an_unknown_flag_exits_with_2(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main.run_program(TRAIN, print, argv)
    assert end.value.code == 2
    assert capsys.readouterr().err.startswith("hblm.train: ")


def test_cfg_shows_the_job_with_every_key(capsys):
    main.run_program(TRAIN, print, ["dataset=wos", "direction=bottom_up", "--cfg", "job"])
    shown = capsys.readouterr().out
    assert "cascade_direction: bottom_up" in shown
    assert "hydra" not in shown
    for leaf in schema.leaves(TrainConfig):
        assert f"{leaf.field.name}:" in shown


@pytest.mark.parametrize("program", [TRAIN, EVALUATE, EXPORT, PREPARE], ids=lambda program: program.name)
def test_help_names_every_key_and_option(program):
    text = help.help_text(program)
    for leaf in schema.leaves(program.schema):
        if not leaf.rules["option_of"]:
            assert f"\n  {leaf.name}=" in text
            assert leaf.rules["doc"] in text
    if program is TRAIN:
        for group in OptionGroups().of_runs:
            options = OptionGroups().groups[group]
            assert f"\n  {group}=" in text
            assert all(f"\n    {option} " in text for option in options)


def test_help_shows_the_values_of_the_options():
    text = help.help_text(TRAIN)
    assert "\n  trainer.epochs=null " in text  # of trainer=auto
    assert "\n  trainer.weight_decay=0.01 " in text
    text = help.help_text(TRAIN, ["trainer=small", "encoder=tiny"])
    assert "\n  trainer.epochs=15 " in text
    assert "\n  trainer.weight_decay=0.01 " in text
    assert "\n  encoder.max_length=128 " in text


def test_help_shows_the_keys_of_an_option_that_is_named():
    text = help.help_text(PREPARE, ["dataset=custom", "raw=x"])
    assert "\ndataset=custom\n" in text
    assert "    label_separator: null" in text
    assert "label_separator" not in help.help_text(PREPARE, [])


def test_help_needs_no_dataset(capsys):
    main.run_program(TRAIN, print, ["--help"])
    assert "python -m hblm.train dataset=wos direction=bottom_up" in capsys.readouterr().out


@pytest.mark.parametrize(
    "value", ["a/b-1.zip", "a b", "9rw (1).zip", 'say "no"', "it's", "a=b,c", "back\\slash", "ünï", "[x]"]
)
def test_an_argument_is_quoted_so_that_shell_and_hydra_give_it_back(value: str) -> None:
    (text,) = shlex.split(overrides.argument("raw", value))
    override = OverridesParser.create().parse_override(text)
    assert (override.key_or_group, str(override.value())) == ("raw", value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("dataset.path=~/out", "dataset.path=/home/me/out"),
        ('raw="~/my data/w.zip"', 'raw="/home/me/my data/w.zip"'),
        ("raw=~", "raw=/home/me"),
        ("raw=a~b", "raw=a~b"),
        ("~seed", "~seed"),
        ("threshold=0.5", "threshold=0.5"),
    ],
)
def test_a_path_may_begin_at_home(given: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert overrides._at_home(given) == expected


def test_a_path_without_its_key_is_understood(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("")
    assert faults("dataset=wos", str(tmp_path / "x.zip"), program=PREPARE) == [
        f"{tmp_path}/x.zip is not of the form key=value; did you mean raw={tmp_path}/x.zip?"
    ]
