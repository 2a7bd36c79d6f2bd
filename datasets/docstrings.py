"""Make a dataset of the docstrings of installed Python packages: real text on every machine, no download.

A document is the docstring of a module, class, function or method, cleaned by hblm/data/raw/docstrings.py.
Its labels are the first three segments of its module's path: package, sub-package or module, module
(`torch` > `torch.nn` > `torch.nn.modules`), fewer where the module lies higher. With the module's whole path
as the last level, 52 % of the documents had a label there (support 10), with three segments 68 %: deep
packages spread their docstrings over many small files, and the files of one topic (a model's `modeling_x`,
`configuration_x`) are what a reader would put together.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any, Literal, NamedTuple

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from hblm.config.converter_options import read_options
from hblm.console import Advance, StartTask
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.splits import assign_splits
from hblm.data.raw.docstrings import Extract, Source, Wanted, read_sources
from hblm.data.raw.parallel import in_order
from hblm.data.writer import Conversion
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Node, Taxonomy

LEVELS = 3


class Options(NamedTuple):
    """Options of a preparation.

    Attributes:
        packages: distribution names; documents come in this order.
        min_words: shortest document, counted after cleaning.
        min_support: documents that a node needs; below it they stop at its parent.
        max_documents: size of a random sample of the documents, drawn before support is counted.
        seed: of the sample and of the split.
        near_duplicates: Jaccard similarity of word shingles from which the later document is dropped.
        names: remove, or keep the words that are segments of the module's own path in a text; keep is for
            measuring what the names of labels are worth. Dotted names always go.
    """

    packages: list[str]
    min_words: int = 15
    min_support: int = 10
    max_documents: int | None = None
    seed: int = 13
    near_duplicates: float = 0.8
    names: Literal["remove", "keep"] = "remove"


def convert(raw: Path | None, options: Mapping[str, Any], scratch: Path, progress: StartTask) -> Conversion:
    """Read the installed packages' docstrings.

    Raises:
        ConfigError: an option that is unknown or out of range.
        DataError: none of the packages is installed, or no document is left.
    """
    chosen = _checked(options)
    sources, read, warnings = find_sources(chosen.packages)
    if not sources:
        raise DataError(f"packages={chosen.packages}: none of them is installed with Python files")
    counts: Counter[str] = Counter()
    buffer = DocumentBuffer(scratch)
    batches = _read(sources, chosen, progress("reading docstrings", len(sources)))
    _gather(batches, buffer, chosen.near_duplicates, counts)
    sampled = _sample(buffer.ids, chosen, counts)
    nodes, labels = _supported(buffer.labels, sampled, chosen.min_support, counts)
    if not nodes:
        raise DataError(
            f"min_support={chosen.min_support}: none of the packages has that many docstrings; "
            f"{len(sampled)} documents in all"
        )
    written = [place for place, path in enumerate(labels) if path]
    drawn = assign_splits([labels[place] for place in written], seed=chosen.seed)
    splits = [""] * len(buffer)  # a document left out
    for place, split in zip(written, drawn, strict=True):
        splits[place] = split
    return Conversion(
        taxonomy=Taxonomy(
            Node(node, node.rpartition(".")[2], node.rpartition(".")[0] or None) for node in nodes
        ),
        splits=buffer.documents(labels, splits),
        options=chosen._asdict(),
        sources=read,
        counts=dict(sorted(counts.items())),
        warnings=warnings,
        licence="Each text is its package's and under its package's licence, named under sources.",
    )


def _checked(given: Mapping[str, Any]) -> Options:
    chosen = read_options(Options, given, "docstrings")
    whole = {"min_words": 1, "min_support": 1, "seed": 0, "max_documents": 1}
    for key, least in whole.items():
        value = getattr(chosen, key)
        if value is not None and value < least:
            raise ConfigError(f"dataset.prepare.{key}={value}: expected a whole number from {least}")
    if not 0 < chosen.near_duplicates <= 1:
        raise ConfigError(
            f"dataset.prepare.near_duplicates={chosen.near_duplicates}: expected a number in (0, 1]"
        )
    return chosen


# --- which files


# Not the package's own prose: tests and their tools, copies of other packages (the last ones are in scipy).
_SKIPPED = re.compile(
    "_*(?:tests?|testing|test_utils|conftest|vendor|vendored|extern|externals|third_?party"
    "|array_api_compat|array_api_extra|cobyqa|pyprima|uarray)_*"
)


def find_sources(packages: Iterable[str]) -> tuple[list[Source], list[dict[str, Any]], list[str]]:
    """Return the files of the packages, what is known of each package, and warnings."""
    sources: dict[str, Source] = {}  # by module: where `a.py` and `a/` both exist, one of them counts
    read: list[dict[str, Any]] = []
    warnings: list[str] = []
    for name in dict.fromkeys(packages):
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            warnings.append(f"package {name} is not installed: its docstrings are missing")
            continue
        modules = _modules(distribution)
        if not modules:
            warnings.append(f"package {name} has no Python files: nothing to read")
        for module in sorted(modules):
            sources.setdefault(module, Source(modules[module], module, name))
        read.append({"name": name, "version": distribution.version, "licence": _licence(distribution)})
    return list(sources.values()), read, warnings


def _modules(distribution: importlib.metadata.Distribution) -> dict[str, Path]:
    """Return module -> file from the list that the installer left, else from the import folders."""
    modules = _by_module((PurePath(file), Path(str(file.locate()))) for file in distribution.files or [])
    if modules:
        return modules
    names = (distribution.read_text("top_level.txt") or distribution.name.replace("-", "_")).split()
    for name in names:  # installed in place: the list names no file of the package
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is not None and spec.submodule_search_locations:
            folders = [Path(folder) for folder in spec.submodule_search_locations]
            files = [(folder.parent, file) for folder in folders for file in folder.rglob("*.py")]
        else:
            files = [(Path(spec.origin).parent, Path(spec.origin))] if spec and spec.origin else []
        modules |= _by_module((file.relative_to(above), file) for above, file in sorted(files))
    return modules


def _by_module(files: Iterable[tuple[PurePath, Path]]) -> dict[str, Path]:
    modules = {}
    for relative, path in files:
        if relative.suffix == ".py":
            parts = (*relative.parts[:-1], *({relative.stem} - {"__init__"}))
            named = parts and all(part.isidentifier() for part in parts)
            if named and not any(_SKIPPED.fullmatch(part) for part in parts) and path.is_file():
                modules[".".join(parts)] = path
    return modules


def _licence(distribution: importlib.metadata.Distribution) -> str:
    """Return the licence in the metadata of a package, in a line."""
    values = distribution.metadata.get_all
    named = [text.rpartition(" :: ")[2] for text in values("Classifier") or [] if text.startswith("License")]
    whole = (values("License") or [""])[0].strip()  # some put the full text there
    return (
        (values("License-Expression") or [""])[0] or ", ".join(named) or whole.split("\n")[0] or "not stated"
    )


# --- reading, in order, on all cores


def _read(
    sources: Sequence[Source], chosen: Options, advance: Advance
) -> Iterator[tuple[list[Extract], Counter[str]]]:
    """Yield what `read_sources` gives for batch after batch of files, in their order."""
    batches = [sources[start : start + 16] for start in range(0, len(sources), 16)]
    wanted = Wanted(chosen.min_words, keep_names=chosen.names == "keep")
    for batch, result in zip(batches, in_order(read_sources, wanted, batches), strict=True):
        yield result
        advance(len(batch))


def _gather(
    batches: Iterable[tuple[list[Extract], Counter[str]]],
    buffer: DocumentBuffer,
    near_duplicates: float,
    counts: Counter[str],
) -> None:
    """Add the documents without an earlier near duplicate to the buffer, with their paths as labels."""
    unlike = NearDuplicateFilter(near_duplicates)
    for extracts, dropped in batches:
        counts.update(dropped)
        fresh = unlike.add([extract.shingles for extract in extracts])
        counts["near_duplicates"] += len(extracts) - sum(fresh)
        for extract, kept in zip(extracts, fresh, strict=True):
            if kept:
                buffer.add(
                    extract.id,
                    extract.text,
                    label_path(extract.module),
                    "",
                    "docstring ",
                    len(buffer),
                )


def label_path(module: str) -> tuple[str, ...]:
    """Return the node ids of a module's documents, the package first."""
    segments = module.split(".")
    return tuple(".".join(segments[:depth]) for depth in range(1, min(len(segments), LEVELS) + 1))


class NearDuplicateFilter:
    """Filter of near duplicates: MinHash proposes similar earlier sets, which are then compared exactly.

    The sets are kept in memory, a few hundred bytes per document. So no pair below the threshold is dropped;
    of the pairs at the threshold, MinHash misses less than one in a hundred.
    """

    permutations = 64

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        rows = next(
            (r for r in range(32, 1, -1) if (1 - threshold**r) ** (self.permutations // r) <= 0.01), 1
        )
        self.index = MinHashLSH(num_perm=self.permutations, params=(self.permutations // rows, rows))
        self.sets: list[NDArray[np.uint32]] = []

    def add(self, sets: Sequence[NDArray[np.uint32]]) -> list[bool]:
        """Return for each set whether it is new; later sets are compared with the new ones."""
        sketches = MinHash.bulk(
            (values.tolist() for values in sets), num_perm=self.permutations, hashfunc=int
        )
        are_new = []
        for values, sketch in zip(sets, sketches, strict=True):
            fresh = not any(self._alike(values, self.sets[key]) for key in self.index.query(sketch))
            if fresh:
                self.index.insert(len(self.sets), sketch, check_duplication=False)
                self.sets.append(values)
            are_new.append(fresh)
        return are_new

    def _alike(self, one: NDArray[np.uint32], other: NDArray[np.uint32]) -> bool:
        common = len(np.intersect1d(one, other, assume_unique=True))
        return common / (len(one) + len(other) - common) >= self.threshold


# --- which documents, which labels


def _sample(ids: Sequence[str], chosen: Options, counts: Counter[str]) -> set[int]:
    """Return the places of a random sample; a smaller sample is contained in a larger one."""
    if chosen.max_documents is None or len(ids) <= chosen.max_documents:
        return set(range(len(ids)))
    counts["documents_not_sampled"] = len(ids) - chosen.max_documents
    ranks = [hashlib.sha256(f"{chosen.seed}:{identity}".encode()).digest() for identity in ids]
    return set(sorted(range(len(ids)), key=ranks.__getitem__)[: chosen.max_documents])


def _supported(
    paths: Sequence[tuple[str, ...]], sampled: set[int], min_support: int, counts: Counter[str]
) -> tuple[list[str], list[tuple[str, ...]]]:
    """Drop the nodes below `min_support`; return the others, sorted, and the path left to each document."""
    support = Counter(node for place in sampled for node in paths[place])
    nodes = sorted(node for node, count in support.items() if count >= min_support)
    counts["nodes_below_min_support"] = len(support) - len(nodes)
    labels: list[tuple[str, ...]] = []
    for place, path in enumerate(paths):
        # A node has no more documents than its parent, so that what is left is the path's beginning.
        left = tuple(node for node in path if support[node] >= min_support) if place in sampled else ()
        labels.append(left)
        counts["documents_of_small_packages"] += place in sampled and not left
        counts["documents_cut_to_a_parent"] += 0 < len(left) < len(path)
    return nodes, labels


if __name__ == "__main__":
    from hblm.prepare import main_for

    main_for("docstrings")
