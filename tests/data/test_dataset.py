"""Opening and verifying prepared datasets, and the many ways in which they can be broken."""

from __future__ import annotations

import codecs
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hblm.config.train import Dataset, Encoder
from hblm.data import dataset as prepared_module
from hblm.data.dataset import open_prepared
from hblm.data.preparation import open_or_prepare
from hblm.data.report import Description
from hblm.data.statistics import collect_statistics
from hblm.data.token_counter import TokenCounter
from hblm.data.writer import FILES, Conversion, write_dataset
from hblm.document import Document
from hblm.errors import DataError
from hblm.files import sha256_file
from hblm.taxonomy import Taxonomy

Folder = Callable[..., Path]


def line(identity: object, labels: object, text: object = "some text") -> bytes:
    """Return a line of a split."""
    return json.dumps({"id": identity, "text": text, "labels": labels}, ensure_ascii=False).encode() + b"\n"


GOOD = line("1", ["sci"])
SURROGATE = b'{"id": "2", "text": "\\ud800", "labels": ["sci"]}\n'

# fault -> content of train.jsonl and what the message must say after the file's name
BROKEN_SPLITS: dict[str, tuple[bytes, list[str]]] = {
    "duplicate id": (GOOD + line("2", ["sci"]) + GOOD, [":3", "'1'", "same id as on line 1"]),
    "unknown label": (GOOD + line("2", ["sci", "sci/fys"]), [":2", "'2'", "'sci/fys'", "mean sci/phys?"]),
    "unknown label, nothing near": (line("2", ["%"]), [":1", "'2'", "'%'", "not a node of the taxonomy"]),
    "empty label": (line("2", ["sci", ""]), [":1", "'2'", "label ''", "not a node"]),
    "name for id": (line("2", ["Physics & Space, etc."]), [":1", "'2'", "'Physics & Space, etc.'"]),
    "repeated label": (GOOD + line("2", ["sci", "sci"]), [":2", "'2'", "'sci' is there 2 times"]),
    "parent missing": (line("2", ["sci/phys"]), [":1", "'2'", "'sci/phys' without its ancestor 'sci'"]),
    "grandparent missing": (
        GOOD + line("2", ["sci/phys", "sci/phys/optics"]),
        [":2", "'2'", "without its ancestor 'sci'"],
    ),
    "no labels": (GOOD + line("2", []), [":2", "'2'", "no labels", "training document"]),
    "latin-1": (GOOD + b'{"id": "caf\xe9"}\n', [":2", "not UTF-8 at byte 12 of the line"]),
    "utf-16": (GOOD.decode().encode("utf-16"), [":1", "not UTF-8", "save the file as UTF-8"]),
    "blank line": (GOOD + b"\n" + line("2", ["sci"]), [":2", "blank line"]),
    "two blank lines": (GOOD + b"\n \n", [":2", "blank line"]),
    "blank first line": (b"\r\n" + GOOD, [":1", "blank line"]),
    "empty": (b"", ["the split is empty"]),
    "empty but for a mark": (codecs.BOM_UTF8, ["the split is empty"]),
    "only a line end": (b"\n", ["the split is empty"]),
    "not JSON": (GOOD + b"{'id': 1}\n", [":2", "not valid JSON", "(column 2)"]),
    "cut short": (GOOD + GOOD[:25], [":2", "not valid JSON", "the file ends inside this line"]),
    "cut short in a character": (GOOD + line("2", ["sci"], "é").split(b"\xa9")[0], [":2", "not UTF-8"]),
    "bare \\r": (GOOD.replace(b"\n", b"\r") * 3, [":1", "Extra data", "bare \\r"]),
    "NUL bytes": (GOOD + b"\0" * 100, [":2", "NUL bytes"]),
    "NUL in a text": (GOOD.replace(b"some", b"so\0me"), [":1", "NUL bytes"]),
    "mark in the middle": (GOOD + codecs.BOM_UTF8 + line("2", ["sci"]), [":2", "BOM"]),
    "two on a line": (GOOD.strip() + GOOD, [":1", "Extra data"]),
    "a list": (b"[1]\n", [":1", "expected an object", "found a list"]),
    "no id": (b'{"text": "", "labels": []}\n', [":1", "no id"]),
    "id a number": (line(1, ["sci"]), [":1", "id must be a string", "found a number"]),
    "no text": (GOOD + line("2", ["sci"], None), [":2", "'2'", "text must be a string, found null"]),
    "labels a string": (line("2", "sci"), [":1", "'2'", "labels must be a list", "found a string"]),
    "label a number": (line("2", ["sci", 4]), [":1", "'2'", "a list with a number"]),
    "lone surrogate": (GOOD + SURROGATE, [":2", "'2'", "lone surrogate"]),
    "too deep": (b"[" * 100_000 + b"\n", [":1", "nested too deeply"]),
    "a huge number": (b'{"id": ' + b"1" * 6000 + b"}\n", [":1", "not a document"]),
}


@pytest.mark.parametrize("fault", BROKEN_SPLITS)
def test_a_broken_split_is_named(fault: str, folder_by_hand: Folder) -> None:
    content, expected = BROKEN_SPLITS[fault]
    folder = folder_by_hand({"train.jsonl": content})
    prepared = open_prepared(folder)
    with pytest.raises(DataError) as caught:
        collect_statistics(prepared)
    message = str(caught.value)
    place = f"{folder}/train.jsonl{expected[0] if expected[0][0] == ':' else ':'}"
    assert message.startswith(place)
    assert message[len(place)] in ":, "
    for part in expected:
        assert part in message
    assert len(message) < 700


SOUND_SPLITS = {
    "a mark at the start": codecs.BOM_UTF8 + GOOD,
    "Windows line ends": GOOD.replace(b"\n", b"\r\n") + line("2", ["arts"]).replace(b"\n", b"\r\n"),
    "no last line end": GOOD + line("2", ["arts"]).strip(),
    "a last blank line": GOOD + b"\n",
    "a last blank line with spaces": GOOD + b" \t",
    "a separator of lines inside a text": line("2", ["arts"], "a\u2028b\u0085c\x0bd"),
    "an escaped NUL": line("2", ["arts"], "a\0b"),
    "text of white space": line("2", ["arts"], " \n "),
    "more keys": b'{"id": "2", "text": "", "labels": ["sci"], "source": {"page": 3}}\n',
    "labels in any order": line("2", ["sci/phys/optics", "arts", "sci", "sci/phys"]),
}


@pytest.mark.parametrize("kind", SOUND_SPLITS)
def test_an_unusual_but_sound_split_is_read(kind: str, folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand({"train.jsonl": SOUND_SPLITS[kind]}))
    documents = list(prepared.documents("train"))
    assert collect_statistics(prepared).counts()["train"]["documents"] == len(documents)
    expected = SOUND_SPLITS[kind].decode("utf-8-sig").split("\n")
    assert documents == [
        Document(row["id"], row["text"], tuple(row["labels"]))
        for row in map(json.loads, filter(str.strip, expected))
    ]


def test_val_and_test_may_hold_documents_without_labels(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand({"test.jsonl": line("a", [])}))
    assert list(prepared.documents("test")) == [Document("a", "some text", ())]


def test_the_same_id_may_stand_in_two_splits(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand({"val.jsonl": GOOD, "test.jsonl": GOOD}))
    assert collect_statistics(prepared).counts()["test"]["documents"] == 1


def test_documents_stream(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand({"train.jsonl": GOOD + b"not a document\n"}))
    documents = prepared.documents("train")
    assert next(documents).id == "1"
    with pytest.raises(DataError, match=r"train.jsonl:2: not valid JSON"):
        next(documents)


def test_an_unknown_split_is_refused_at_once(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand())
    with pytest.raises(DataError, match=r"split 'tests' is not one of train, val, test; did you mean test\?"):
        prepared.documents("tests")


def test_a_file_that_vanished_is_an_error_of_the_data(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand())
    (prepared.folder / "val.jsonl").unlink()
    with pytest.raises(DataError, match=r"val.jsonl: cannot be read: No such file"):
        collect_statistics(prepared)


# --- opening


def test_a_missing_folder_names_command_and_layout(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_prepared(tmp_path / "wos", prepare_with="the command")
    for part in (str(tmp_path / "wos"), "prepare it with `the command`", *FILES, "dataset.path=DIR"):
        assert part in str(caught.value)
    with pytest.raises(DataError) as caught:  # a set that no command can make
        open_prepared(tmp_path / "wos")
    assert "prepare it" not in str(caught.value)


@pytest.mark.parametrize("missing", [*FILES])
def test_missing_files_are_listed(missing: str, folder_by_hand: Folder) -> None:
    folder = folder_by_hand({missing: None, "dev.jsonl": b""})
    with pytest.raises(DataError) as caught:
        open_prepared(folder)
    for part in (f"{folder}: no {missing} (", "it holds dev.jsonl", "dataset.path=DIR"):
        assert part in str(caught.value)


def test_an_empty_folder_and_a_file_for_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no taxonomy.json and no train.jsonl .* \(it is empty\)"):
        open_prepared(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="a file where"):
        open_prepared(tmp_path / "file")


@pytest.mark.parametrize("name", [*FILES, "manifest.json"])
@pytest.mark.parametrize("kind", ["a folder", "a link to nothing", "a named pipe"])
def test_what_is_not_a_file_is_refused(name: str, kind: str, folder_by_hand: Folder) -> None:
    folder = folder_by_hand({name: None})
    if kind == "a folder":
        (folder / name).mkdir()
    elif kind == "a named pipe":
        os.mkfifo(folder / name)
    else:
        (folder / name).symlink_to("nowhere")
    with pytest.raises(DataError, match=f"{name}: {kind}"):
        open_prepared(folder)


def test_an_unreadable_file_is_refused(folder_by_hand: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(prepared_module, "sha256_file", refuse)
    with pytest.raises(DataError, match=r"train.jsonl: cannot be read: Permission denied"):
        open_prepared(folder_by_hand())


BROKEN_MANIFESTS = {
    "not JSON": (b"{files", "not valid JSON"),
    "empty": (b"", "not valid JSON"),
    "not UTF-8": (b'"\xe9"', "not valid JSON: not UTF-8 at byte 2"),
    "too deep": (b"[" * 100_000, "not valid JSON"),
    "a list": (b"[]", "expected an object"),
    "no hashes": (b"{}", 'has no "files"'),
    "hashes a list": (b'{"files": []}', 'has no "files"'),
    "a hash missing": (b'{"files": {"taxonomy.json": "00"}}', "no sha256 of train.jsonl"),
    "a hash null": (b'{"files": {"taxonomy.json": null}}', "no sha256 of taxonomy.json"),
    "not a number": (b'{"files": NaN}', "not valid JSON"),
    "a number of 400 digits": (b'{"files": ' + b"1" * 400 + b"}", "not valid JSON"),
    "half a pair of surrogates": (b'{"files": "\\ud800"}', "not valid JSON"),
}


@pytest.mark.parametrize("fault", BROKEN_MANIFESTS)
def test_a_broken_manifest_is_refused_with_the_way_out(fault: str, folder_by_hand: Folder) -> None:
    content, expected = BROKEN_MANIFESTS[fault]
    folder = folder_by_hand({"manifest.json": content})
    with pytest.raises(DataError) as caught:
        open_prepared(folder)
    for part in (f"{folder / 'manifest.json'}: ", expected, "prepare the dataset again, or delete this file"):
        assert part in str(caught.value)


ODD_VALUES = [7, "text", [], {"a": []}, [7], [{}], [{"name": 7}], [{"name": "a", "bytes": 1}], True, 1e300]
NOTED = [
    "converter",
    "options",
    "expected",
    "repaired",
    "dropped",
    "counts",
    "sources",
    "warnings",
    "licence",
]


@pytest.mark.parametrize("key", NOTED)
@pytest.mark.parametrize("value", ODD_VALUES, ids=str)
def test_what_a_manifest_notes_in_another_type_is_refused_or_does_no_harm(
    key: str, value: object, tmp_path: Path, conversion: Callable[..., Conversion]
) -> None:
    folder = tmp_path / "wos"
    manifest = write_dataset(folder, conversion(), converter="wos")
    (folder / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    dataset = Dataset(name="wos", path=str(folder), converter="wos", source="a folder")
    why = ""
    try:
        found = open_or_prepare(dataset, Encoder(model_name="tiny"))
        Description(collect_statistics(found), TokenCounter("tiny", 9, None)).markdown()
    except DataError as error:
        why = str(error)
    assert not why or f'{folder / "manifest.json"}: "{key}" is ' in why


@pytest.mark.parametrize("key", NOTED)
def test_what_a_manifest_leaves_out_or_null_is_nothing(
    key: str, tmp_path: Path, conversion: Callable[..., Conversion]
) -> None:
    folder = tmp_path / "wos"
    manifest = write_dataset(folder, conversion(), converter="wos")
    texts = []
    for left in ({**manifest, key: None}, {name: manifest[name] for name in manifest if name != key}):
        (folder / "manifest.json").write_text(json.dumps(left))
        dataset = Dataset(name="wos", path=str(folder), converter="wos", source="a folder")
        found = open_or_prepare(dataset, Encoder(model_name="tiny"))
        texts.append(Description(collect_statistics(found), TokenCounter("tiny", 9, None)).markdown())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("name", FILES)
def test_an_edited_file_is_named_with_both_hashes_and_the_way_out(
    name: str, tmp_path: Path, conversion: Callable[..., Conversion]
) -> None:
    folder = tmp_path / "wos"
    manifest = write_dataset(folder, conversion(), converter="wos")
    with (folder / name).open("ab") as stream:
        stream.write(b"\n")
    changed = sha256_file(folder / name)
    with pytest.raises(DataError) as caught:
        open_prepared(folder, prepare_with="the command")
    for part in (
        f"{folder / name}: ",
        changed[:12] + "...",
        manifest["files"][name][:12] + "...",
        "prepare again with `the command force=true`",
        f"delete {folder / 'manifest.json'} if the files were edited on purpose",
    ):
        assert part in str(caught.value)
    (folder / "manifest.json").unlink()
    assert open_prepared(folder).files[name] == changed


def test_a_broken_taxonomy_is_refused_on_opening(folder_by_hand: Folder) -> None:
    nodes = [{"id": "a", "name": "", "parent": "b"}, {"id": "b", "name": "", "parent": "a"}]
    folder = folder_by_hand({"taxonomy.json": json.dumps({"nodes": nodes}).encode()})
    with pytest.raises(DataError, match=r"taxonomy.json:1: node 'a' is its own ancestor"):
        open_prepared(folder)


def test_opening_parses_no_document(folder_by_hand: Folder, taxonomy: Taxonomy) -> None:
    prepared = open_prepared(folder_by_hand({"train.jsonl": b"rubbish"}))
    assert prepared.taxonomy == taxonomy
    assert prepared.name == "byhand"
    assert prepared.manifest is None
    assert list(prepared.files) == list(FILES)


def test_the_fingerprint_is_that_of_the_content(folder_by_hand: Folder, tmp_path: Path) -> None:
    prepared = open_prepared(folder_by_hand())
    prepared.folder.rename(tmp_path / "moved")
    moved = open_prepared(tmp_path / "moved", "name")
    assert moved.fingerprint == prepared.fingerprint
    assert len(moved.fingerprint) == 64
    with (moved.folder / "test.jsonl").open("ab") as stream:
        stream.write(line("new", []))
    assert open_prepared(moved.folder).fingerprint != prepared.fingerprint


def test_a_link_keeps_its_own_name(folder_by_hand: Folder, tmp_path: Path) -> None:
    (tmp_path / "wos").symlink_to(folder_by_hand(), target_is_directory=True)
    assert open_prepared(tmp_path / "wos").name == "wos"


def test_errors_show_the_path_as_given(
    folder_by_hand: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder_by_hand({"val.jsonl": b"{}\n"})
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"^byhand/val.jsonl:1: "):
        collect_statistics(open_prepared(Path("byhand")))


def test_verifying_gives_the_counts_of_the_manifest(
    tmp_path: Path, conversion: Callable[..., Conversion]
) -> None:
    manifest = write_dataset(tmp_path / "wos", conversion(), converter="wos")
    assert collect_statistics(open_prepared(tmp_path / "wos")).counts() == manifest["counts"]


def test_an_opened_dataset_can_be_sent_to_a_worker(folder_by_hand: Folder) -> None:
    prepared = open_prepared(folder_by_hand())
    again = pickle.loads(pickle.dumps(prepared))
    assert again == prepared
    assert list(again.documents("train")) == list(prepared.documents("train"))


LONG_LINE = """
import resource, sys
from pathlib import Path
from hblm.data.dataset import open_prepared
from hblm.errors import DataError
prepared = open_prepared(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    for document in prepared.documents("train"):
        print(len(document.text))
except DataError as error:
    print(str(error)[-60:])
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("whole", [True, False])
def test_a_very_long_line_takes_a_few_times_its_size(whole: bool, folder_by_hand: Folder) -> None:
    def content() -> Iterator[bytes]:
        yield b'{"id": "1", "labels": ["sci"], "text": "'
        yield b"word " * 8_000_000
        yield b'"}\n' if whole else b""

    folder = folder_by_hand({"train.jsonl": b"".join(content())})
    found = subprocess.run(
        [sys.executable, "-c", LONG_LINE, str(folder)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert found[0] == "40000000" if whole else "was it written or copied in part?" in found[0]
    assert int(found[1]) < 5 * 40


CHANGES = {
    "a document more": lambda path: path.write_bytes(path.read_bytes() + line("new", ["sci"])),
    "another text": lambda path: path.write_bytes(path.read_bytes().replace(b"text", b"txet", 2)),
    "a fault": lambda path: path.write_bytes(path.read_bytes() + line("new", ["of the new taxonomy"])),
    "not JSON": lambda path: path.write_bytes(b"{"),
    "not UTF-8": lambda path: path.write_bytes(b"\xff"),
    "empty": lambda path: path.write_bytes(b""),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("file", ["train.jsonl", "test.jsonl"])
def test_a_file_that_changed_since_it_was_opened_is_refused(
    file: str, change: str, folder_by_hand: Folder
) -> None:
    prepared = open_prepared(folder_by_hand())
    CHANGES[change](prepared.folder / file)
    with pytest.raises(DataError, match=rf"{file}: changed while it was read: .* start again"):
        collect_statistics(prepared)
    with pytest.raises(DataError, match=f"{file}: changed while it was read"):
        prepared.count(file.partition(".")[0])


def test_the_taxonomy_is_the_one_that_was_hashed(
    folder_by_hand: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever replaces the file, and when, tree and hash belong together."""
    folder = folder_by_hand()
    before = open_prepared(folder)

    def replace_and_hash(path: Path) -> str:
        (folder / "taxonomy.json").write_text('{"nodes": [{"id": "other", "name": "other", "parent": null}]}')
        return sha256_file(path)

    monkeypatch.setattr(prepared_module, "sha256_file", replace_and_hash)
    opened = open_prepared(folder)
    assert opened.fingerprint == before.fingerprint
    assert opened.taxonomy == before.taxonomy
