"""Tab completion: what is proposed for an unfinished word, and what the shells make of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from terminals import Terminal, command_on_path

from hblm.cli.completion import SHELLS, candidates
from hblm.cli.programs import programs
from hblm.cli.shells import answer, run, words_of
from hblm.config.groups import OptionGroups, groups_of
from hblm.config.schema import leaves
from hblm.config.sweep import VERBS


def proposed(line: str) -> list[str]:
    """Return the candidates for the last word of a line behind `hblm`."""
    *words, current = line.split(" ")
    return [each.word for each in candidates(words, current)]


def expanded(line: str) -> set[str]:
    """Return all names that end with =, those of nodes (trainer.) included."""
    names = set()
    for word in proposed(line):
        names |= expanded(f"{line.rpartition(' ')[0]} {word}") if word.endswith(".") else {word}
    return names


def test_sub_commands():
    assert proposed("") == [*programs(), "completion", "--help", "--version"]
    assert proposed("sw") == ["sweep"]
    assert proposed("completion ") == [*SHELLS]
    assert proposed("completion bash ") == proposed("nonsense ") == []


@pytest.mark.parametrize("name", programs())
def test_every_group_and_key_of_a_program_is_proposed(name):
    program, option_groups = programs()[name], OptionGroups()
    groups = groups_of(name, option_groups)
    keys = [leaf for leaf in leaves(program.schema) if not leaf.rules["option_of"]]
    names = {leaf.name for leaf in keys if not isinstance(leaf.default, dict)} | {*groups}
    verb = " status" if name == "sweep" else ""
    assert expanded(f"{name}{verb} ") == {f"{each}=" for each in names}
    for group in groups:
        assert proposed(f"{name}{verb} {group}=") == [
            f"{group}={each}" for each in option_groups.groups[group]
        ]


def test_keys_by_node_and_none_twice():
    assert proposed("train tr") == ["trainer=", "trackers=", "trainer."]
    assert proposed("train trainer.learn") == ["trainer.learning_rate="]
    assert proposed("train trainer.learning_rate=1 trainer.learn") == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("train posthoc_repath=", ["true", "false"]),
        ("train trainer.label_documents=", ["true", "false", "null"]),
        ("train trainer.precision=", ["auto", "fp32", "bf16", "fp16"]),
        ("train trainer.precision=b", ["bf16"]),
        ("train trainer.learning_rate=", []),
        ("train head.classification_head_type=", []),
        ("evaluate split=", ["train", "val", "test"]),
        ("train -m film=none,si", ["none,sigmoid"]),
        ("aggregate figures=[curves,se", ["[curves,seeds"]),
        ("aggregate sweep=ma", ["main"]),
        ("sweep retry cause=", ["error", "raised", "exit", "killed", "memory", "time"]),
        ("sweep plan sweep=sm", ["smoke"]),
        ("sweep plan film=mu", ["multi_hot"]),
        ("sweep status film=mu", []),
    ],
)
def test_values(line, words):
    key = line.rpartition(" ")[2].partition("=")[0]
    assert proposed(line) == [f"{key}={word}" for word in words]


def test_verbs_of_sweep():
    assert proposed("sweep ") == [*VERBS]
    assert proposed("sweep sweep=main re") == ["retry"]
    assert "trainer." in proposed("sweep plan ")
    assert "trainer." not in proposed("sweep status ")


def test_options_of_the_chosen_converter():
    assert proposed("prepare dataset.prepare.") == []
    assert proposed("prepare dataset=aapd dataset.prepare.l") == []
    assert "dataset.prepare.labels=" in proposed("prepare dataset=custom dataset.prepare.l")


@pytest.mark.parametrize("flag", ["--config-dir mine", "--config-dir=mine", "-cd mine"])
def test_options_of_ones_own(flag):
    for group, name in {"film": "gated", "sweep": "all", "encoder": "large"}.items():
        Path("mine", group).mkdir(parents=True)
        Path("mine", group, f"{name}.yaml").write_text("# Of my own\n")
    assert [*candidates(["train", *flag.split()], "film=g")] == [("film=gated", "Of my own")]
    assert proposed(f"sweep plan {flag} sweep=al") == ["sweep=all"]
    assert proposed("train film=g") == []
    assert proposed("train --config-dir m") == ["mine/"]


def test_flags():
    assert proposed("train --c") == ["--config-dir", "--cfg"]
    assert proposed("train --cfg ") == ["job", "hydra", "all"]
    assert proposed("sweep -") == ["--help", "--config-dir"]


def test_paths(monkeypatch):
    monkeypatch.setenv("HOME", str(Path.cwd()))
    for name in ("runs/checkpoints/one/hblm.json", "data/fruit/taxonomy.json", "data/a.csv", ".hidden"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()
    assert proposed("evaluate checkpoint=") == ["checkpoint=data/", "checkpoint=runs/"]
    assert proposed("evaluate checkpoint=runs/checkpoints/") == ["checkpoint=runs/checkpoints/one"]
    assert proposed("evaluate checkpoint=[a,runs/c") == ["checkpoint=[a,runs/checkpoints/"]
    assert proposed("train dataset.path=data/") == ["dataset.path=data/fruit"]
    assert proposed("prepare raw=~/data/") == ["raw=~/data/a.csv", "raw=~/data/fruit/"]
    assert proposed("prepare raw=.h") == ["raw=.hidden"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hblm train ", ["hblm", "train", ""]),
        ("hblm train fi", ["hblm", "train", "fi"]),
        ("hblm 'where=[a b", ["hblm", "where=[a b"]),
        ('hblm "raw=my', ["hblm", "raw=my"]),
        ("hblm raw=my\\ da", ["hblm", "raw=my da"]),
        ("hblm raw=my\\", ["hblm", "raw=my"]),
        ("", [""]),
    ],
)
def test_words_of_a_line(line, words):
    assert words_of(line) == words


@pytest.mark.parametrize(
    ("line", "replaced", "printed"),
    [
        ("hblm train film=mu", "mu", "multi_hot"),  # bash, which breaks words at =
        ("hblm train film=mu", "film=mu", "film=multi_hot"),  # bash without = in COMP_WORDBREAKS
        ("OMP_NUM_THREADS=1 /opt/bin/hblm train film=mu", None, "film=multi_hot"),
    ],
)
def test_an_answer_leaves_out_what_the_shell_keeps(line, replaced, printed, capsys):
    answer(line, replaced)
    assert capsys.readouterr().out.partition("\t")[0] == printed


@pytest.mark.parametrize(
    "line", ["hblm train --config-dir /nowhere film=", "hblm evaluate checkpoint=/nowhere/"]
)
def test_a_fault_of_the_line_gives_no_candidates(line, capsys):
    answer(line)
    assert capsys.readouterr() == ("", "")


def test_a_name_that_would_control_the_terminal_is_left_out(capsys):
    Path("a\nb").touch()
    Path("a b").touch()
    answer("hblm prepare raw=")
    answer("hblm export result=")
    assert capsys.readouterr().out == "raw=a b\nresult=a b\n"


def test_a_completion_loads_neither_hydra_nor_torch():
    code = (
        "import sys; from hblm.__main__ import main; main(['completion', 'words', 'hblm train dataset=w']); "
        "sys.exit(', '.join({'hydra', 'torch', 'rich', 'numpy', 'pandas'} & {*sys.modules}) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("dataset=wos\t")


def test_the_help_has_the_line_that_loads_each_script(capsys):
    run([])
    page = capsys.readouterr().out
    assert all(f"  {line} " in page for line in SHELLS.values())
    with pytest.raises(SystemExit) as ended:
        run(["tcsh"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "hblm completion: 'tcsh' is not one of bash, zsh, fish\n"
    with pytest.raises(SystemExit) as ended:
        run(["words"])  # without a line
    assert ended.value.code == 2


def test_the_script_of_bash(tmp_path, capsys):
    """The function that bash calls on Tab, with the arguments and variables of bash."""
    command_on_path(tmp_path)
    run(["bash"])
    script = capsys.readouterr().out
    Path("my data").mkdir()
    calls = "".join(
        f"COMP_LINE={line!r} COMP_POINT={len(line)}; _hblm {tmp_path}/hblm {last!r} x; "
        "printf '<%s>' \"${COMPREPLY[@]}\"\n"
        for line, last in [
            ("hblm train film=mu", "mu"),
            ("hblm train tra", "tra"),
            ("hblm prepare raw=m", "m"),
        ]
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script + calls], check=True, capture_output=True, text=True
    )
    assert done.stdout == "<multi_hot ><trainer=><trackers=><trainer.><my\\ data/>"
    assert done.stderr == ""


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_tab_in_a_shell(shell, tmp_path):
    """Keys typed into a real shell: the words that Tab completes, with a space behind whole ones."""
    Path("runs/checkpoints/one").mkdir(parents=True)
    Path("runs/checkpoints/one/hblm.json").touch()
    Path("my data").mkdir()
    Path("my data/a.csv").touch()
    terminal = Terminal(shell, tmp_path)
    for typed, words in {
        "hblm tra\t": "<hblm><train>",
        "hblm train film=mu\tseed=1": "<hblm><train><film=multi_hot><seed=1>",
        "hblm train trainer.learn\t1e-3": "<hblm><train><trainer.learning_rate=1e-3>",
        'hblm train "film=mu\t seed=1': "<hblm><train><film=multi_hot><seed=1>",
        "hblm sweep pl\tsweep=sm\t": "<hblm><sweep><plan><sweep=smoke>",
        "hblm evaluate checkpoint=ru\tc\to\tspl\tv\t": (
            "<hblm><evaluate><checkpoint=runs/checkpoints/one><split=val>"
        ),
        "hblm prepare raw=my\ta\tdataset=cu\t": "<hblm><prepare><raw=my data/a.csv><dataset=custom>",
    }.items():
        terminal.type(f"{typed}\x01printf '<%s>' \x05 end\n")  # Ctrl-A, Ctrl-E
        assert terminal.wait("(<[^<>%]+>)+<end>") == f"{words}<end>"
    terminal.close()
