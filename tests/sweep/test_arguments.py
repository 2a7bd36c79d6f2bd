"""The command line of sweeps: verbs, keys, clusters, and hints for typing errors."""

from __future__ import annotations

from pathlib import Path

import pytest
from grids import sweep, write_grid

from hblm.config.sweep import Cluster
from hblm.errors import ConfigError
from hblm.sweep.arguments import read_arguments


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--config-dir", "mine", "plan", "sweep=tiny"], ""),
        (["plan", "--config-dir=mine", "sweep=tiny"], ""),
        (["plan", "sweep=tiny", "-cd", "mine"], ""),
        (["plan", "sweep", "=", "tiny"], "sweep = tiny: write sweep=tiny, without spaces"),
        (
            ["plan", "tiny", "--config-dir=mine"],
            "tiny is not of the form key=value; did you mean sweep=tiny?",
        ),
        (["main"], "did you mean submit sweep=main?"),
        (["-m", "plan", "sweep=main"], "--multirun (-m) is for hblm.train"),
        (["plan", "sweep=main", "--cfg", "job"], "--cfg is a flag of hblm.train; plan shows"),
        (
            ["plan", "--epochs", "3", "sweep=main"],
            "--epochs 3 is not a flag of hblm.sweep; write trainer.epochs=3",
        ),
        (["plan", "sweep=main", "cluster=mine"], "is not one of slurm; --config-dir DIR adds options"),
    ],
)
def test_arguments_are_read_in_any_place_and_slips_explained(words: list[str], message: str) -> None:
    write_grid("data/x", {"seed": "1,2"})
    if not message:
        assert (read_arguments(words).verb, read_arguments(words).config_dir) == ("plan", "mine")
        return
    with pytest.raises(ConfigError) as caught:
        read_arguments(words)
    (fault,) = str(caught.value).splitlines()
    assert message in fault


def test_the_command_that_names_a_sweep_again():
    words = ["submit", "sweep=main", "output_dir=out", "name=one", "seed=3", "cluster.qos=high", "on=slurm"]
    arguments = read_arguments(words)
    assert arguments.command == "sweep=main name=one output_dir=out"
    assert arguments.overrides == ("seed=3", "output_dir=out")
    assert arguments.given == {"sweep", "output_dir", "name", "cluster", "on"}


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["stats"], "stats is not one of plan, submit, status"),
        (["stats"], "did you mean status?"),
        (["status", "devices=[0"], "devices=[0 is not of the form key=value"),
        (["status", "seed=3"], "seed=3: status takes the keys"),
        (["submit", "per_device=0"], "per_device=0 is out of range"),
        (["submit", "on=moon"], "on=moon is not one of local, slurm"),
        (["retry", "cause=tme"], "did you mean time?"),
        (["status", "name=a/b"], "cannot name a folder"),
        (["status"], "nothing was submitted under"),
        (["submit", "nodes=2"], "nodes=2 needs on=slurm"),
        (["retry", "nodes=2"], "nodes=2 needs on=slurm"),
        (["submit", "on=slurm", "cluster.partiton=main"], "did you mean cluster.partition?"),
    ],
)
def test_a_wrong_command_line_is_refused(argv, message, capsys):
    write_grid("data/x", {"seed": "1"})
    assert sweep(*argv) == 2
    assert message in capsys.readouterr().err


def test_a_clusters_options_come_from_its_file_and_the_command_line():
    write_grid("data/x", {"seed": "1"})
    file = Path("mine/cluster/ours.yaml")
    file.parent.mkdir()
    file.write_text("# ours\npartition: gpu\nadditional: {nice: 1, mail_type: END}\n")
    base = ["submit", "sweep=tiny", "--config-dir", "mine", "on=slurm"]
    given = ["cluster.qos=high", "cluster.additional.nice=100", "cluster.setup=module load cuda"]
    assert read_arguments([*base, "cluster=ours", *given]).config.cluster == Cluster(
        partition="gpu", qos="high", setup=["module load cuda"], additional={"nice": 100, "mail_type": "END"}
    )
    with pytest.raises(ConfigError, match="cluster=our is not one of ours, slurm; did you mean ours"):
        read_arguments([*base, "cluster=our"])
    file.write_text("partiton: gpu\n")
    with pytest.raises(ConfigError, match=r"ours.yaml: cluster.partiton=gpu is not a key; did you mean"):
        read_arguments([*base, "cluster=ours"])
