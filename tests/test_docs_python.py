"""The examples of docs/python.md run, in the order of the page, with the tiny encoder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from programs import checkpoint_of
from quick_cells import write_quick_cells

PAGE = Path(__file__).parent.parent / "docs" / "python.md"
EXAMPLES = dict(
    re.findall(r"^## ([^\n]+)\n(?:(?!^## ).)*?^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
)
SMALL = {
    'encoder="minilm", epochs=5': 'encoder="tiny", epochs=1, device="cpu"',
    'encoder="minilm"': 'encoder="tiny", device="cpu"',
    '{"epochs": 5}': '{"epochs": 1}',
}
ROWS = [
    "a star collapsed,Science > Physics",
    "the band played,Arts > Music",
    "a cell divides,Science > Biology",
]
GRID = """# @package _global_
# two methods
defaults:
  - override /dataset: custom
  - override /encoder: tiny
  - override /trainer: smoke
dataset: {path: FOLDER}
trainer: {epochs: 1}
hydra:
  sweeper:
    params:
      method: flat,top_down
"""


def run(name: str) -> None:
    code = EXAMPLES[name]
    for real, small in SMALL.items():
        code = code.replace(real, small)
    exec(compile(code, f"docs/python.md: {name}", "exec"), {})


def write_rows() -> None:
    for file, times in (("news.csv", 20), ("more.csv", 2)):
        rows = [f"number {at} of {row}" for at in range(times) for row in ROWS]
        Path(file).write_text("\n".join(["body,topic", *rows]) + "\n")


def test_every_example_is_run_and_is_short():
    assert [*EXAMPLES] == [
        *("Predict", "Prepare, train, evaluate", "Datasets of Hugging Face", "Sweeps", "scikit-learn"),
    ]
    for code in EXAMPLES.values():
        assert sum(bool(line.strip()) for line in code.splitlines()) <= 12


def test_predict(trained, capsys):
    shutil.copytree(checkpoint_of(trained), "outputs/checkpoints/news")
    run("Predict")
    assert " > " in capsys.readouterr().out


@pytest.mark.slow
def test_prepare_train_evaluate(capsys):
    write_rows()
    run("Prepare, train, evaluate")
    assert "'train': 48" in capsys.readouterr().out


def test_datasets_of_hugging_face(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path)
    write_rows()
    run("Datasets of Hugging Face")
    assert "'test': 6" in capsys.readouterr().out


@pytest.mark.slow
def test_sweeps(learnable, capsys, monkeypatch, tmp_path):
    write_quick_cells(tmp_path / "site")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))
    Path("mine/sweep").mkdir(parents=True)
    Path("mine/sweep/methods.yaml").write_text(GRID.replace("FOLDER", str(learnable)))
    run("Sweeps")
    printed = capsys.readouterr().out
    assert "{'new': 4}\n{'done': 4} []\n" in printed
    assert "top_down" in printed


@pytest.mark.slow
def test_scikit_learn(capsys):
    run("scikit-learn")
    assert "[('" in capsys.readouterr().out
