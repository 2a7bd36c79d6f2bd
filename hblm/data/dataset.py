"""Reader of prepared datasets: hashes are compared on opening, documents are verified while they stream.

A file that changes after the folder was opened is refused. A text of only white space is allowed and counted:
a document without tokens pools to zeros.
"""

from __future__ import annotations

import codecs
import contextlib
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from hblm.data.writer import FILES, MANIFEST
from hblm.document import SPLITS, Document, parse_document
from hblm.errors import DataError, nearest
from hblm.files import require_file, sha256_file, sha256_text
from hblm.json_files import canonical_json, read_object
from hblm.taxonomy import Taxonomy, decode_taxonomy

T = TypeVar("T")


@dataclass(frozen=True)
class Prepared:
    """An opened prepared dataset.

    Attributes:
        folder: as given by the user.
        name: the name of the dataset in results.
        taxonomy: the label forest.
        files: name -> sha256 of the four files, as far as they exist (see `open_prepared`).
        manifest: the content of manifest.json; None in a folder made by hand.
    """

    folder: Path
    name: str
    taxonomy: Taxonomy
    files: Mapping[str, str]
    manifest: Mapping[str, Any] | None

    @property
    def fingerprint(self) -> str:
        """Return the sha256 of the files' hashes, which is part of run ids and cache keys."""
        return sha256_text(canonical_json(dict(self.files)))

    def __hash__(self) -> int:
        """Return a hash of the fingerprint, so that results about the files can be cached."""
        return hash(self.fingerprint)

    def count(self, split: str) -> int:
        """Return the number of documents of a split, which is its number of lines; no line is parsed.

        Raises:
            DataError: the file cannot be read, is not UTF-8, has a blank line, or has changed.
        """
        return sum(1 for _ in self._as_opened(f"{split}.jsonl", self._lines(f"{split}.jsonl")))

    def documents(self, split: str) -> Iterator[Document]:
        """Stream the documents of `split`, verified one by one; only ids stay in memory.

        Raises:
            DataError: `split` is not train, val or test (at once); while streaming, the first fault with
                file, line, document and label; at the end, the file has changed since it was opened.
        """
        if split not in SPLITS:
            known = ", ".join(SPLITS)
            raise DataError(f"{self.folder}: split {split!r} is not one of {known}{nearest(split, SPLITS)}")
        path = self.folder / f"{split}.jsonl"
        return self._as_opened(path.name, self._verified(path, labels_needed=split == "train"))

    def _verified(self, path: Path, *, labels_needed: bool) -> Iterator[Document]:
        # A root is its own parent here, and an unknown label maps to None. So one test, which runs in C,
        # covers unknown and unclosed labels: if every parent is present, every ancestor is.
        above = {node.id: node.parent or node.id for node in self.taxonomy.nodes}
        seen: set[str] = set()
        file = str(path)
        for number, line in enumerate(self._lines(path.name), 1):
            document = _parse(line, f"{file}:{number}")
            labels = set(document.labels)
            seen.add(document.id)
            if (
                len(seen) != number
                or len(labels) != len(document.labels)
                or not labels.issuperset(map(above.get, labels))
                or (labels_needed and not labels)
            ):
                raise DataError(_fault(document, path, number, self.taxonomy))
            yield document
        if not seen:
            raise DataError(f"{path}: the split is empty; it needs at least one document")

    def require_unchanged(self, *files: str) -> None:
        """Check that files have not changed since the folder was opened; without names, all of them.

        Raises:
            DataError: a file has changed.
        """
        for file in files or self.files:
            with contextlib.suppress(OSError):  # the caller reports why it cannot read the file
                self._compare(file, sha256_file(self.folder / file))

    def _as_opened(self, file: str, reading: Iterator[T]) -> Iterator[T]:
        """Yield what is read of a file; a fault in a file that has changed is reported as the change."""
        try:
            yield from reading
        except DataError:
            self.require_unchanged(file)
            raise

    def _lines(self, file: str) -> Iterator[str]:
        """Yield the lines of a file; at the end, compare their hash with that of the opened file."""
        digest = hashlib.sha256()
        yield from _lines(self.folder / file, digest.update)
        self._compare(file, digest.hexdigest())

    def _compare(self, file: str, digest: str) -> None:
        if digest != self.files[file]:
            raise DataError(
                f"{self.folder / file}: changed while it was read: its sha256 was {self.files[file][:12]}... "
                f"when the folder was opened and is {digest[:12]}... now; start again"
            )


def n_subsampled(documents: int, fraction: float) -> int:
    """Return how many documents of a split `dataset_fraction` selects: at least one."""
    return min(documents, max(1, round(fraction * documents)))


def open_prepared(
    folder: Path, name: str | None = None, prepare_with: str | None = None, splits: Sequence[str] = SPLITS
) -> Prepared:
    """Open a prepared dataset: hash its files, read its taxonomy, parse no document.

    Args:
        folder: the folder of the four files.
        name: the name of the dataset; None: that of the folder.
        prepare_with: the command that prepares it, for messages; None if there is none.
        splits: those that must exist; the others are opened if they exist.

    Raises:
        DataError: a missing or unreadable file, hashes that contradict the manifest, a bad taxonomy.
    """
    name = name or Path(os.path.abspath(folder)).name  # not resolved: the name of a link counts
    files, taxonomy = {}, b""
    for file in _files_of(folder, prepare_with, splits):
        try:
            if file == FILES[0]:
                taxonomy = (folder / file).read_bytes()
                files[file] = hashlib.sha256(taxonomy).hexdigest()
            else:
                files[file] = sha256_file(folder / file)
        except OSError as error:
            raise DataError(f"{folder / file}: cannot be read: {error.strerror}") from None
    manifest = _read_manifest(folder / MANIFEST)
    if manifest is not None:
        _compare_hashes(folder, prepare_with, files, manifest["files"])
    return Prepared(folder, name, decode_taxonomy(taxonomy, str(folder / FILES[0])), files, manifest)


def _files_of(folder: Path, prepare_with: str | None, splits: Sequence[str]) -> list[str]:
    """Return those of the four files that exist, the taxonomy first.

    Raises:
        DataError: the folder, the taxonomy or one of `splits` is missing, or a file is none.
    """
    prepare = f"prepare it with `{prepare_with}`, or " if prepare_with else ""
    needed = [FILES[0], *(f"{split}.jsonl" for split in splits)]
    hint = f"{prepare}give the folder that holds {', '.join(needed)} as dataset.path=DIR"
    try:
        names = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        raise DataError(f"{folder}: no such folder; {hint}") from None
    except NotADirectoryError:
        raise DataError(f"{folder}: a file where a prepared dataset's folder should be; {hint}") from None
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {error.strerror}") from None
    missing = [file for file in needed if file not in names]
    if missing:
        there = f"it holds {', '.join(names[:10])}" if names else "it is empty"
        raise DataError(f"{folder}: no {' and no '.join(missing)} ({there}); {hint}")
    for file in (*FILES, MANIFEST):
        if file in names and not os.path.isfile(folder / file):
            if (folder / file).exists():
                require_file(folder / file)
            raise DataError(f"{folder / file}: a link to nothing; {hint}")
    return [file for file in FILES if file in names]


def _read_manifest(path: Path) -> Mapping[str, Any] | None:
    """Return the manifest, which has the four hashes; None if there is no manifest."""
    hint = "prepare the dataset again, or delete this file if the folder was made by hand"
    try:
        manifest = read_object(path)
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{path}: {error}; {hint}") from None
    hashes = manifest.get("files")
    if not isinstance(hashes, dict):
        raise DataError(f'{path}: has no "files" object with the sha256 of the four files; {hint}')
    for file in FILES:
        if not isinstance(hashes.get(file), str):
            raise DataError(f'{path}: "files" has no sha256 of {file}; {hint}')
    for key, (kind, is_valid) in _OPTIONAL.items():
        value = manifest.get(key)
        if value is not None and not is_valid(value):
            raise DataError(f'{path}: "{key}" is {value!r:.60}, not {kind}; {hint}')
    return {key: value for key, value in manifest.items() if value is not None}


def _is_counts(value: object) -> bool:
    return isinstance(value, dict) and all(type(number) is int for number in value.values())


def _is_source(value: object) -> bool:
    """Return whether an entry of `sources` has the keys of a file or a package, with the right types."""
    if not isinstance(value, dict) or "name" not in value:
        return False
    texts, numbers = ("name", "sha256", "version", "matching", "option"), ("bytes", "files")
    return (
        all(isinstance(value[key], str) for key in texts if key in value)
        and all(type(value[key]) is int for key in numbers if key in value)
        and ("matching" not in value or "files" in value)
        and ("bytes" not in value or "sha256" in value)
    )


# Keys of a manifest besides the hashes, each with its type in words and its check; each may be missing.
_OPTIONAL: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "converter": ("a text", lambda value: isinstance(value, str)),
    "version": ("a text or number", lambda value: isinstance(value, (str, int, float))),
    "options": ("an object", lambda value: isinstance(value, dict)),
    "expected": ("an object", lambda value: isinstance(value, dict)),
    "repaired": ("an object of counts", _is_counts),
    "dropped": ("an object of counts", _is_counts),
    "counts": ("an object", lambda value: isinstance(value, dict)),
    "sources": ("a list of objects", lambda value: isinstance(value, list) and all(map(_is_source, value))),
    "warnings": ("a list of texts", lambda v: isinstance(v, list) and all(isinstance(x, str) for x in v)),
    "licence": ("a text", lambda value: isinstance(value, str)),
}


def _compare_hashes(
    folder: Path, prepare_with: str | None, files: Mapping[str, str], expected: Mapping[str, str]
) -> None:
    again = f"prepare again with `{prepare_with} force=true`, or " if prepare_with else ""
    for file, digest in files.items():
        if digest != expected[file].lower():
            raise DataError(
                f"{folder / file}: not the file that was prepared: its sha256 is {digest[:12]}..., "
                f"{MANIFEST} says {expected[file][:12]}...; "
                f"{again}delete {folder / MANIFEST} if the files were edited on purpose"
            )


def _lines(path: Path, read: Callable[[bytes], None] = lambda line: None) -> Iterator[str]:
    """Yield the lines, which end at \\n alone, as texts may hold U+2028; `read` is called with all bytes."""
    blank = 0
    try:
        with path.open("rb") as stream:
            for number, raw in enumerate(stream, 1):
                read(raw)
                if number == 1 and raw.startswith(codecs.BOM_UTF8):
                    raw = raw[len(codecs.BOM_UTF8) :]
                if blank:
                    raise DataError(f"{path}:{blank}: a blank line; only the last line may be blank")
                if raw.isspace() or not raw:
                    blank = number
                    continue
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    raise DataError(
                        f"{path}:{number}: not UTF-8 at byte {error.start + 1} of the line; "
                        f"save the file as UTF-8"
                    ) from None
                yield line
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _parse(line: str, place: str) -> Document:
    """Parse a line; an error message says also whether the whole file is damaged."""
    try:
        return parse_document(line, place)
    except DataError as error:
        if "\0" in line:
            raise DataError(f"{error}; the line holds NUL bytes: the file is damaged") from None
        if "\r" in line.rstrip("\r\n"):
            raise DataError(f"{error}; lines must end in \\n or \\r\\n, this file has bare \\r") from None
        if not line.endswith("\n"):
            raise DataError(
                f"{error}; the file ends inside this line: was it written or copied in part?"
            ) from None
        raise


def _fault(document: Document, path: Path, number: int, taxonomy: Taxonomy) -> str:
    """Return the message on an invalid document."""
    where = f"{path}:{number}, document {document.id!r:.100}"
    labels = set(document.labels)
    for label, times in Counter(document.labels).items():
        if label not in taxonomy.index:
            return f"{where}: label {label!r:.100} is not a node of the taxonomy{taxonomy.suggest(label)}"
        if times > 1:
            return f"{where}: label {label!r:.100} is there {times} times; name each label once"
        for ancestor in taxonomy.ancestors(label):
            if ancestor not in labels:
                return (
                    f"{where}: label {label!r:.100} without its ancestor {ancestor!r:.100}; a document has "
                    f"the ancestors of all its labels (preparing with hblm.prepare adds them)"
                )
    if not labels:
        return f"{where}: no labels; a training document needs at least one (val and test may have none)"
    for earlier, line in enumerate(
        _lines(path), 1
    ):  # a second pass, so that the first keeps no lines in memory
        if parse_document(line, f"{path}:{earlier}").id == document.id:
            break
    return f"{where}: the same id as on line {earlier}; ids are unique within a split"
