"""The program that prepares: what it prints and checks around a converter."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from programs import compose

from hblm.cli import check, programs
from hblm.config.prepare import PrepareConfig
from hblm.config.train import Encoder
from hblm.data import converters, preparation, token_counter
from hblm.encoders.pretrained import MINILM, locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.errors import ConfigError, DataError

ROOT = Path(__file__).parents[2]
TEXTS = ["Hello WORLD, café", "", "word " * 900, "日本 🙂 \u2028 x"]
ROWS = "text,path\n" + "".join(f"text {at},a/b{at % 3}\n" for at in range(30))


def run(*overrides: str) -> None:
    preparation.run(compose("prepare", PrepareConfig, "encoder=tiny", *overrides))


def with_news() -> Path:
    Path("news.csv").write_text(ROWS)
    run("dataset=custom", "raw=news.csv")
    return Path("data/news")


@pytest.mark.parametrize("name", ["tiny", MINILM])
def test_tokens_are_counted_as_training_counts_them(name: str) -> None:
    source = locate(name)
    if not source.is_tiny and source.folder is None:
        pytest.skip("the package that brings MiniLM is not installed")
    backend = load_tokenizer(source).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    count = token_counter.load_count(source)
    assert count is not None
    assert count(TEXTS) == [len(backend.encode(text).ids) for text in TEXTS]


def test_without_its_tokenizer_another_stands_in_or_words_are_counted(monkeypatch) -> None:
    tokens = token_counter.counter_of(Encoder(model_name="owner/never-downloaded"))
    if locate(MINILM).folder is not None:
        assert tokens.model == (
            "all-MiniLM-L6-v2, in place of owner/never-downloaded, which is not on this machine"
        )
    monkeypatch.setattr(token_counter, "MINILM", "owner/neither")
    tokens = token_counter.counter_of(Encoder(model_name="owner/never-downloaded"))
    assert (tokens.count, tokens.model) == (None, "owner/never-downloaded")
    assert "not on this machine" in tokens.why_not


def test_a_damaged_tokenizer_is_no_reason_not_to_prepare(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_text("{")
    assert "cannot be loaded" in token_counter.counter_of(Encoder(model_name=str(tmp_path))).model


def test_the_report_is_printed_and_kept(capsys) -> None:
    folder = with_news()
    printed = capsys.readouterr().out
    kept = (folder / "report.md").read_text()
    for words in (
        "30 documents, 4 nodes on 2 levels (1 / 3).",
        "Training documents of a node",
        "cut at 128 tokens",
    ):
        assert words in printed
        assert words in kept
    command = "python -m hblm.train experiment=recommended encoder=minilm dataset=custom "
    assert command + "dataset.path=data/news" in printed


def test_checking_writes_nothing_and_tells_the_same(capsys) -> None:
    folder = with_news()
    first = capsys.readouterr().out.partition("report  ")[0]
    (folder / "report.md").unlink()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    run("dataset=custom", f"dataset.path={folder}", "check=true")
    assert capsys.readouterr().out == first
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    run("dataset=custom", f"dataset.path={folder}")  # not checking: what is missing is written
    assert (folder / "report.md").exists()


def test_checking_finds_what_was_changed() -> None:
    folder = with_news()
    file = folder / "val.jsonl"
    file.write_text(file.read_text().replace("text ", "test ", 1))
    with pytest.raises(DataError, match=r"val\.jsonl: not the file that was prepared"):
        run("dataset=custom", f"dataset.path={folder}", "check=true")


def test_other_counts_than_expected_are_refused_with_a_table() -> None:
    Path("news.csv").write_text(ROWS)
    expect = ("+dataset.expect.levels=[1,3,2]", "+dataset.expect.documents.train=24")
    given = ("dataset=custom", "raw=news.csv", *expect)
    with pytest.raises(DataError) as caught:
        run(*given)
    table = [line.split() for line in str(caught.value).splitlines()[1:]]
    assert table == [
        ["expected", "found"],
        ["documents", "in", "train", "24", "24"],
        ["levels", "3", "2", "differs", "by", "-1"],
        ["nodes", "on", "level", "0", "1", "1"],
        ["nodes", "on", "level", "1", "3", "3"],
        ["nodes", "on", "level", "2", "2", "0", "differs", "by", "-2"],
    ]
    assert not Path("data/news").exists()
    run(*given, "allow_mismatch=true")
    manifest = json.loads(Path("data/news/manifest.json").read_text())
    assert manifest["expected"] == {"documents": {"train": 24}, "levels": [1, 3, 2], "met": False}
    assert any("not those expected" in warning for warning in manifest["warnings"])
    run("dataset=custom", "dataset.path=data/news", *expect, "check=true")  # it was allowed then
    run("dataset=custom", "raw=news.csv", "dataset.name=other")
    with pytest.raises(DataError, match="not the set that is expected"):
        run("dataset=custom", "dataset.path=data/other", *expect, "check=true")


def test_what_is_read_is_never_what_is_replaced() -> None:
    folder = with_news()
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for raw in ("data/news", "data", "data/news/train.jsonl"):
        with pytest.raises(DataError, match="lie in each other"):
            run(
                "dataset=custom",
                f"raw={raw}",
                "dataset.path=data/news",
                "force=true",
                "dataset.prepare.clean=hpt",
            )
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_folder_made_of_other_files_is_not_passed_off() -> None:
    with_news()
    Path("news.csv").write_text(ROWS + "one more,a/b1\n")
    with pytest.raises(DataError, match=r"data/news is there already, made of another news\.csv"):
        run("dataset=custom", "raw=news.csv")
    run("dataset=custom", "raw=news.csv", "force=true")


@pytest.mark.slow
def test_of_two_processes_one_prepares_and_the_other_waits() -> None:
    Path("news.csv").write_text(ROWS)
    script = str(ROOT / "datasets" / "custom.py")
    started = [
        subprocess.Popen(
            [sys.executable, script, "raw=news.csv", "encoder=tiny"], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    printed = [process.communicate()[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sorted("is there already" in out for out in printed) == [False, True]
    assert preparation.open_prepared(Path("data/news")).count("train") == 24


def with_articles() -> Callable[..., object]:
    """Prepare three articles, loose files beside their lists and a fourth that no list names.

    Returns:
        What prepares them again from a folder, or finds that they are there.
    """
    for number, split in enumerate(("train", "val", "test", ""), 1):
        year = Path(f"raw/Nytimes/{1990 + number}")
        year.mkdir(parents=True)
        (year / f"000000{number}.xml").write_text(
            "<nitf><head><docdata><identified-content>"
            '<classifier type="taxonomic_classifier">Top/News/World</classifier>'
            "</identified-content></docdata></head><body><p>Abstract</p><p>A text</p></body></nitf>"
        )
        if split:
            Path(f"raw/idnewnyt_{split}.json").write_text(f"Nytimes/{year.name}/000000{number}.xml\n")
    Path("raw/nyt.taxonomy").write_text("Root\tTop/News\nTop/News\tTop/News/World\n")
    config = compose("prepare", PrepareConfig, "dataset=nyt", "encoder=minilm")

    def prepared(raw: str, **options: bool) -> object:
        return preparation.prepare(config.dataset, Path(raw), config.encoder, **options)

    assert prepared("raw", allow_mismatch=True) is not None
    return prepared


def test_a_folder_made_of_the_same_loose_files_is_found() -> None:
    prepared = with_articles()
    before = {path: path.read_bytes() for path in Path("data/nyt").iterdir()}
    assert prepared("raw") is None
    shutil.copytree("raw", "copy")
    for name in ("index.xml", "0000001.xml.bak", "x0000001.xml", ".0000009.xml", "0000009.txt"):
        Path("copy/Nytimes/1991", name).write_text("no article")
    Path("copy/Nytimes/1994").rename("copy/fourth")
    assert prepared("copy") is None
    assert {path: path.read_bytes() for path in Path("data/nyt").iterdir()} == before


CHANGES: dict[str, Callable[[Path], object]] = {
    "one more": lambda raw: (raw / "Nytimes/1991/0000009.xml").write_text("x"),
    "one more in the case of Windows": lambda raw: (raw / "0000009.XML").write_text("x"),
    "one less": lambda raw: (raw / "Nytimes/1994/0000004.xml").unlink(),
    "none": lambda raw: shutil.rmtree(raw / "Nytimes"),
}


def test_a_folder_made_of_another_number_of_loose_files_is_not_passed_off() -> None:
    prepared = with_articles()
    before = {path: path.read_bytes() for path in Path("data/nyt").iterdir()}
    for name, change in CHANGES.items():
        shutil.copytree("raw", name)
        change(Path(name))
        with pytest.raises(DataError, match=r"data/nyt is there already, made of 4 files ") as caught:
            prepared(name)
        assert f"raw={name} has another number of them; force=true" in str(caught.value)
    with pytest.raises(DataError, match=r"data/nyt is there already, made of "):
        prepared(shutil.make_archive("packed", "zip", "raw"))
    assert {path: path.read_bytes() for path in Path("data/nyt").iterdir()} == before


def test_a_folder_made_with_other_lists_is_not_passed_off() -> None:
    prepared = with_articles()
    Path("raw/idnewnyt_val.json").write_text("Nytimes/1994/0000004.xml\n")
    with pytest.raises(DataError, match=r"data/nyt is there already, made of another idnewnyt_val\.json"):
        prepared("raw")


def test_the_documents_of_a_manifest_are_counted_where_it_tells() -> None:
    counts = {split: {"documents": number} for split, number in (("train", 5), ("val", 2), ("test", 0))}
    assert preparation._n_documents({"counts": counts}) == 7
    for counted in ({}, {"counts": None}, {"counts": {**counts, "val": {}}}, {"counts": {"train": 5}}):
        assert preparation._n_documents(counted) is None


def test_options_that_have_no_effect_are_named(caplog) -> None:
    Path("news.csv").write_text(ROWS)
    run("dataset=custom", "raw=news.csv", "dataset.prepare.seed=7")
    config = compose("prepare", PrepareConfig, "dataset=custom", "dataset.path=data/news", "encoder=tiny")
    preparation.open_or_prepare(config.dataset, config.encoder)
    assert not caplog.records  # nothing was asked for
    other = compose(
        *("prepare", PrepareConfig, "dataset=custom", "dataset.path=data/news", "dataset.prepare.seed=99")
    )
    preparation.open_or_prepare(other.dataset, other.encoder)  # as training does
    assert "data/news was made with seed=7" in caplog.text
    with pytest.raises(DataError, match=r"data/news was made with seed=7; dataset\.prepare\.seed=99"):
        run("dataset=custom", "raw=news.csv", "dataset.prepare.seed=99")


@pytest.mark.parametrize(
    ("given", "printed"),
    [
        (("dataset=custom", "raw=news.csv"), "dataset=custom dataset.path=data/news"),
        (("dataset=custom", "raw=news.csv", "dataset.path='a b,c'"), "'dataset.path=\"a b,c\"'"),
        (("dataset=aapd", "raw=aapd", "allow_mismatch=true"), " encoder=minilm dataset=aapd\n"),
        (
            ("dataset=aapd", "raw=aapd", "allow_mismatch=true", "dataset.name=small"),
            "dataset=custom dataset.path=data/small",
        ),
        (
            ("dataset=aapd", "raw=aapd", "allow_mismatch=true", "data_dir=other"),
            "dataset=custom dataset.path=other/aapd",
        ),
    ],
)
def test_the_next_command_finds_what_was_made(given: tuple[str, ...], printed: str, capsys) -> None:
    Path("news.csv").write_text(ROWS)
    Path("aapd").mkdir()
    for split in ("train", "val", "test"):
        Path(f"aapd/text_{split}").write_text(f"a {split} text\n")
        Path(f"aapd/label_{split}").write_text("cs.ai\n")
    run(*given)
    assert printed in capsys.readouterr().out.partition("next    ")[2]


def test_an_option_that_a_set_has_not_is_told_with_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"dataset\.prepare\.lables is not an option.*did you mean labels\?"
    ):
        check.check(programs.PREPARE, ["dataset=custom", "raw=x", "dataset.prepare.lables=y"])


def test_a_folder_without_a_name_is_no_target() -> None:
    Path("news.csv").write_text(ROWS)
    with pytest.raises((ConfigError, DataError), match=r"no folder of the dataset's own|lie in each other"):
        run("dataset=custom", "raw=news.csv", "dataset.path=.")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("dataset=custom",), "dataset=custom needs raw=PATH to prepare"),
        (("dataset=custom", "check=true"), "dataset=custom needs dataset.path=DIR"),
        (("dataset=custom", "raw=x", "dataset.path=y", "check=true"), "drop raw=x"),
        (("dataset=custom", "raw=x", "dataset.name=a/b"), "cannot name a file"),
        (
            ("dataset=aapd",),
            "aapd is prepared from a download; write raw=PATH, a folder or archive with",
        ),
        (("dataset=docstrings", "raw=."), "docstrings needs no download; leave raw out"),
        (("dataset=custom", "raw=x.csv"), "raw=x.csv is not there"),
        (("dataset=wos", "dataset.converter=null"), "no converter"),
        (("dataset=aapd", "raw=.", "encoder.model_name=/nowhere"), "there is no such folder"),
        (("dataset=custom", "raw=.", "+dataset.expect.leaves=3"), "dataset.expect.leaves is not one of"),
    ],
)
def test_what_cannot_be_prepared_is_told(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        run(*overrides)
    assert not Path("data").exists() or not list(Path("data").glob("[!.]*"))


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/b", "..", "", "a\0b"])
def test_no_converter_is_loaded_from_anywhere_else(name):
    with pytest.raises(ConfigError, match=r"dataset\.converter="):
        converters.load_converter(name)
