"""Documents as token ids: tokenised once, kept in a cache, read as memory-mapped arrays."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import transformers

from hblm import signals
from hblm.data.cache import Entry, checksums
from hblm.data.dataset import Prepared
from hblm.document import SPLITS, Document
from hblm.errors import ConfigError
from hblm.files import sha256_text
from hblm.json_files import write_json
from hblm.taxonomy import Taxonomy

FORMAT = 2  # 2: with the texts of nodes, and with checksums
NODES = "nodes"  # the split that holds a document for each node: its text, with the node and its ancestors
_DTYPES = "dtypes.json"
_ARRAYS = ("tokens", "offsets", "labels", "label_offsets")
_AT_ONCE, _CHARACTERS_AT_ONCE = 1_000, 2_000_000

Array = npt.NDArray[Any]
T = TypeVar("T")
StartTask = Callable[[str, "int | None"], Callable[[int], None]]


class TokenisedSplit:
    """The documents of a split as token ids and label positions, in the order of the file or a part of it.

    It is pickled as the place of its files, so that it may go to the worker processes of a loader.

    Attributes:
        folder, name: where the files lie, and the split's name.
        order: positions in the file of the documents in view; None for all.
        lengths: tokens of each document in view, special tokens included.
    """

    def __init__(self, folder: Path, name: str, order: npt.NDArray[np.int64] | None = None) -> None:
        self.folder, self.name, self.order = folder, name, order
        dtypes = json.loads((folder / _DTYPES).read_text(encoding="utf-8"))
        arrays = {part: mapped_array(folder / f"{name}.{part}", dtypes[part]) for part in _ARRAYS}
        self._tokens, self._labels = arrays["tokens"], arrays["labels"]
        self._offsets, self._label_offsets = np.array(arrays["offsets"]), np.array(arrays["label_offsets"])
        self.lengths: npt.NDArray[np.int64] = self._in_view(np.diff(self._offsets))

    def __len__(self) -> int:
        return len(self.lengths)

    def __reduce__(self) -> tuple[type[TokenisedSplit], tuple[Path, str, npt.NDArray[np.int64] | None]]:
        return TokenisedSplit, (self.folder, self.name, self.order)

    def label_counts(self, n_nodes: int) -> npt.NDArray[np.int64]:
        """Return how many of the documents in view bear each node."""
        if self.order is None:
            return np.bincount(self._labels, minlength=n_nodes)
        _, labels = self.labels(np.arange(len(self)))
        return np.bincount(labels, minlength=n_nodes)

    def stop_counts(self, parents: Sequence[int]) -> npt.NDArray[np.int64]:
        """Return how many of the documents in view bear each node and none of its children.

        `parents` are the positions of each node's parent, -1 for a root.
        """
        n_nodes = len(parents)
        rows, nodes = self.labels(np.arange(len(self)))
        above = np.asarray(parents)[nodes]
        going_on = np.unique((rows * n_nodes + above)[above >= 0]) % n_nodes
        return self.label_counts(n_nodes) - np.bincount(going_on, minlength=n_nodes)

    def tokens(self, indices: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the row (0, 1, ... in `indices`) and the id of every token of some documents in view."""
        return _gather(self._tokens, self._offsets, self.positions_in_file(indices))

    def labels(self, indices: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the row and the node of every label of some documents in view."""
        return _gather(self._labels, self._label_offsets, self.positions_in_file(indices))

    def first_beyond(self, rows: int) -> tuple[int, str] | None:
        """Return the first token id of the file that is not below `rows`, and its document's id."""
        if self._tokens.max(initial=0) < rows:
            return None
        first = int(np.argmax(self._tokens >= rows))
        position = int(np.searchsorted(self._offsets, first, side="right")) - 1
        with (self.folder / f"{self.name}.ids").open(encoding="utf-8") as lines:
            document = json.loads(next(itertools.islice(lines, position, None)))
        return int(self._tokens[first]), document

    def document_ids(self) -> list[str]:
        """Return the ids of the documents in view; read anew at each call."""
        with (self.folder / f"{self.name}.ids").open(encoding="utf-8") as lines:
            ids = [json.loads(line) for line in lines]
        return ids if self.order is None else [ids[position] for position in self.order]

    def identity(self) -> dict[str, str | None]:
        """Return what tells these tokens from others: hashes of the files, and of the order in view."""
        files = checksums(self.folder)
        order = None if self.order is None else hashlib.sha256(self.order.astype("<i8").tobytes()).hexdigest()
        return {**{part: files[f"{self.name}.{part}"] for part in ("tokens", "offsets")}, "order": order}

    def positions_in_file(self, indices: Array) -> Array:
        return indices if self.order is None else self.order[indices]

    def _in_view(self, values: Array) -> Array:
        return values if self.order is None else values[self.order]


class TextTokenizer:
    """Token ids of single texts, the same as in the splits of a dataset. Threads can share it."""

    def __init__(self, tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> None:
        """Take a fast tokenizer, and the tokens that a text is cut to, special tokens included.

        Raises:
            ConfigError: `max_length` leaves no room for a token of the text.
        """
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # without it a later fork prints a warning
        _require_room(tokenizer, max_length)
        self._backend = _cutting(tokenizer, max_length)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of each text."""
        rows: list[list[int]] = []
        for portion in _portions(texts, len):
            rows += [encoding.ids for encoding in self._backend.encode_batch_fast(portion)]
        return rows


def tokenise(
    prepared: Prepared,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    max_length: int,
    cache_dir: Path,
    progress: StartTask = lambda description, total: lambda steps: None,
    splits: Sequence[str] = SPLITS,
) -> dict[str, TokenisedSplit]:
    """Return the tokenised splits, and under `nodes` the texts of nodes, from the cache if it has them.

    All documents of these splits are read (and so verified) before the first is trained on. Of several
    processes that start at once, one tokenises and the others wait for it.

    Args:
        prepared: the dataset.
        tokenizer: a fast one; what an earlier call left in it (truncation, padding) plays no part.
        max_length: tokens that a document is cut to, special tokens included.
        cache_dir: the folder of all caches.
        progress: starts a task (description, total or None), returns how to advance it.
        splits: which of train, val and test; a part of them has a cache entry of its own.

    Raises:
        ConfigError: `max_length` leaves no room for a token of the text.
        DataError: the first fault in the documents, or they changed since they were opened; then the cache
            gets no entry.
    """
    _require_room(tokenizer, max_length)
    made_from = {
        "format": FORMAT,
        "dataset": prepared.fingerprint,
        "tokenizer": tokenizer_hash(tokenizer),
        "max_length": max_length,
        **({} if tuple(splits) == SPLITS else {"splits": [*splits]}),
    }
    names = (*splits, NODES)
    parts = [f"{name}.{part}" for name in names for part in (*_ARRAYS, "ids")]
    entry = Entry(cache_dir / "tokens", made_from, [*parts, _DTYPES])
    if not entry.is_whole():
        with entry.locked():
            if not entry.is_whole():  # another process may have been faster
                with entry.renewed() as folder:
                    _write(folder, prepared, names, _cutting(tokenizer, max_length), progress)
    return {name: TokenisedSplit(entry.folder, name) for name in names}


def node_documents(taxonomy: Taxonomy) -> Iterator[Document]:
    """Yield a document for each node, in taxonomy order: its text, labelled with it and its ancestors."""
    for node in taxonomy.nodes:
        yield Document(node.id, node.words, (node.id, *taxonomy.ancestors(node.id)))


def tokenizer_hash(tokenizer: transformers.PreTrainedTokenizerBase) -> str:
    """Return the sha256 of the behaviour of a fast tokenizer, whatever its path and earlier calls."""
    backend = _bare(tokenizer)
    return sha256_text(f"{backend.to_str()}\n{tokenizer.truncation_side}\n{backend.encode_special_tokens}")


def _write(folder: Path, prepared: Prepared, names: Sequence[str], backend: Any, progress: StartTask) -> None:
    """Tokenise splits, or the texts of nodes, into `folder`, a thousand documents at a time."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # without it a later fork prints a warning
    index = prepared.taxonomy.index
    highest = max(backend.get_vocab(with_added_tokens=True).values())
    dtypes = {
        "tokens": np.min_scalar_type(highest),
        "labels": np.min_scalar_type(len(index)),
        "offsets": np.dtype(np.int64),
        "label_offsets": np.dtype(np.int64),
    }
    for split in names:
        advance = progress(f"tokenising {split}", _expected(prepared, split))
        with contextlib.ExitStack() as stack:
            files = {
                part: stack.enter_context((folder / f"{split}.{part}").open("wb"))
                for part in (*_ARRAYS, "ids")
            }

            def append(part: str, values: Iterable[int], files: dict[str, Any] = files) -> None:
                np.fromiter(values, dtype=dtypes[part]).tofile(files[part])

            ends = {"offsets": 0, "label_offsets": 0}
            for part in ends:
                append(part, [0])
            source = node_documents(prepared.taxonomy) if split == NODES else prepared.documents(split)
            for documents in _portions(source, lambda document: len(document.text)):
                signals.check()
                encodings = backend.encode_batch_fast([document.text for document in documents])
                rows = [encoding.ids for encoding in encodings]
                nodes = [sorted(index[label] for label in document.labels) for document in documents]
                for part, offsets, lists in (("tokens", "offsets", rows), ("labels", "label_offsets", nodes)):
                    append(part, itertools.chain.from_iterable(lists))
                    passed = list(itertools.accumulate(map(len, lists), initial=ends[offsets]))
                    append(offsets, passed[1:])
                    ends[offsets] = passed[-1]
                files["ids"].writelines(f"{json.dumps(document.id)}\n".encode() for document in documents)
                advance(len(documents))
    write_json(folder / _DTYPES, {part: dtype.name for part, dtype in dtypes.items()})


def mapped_array(path: Path, dtype: str) -> Array:
    """Map a flat array; an empty file cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _gather(values: Array, offsets: Array, documents: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Return, of ragged rows laid end to end, the chosen ones: the row and the value of each entry."""
    starts, lengths = offsets[documents], offsets[documents + 1] - offsets[documents]
    rows = np.repeat(np.arange(len(documents)), lengths)
    before = np.cumsum(lengths) - lengths  # entries of the rows above
    return rows, values[np.arange(len(rows)) + (starts - before)[rows]]


def _portions(items: Iterable[T], size: Callable[[T], int]) -> Iterator[list[T]]:
    """Yield the items a thousand at a time, fewer of long ones, so that memory stays bounded.

    `size` returns an item's characters.
    """
    portion: list[T] = []
    characters = 0
    for item in items:
        portion.append(item)
        characters += size(item)
        if len(portion) == _AT_ONCE or characters > _CHARACTERS_AT_ONCE:
            yield portion
            portion, characters = [], 0
    if portion:
        yield portion


def _require_room(tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> None:
    special = tokenizer.backend_tokenizer.num_special_tokens_to_add(False)
    if max_length <= special:
        raise ConfigError(
            f"encoder.max_length={max_length} leaves no room for text: the tokenizer adds {special} special "
            f"tokens; write at least {special + 1}"
        )


def _bare(tokenizer: transformers.PreTrainedTokenizerBase) -> Any:
    """Return a copy of the Rust tokenizer without truncation and padding."""
    backend = copy.deepcopy(tokenizer.backend_tokenizer)
    backend.no_truncation()
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.backend_tokenizer.encode_special_tokens
    return backend


def _cutting(tokenizer: transformers.PreTrainedTokenizerBase, max_length: int) -> Any:
    backend = _bare(tokenizer)
    backend.enable_truncation(max_length, direction=tokenizer.truncation_side)
    return backend


def _expected(prepared: Prepared, split: str) -> int | None:
    """Return the number of documents in the manifest, for a progress bar; None if it has no counts."""
    try:
        promised = prepared.manifest["counts"][split]["documents"] if prepared.manifest else None
    except (KeyError, TypeError):
        return None
    return promised if isinstance(promised, int) else None
