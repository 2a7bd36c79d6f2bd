"""Labels of documents as scikit-learn's users have them: `y` in its forms, read as paths."""

from __future__ import annotations

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Taxonomy, read_taxonomy

Array = npt.NDArray[Any]
NamePath = tuple[Hashable, ...]  # the names of a path, root first; of a node: up to it

MATRIX, LEVELS, ONE, SEVERAL = "matrix", "levels", "one", "several"


@dataclass(frozen=True)
class Read:
    """`y`, read.

    Attributes:
        kind: MATRIX of 0 and 1; LEVELS, an array with a name for each level; ONE path a document, or SEVERAL.
        path: what a path is: str, tuple, list, or label (a name by itself).
        documents: the paths of each document; a path may be the beginning of another one.
        columns: of a matrix: the path of each column.
        header: of a matrix that is a DataFrame: the names of the columns as they are; None for others.
        n_levels: of LEVELS: the number of columns.
    """

    kind: str
    path: str
    documents: list[list[NamePath]]
    columns: tuple[NamePath, ...] = ()
    header: tuple[Any, ...] | None = None
    n_levels: int = 0

    def closed(self) -> list[set[NamePath]]:
        """Return each document's nodes as paths from the root, ancestors included."""
        return [{path[: at + 1] for path in paths for at in range(len(path))} for paths in self.documents]


@dataclass(frozen=True)
class Reader:
    """How `y` is read.

    Attributes:
        separator: between the names of a path that is a text; None: a text is a name.
        lists: what a list of names is, for a document: one path, or several labels.
        tree: the taxonomy whose nodes labels and columns are; None: the paths are the tree.
        columns: those of the matrix of training, which another matrix has too; () for training itself.
    """

    separator: str | None = None
    lists: str = "path"
    tree: Taxonomy | None = None
    columns: tuple[NamePath, ...] = ()

    def read(self, y: Any) -> Read:
        """Return `y`, read.

        Raises:
            DataError: it is in none of the forms, or a document has a path with a fault; with its position.
        """
        if hasattr(y, "toarray"):  # sparse
            y = y.toarray()
        values = y if isinstance(y, (list, tuple)) else np.asarray(y)
        if isinstance(values, np.ndarray) and values.ndim == 2:
            return self._matrix(values, y) if _is_matrix(values, y) else self._levels(values)
        if isinstance(values, np.ndarray) and values.ndim != 1:
            raise DataError(f"y has {values.ndim} dimensions; expected paths of each document, or a matrix")
        return self._documents(list(values))

    def _matrix(self, values: Array, y: Any) -> Read:
        if values.dtype == object:
            cells = [np.nan if _is_missing(cell) else cell for cell in values.flat]
            values = np.array(cells, dtype=float).reshape(values.shape)
        if not np.isin(values, (0, 1)).all():
            raise DataError("y is an array of two dimensions with other values than 0 and 1")
        header = tuple(y.columns) if hasattr(y, "columns") else None
        columns = self._columns(values.shape[1], header)
        documents = [[columns[at] for at in np.flatnonzero(row)] for row in values]
        return Read(MATRIX, "label", documents, columns, header if hasattr(y, "iloc") else None)

    def _columns(self, n: int, header: Sequence[Any] | None) -> tuple[NamePath, ...]:
        """Return the path of each of `n` columns: by its name, or by its position.

        Raises:
            DataError: the columns are not those of the taxonomy, or of training, or a name is there twice.
        """
        if header is not None and len({*header}) < n:
            twice = next(name for at, name in enumerate(header) if name in header[:at])
            raise DataError(f"y has the column {twice!r:.60} twice")
        if self.tree is None and not self.columns:
            return tuple((name,) for name in (range(n) if header is None else header))
        if self.tree is None:
            expected, of = self.columns, f"that of training {len(self.columns)}"
        else:
            expected = tuple(path_of(self.tree, at) for at in range(len(self.tree)))
            of = f"the taxonomy {len(expected)} nodes"
        if n != len(expected):
            raise DataError(f"y has {n} columns, and {of}; expected a column for each node, in its order")
        by_name = {path[-1]: path for path in expected}
        if header is not None and {*header} == by_name.keys():
            return tuple(by_name[name] for name in header)
        others = [name for name in header or () if isinstance(name, str) and name not in by_name]
        if others and self.tree is None and any(isinstance(name, str) for name in by_name):
            raise DataError(f"y has columns that training did not have: {', '.join(others):.200}")
        return expected

    def _levels(self, values: Array) -> Read:
        documents = []
        for at, row in enumerate(values.tolist()):
            names = [name for name in row if not _is_missing(name)]
            if names != row[: len(names)] or not names:
                raise DataError(f"y[{at}] = {row!r:.100}: a name is missing above another one, or all are")
            documents.append([self._path(names, f"y[{at}]")])
        return Read(LEVELS, "list", documents, n_levels=values.shape[1])

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

    def _paths(self, value: Any, place: str) -> tuple[list[NamePath], str, bool]:
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

    def _path(self, value: Any, place: str) -> NamePath:
        """Return one path."""
        if isinstance(value, (list, tuple)):
            path: NamePath = tuple(_name(name, place) for name in value)
            if path and self.tree is not None:
                _require_path(self.tree, path, place)
        elif self.tree is not None:
            return _path_to(self.tree, _name(value, place), place)
        elif self._is_text(value):
            path = tuple(_name(name.strip(), place) for name in value.split(self.separator))
        else:
            path = (_name(value, place),)
        if not path:
            raise DataError(f"{place} has an empty path")
        return path


def path_of(taxonomy: Taxonomy, at: int) -> NamePath:
    """Return the ids from the root to a node."""
    identity = taxonomy.nodes[at].id
    return (*reversed(taxonomy.ancestors(identity)), identity)


def _path_to(taxonomy: Taxonomy, identity: Any, place: str) -> NamePath:
    """Return the ids from the root to a node.

    Raises:
        DataError: the taxonomy has no such node.
    """
    if identity not in taxonomy.index:
        known = taxonomy.suggest(str(identity))
        raise DataError(f"{place}: {identity!r:.60} is not a node of the taxonomy{known}")
    return path_of(taxonomy, taxonomy.index[identity])


def _require_path(taxonomy: Taxonomy, path: NamePath, place: str) -> None:
    """Refuse a path that is not the ids from a root to a node.

    Raises:
        DataError: a name is no node, or the path to the last one is another.
    """
    right = [_path_to(taxonomy, name, place) for name in path][-1]
    if path != right:
        raise DataError(f"{place}: {path!r:.100} is not a path of the taxonomy; that is {right!r:.100}")


def _is_matrix(values: Array, y: Any) -> bool:
    """Return whether an array of two dimensions holds numbers; a DataFrame may have several types of them."""
    types = [*y.dtypes] if hasattr(y, "dtypes") else [values.dtype]
    if types and all(getattr(each, "kind", "O") in "biuf" for each in types):
        return True
    if values.dtype != object or not values.size:
        return False
    return all(isinstance(cell, (int, float)) and cell in (0, 1) for cell in values.flat)


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


def _require_tree(documents: Sequence[Sequence[NamePath]]) -> None:
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
                    f"{first[0] + 1} of y[{first[1]}] and name {depth + 1} of y[{at}]; write lists='labels' "
                    "if they are labels, or a tuple for each path"
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
