"""Buffer of documents between reading and writing: texts on disk, ids, labels and splits in memory.

A converter adds documents while it reads them. Labels and splits depend on all documents (the taxonomy, the
rarest node, duplicates), so they are known only after the last one.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from hblm.document import SPLITS, Document, check_text
from hblm.errors import DataError

_AT_ONCE = 1 << 20  # characters written together
_REPEATING = 1 << 18  # documents; after each doubling of this number, a hundredth of the texts must differ


class DocumentBuffer:
    """Documents in the order in which they were added.

    Attributes:
        labels: of each document, as added; equal tuples are kept once.
        splits: of each document, "" where the raw data names none.
        digests: a hash of each text, 8 bytes.
    """

    def __init__(self, folder: Path, hint: str = "") -> None:
        """Start empty; texts go to a file in the scratch folder. `hint` ends a message on repeated ids."""
        self._hint = hint
        self.labels: list[tuple[str, ...]] = []
        self.splits: list[str] = []
        self.digests = array("Q")
        self._at: dict[str, int] = {}
        self._known: dict[tuple[str, ...], tuple[str, ...]] = {}
        self._files: dict[str, int] = {}
        self._places = array("Q")
        self._begins = array("Q")  # where each document begins in the file
        self._end = 0
        self._path = folder / "documents.jsonl"
        self._path.unlink(missing_ok=True)
        self._look_at = _REPEATING
        self._waiting: list[str] = []
        self._characters = 0

    def __len__(self) -> int:
        return len(self.labels)

    def add(
        self, identity: str, text: str, labels: tuple[str, ...], split: str, file: str, number: int
    ) -> None:
        """Add a document; its place is `file` and `number`, such as "x.csv:" 7 or "x.parquet: row " 7.

        Raises:
            DataError: an earlier document of any split has the id; a lone surrogate; nearly all texts repeat,
                as in a small file that unpacks to a large one.
        """
        at = self._at.setdefault(identity, len(self))
        place = f"{file}{number}"
        if at < len(self):
            raise DataError(
                f"{place}: the id {identity!r:.100} is also that of {self.place(at)}; "
                f"ids are unique, across splits as well{self._hint}"
            )
        check_text(identity, text, place)
        self.labels.append(self._known.setdefault(labels, labels))
        self.splits.append(split)
        self.digests.append(text_digest(text))
        if len(self) == self._look_at:
            self._look_at *= 2
            different = len(set(self.digests))
            if different * 100 < len(self):
                raise DataError(
                    f"{place}: {len(self):,} documents so far, and only {different:,} different texts; is "
                    f"the file damaged, or made to unpack to the same rows again and again?"
                )
        self._places.append(self._files.setdefault(file, len(self._files)) << 40 | number)
        self._waiting.append(json.dumps([identity, text]) + "\n")  # ASCII: a character is a byte
        self._begins.append(self._end)
        self._end += len(self._waiting[-1])
        self._characters += len(self._waiting[-1])
        if self._characters > _AT_ONCE:
            self._write()

    @property
    def ids(self) -> list[str]:
        """Return the documents' ids."""
        return list(self._at)

    def has(self, identity: str) -> bool:
        """Return whether a document has this id."""
        return identity in self._at

    def at(self, identity: str) -> int:
        """Return the position of the document with this id, from 0."""
        return self._at[identity]

    def place(self, at: int) -> str:
        """Return the place of a document in the raw data."""
        return f"{list(self._files)[self._places[at] >> 40]}{self._places[at] & (1 << 40) - 1}"

    def documents(
        self,
        labels: Sequence[tuple[str, ...]],
        splits: Sequence[str],
        order: Sequence[int] | None = None,
    ) -> Mapping[str, Iterable[Document]]:
        """Return the documents of each split, to be iterated once.

        Args:
            labels: of each document, in the order of adding.
            splits: of each document; "" for no split.
            order: positions of the documents; None: the order of adding.
        """
        self._write()
        places = range(len(self)) if order is None else order
        return {split: self._of(split, labels, splits, places) for split in SPLITS}

    def _write(self) -> None:
        """Append the waiting documents to the file, which is closed again in case the converter fails."""
        with self._path.open("a", encoding="utf-8", newline="\n") as stream:
            stream.writelines(self._waiting)
        self._waiting, self._characters = [], 0

    def _of(
        self, split: str, labels: Sequence[tuple[str, ...]], splits: Sequence[str], order: Sequence[int]
    ) -> Iterator[Document]:
        with self._path.open("rb") as stream:
            for at in order:
                if splits[at] == split:
                    if stream.tell() != self._begins[at]:
                        stream.seek(self._begins[at])
                    identity, text = json.loads(stream.readline())
                    yield Document(identity, text, labels[at])


def text_digest(text: str) -> int:
    """Return 8 bytes of the hash of a text; of a million texts, two collide once in 37 million."""
    return int.from_bytes(
        hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big"
    )
