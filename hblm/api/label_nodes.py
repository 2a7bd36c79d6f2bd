"""The tree that the labels of an estimator describe, and predicted nodes in the form of its labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hblm.api.targets import LEVELS, MATRIX, ONE, SEVERAL, Array, NamePath, Read, Reader, path_of
from hblm.taxonomy import Node, Taxonomy

_BETWEEN = " > "


@dataclass(frozen=True)
class Nodes:
    """The nodes of the tree that `y` describes, and the form of predictions.

    Attributes:
        taxonomy: the label forest.
        paths: the path of each node, in taxonomy order.
        kind, path: as in Read.
        ends: whether each node ends a path of a training document; a leaf does.
        separator: as in Reader.
        n_levels: of LEVELS: the columns of `y`.
        columns, header: of MATRIX: as in Read.
    """

    taxonomy: Taxonomy
    paths: tuple[NamePath, ...]
    kind: str
    path: str
    ends: Array
    separator: str | None
    n_levels: int
    columns: tuple[NamePath, ...]
    header: tuple[Any, ...] | None

    @property
    def index(self) -> dict[NamePath, int]:
        """The position of each node by its path."""
        return {path: at for at, path in enumerate(self.paths)}

    def classes(self) -> Array:
        """Return each node in the form of `y`: a label, or the path to it as a text or tuple."""
        values = [self._as_class(path) for path in self.paths]
        if all(not isinstance(value, (str, tuple)) for value in values):
            return np.array(values)
        classes = np.empty(len(values), dtype=object)
        classes[:] = values
        return classes

    def _as_class(self, path: NamePath) -> Any:
        if self.path == "str":
            return str(self.separator).join(map(str, path))
        return path[-1] if self.path == "label" else path

    def chosen(self, scores: Array, predicted: Array, threshold: float) -> list[set[int]]:
        """Return the nodes that are predicted for each document.

        With one path a document it is the path of the best root and, level by level, its best child; it ends
        at a node that ends a training document's path, where no child reaches the threshold.
        """
        if self.kind in (MATRIX, SEVERAL):
            return [set(map(int, np.flatnonzero(row))) for row in predicted]
        below: dict[int, list[int]] = {}
        for at, parent in enumerate(self.taxonomy.parents):
            below.setdefault(parent, []).append(at)
        return [self._descent(row, below, threshold) for row in scores]

    def _descent(self, scores: Array, below: Mapping[int, list[int]], threshold: float) -> set[int]:
        at, path = -1, set()
        while children := below.get(at, []):
            best = max(children, key=scores.__getitem__)
            if at >= 0 and self.ends[at] and scores[best] < threshold:
                break
            at = best
            path.add(at)
        return path

    def as_given(self, chosen: Sequence[set[int]]) -> Any:
        """Return predicted nodes of each document in the form of `y`."""
        if self.kind == MATRIX:
            matrix = np.zeros((len(chosen), len(self.paths)), dtype=np.int64)
            for row, nodes in enumerate(chosen):
                matrix[row, [*nodes]] = 1
            return self._with_header(matrix[:, [self.index[path] for path in self.columns]])
        parents = self.taxonomy.parents
        ends = [sorted(nodes - {parents[node] for node in nodes}) for nodes in chosen]
        if self.kind == LEVELS:
            levels = np.full((len(chosen), self.n_levels), "", dtype=object)
            for row, (end,) in enumerate(ends):
                levels[row, : len(self.paths[end])] = self.paths[end]
            return levels
        if self.kind == ONE:
            given = [self._as_given(self.paths[end]) for (end,) in ends]
            if self.path not in ("label", "str"):
                return given
            mixed = len({isinstance(path[-1], str) for path in self.paths}) > 1
            return np.array(given, dtype=object if mixed else None)  # numpy makes texts of mixed labels
        shown = map(sorted, chosen) if self.path == "label" else ends
        return [[self._as_given(self.paths[at]) for at in each] for each in shown]

    def _with_header(self, matrix: Array) -> Any:
        if self.header is None:
            return matrix
        import pandas  # there where `y` was a DataFrame; others do not need it

        return pandas.DataFrame(matrix, columns=[*self.header])

    def _as_given(self, path: NamePath) -> Any:
        return list(path) if self.path == "list" else self._as_class(path)


def nodes_of(reads: Sequence[Read], reader: Reader) -> Nodes:
    """Return the nodes of the trees of all `y`, of which the first is that of training."""
    first = reads[0]
    if first.kind == MATRIX and reader.tree is None:
        taxonomy, paths = _tree_of(first.columns)
    elif reader.tree is None:
        given = {node for read in reads for nodes in read.closed() for node in nodes}
        taxonomy, paths = _tree_of(sorted(given, key=_order_of(given)))
    else:
        taxonomy = reader.tree
        paths = tuple(path_of(taxonomy, at) for at in range(len(taxonomy)))
    index = {path: at for at, path in enumerate(paths)}
    ends = np.isin(np.arange(len(paths)), taxonomy.parents, invert=True)
    for nodes in first.documents:
        ends[[index[path] for path in nodes]] = True
    return Nodes(
        taxonomy=taxonomy,
        paths=paths,
        kind=first.kind,
        path=first.path,
        ends=ends,
        separator=reader.separator,
        n_levels=max(
            first.n_levels, *(len(path) for read in reads for paths in read.documents for path in paths), 0
        ),
        columns=first.columns,
        header=first.header,
    )


def _tree_of(given: Sequence[NamePath]) -> tuple[Taxonomy, tuple[NamePath, ...]]:
    """Return the forest of nodes, given as paths in order, and the path of each in taxonomy order."""
    ids: dict[NamePath, str] = {}
    taken: set[str] = set()
    nodes = []
    for path in given:
        identity = _BETWEEN.join(map(str, path))
        while identity in taken:  # a name holds the separator
            identity += "'"
        taken.add(identity)
        ids[path] = identity
        nodes.append(Node(identity, str(path[-1]), ids[path[:-1]] if len(path) > 1 else None))
    taxonomy = Taxonomy(nodes)
    by_id = {identity: path for path, identity in ids.items()}
    return taxonomy, tuple(by_id[node.id] for node in taxonomy.nodes)


def _order_of(given: Iterable[NamePath]) -> Callable[[NamePath], Any]:
    """Return the key to sort paths by: numbers by value if all names are numbers, else names as texts."""
    numbers = all(isinstance(name, (int, float)) for path in given for name in path)
    return (lambda path: path) if numbers else (lambda path: tuple(map(str, path)))
