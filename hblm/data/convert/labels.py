"""Labels of documents as nodes of a tree: separators, paths and lists, a given tree or an inferred one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import NamedTuple

from hblm.data.convert.cells import WAYS_TO_NAME, are_marks, path_in
from hblm.data.convert.columns import Columns
from hblm.data.convert.document_buffer import DocumentBuffer
from hblm.data.convert.label_trees import NodeFinder, Path, ids_of, infer_tree, without_root
from hblm.data.convert.quality import merged
from hblm.data.convert.separators import NONE, Separators, choose_separators
from hblm.errors import ConfigError, DataError
from hblm.taxonomy import Taxonomy


class LabelOptions(NamedTuple):
    """Options of the labels, as given under dataset.prepare.

    Attributes:
        levels: columns with a name for each level; None: detected.
        list: path or labels; None: a list is either.
        separator: between the names of a path; None: to be detected; none: labels are names.
        label_separator: between the labels of a cell; None: to be detected; none: one label per cell.
        label_names: names of multi-hot labels; none: 0 and 1 are labels.
        merge_labels: merge the spelling variants of a name.
    """

    levels: Sequence[str] | None
    list: str | None
    separator: str | None
    label_separator: str | None
    label_names: str | Sequence[str] | None
    merge_labels: bool


Cells = tuple[str, ...]  # the label cells of a document
Nodes = tuple[str, ...]  # the node ids of a document


def resolve_labels(
    buffer: DocumentBuffer,
    columns: Columns,
    names: Sequence[str],
    options: LabelOptions,
    tree: Taxonomy | None,
    counts: Counter[str],
) -> tuple[Taxonomy, list[Nodes], Separators]:
    """Return the taxonomy, the node ids of each document, and the separators.

    Args:
        buffer: the documents with their label cells.
        columns: the columns of the labels.
        names: of the positions of multi-hot labels; empty: the labels are not multi-hot.
        options: of the labels.
        tree: a given taxonomy; None: the labels make the tree.
        counts: of repairs, by reason.

    Raises:
        ConfigError: the labels are ambiguous, or are not paths and there is no tree.
        DataError: a label that is empty or not in the tree, with its place.
    """
    first: dict[Cells, int] = {}  # distinct cells -> the first document with them
    for at, cells in enumerate(buffer.labels):
        first.setdefault(cells, at)
    for name in names:
        first.setdefault((name,), -1)  # each position is a node, also without a document

    def place(cells: Cells) -> str:
        return buffer.place(first[cells]) if first[cells] >= 0 else "dataset.prepare.label_names"

    finder = NodeFinder(tree) if tree else None
    separators = _separators(first, columns, names, options, finder)
    paths = {cells: _paths_of(cells, columns, options, separators, finder) for cells in first}
    if columns.levels and options.levels is None:
        _require_levels(columns.levels, {path for each in paths.values() for path in each})
    _require_names_in(paths, separators, place)
    if finder:
        if options.merge_labels:
            raise ConfigError(
                "dataset.prepare.merge_labels=true: the taxonomy file names the nodes; edit it there"
            )
        nodes = {
            cells: tuple(dict.fromkeys(node for path in each for node in finder.find(path, place(cells))))
            for cells, each in paths.items()
        }
        return finder.taxonomy, [nodes[cells] for cells in buffer.labels], separators
    has_paths = bool(columns.levels) or _any_path(first)
    if not has_paths and separators.path is None and options.separator != NONE:
        _refuse_flat(first)
    if options.merge_labels:
        paths = _merged_spellings(paths, buffer, counts)
    joined_by = "/" if has_paths or separators.path == "\\" else separators.path or ""
    taxonomy, nodes = _inferred(paths, joined_by)
    return taxonomy, [nodes[cells] for cells in buffer.labels], separators


def _any_path(cells: Iterable[Cells]) -> bool:
    """Return whether any cell is a whole path, as in lists or columns of levels."""
    return any(path_in(cell) for each in cells for cell in each)


def _separators(
    first: Mapping[Cells, int],
    columns: Columns,
    names: Sequence[str],
    options: LabelOptions,
    finder: NodeFinder | None,
) -> Separators:
    """Return the separators of names and labels; refuse labels that may mean several things."""
    if not columns.levels and not names and options.label_names != NONE:
        _require_names(columns, first, finder)
    whole_paths = {cell for cells in first for cell in cells if path_in(cell)}
    separators = Separators("/", None)
    if not columns.levels:
        separators = choose_separators(
            {cell for cells in first for cell in cells} - whole_paths,
            path=options.separator,
            labels=NONE if names else options.label_separator,
            is_node=finder.has if finder else lambda label: False,
        )
    settled = finder or names or options.list or separators.path
    if not settled and len(columns.labels) == 1:
        _require_kind_of_list([cells for cells in first if whole_paths.isdisjoint(cells)])
    return separators


def _require_names_in(
    paths: Mapping[Cells, Sequence[Path]], separators: Separators, place: Callable[[Cells], str]
) -> None:
    """Refuse cells without a label, and paths with an empty name."""
    for cells, of_cells in paths.items():
        if cells and not of_cells:
            raise DataError(f"{place(cells)}: no label in {cells!r:.80}")
        if any(not name for path in of_cells for name in path):
            raise DataError(
                f"{place(cells)}: a path with an empty name in {cells!r:.120} "
                f"(names are separated by {separators.path!r})"
            )


def _refuse_flat(first: Iterable[Cells]) -> None:
    """Refuse labels that are not paths, if nothing says that there is no tree."""
    example = ", ".join(repr(cell) for cells in list(first)[:3] for cell in cells[:1])
    raise ConfigError(
        f"the labels ({example} ...) are not paths, and there is no taxonomy file; "
        f"write dataset.prepare.taxonomy=FILE, dataset.prepare.separator=SIGN if they are "
        f"paths (none: one level, no tree), dataset.prepare.levels=[A,B] where each level has a "
        f"column, or dataset.prepare.list=path where a list is one path"
    )


def _merged_spellings(
    paths: Mapping[Cells, list[Path]], buffer: DocumentBuffer, counts: Counter[str]
) -> dict[Cells, list[Path]]:
    """Return the paths in their most frequent spellings; count the merged ones."""
    times = Counter(path for cells in buffer.labels for path in paths[cells])
    times.update(dict.fromkeys((path for of_cells in paths.values() for path in of_cells), 0))
    spelt = merged(times)
    counts["labels_merged"] = len(times) - len(set(spelt.values()))
    return {cells: [spelt[path] for path in of_cells] for cells, of_cells in paths.items()}


def _inferred(paths: Mapping[Cells, Sequence[Path]], separator: str) -> tuple[Taxonomy, dict[Cells, Nodes]]:
    """Return the tree that the paths span, and the node ids of each tuple of cells."""
    distinct = list({path: None for of_cells in paths.values() for path in of_cells})
    stripped = dict(zip(distinct, without_root(distinct), strict=True))
    ids = {path: ids_of(inner, separator) for path, inner in stripped.items()}  # each id once in memory
    nodes = {
        cells: tuple(dict.fromkeys(node for path in of_cells for node in ids[path]))
        for cells, of_cells in paths.items()
    }
    return infer_tree(stripped.values(), separator), nodes


def _paths_of(
    cells: tuple[str, ...],
    columns: Columns,
    options: LabelOptions,
    separators: Separators,
    finder: NodeFinder | None,
) -> list[tuple[str, ...]]:
    """Return the paths in the cells of a document."""
    may_be_path = bool(finder and cells) and len(columns.labels) == 1 and options.list is None
    if finder and may_be_path and not finder.are_ids(cells) and finder.has_path(cells):
        return [cells]  # a list that leads down the tree
    paths: list[tuple[str, ...]] = []
    for cell in cells:
        path = path_in(cell)
        if not path:
            paths += _paths(cell, separators, finder)
        elif finder and columns.levels and len(cells) > 1 and not finder.has_path(path):
            paths += [(name,) for name in path]  # lists of names that are not side by side
        else:
            paths.append(path)
    return paths


def _paths(cell: str, separators: Separators, finder: NodeFinder | None) -> list[tuple[str, ...]]:
    """Return the paths in a cell; a cell that is a node as a whole is one path."""
    if finder is None:
        return separators.paths(cell)
    if finder.has(cell):
        return [(cell,)]
    labels = separators._replace(path=None).paths(cell)
    return [
        path for (label,) in labels for path in ([(label,)] if finder.has(label) else separators.paths(label))
    ]


def _require_names(
    columns: Columns, documents: Collection[tuple[str, ...]], finder: NodeFinder | None
) -> None:
    """Refuse 0 and 1 as labels if they mark which of several labels a document has."""
    if finder and finder.has("0") and finder.has("1"):
        return
    if are_marks(documents):
        longest: Cells = max(documents, key=len)
        shown = f"{' '.join(longest):.60}"
        raise ConfigError(
            f"the labels ({', '.join(columns.labels)}) are only 0 and 1 in all documents, such as {shown}: "
            f"which labels do they stand for? {WAYS_TO_NAME} (none: 0 and 1 are the labels)"
        )


def _require_kind_of_list(documents: Collection[tuple[str, ...]]) -> None:
    """Refuse lists that may each be one path: no name is first in one list and later in another."""
    lists = [cells for cells in documents if len(cells) > 1]
    tops = {cells[0] for cells in documents if cells}
    if lists and tops.isdisjoint(name for cells in lists for name in cells[1:]):
        longest: Cells = max(lists, key=len)
        raise ConfigError(
            f"is {list(longest)!r:.120} one path, its first name at the top, or several labels? "
            f"write dataset.prepare.list=path or dataset.prepare.list=labels"
        )


def _require_levels(columns: Sequence[str], paths: Collection[tuple[str, ...]]) -> None:
    """Refuse columns that are numbered like levels but hold labels of one level, such as label1, label2."""
    tops = {names[0] for names in paths if names}
    below = sorted(tops.intersection(name for names in paths for name in names[1:]))
    if below:
        listed = ",".join(columns)
        raise ConfigError(
            f"are {', '.join(columns)} the levels of a tree? {below[0]!r} is first in some documents, below "
            f"another in others; write dataset.prepare.levels=[{listed}] if they are levels, "
            f"dataset.prepare.labels=[{listed}] if each holds a label"
        )
