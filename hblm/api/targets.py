"""Labels of documents as scikit-learn's users have them: `y` to nodes of a tree, and predictions back to it."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Node, Taxonomy, read_taxonomy

Array = npt.NDArray[Any]
Path_ = tuple[Hashable, ...]  # the names of a path, root first; of a node: up to it

_BETWEEN = " > "
MATRIX, LEVELS, ONE, SEVERAL = "matrix", "levels", "one", "several"


@dataclass(frozen=True)
class Read:
    """`y`, read.

    Attributes:
        kind: MATRIX of 0 and 1; LEVELS, an array with a name for each level; ONE path a document, or SEVERAL.
        path: what a path is: str, tuple, list, or label (a name by itself).
        documents: the paths of each document; a path may be the beginning of another one.
        columns: of a matrix: the path of each column.
    """

    kind: str
    path: str
    documents: list[list[Path_]]
    columns: tuple[Path_, ...] = ()

    def closed(self) -> list[set[Path_]]:
        """Return each document's nodes as paths from the root, ancestors included."""
        return [{path[: at + 1] for path in paths for at in range(len(path))} for paths in self.documents]


@dataclass(frozen=True)
class Reader:
    """How `y` is read.

    Attributes:
        separator: between the names of a path that is a text; None: a text is a name.
        lists: what a list of names is, for a document: one path, or several labels.
        tree: the taxonomy whose nodes labels and columns are; None: the paths are the tree.
    """

    separator: str | None = None
    lists: str = "path"
    tree: Taxonomy | None = None

    def read(self, y: Any) -> Read:
        """Return `y`, read.

        Raises:
            DataError: it is in none of the forms, or a document has a path with a fault; with its position.
        """
        if hasattr(y, "toarray"):  # sparse
            y = y.toarray()
        names = list(y.columns) if hasattr(y, "columns") else None
        values = y if isinstance(y, (list, tuple)) else np.asarray(y)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            is_matrix = values.dtype.kind in "biuf"
            return self._matrix(values, names) if is_matrix else self._levels(values)
        if isinstance(values, np.ndarray) and values.ndim != 1:
            raise DataError(f"y has {values.ndim} dimensions; expected paths of each document, or a matrix")
        return self._documents(list(values))

    def _matrix(self, values: Array, names: Sequence[Any] | None) -> Read:
        if not np.isin(values, (0, 1)).all():
            raise DataError("y is an array of two dimensions with other values than 0 and 1")
        if self.tree is not None:
            columns = tuple(_path_of(self.tree, at) for at in range(len(self.tree)))
        else:
            columns = tuple((name,) for name in (range(values.shape[1]) if names is None else names))
        if len(columns) != values.shape[1]:
            raise DataError(
                f"y has {values.shape[1]} columns, and the taxonomy {len(columns)} nodes; expected a column "
                "for each node, in taxonomy order"
            )
        documents = [[columns[at] for at in np.flatnonzero(row)] for row in values]
        return Read(MATRIX, "label", documents, columns)

    def _levels(self, values: Array) -> Read:
        documents = []
        for at, row in enumerate(values.tolist()):
            names = [name for name in row if not _is_missing(name)]
            if names != row[: len(names)] or not names:
                raise DataError(f"y[{at}] = {row!r:.100}: a name is missing above another one, or all are")
            documents.append([tuple(names)])
        return Read(LEVELS, "list", documents)

    def _documents(self, values: Sequence[Any]) -> Read:
        documents, forms, several = [], set(), False
        for at, value in enumerate(values):
            value = value.tolist() if isinstance(value, np.ndarray) else value
            paths, form, many = self._paths(value, f"y[{at}]")
            documents.append(paths)
            forms.add(form)
            several |= many
        if forms == {"list"} and not several:
            _require_tree(documents)
        form = next((each for each in ("tuple", "list", "str") if each in forms), "label")
        return Read(SEVERAL if several else ONE, form, documents)

    def _paths(self, value: Any, place: str) -> tuple[list[Path_], str, bool]:
        """Return a document's paths, the form of a path, and whether there may be several."""
        if not isinstance(value, (list, tuple, set, frozenset)):
            return [self._path(value, place)], "str" if self._is_text(value) else "label", False
        items = list(value)
        if not items:
            raise DataError(f"{place} has no path; a document needs at least one")
        nested = any(isinstance(item, (list, tuple)) for item in items)
        if nested:
            form = "list" if all(isinstance(item, list) for item in items) else "tuple"
            return [self._path(item, place) for item in items], form, True
        if isinstance(value, tuple) or (isinstance(value, list) and self._is_a_path(items)):
            return [self._path(tuple(items), place)], type(value).__name__, False
        return (
            [self._path(item, place) for item in items],
            "str" if self._is_text(items[0]) else "label",
            True,
        )

    def _is_a_path(self, names: Sequence[Any]) -> bool:
        return self.separator is None and self.tree is None and self.lists == "path"

    def _is_text(self, value: Any) -> bool:
        return self.separator is not None and isinstance(value, str)

    def _path(self, value: Any, place: str) -> Path_:
        """Return one path."""
        if isinstance(value, (list, tuple)):
            path: Path_ = tuple(_name(name, place) for name in value)
        elif self.tree is not None:
            if value not in self.tree.index:
                known = self.tree.suggest(str(value))
                raise DataError(f"{place}: {value!r:.60} is not a node of the taxonomy{known}")
            return _path_of(self.tree, self.tree.index[value])
        elif self._is_text(value):
            path = tuple(_name(name.strip(), place) for name in value.split(self.separator))
        else:
            path = (_name(value, place),)
        if not path:
            raise DataError(f"{place} has an empty path")
        return path


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
    """

    taxonomy: Taxonomy
    paths: tuple[Path_, ...]
    kind: str
    path: str
    ends: Array
    separator: str | None
    n_levels: int

    @property
    def index(self) -> dict[Path_, int]:
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

    def _as_class(self, path: Path_) -> Any:
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
            return matrix
        parents = self.taxonomy.parents
        ends = [sorted(nodes - {parents[node] for node in nodes}) for nodes in chosen]
        if self.kind == LEVELS:
            levels = np.full((len(chosen), self.n_levels), "", dtype=object)
            for row, (end,) in enumerate(ends):
                levels[row, : len(self.paths[end])] = self.paths[end]
            return levels
        if self.kind == ONE:
            given = [self._as_given(self.paths[end]) for (end,) in ends]
            return np.array(given) if self.path in ("label", "str") else given
        shown = map(sorted, chosen) if self.path == "label" else ends
        return [[self._as_given(self.paths[at]) for at in each] for each in shown]

    def _as_given(self, path: Path_) -> Any:
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
        paths = tuple(_path_of(taxonomy, at) for at in range(len(taxonomy)))
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
        n_levels=max((len(path) for paths in first.documents for path in paths), default=0),
    )


def _tree_of(given: Sequence[Path_]) -> tuple[Taxonomy, tuple[Path_, ...]]:
    """Return the forest of nodes, given as paths in order, and the path of each in taxonomy order."""
    ids: dict[Path_, str] = {}
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


def _order_of(given: Iterable[Path_]) -> Callable[[Path_], Any]:
    """Return the key to sort paths by: numbers by value if all names are numbers, else names as texts."""
    numbers = all(isinstance(name, (int, float)) for path in given for name in path)
    return (lambda path: path) if numbers else (lambda path: tuple(map(str, path)))


def _path_of(taxonomy: Taxonomy, at: int) -> Path_:
    """Return the ids from the root to a node."""
    identity = taxonomy.nodes[at].id
    return (*reversed(taxonomy.ancestors(identity)), identity)


def _name(value: Any, place: str) -> Hashable:
    """Return the name of a node.

    Raises:
        DataError: it is missing, empty, or neither a text nor a number.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if _is_missing(value) or not isinstance(value, (str, int, float, bool)):
        what = "missing or empty" if _is_missing(value) else f"{value!r:.60}, a {type(value).__name__}"
        raise DataError(f"{place}: a name of a path is {what}; expected a text or a number")
    return str(value) if isinstance(value, str) else value


def _is_missing(value: Any) -> bool:
    return value is None or value == "" or str(value) in ("nan", "<NA>")


def _require_tree(documents: Sequence[Sequence[Path_]]) -> None:
    """Refuse lists of names that are labels side by side: a name has several depths.

    Raises:
        ConfigError: the name, and how labels and paths are written.
    """
    depths: dict[Hashable, tuple[int, int]] = {}
    for at, ((*path,),) in enumerate(documents):
        for depth, name in enumerate(path):
            first = depths.setdefault(name, (depth, at))
            if first[0] != depth:
                raise ConfigError(
                    f"y has lists of names, which are paths, root first; but {name!r:.60} is name "
                    f"{first[0] + 1} of y[{first[1]}] and name {depth + 1} of y[{at}]; write lists='labels' if "
                    "they are labels, or a tuple for each path"
                )


def taxonomy_of(given: Any) -> Taxonomy | None:
    """Return a taxonomy that is given as an object, a taxonomy.json, or the folder of one.

    Raises:
        ConfigError: it is none of these.
        DataError: the file cannot be read.
    """
    if given is None or isinstance(given, Taxonomy):
        return given
    if not isinstance(given, (str, os.PathLike)):
        raise ConfigError(
            f"taxonomy={given!r:.60} is a {type(given).__name__}; expected a Taxonomy or a file"
        )
    path = Path(given).expanduser()
    return read_taxonomy(path / "taxonomy.json" if path.is_dir() else path)
