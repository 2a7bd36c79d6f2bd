"""Documents as token ids: tokenised once, kept in a cache, put together into batches of similar length.

The cache is `cache_dir/tokens/<key>/` (see cache.py): flat arrays per split, mapped into memory. Shuffles
and subsamples are sorted draws of PCG64, whose stream numpy promises to keep, so that they are the same in
years to come.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import transformers
from jaxtyping import Float32
from torch import Tensor

from hblm import stopping
from hblm.artifacts import sha256_text, write_json
from hblm.corpus.cache import Entry, checksums
from hblm.corpus.prepared import Prepared, n_subsampled
from hblm.document import SPLITS, Document
from hblm.errors import ConfigError
from hblm.taxonomy import Taxonomy

FORMAT = 2  # 2: with the texts of nodes, and with checksums
NODES = "nodes"  # the split that holds a document for each node: its text, with the node and its ancestors
_DTYPES = "dtypes.json"
_ARRAYS = ("tokens", "offsets", "labels", "label_offsets")
_AT_ONCE, _CHARACTERS_AT_ONCE = 1_000, 2_000_000
_SUBSAMPLE_SEED = 20_240_229  # of its own: every run sees the same documents, whatever its seed
_STEPS_SORTED_TOGETHER = 32

Array = npt.NDArray[Any]
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
        arrays = {part: _mapped(folder / f"{name}.{part}", dtypes[part]) for part in _ARRAYS}
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
        return _gather(self._tokens, self._offsets, self._in_file(indices))

    def labels(self, indices: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the row and the node of every label of some documents in view."""
        return _gather(self._labels, self._label_offsets, self._in_file(indices))

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

    def _in_file(self, indices: Array) -> Array:
        return indices if self.order is None else self.order[indices]

    def _in_view(self, values: Array) -> Array:
        return values if self.order is None else values[self.order]


@dataclass(frozen=True)
class Batch:
    """Some documents as the model takes them, under the names of its arguments; targets are 0 or 1."""

    inputs: dict[str, Tensor]
    targets: Float32[Tensor, "batch nodes"]

    def __len__(self) -> int:
        return len(self.targets)

    def to(self, device: torch.device | str) -> Batch:
        """Return the batch on a device."""
        inputs = {name: tensor.to(device, non_blocking=True) for name, tensor in self.inputs.items()}
        return Batch(inputs, self.targets.to(device, non_blocking=True))


class PooledSplit:
    """A split that has been through a frozen encoder: a float32 vector a document, mapped into memory.

    It is pickled as the place of its files, so that it may go to the worker processes of a loader.

    Attributes:
        split: the documents.
        file: their vectors, a row each, in the order of the split.
    """

    def __init__(self, split: TokenisedSplit, file: Path) -> None:
        self.split, self.file = split, file
        self._vectors = _mapped(file, "float32").reshape(len(split), -1)

    def __len__(self) -> int:
        return len(self.split)

    def __reduce__(self) -> tuple[type[PooledSplit], tuple[TokenisedSplit, Path]]:
        return PooledSplit, (self.split, self.file)

    @property
    def lengths(self) -> Array:
        """Tokens of each document, so that batches are those of the split itself."""
        return self.split.lengths

    def labels(self, indices: Array) -> tuple[npt.NDArray[np.int64], Array]:
        """Return the row and the node of every label of some documents."""
        return self.split.labels(indices)

    def vectors(self, indices: Array) -> Float32[Tensor, "batch width"]:
        """Return the vectors of some documents."""
        return torch.from_numpy(self._vectors[indices])


class JoinedSplit:
    """The documents of one split, then those of another of the same kind.

    Attributes:
        parts: the two splits.
        lengths: tokens of each document.
    """

    def __init__(self, first: Split, second: Split) -> None:
        self.parts = first, second
        self.lengths: npt.NDArray[np.int64] = np.concatenate([first.lengths, second.lengths])

    def __len__(self) -> int:
        return len(self.lengths)

    def divide(self, indices: Array) -> list[tuple[Any, Array, Array]]:
        """Return, for each part that has some of the documents: the part, their rows, their indices in it."""
        first = indices < len(self.parts[0])
        rows = np.flatnonzero(first), np.flatnonzero(~first)
        starts = 0, len(self.parts[0])
        return [
            (part, chosen, indices[chosen] - start)
            for part, chosen, start in zip(self.parts, rows, starts, strict=True)
            if len(chosen)
        ]


Split = TokenisedSplit | PooledSplit | JoinedSplit


def tokenise(
    prepared: Prepared,
    tokenizer: transformers.PreTrainedTokenizerBase,
    *,
    max_length: int,
    cache_dir: Path,
    progress: StartTask = lambda description, total: lambda steps: None,
) -> dict[str, TokenisedSplit]:
    """Return the tokenised splits, and under `nodes` the texts of nodes, from the cache if it has them.

    All documents of all splits are read (and so verified) before the first is trained on. Of several
    processes that start at once, one tokenises and the others wait for it.

    Args:
        prepared: the dataset.
        tokenizer: a fast one; what an earlier call left in it (truncation, padding) plays no part.
        max_length: tokens that a document is cut to, special tokens included.
        cache_dir: the folder of all caches.
        progress: starts a task (description, total or None), returns how to advance it.

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
    }
    parts = [f"{split}.{part}" for split in (*SPLITS, NODES) for part in (*_ARRAYS, "ids")]
    entry = Entry(cache_dir / "tokens", made_from, [*parts, _DTYPES])
    if not entry.is_whole():
        with entry.locked():
            if not entry.is_whole():  # another process may have been faster
                with entry.renewed() as folder:
                    _write(folder, prepared, _cutting(tokenizer, max_length), progress)
    return {name: TokenisedSplit(entry.folder, name) for name in (*SPLITS, NODES)}


def node_documents(taxonomy: Taxonomy) -> Iterator[Document]:
    """Yield a document for each node, in taxonomy order: its text, labelled with it and its ancestors."""
    for node in taxonomy.nodes:
        yield Document(node.id, node.words, (node.id, *taxonomy.ancestors(node.id)))


def tokenizer_hash(tokenizer: transformers.PreTrainedTokenizerBase) -> str:
    """Return the sha256 of what a fast tokenizer does, wherever it lay and whatever it was last asked."""
    backend = _bare(tokenizer)
    return sha256_text(f"{backend.to_str()}\n{tokenizer.truncation_side}\n{backend.encode_special_tokens}")


def subsample(split: TokenisedSplit, fraction: float) -> TokenisedSplit:
    """Return a fixed part of a split: whatever the run's seed, and contained in every larger part.

    Raises:
        ConfigError: `fraction` is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"dataset_fraction={fraction}: write a number above 0 and up to 1")
    size = n_subsampled(len(split), fraction)
    if size == len(split):
        return split
    chosen = np.sort(_shuffled(len(split), _SUBSAMPLE_SEED)[:size])
    return TokenisedSplit(split.folder, split.name, split._in_file(chosen))


def training_steps(lengths: Array, *, batch_size: int, seed: int, epoch: int) -> list[npt.NDArray[np.int64]]:
    """Return the documents of each optimizer step of an epoch: each document once, similar lengths together.

    The shuffled documents are sorted by length within chunks of several steps, and the steps are shuffled; a
    chunk is at most an eighth of the epoch, so that a small dataset meets itself in new company every time.
    The last step has what is left over, drawn before any sorting; within a step the longest comes first.
    """
    order = _shuffled(len(lengths), seed, epoch)
    n_full = len(order) // batch_size
    full, rest = np.split(order, [n_full * batch_size])
    chunk = batch_size * max(1, min(_STEPS_SORTED_TOGETHER, n_full // 8))
    pieces = [_longest_first(lengths, full[start : start + chunk]) for start in range(0, len(full), chunk)]
    steps = np.concatenate([*pieces, full[:0]]).reshape(n_full, batch_size)
    shuffled = [steps[position] for position in _shuffled(n_full, seed, epoch, 1)]
    return [*shuffled, _longest_first(lengths, rest)] if len(rest) else shuffled


def evaluation_batches(lengths: Array, *, batch_size: int) -> list[npt.NDArray[np.int64]]:
    """Return all documents, the longest first, so that too large a batch shows at once."""
    order = _longest_first(lengths, np.arange(len(lengths)))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def collate(
    split: Split,
    indices: Array,
    *,
    n_nodes: int,
    pad_id: int,
    multiple_of: int = 1,
) -> Batch:
    """Pad some documents to the longest of them, and set a 1 for each of their labels.

    Padding goes to the right, whatever the tokenizer prefers: a document keeps its positions in every batch,
    also in models that count positions from the first column.

    Args:
        split, indices: which documents, as positions in the split.
        n_nodes: N, all nodes of the taxonomy.
        pad_id: the token to pad with.
        multiple_of: round the width up to it; 8 suits tensor cores, 1 a CPU.
    """
    if isinstance(split, JoinedSplit):
        parts = split.divide(indices)
    else:
        parts = [(split, np.arange(len(indices)), indices)]
    targets = torch.zeros(len(indices), n_nodes)
    for part, rows, within in parts:
        targets[rows] = targets_of(part, within, n_nodes)
    if isinstance(parts[0][0], PooledSplit):
        blocks = [part.vectors(within) for part, _, within in parts]
        pooled = torch.empty(len(indices), blocks[0].shape[1])
        for (_, rows, _), block in zip(parts, blocks, strict=True):
            pooled[rows] = block
        return Batch({"pooled": pooled}, targets)
    lengths = split.lengths[indices]
    longest = int(lengths.max(initial=1))
    width = longest + -longest % multiple_of
    mask = np.arange(width) < lengths[:, None]
    ids = np.full(mask.shape, pad_id, dtype=np.int64)
    for part, rows, within in parts:
        block = np.full((len(rows), width), pad_id, dtype=np.int64)
        block[mask[rows]] = part.tokens(within)[1]  # both run row by row
        ids[rows] = block
    inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}
    return Batch(inputs, targets)


def targets_of(
    split: TokenisedSplit | PooledSplit, indices: Array, n_nodes: int
) -> Float32[Tensor, "batch nodes"]:
    """Return a 1 for each label of some documents, else 0."""
    targets = np.zeros((len(indices), n_nodes), dtype=np.float32)
    targets[split.labels(indices)] = 1.0
    return torch.from_numpy(targets)


def _write(folder: Path, prepared: Prepared, backend: Any, progress: StartTask) -> None:
    """Tokenise all splits into `folder`, a thousand documents at a time."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # said aloud, or a later fork warns about it
    index = prepared.taxonomy.index
    highest = max(backend.get_vocab(with_added_tokens=True).values())
    dtypes = {
        "tokens": np.min_scalar_type(highest),
        "labels": np.min_scalar_type(len(index)),
        "offsets": np.dtype(np.int64),
        "label_offsets": np.dtype(np.int64),
    }
    for split in (*SPLITS, NODES):
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
            for documents in _portions(source):
                stopping.check()
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


def _mapped(path: Path, dtype: str) -> Array:
    """Map a flat array; an empty file cannot be mapped."""
    return np.memmap(path, dtype=dtype, mode="r") if path.stat().st_size else np.empty(0, dtype)


def _gather(values: Array, offsets: Array, documents: Array) -> tuple[npt.NDArray[np.int64], Array]:
    """Return, of ragged rows laid end to end, the chosen ones: the row and the value of each entry."""
    starts, lengths = offsets[documents], offsets[documents + 1] - offsets[documents]
    rows = np.repeat(np.arange(len(documents)), lengths)
    before = np.cumsum(lengths) - lengths  # entries of the rows above
    return rows, values[np.arange(len(rows)) + (starts - before)[rows]]


def _portions(documents: Iterator[Document]) -> Iterator[list[Document]]:
    """Yield the documents a thousand at a time, fewer of long ones, so that memory stays bounded."""
    portion: list[Document] = []
    characters = 0
    for document in documents:
        portion.append(document)
        characters += len(document.text)
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
    """Return how many documents the manifest promises, for a bar only."""
    try:
        promised = prepared.manifest["counts"][split]["documents"] if prepared.manifest else None
    except (KeyError, TypeError):
        return None
    return promised if isinstance(promised, int) else None


def _shuffled(count: int, *seed: int) -> npt.NDArray[np.int64]:
    return np.argsort(np.random.PCG64(seed).random_raw(count), kind="stable")


def _longest_first(lengths: Array, documents: Array) -> npt.NDArray[np.int64]:
    return documents[np.argsort(-lengths[documents], kind="stable")]
