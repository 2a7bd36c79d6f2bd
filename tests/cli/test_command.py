"""The command `hblm`: its sub-commands, help, version and faults."""

from __future__ import annotations

import configparser
import importlib.util
import json
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from programs import TINY
from terminals import command_on_path

from hblm.__main__ import main
from hblm.cli.programs import programs
from hblm.version import __version__

CHECKOUT = Path(__file__).parents[2]
# runpy warns where a test has imported the program before
pytestmark = pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["hblm"])


def fault(capsys, *argv: str) -> str:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err


def test_the_package_installs_the_command():
    setup = configparser.ConfigParser()
    setup.read(CHECKOUT / "setup.cfg")
    name, _, value = setup["options.entry_points"]["console_scripts"].strip().partition(" = ")
    assert name == "hblm"
    assert EntryPoint(name, value, "console_scripts").load() is main


@pytest.mark.parametrize(
    "name", [name if name == "train" else pytest.param(name, marks=pytest.mark.slow) for name in programs()]
)
def test_every_program_is_a_sub_command(name, capsys):
    assert importlib.util.find_spec(f"hblm.{name}")
    main([name, "--help"])
    page = capsys.readouterr().out
    assert f"usage: hblm {name} " in page
    assert f"  hblm {name}" in page.partition("examples")[2]
    assert "python -m" not in page


@pytest.mark.parametrize("argv", [[], ["--help"], ["-h"]])
def test_help_lists_the_programs(argv, capsys):
    main(argv)
    page = capsys.readouterr().out
    for program in programs().values():
        assert f"  {program.name:<12} {program.summary.splitlines()[0]}\n" in page
    assert all(len(line) <= 110 for line in page.splitlines())


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out == f"hblm {__version__}\n"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("trian", "trian is not one of train, evaluate, "),
        ("trian", "; did you mean train?"),
        ("hblm.evaluate", "; did you mean evaluate?"),
        ("retry", "; did you mean sweep retry?"),
        ("dataset=wos", "dataset=wos is a key without a program before it; write one of train, "),
        ("--config-dir", "--config-dir is a flag without a program before it; write one of train, "),
        ("\x1b[1m", "\\x1b[1m is not one of "),
    ],
)
def test_an_unknown_sub_command_is_a_user_error(name, message, capsys):
    printed = fault(capsys, name, "x=1")
    assert printed.startswith("hblm: ")
    assert message in printed


def test_messages_name_the_program_and_propose_the_command_that_was_used(capsys, monkeypatch):
    printed = fault(capsys, "train", "dataset=wos", "checkpoint=x")
    assert printed == (
        "hblm.train: checkpoint=x is not a key; checkpoint= is a key of hblm.evaluate: "
        "hblm evaluate checkpoint=x\n"
    )


def test_the_completion_of_hydra_is_refused_for_that_of_the_command(capsys):
    printed = fault(capsys, "train", "--shell-completion", "install=bash")
    assert 'eval "$(hblm completion bash)"' in printed


@pytest.mark.long
def test_processes_that_a_sub_command_starts_find_their_modules(learnable, tmp_path):
    """A sweep's worker, its cell and the cell's two ranks, started through the script that pip writes."""
    command_on_path(tmp_path)
    Path("mine/sweep").mkdir(parents=True)
    Path("mine/sweep/one.yaml").write_text("# @package _global_\nhydra: {sweeper: {params: {seed: '1'}}}\n")
    runs = (*TINY, f"dataset.path={learnable}", "trainer.epochs=1", "trainer.processes=2")
    sweep = ("sweep=one", "--config-dir", "mine", "devices=cpu", "wait=true")
    subprocess.run([tmp_path / "hblm", "sweep", "submit", *sweep, *runs], check=True)
    (result,) = Path("outputs/results").glob("*.json")
    assert json.loads(result.read_text())["config"]["trainer"]["processes"] == 2
