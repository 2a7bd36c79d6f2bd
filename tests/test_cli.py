from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from hblm import cli
from hblm.catalogue import Catalogue
from hblm.compose import Composer
from hblm.config import TrainConfig
from hblm.errors import ConfigError
from hblm.evaluate import PROGRAM as EVALUATE
from hblm.prepare import PROGRAM as PREPARE
from hblm.train import PROGRAM as TRAIN


def faults(*argv: str, program: cli.Program = TRAIN) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        cli.check(program, list(argv))
    return str(caught.value).splitlines()


def only_fault(*argv: str, program: cli.Program = TRAIN) -> str:
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
        ("hydra.job.chdir=true", "relative paths start where the program does"),
        ("seed=" + "9" * 5_000, "is not of the form key=value"),
        ("dataset.prepare=" + "[" * 200 + "]" * 200, "is not of the form key=value"),
        ("lyrl=/x", "lyrl=/x is not a key; did you mean dataset.prepare.lyrl?"),
        ("overlaps=keep", "did you mean dataset.prepare.overlaps?"),
        ("=3", "=3 is not of the form key=value"),
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
        ("encoder.projection_dim=wide", "is not a whole number of at least 1, or null"),
        ("trackers=[excel]", "holds excel, which is not one of tensorboard, mlflow, wandb"),
        ("trainer={epochs:3}", "is not one of auto, default, original, small, smoke"),
        ("seed=1,2", "add -m"),
        ("film=logit,none", "add -m"),
        ("hydra.sweep.subdri=x", "Could not override 'hydra.sweep.subdri'"),
        ("dataset.prepare.min_suport=3", "did you mean min_support?"),
        ("output_dir=${nowhere}", "nowhere"),
        ("seed=${threshold}", "seed=0.5 is not a whole number"),
    ],
)
def test_one_fault_is_one_line_which_says_what_would_be_right(argument, expected):
    assert expected in only_fault("dataset=docstrings", argument)


def test_keys_that_do_not_go_together_are_refused_as_soon_as_both_are_known():
    given = ["dataset=wos", "trainer.gradient_accumulation=64"]
    assert "trainer.batch_size=32" in only_fault(*given, "trainer=original")
    cli.check(TRAIN, given)  # trainer=auto chooses the batch size when the documents are there


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


def test_every_value_of_a_sweep_is_checked():
    assert "x is not a whole number" in only_fault("-m", "dataset=wos", "seed=1,x")
    assert "did you mean aapd?" in only_fault("-m", "dataset=wos,aap")
    assert "is not a key" in only_fault("-m", "dataset=wos", "flim=glob(*)")
    cli.check(TRAIN, ["-m", "dataset=wos", "film=glob(*)"])
    assert "write the values one by one" in only_fault("-m", "dataset=wos", "threshold=interval(0,1)")
    cli.check(TRAIN, ["-m", "dataset=wos,aapd", "seed=range(1,4)", "film=choice(logit,none)"])


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
    cli.check(TRAIN, argv)


CATALOGUE = Catalogue()
COMPOSER = Composer("train", TrainConfig)
BESIDE = [
    *(
        f"{group}={option}"
        for group in ("film", "head", "joint_variant", "direction", "loss")
        for option in CATALOGUE.groups[group]
    ),
    *("encoder.project_embedding=true", "encoder.project_embedding=false"),
    *("loss.level_reduction=nodes", "loss.level_reduction=levels"),
]


@pytest.mark.parametrize("method", CATALOGUE.groups["method"])
def test_each_option_beside_a_method_keeps_it_or_is_refused(method):
    """Walks conf/, so that a new method and a new option are tested by being there."""

    def run(method, *options):
        return [f"method={method}", "dataset=wos", *options]

    assert COMPOSER.compose(run(method)).config.method == method
    for option in BESIDE:
        config = COMPOSER.compose(run(method, option)).config
        found = list(cli.composition_faults(COMPOSER, CATALOGUE, [], run(method, option)))
        if config.method == method:
            assert found == config.conflicts()
        else:
            assert found == [
                *config.conflicts(),
                f"method={method} contradicts {option}: together they make method={config.method}; "
                f"leave {option} out, or write method={config.method} {option}",
            ]
            assert COMPOSER.compose(run(config.method, option)).config.method == config.method


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
def test_what_contradicts_a_method_is_named_and_nothing_else(given, contradicting):
    said = only_fault("dataset=wos", *given)
    assert said.startswith(f"{given[0]} contradicts {' and '.join(contradicting)}: ")
    assert said.endswith(f" {' '.join(contradicting)}")


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
    cli.check(TRAIN, ["dataset=wos", *given])


def test_contradictions_come_with_all_other_faults():
    found = faults("method=flat", "film=logit", "sed=1")
    assert [line.split("=")[0] for line in found] == ["sed", "dataset", "method"]


def test_each_contradiction_of_a_grid_is_named_once():
    found = faults("-m", "dataset=wos,aapd", "method=flat,top_down", "film=none,logit", "seed=1,2")
    assert [line.partition(":")[0] for line in found] == [
        "method=flat contradicts film=logit",
        "method=top_down contradicts film=none",
    ]


def test_an_experiment_that_contradicts_a_method_is_named(tmp_path):
    (tmp_path / "experiment").mkdir()
    file = tmp_path / "experiment" / "mine.yaml"
    given = ["--config-dir", str(tmp_path), "dataset=wos", "experiment=mine", "seed=2"]
    file.write_text("# @package _global_\ndefaults:\n  - override /film: none\n")
    assert "method=top_down contradicts experiment=mine: " in only_fault(*given, "method=top_down")
    cli.check(TRAIN, [*given, "method=independent"])
    file.write_text("# @package _global_\ndefaults:\n  - override /film: logit\n  - override /head: mlp\n")
    cli.check(TRAIN, [*given, "method=flat"])  # a method comes after an experiment, and wins
    file.write_text("# @package _global_\nhead:\n  classification_head_type: mlp\n")
    assert "method=flat contradicts experiment=mine: " in only_fault(*given, "method=flat")


def test_a_method_of_ones_own_is_no_fact(tmp_path):
    (tmp_path / "method").mkdir()
    own = "# @package _global_\ndefaults:\n  - override /film: none\n"
    (tmp_path / "method" / "mine.yaml").write_text(own)
    cli.check(TRAIN, ["--config-dir", str(tmp_path), "dataset=wos", "method=mine", "film=logit"])
    (tmp_path / "method" / "flat.yaml").write_text(own)  # Hydra takes the shipped one
    given = ["--config-dir", str(tmp_path), "dataset=wos", "method=flat", "head=mlp"]
    assert "method=flat contradicts head=mlp" in only_fault(*given)


def test_a_run_beyond_those_checked_before_the_start_is_refused_at_its_turn(monkeypatch, capsys):
    monkeypatch.setattr(cli, "_CELLS_CHECKED", 1)
    started = []
    argv = ["-m", "dataset=wos", "method=flat,top_down", "film=none"]
    with pytest.raises(SystemExit) as end:
        cli.main(TRAIN, lambda config: started.append(config.method), argv)
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
    cli.check(TRAIN, ["--config-dir", str(tmp_path), "dataset=wos", "film=strong"])
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


def program(name: str, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", f"hblm.{name}", *argv], check=False, capture_output=True, text=True
    )


def test_the_program_prints_faults_without_a_traceback_and_leaves_nothing():
    done = program("train", "film=sigmiod", "seed=abc")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[0] == "hblm.train: 3 faults"
    assert not list(Path().iterdir())


def test_an_unknown_flag_exits_with_2():
    assert program("train", "--sed").returncode == 2


def test_cfg_shows_the_job():
    done = program("train", "dataset=wos", "direction=bottom_up", "--cfg", "job")
    assert done.returncode == 0
    assert "cascade_direction: bottom_up" in done.stdout
    assert "hydra" not in done.stdout


@pytest.mark.parametrize("program", [TRAIN, EVALUATE, PREPARE], ids=lambda program: program.name)
def test_help_names_every_key_and_option(program):
    text = cli.help_text(program)
    for leaf in cli.leaves(program.schema):
        if not leaf.rules["option_of"]:
            assert f"\n  {leaf.name}=" in text
            assert leaf.rules["doc"] in text
    if program is TRAIN:
        for group in Catalogue().of_runs:
            options = Catalogue().groups[group]
            assert f"\n  {group}=" in text
            assert all(f"\n    {option} " in text for option in options)


def test_help_shows_the_defaults_of_the_default_options():
    text = cli.help_text(TRAIN)
    assert "\n  trainer.epochs=null " in text
    assert "\n  trainer.weight_decay=0.01 " in text


def test_help_shows_the_keys_of_an_option_that_is_named():
    text = cli.help_text(PREPARE, ["dataset=custom", "raw=x"])
    assert "\ndataset=custom\n" in text
    assert "    label_separator: null" in text
    assert "label_separator" not in cli.help_text(PREPARE, [])


def test_help_needs_no_dataset():
    done = program("train", "--help")
    assert done.returncode == 0
    assert "python -m hblm.train dataset=wos direction=bottom_up" in done.stdout


@pytest.mark.parametrize(
    "value", ["a/b-1.zip", "a b", "9rw (1).zip", 'say "no"', "it's", "a=b,c", "back\\slash", "ünï", "[x]"]
)
def test_an_argument_is_quoted_so_that_shell_and_hydra_give_it_back(value: str) -> None:
    (text,) = shlex.split(cli.argument("raw", value))
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
    assert cli._at_home(given) == expected


def test_a_path_without_its_key_is_understood(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_text("")
    assert faults("dataset=wos", str(tmp_path / "x.zip"), program=PREPARE) == [
        f"{tmp_path}/x.zip is not of the form key=value; did you mean raw={tmp_path}/x.zip?"
    ]
