"""The contract of converters, a class of tests: the tests of a set derive from it with a tiny download."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import sys
import tracemalloc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conversions import (
    Changes,
    Files,
    archive_of,
    below,
    changed,
    content,
    conversion_of,
    converted,
    cut_gz,
    dataset_in,
    documents,
    encrypted,
    flipped,
    manifest,
    own_config,
    tar_of,
    zip_of,
)
from raws import packed
from refusals import Refusal, files_below, refusal_of

from hblm.cli import main, programs
from hblm.config.train import Encoder
from hblm.data import preparation
from hblm.data.converters import load_script
from hblm.data.raw import blurbs, many_files, parallel, text
from hblm.document import Document
from hblm.errors import ConfigError, DataError

Download = tuple[Path, Mapping[str, Any]]  # the raw download, and the options that it needs


class Fault(NamedTuple):
    """A damaged download.

    Attributes:
        place: with which the message begins: a file, with its line, or "" for the download.
        words: other parts of the message; one that begins with @ is a place.
        changes: of the files.
        options: of the converter.
        base: the name of the download that is changed, "" for the first.
        longest: the limit of a line or a file while it is read.
    """

    place: str
    words: tuple[str, ...]
    changes: Changes
    options: Mapping[str, Any] = {}
    base: str = ""
    longest: int | None = None


@dataclass(frozen=True)
class TinySet:
    """A tiny raw download of a set, and what its converter must make of it.

    Attributes:
        name: of the converter.
        files: the download as a folder.
        documents: what comes out, by split and in order.
        needed: a text file without which nothing can be converted.
        texts: text files that may have any line ends, and a byte-order mark.
        forms: further forms of the download: write it into a folder, return its path and the options.
        options: another value than the default for each option.
        wrong: options that are refused, and parts of the message.
        faults: damaged downloads.
        published: the expected counts in conf/dataset/<name>.yaml.
        many: makes a download with a number of long documents; None: not streamed.
        unrecorded: options that the manifest does not name, as they only say where files lie.
        made_options: entries of the manifest's options that are no options.
        bases: further downloads that faults are planted in.
    """

    name: str
    files: Files
    documents: Mapping[str, Sequence[Document]]
    needed: str
    texts: Sequence[str]
    options: Mapping[str, Any]
    wrong: Mapping[str, tuple[Mapping[str, Any], tuple[str, ...]]]
    faults: Mapping[str, Fault]
    published: Mapping[str, Any] = field(default_factory=dict)
    forms: Mapping[str, Callable[[Path], Download]] = field(default_factory=dict)
    many: Callable[[int], Files] | None = None
    unrecorded: tuple[str, ...] = ()
    made_options: tuple[str, ...] = ()
    bases: Mapping[str, Files] = field(default_factory=dict)


JUNK: Files = {"__MACOSX/set/._x": b"\0\5\x16\7", "set/.hidden": b"\0", "README.md": b"about"}
PACKINGS: Mapping[str, Callable[[Path, Files], Path]] = {
    "a folder": lambda place, files: packed(place / "raw", dict(files)),
    "a folder in a folder": lambda place, files: packed(place / "raw", below("set", files) | JUNK),
    "a zip": lambda place, files: packed(place / "raw.zip", below("set", files) | JUNK),
    "a tar": lambda place, files: packed(place / "raw.tar", dict(files)),
    "a tar.gz": lambda place, files: packed(place / "raw.tar.gz", below(".", files)),
    "a tar.xz": lambda place, files: packed(place / "raw.tar.xz", dict(reversed(list(files.items())))),
}
SOUND: Mapping[str, Callable[[bytes], bytes]] = {
    "a mark": lambda data: codecs.BOM_UTF8 + data,
    "UTF-16 with a mark": lambda data: codecs.BOM_UTF16_LE + data.decode().encode("utf-16-le"),
    "line ends of an old Mac": lambda data: data.replace(b"\n", b"\r"),
    "Windows line ends": lambda data: data.replace(b"\n", b"\r\n"),
    "a mark and Windows line ends": lambda data: codecs.BOM_UTF8 + data.replace(b"\n", b"\r\n"),
    "no last line end": lambda data: data.removesuffix(b"\n"),
    "last blank lines": lambda data: data + b"\n \t\n\n",
}
DAMAGED = "damaged or cut short"
NOISE = {"noise.bin": bytes((at * at * 7 + at // 3) % 251 for at in range(20_000))}  # hardly to be compressed
# damage -> the archive's name, its bytes made of the files, and what the message says
DAMAGE: Mapping[str, tuple[str, Callable[[Files], bytes], str]] = {
    **{
        f"a {kind} cut at {share} %": (
            f"raw.{kind}",
            lambda files, kind=kind, share=share: _cut(archive_of(kind, {**files, **NOISE}), share),  # type: ignore[misc]
            DAMAGED,
        )
        for kind in ("zip", "tar.gz", "tar.xz")
        for share in (0, 10, 50, 99)
    },
    "a tar cut in a member": ("raw.tar", lambda files: tar_of(files)[:520], DAMAGED),
    "a web page": ("raw.zip", lambda files: b"<html>Log in first</html>", DAMAGED),
    "an encrypted zip": ("raw.zip", lambda files: encrypted(zip_of(files)), "is encrypted"),
    **{
        f"a zip with {name!r}": (
            "raw.zip",
            lambda files, name=name: zip_of({**files, name: b"x"}),  # type: ignore[misc]
            "a path that leaves",
        )
        for name in ("../x", "a/../../b", "/etc/x", "C:\\x", "..\\x")
    },
    "a tar with '../x'": ("raw.tar.gz", lambda files: tar_of({**files, "../x": b"x"}, "gz"), "a path that"),
    "a zip of nothing": ("raw.zip", lambda files: zip_of({"__MACOSX/x": b"", "set/.DS_Store": b""}), ""),
}
TINY = Encoder(model_name="tiny")


def _cut(data: bytes, share: int) -> bytes:
    return data[: len(data) * share // 100]


def _files_of(raw: Path) -> object:
    return files_below(raw) if raw.is_dir() else raw.read_bytes()


class ConverterContract:
    """What every converter does; a derived class has `tiny`. conftest.py parametrizes by its tables."""

    tiny: TinySet

    @pytest.fixture(autouse=True)
    def _in_this_process(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Read in one process: several give the same (test_many_files.py), and take a second to start."""
        monkeypatch.setattr(parallel, "n_cores", lambda: 1)

    def _refusal(self, tmp_path: Path, raw: Path | None, options: Mapping[str, Any] = {}) -> Refusal:
        return refusal_of(dataset_in(tmp_path, self.tiny.name, options), raw)

    def _require_one_message(
        self, tmp_path: Path, raw: Path, place: str, words: Sequence[str], options: Mapping[str, Any] = {}
    ) -> None:
        """Prepare; require one DataError that begins with its place, and unchanged files."""
        before = _files_of(raw)
        refusal = self._refusal(tmp_path, raw, options)
        assert refusal.kind is DataError, refusal
        assert refusal.message.startswith(place)
        assert refusal.message[len(place) :][:1] in (":", ",", "")
        for word in words:
            assert word in refusal.message
        assert "\n" not in refusal.message
        assert len(refusal.message) < 700
        assert refusal.left_open == []
        assert files_below(tmp_path / "data") == {}
        assert _files_of(raw) == before

    # --- what comes out

    def test_documents_are_those_of_the_download(self, tmp_path: Path) -> None:
        prepared = converted(self.tiny.name, self.tiny.files, tmp_path)
        assert documents(prepared) == self.tiny.documents

    def test_every_form_gives_the_same_bytes_and_is_closed(
        self, form: str, streamed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = converted(self.tiny.name, self.tiny.files, tmp_path / "plain")
        place = tmp_path / "form"
        place.mkdir()
        if form in PACKINGS:
            raw, options = PACKINGS[form](place, self.tiny.files), {}
        else:
            raw, options = self.tiny.forms[form](place)
        before = files_below(place)
        if streamed:
            monkeypatch.setattr(many_files, "_STREAMED", 0)
            monkeypatch.setattr(many_files, "_AT_ONCE", 3)
        with warnings.catch_warnings(record=True) as left_open:
            warnings.simplefilter("always", ResourceWarning)
            prepared = converted(self.tiny.name, raw, tmp_path, **options)
        assert [str(warning.message) for warning in left_open] == []
        assert content(prepared) == content(expected)
        assert files_below(place) == before
        self._require_sources(manifest(prepared)["sources"], raw, options)

    def _require_sources(self, sources: Any, raw: Path, options: Mapping[str, Any]) -> None:
        """Require that each source is a file of the download as it is, or the loose files together."""
        assert sources
        assert len({source["name"] for source in sources}) == len(sources)
        for source in sources:
            place = Path(options[source["option"]]) if "option" in source else raw
            path = place / source["name"] if place.is_dir() else place
            if "matching" not in source:
                assert path.name == Path(source["name"]).name
                data = path.read_bytes()
                assert (source["bytes"], source["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())

    def test_compressed_files_give_the_same_bytes(self, tmp_path: Path) -> None:
        files = {
            **{name: data for name, data in self.tiny.files.items() if name not in self.tiny.texts},
            **{f"{name}.gz": gzip.compress(self.tiny.files[name]) for name in self.tiny.texts},
        }
        expected = converted(self.tiny.name, self.tiny.files, tmp_path, "plain")
        assert content(converted(self.tiny.name, files, tmp_path, "small")) == content(expected)

    def test_equal_input_gives_equal_bytes(self, tmp_path: Path) -> None:
        made = [converted(self.tiny.name, self.tiny.files, tmp_path / name) for name in "ab"]
        one, other = (files_below(prepared.folder) for prepared in made)
        assert one == other

    def test_unusual_but_sound_text_files_give_the_same_documents(self, sound: str, tmp_path: Path) -> None:
        for at, name in enumerate(self.tiny.texts):
            files = {**self.tiny.files, name: SOUND[sound](self.tiny.files[name])}
            prepared = converted(self.tiny.name, files, tmp_path, f"set {at}")
            assert documents(prepared) == self.tiny.documents, name

    def test_memory_does_not_grow_with_the_texts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It grows by less than a fifth of them: a megabyte is written at once."""
        if self.tiny.many is None:
            pytest.skip("this set is small")
        monkeypatch.setattr(many_files, "_AT_ONCE", 3)
        peaks = {}
        for number in (100, 400):
            raw = packed(tmp_path / f"raw {number}", dict(self.tiny.many(number)))
            tracemalloc.start()
            conversion = conversion_of(self.tiny.name, raw, tmp_path / f"scratch {number}")
            written = sum(len(each.text) for split in conversion.splits.values() for each in split)
            peaks[number] = tracemalloc.get_traced_memory()[1], written
            tracemalloc.stop()
        (few_peak, few), (many_peak, many) = peaks[100], peaks[400]
        assert many - few > 5_000_000
        assert many_peak - few_peak < (many - few) / 5

    # --- options and expectations

    def test_the_configuration_names_every_option_with_its_default_and_the_published_counts(self) -> None:
        dataset, options = own_config(self.tiny.name), load_script(self.tiny.name).Options
        assert dataset.prepare == options._field_defaults
        assert dataset.expect == self.tiny.published

    def test_options_are_recorded_and_make_the_same_bytes_again(self, tmp_path: Path) -> None:
        fields = load_script(self.tiny.name).Options._fields
        assert set(self.tiny.options) == set(fields) - set(self.tiny.unrecorded)
        raw = packed(tmp_path / "raw", dict(self.tiny.files))
        one = converted(self.tiny.name, raw, tmp_path, "one", **self.tiny.options)
        recorded = {
            name: value
            for name, value in manifest(one)["options"].items()
            if name not in self.tiny.made_options
        }
        assert recorded == self.tiny.options
        assert content(converted(self.tiny.name, raw, tmp_path, "again", **recorded)) == content(one)

    def test_a_wrong_option_is_refused(self, wrong: str, tmp_path: Path) -> None:
        options, words = self.tiny.wrong[wrong]
        refusal = self._refusal(tmp_path, packed(tmp_path / "raw", dict(self.tiny.files)), options)
        assert refusal.kind is ConfigError
        for word in words:
            assert word in refusal.message
        assert files_below(tmp_path / "data") == {}

    def test_other_counts_than_expected_are_refused_or_allowed(self, tmp_path: Path) -> None:
        raw = packed(tmp_path / "raw", dict(self.tiny.files))
        expect = {"documents": {"train": 999, "val": 1}, "levels": [7, 8]}
        dataset = dataset_in(tmp_path, self.tiny.name, {}, expect)
        refusal = refusal_of(dataset, raw)
        assert refusal.kind is DataError
        rows = [line.split() for line in refusal.message.splitlines()[1:]]
        found = len(self.tiny.documents["train"])
        assert ["documents", "in", "train", "999", str(found), "differs", "by", f"{found - 999:+}"] in rows
        assert files_below(tmp_path / "data") == {}
        assert preparation.prepare(dataset, raw, TINY, allow_mismatch=True) is not None
        prepared = manifest(preparation.open_prepared(dataset.folder))
        assert prepared["expected"] == {**expect, "met": False}
        assert "the counts are not those expected (allow_mismatch=true)" in prepared["warnings"]

    # --- preparing again

    @pytest.mark.parametrize("packing", ["a folder", "a zip"])
    def test_the_same_download_again_does_nothing_and_another_is_refused(
        self, packing: str, tmp_path: Path
    ) -> None:
        raw = PACKINGS[packing](tmp_path, self.tiny.files)
        dataset = dataset_in(tmp_path, self.tiny.name)
        assert preparation.prepare(dataset, raw, TINY) is not None
        before = files_below(tmp_path / "data")
        assert preparation.prepare(dataset, raw, TINY) is None
        files = {**self.tiny.files, self.tiny.needed: self.tiny.files[self.tiny.needed] + b"\n"}
        if raw.is_dir():
            (raw / self.tiny.needed).write_bytes(files[self.tiny.needed])
        else:
            PACKINGS[packing](tmp_path, files)
        with pytest.raises(DataError, match=r"is there already, made of another .*force=true"):
            preparation.prepare(dataset, raw, TINY)
        assert files_below(tmp_path / "data") == before
        assert preparation.prepare(dataset, raw, TINY, force=True) is not None

    # --- faults

    def test_downloads_that_faults_are_planted_in_are_sound(self, tmp_path: Path) -> None:
        for name, files in self.tiny.bases.items():
            assert sum(map(len, documents(converted(self.tiny.name, files, tmp_path, name)).values())) > 2

    def test_a_fault_is_one_message_with_its_place_and_leaves_nothing(
        self, fault: str, packing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        place, words, changes, options, base, longest = self.tiny.faults[fault]
        for module in (text, blurbs, many_files) if longest else ():
            monkeypatch.setattr(module, "LONGEST", longest)
        files = changed(self.tiny.bases.get(base, self.tiny.files), changes)
        (tmp_path / "raws").mkdir()
        raw = packed(tmp_path / "raws" / f"raw{packing}", files)
        raw.mkdir(exist_ok=True) if not packing else None

        def at(inside: str) -> str:
            return f"{raw}{':' if packing else '/'}{inside}" if inside else str(raw)

        where = [at(word[1:]) if word.startswith("@") else word for word in words]
        self._require_one_message(tmp_path, raw, at(place), where, options)

    def test_a_damaged_archive_is_one_message_and_leaves_nothing(self, damage: str, tmp_path: Path) -> None:
        name, made, words = DAMAGE[damage]
        (tmp_path / "raws").mkdir()
        raw = tmp_path / "raws" / name
        raw.write_bytes(made(self.tiny.files))
        self._require_one_message(tmp_path, raw, str(raw), [words])

    def test_a_missing_or_damaged_file_is_one_message(self, tmp_path: Path) -> None:
        needed = self.tiny.needed
        data = self.tiny.files[needed]
        folder = tmp_path / "raws"
        for at, (changes, place, word) in enumerate(
            (
                ({needed: None}, "", ""),
                ({needed: b""}, "", ""),
                ({needed: None, f"{needed}.gz": cut_gz(data)}, f"/{needed}.gz", DAMAGED),
                ({needed: None, f"{needed}.gz": flipped(gzip.compress(data))}, f"/{needed}.gz", "damaged"),
            )
        ):
            raw = packed(folder / str(at) / "raw", changed(self.tiny.files, changes))
            refusal = self._refusal(tmp_path, raw)
            assert refusal.kind in (DataError, ConfigError)
            assert refusal.message.startswith(f"{raw}{place}") or not place
            assert word in refusal.message
            assert str(raw) in refusal.message
            assert refusal.left_open == []
        assert files_below(tmp_path / "data") == {}

    def test_a_download_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert self._refusal(tmp_path, tmp_path / "none")[:2] == (
            DataError,
            f"raw={tmp_path}/none is not there",
        )
        refusal = self._refusal(tmp_path, tmp_path / "empty")
        assert refusal.kind is DataError
        assert refusal.message.startswith(f"{tmp_path}/empty: ")
        refusal = self._refusal(tmp_path, None)
        assert refusal.kind is ConfigError
        assert "write raw=PATH, a download" in refusal.message
        assert files_below(tmp_path / "data") == {}

    def test_a_fault_leaves_an_older_folder_as_it_was(self, tmp_path: Path) -> None:
        folder = converted(self.tiny.name, self.tiny.files, tmp_path).folder
        (folder / "report.md").write_text("# as it was\n")
        before = files_below(tmp_path / "data")
        for at, fault in enumerate(list(self.tiny.faults.values())[::7]):
            files = changed(self.tiny.bases.get(fault.base, self.tiny.files), fault.changes)
            raw = packed(tmp_path / f"bad {at}", files)
            raw.mkdir(exist_ok=True)
            if not fault.longest:
                dataset = dataset_in(tmp_path, self.tiny.name, fault.options)
                assert refusal_of(dataset, raw, force=True).kind is DataError
                assert files_below(tmp_path / "data") == before

    def test_a_fault_ends_the_program_with_code_2_and_no_traceback(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["hblm.prepare"])
        for name, value in (("HYDRA_FULL_ERROR", "1"), ("OMP_WAIT_POLICY", "PASSIVE")):
            monkeypatch.setenv(name, value)  # the program sets these; they must not outlive the test
        raw = packed(tmp_path / "raw", changed(self.tiny.files, {self.tiny.needed: None}))
        arguments = [f"dataset={self.tiny.name}", f"raw={raw}", "encoder=tiny", "dataset.path=made"]
        with pytest.raises(SystemExit) as caught:
            main.run_program(programs.PREPARE, preparation.run, arguments)
        assert caught.value.code == 2
        (message,) = capsys.readouterr().err.splitlines()
        assert message.startswith("hblm.prepare: ")
        assert str(raw) in message
        assert not Path("made").exists()
