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
    """

    kind: str
    path: str
    documents: list[list[NamePath]]
    columns: tuple[NamePath, ...] = ()

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
            columns = tuple(path_of(self.tree, at) for at in range(len(self.tree)))
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
        elif self.tree is not None:
            if value not in self.tree.index:
                known = self.tree.suggest(str(value))
                raise DataError(f"{place}: {value!r:.60} is not a node of the taxonomy{known}")
            return path_of(self.tree, self.tree.index[value])
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
