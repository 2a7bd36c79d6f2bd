"""Label trees of raw data, read from files or inferred from paths, and the lookup of labels in them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from hblm.data.raw.archives import RawFile
from hblm.data.raw.cleaning import plain_name
from hblm.data.raw.delimited import read_rows
from hblm.data.raw.text import read_text
from hblm.errors import DataError, nearest
from hblm.taxonomy import Node, Taxonomy, parse_taxonomy, suggest

Path = tuple[str, ...]  # of names, the root's first
_LONGEST = 1 << 27  # characters of a taxonomy.json

_PARENT = {
    "parent",
    "parents",
    "parent_name",
    "parent_id",
}  # names in a header; a node may be called Parenting

_CHILD = {"child", "children", "child_name", "child_id"}


def read_tree(file: RawFile, encoding: str | None = None) -> Taxonomy:
    """Read a taxonomy file; names are the node ids, and nodes are sorted.

    Formats: taxonomy.json of this project; lines `parent<TAB>child<TAB>child ...` (HiAGM), where a line may
    have one child (BGC) or only a top node; the same as CSV. `Root` is not a node, unless it has a parent. A
    first line `parent child` or `child parent` is a header.

    Raises:
        DataError: a damaged file, a cycle, a node with two parents or without one; with its line.
    """
    if file.base.lower().endswith(".json"):
        pieces, length = [], 0
        for piece in read_text(file, encoding):
            pieces.append(piece)
            length += len(piece)
            if length > _LONGEST:
                raise DataError(f"{file.place}: more than {_LONGEST:,} characters; no taxonomy is that large")
        return parse_taxonomy("".join(pieces), file.place, plain_name)
    comma = file.base.lower().endswith(".csv")
    rows = read_rows(file, delimiter="," if comma else "\t", quote='"' if comma else None, encoding=encoding)
    heads: dict[str, int] = {}
    edges: dict[tuple[str, str], int] = {}
    header = ""
    for at, (number, cells) in enumerate(rows):
        names = [plain_name(cell) for cell in cells]
        header = _header(names) if at == 0 else header
        if at == 0 and header:
            continue
        if header == "upward":
            names = names[1::-1]
        heads.setdefault(names[0], number)
        for child in filter(None, names[1:]):
            if child == names[0]:
                raise DataError(f"{file.place}:{number}: node {child!r:.200} is its own parent")
            edges.setdefault((names[0], child), number)
    if not edges:
        between = "a comma" if comma else "a tab"
        raise DataError(f"{file.place}: no line names a parent and its children, with {between} between them")
    return _forest(file, heads, edges)


def _header(names: Sequence[str]) -> str:
    """Return the direction of the edges if a row is a header; "" if it is not."""
    kinds = [
        "parent" if name.casefold() in _PARENT else "child" if name.casefold() in _CHILD else ""
        for name in names
    ]
    return {"parent child": "downward", "child parent": "upward"}.get(" ".join(kinds), "")


def _forest(file: RawFile, heads: Mapping[str, int], edges: Mapping[tuple[str, str], int]) -> Taxonomy:
    children = {child for _, child in edges}
    tops = [name for name in heads if name not in children]
    root = next((name for name in tops if name.casefold() == "root"), None)
    nodes = [Node(child, child, None if parent in (root, "") else parent) for parent, child in edges]
    for name in filter(None, tops):
        if root is None:
            nodes.append(Node(name, name, None))
        elif name != root:
            raise DataError(
                f"{file.place}:{heads[name]}: node {name!r:.200} has no parent, and is not under {root}"
                f"{nearest(name, children)}"
            )
    last = {child: number for (_, child), number in edges.items()}
    return Taxonomy(
        sorted(nodes, key=lambda node: node.id),
        place=lambda node: f"{file.place}:{last.get(node) or heads[node]}" if node else file.place,
    )


def ids_of(path: Path, separator: str) -> list[str]:
    """Return the ids of the nodes on a path: the names up to each node, joined by the separator.

    A separator inside a name, or at its ends, is escaped, so that two paths never have the same id. The
    separator is not the backslash, which escapes; "" for paths of one name.
    """
    if not separator:
        return list(path)
    escaped = "".join(f"\\{sign}" for sign in separator)
    names = []
    for name in path:
        escaped_name = name.replace("\\", "\\\\").replace(separator, escaped)
        escaped_name = f"\\{escaped_name}" if escaped_name[:1] in separator else escaped_name
        if escaped_name[-1:] in separator and escaped_name[-2:-1] != "\\":
            escaped_name = f"{escaped_name[:-1]}\\{escaped_name[-1:]}"
        names.append(escaped_name)
    return [separator.join(names[:depth]) for depth in range(1, len(names) + 1)]


def infer_tree(paths: Iterable[Path], separator: str) -> Taxonomy:
    """Return the tree of the paths; a name under two parents is two nodes; nodes are sorted by id."""
    nodes: dict[str, Node] = {}
    for path in paths:
        parent = None
        for node, name in zip(ids_of(path, separator), path, strict=True):
            nodes.setdefault(node, Node(node, name, parent))
            parent = node
    return Taxonomy(sorted(nodes.values(), key=lambda node: node.id))


def without_root(paths: Sequence[Path]) -> Sequence[Path]:
    """Return the paths without their first name if it is `Root` in all of them."""
    if paths and all(path[0].casefold() == "root" and path[1:] for path in paths):
        return [path[1:] for path in paths]
    return paths


class NodeFinder:
    """Looks up the node of a raw label: by its id, a path of ids or names, or a unique name."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy
        self._below: dict[tuple[str | None, str], set[str]] = {}
        self._named: dict[str, set[str]] = {}
        for node in taxonomy.nodes:
            for name in (node.name, node.id):
                self._below.setdefault((node.parent, name), set()).add(node.id)
                self._named.setdefault(name, set()).add(node.id)

    def has(self, label: str) -> bool:
        """Return whether a label is the id of a node, or the name of exactly one node."""
        return label in self.taxonomy.index or len(self._named.get(label, ())) == 1

    def are_ids(self, labels: Iterable[str]) -> bool:
        """Return whether all labels are ids of nodes; ids take precedence over names."""
        return all(label in self.taxonomy.index for label in labels)

    def has_path(self, path: Path) -> bool:
        """Return whether a path of two or more names starts at a top node and has one node per name."""
        if path[0].casefold() == "root" and (None, path[0]) not in self._below:
            path = path[1:]
        above: str | None = None
        for name in path:
            nodes = self._below.get((above, name), set())
            if name not in nodes and len(nodes) != 1:
                return False
            above = name if name in nodes else next(iter(nodes))
        return len(path) > 1

    def find(self, path: Path, place: str) -> tuple[str, ...]:
        """Return the ids of the nodes on a path, which may be one name.

        Raises:
            DataError: there is no such node, or several nodes have the name.
        """
        if not path[1:]:
            return (self._one(path[0], self._named.get(path[0], set()), place),)
        if path[0].casefold() == "root" and (None, path[0]) not in self._below:
            path = path[1:]
        ids: list[str] = []
        for name in path:
            nodes = self._below.get((ids[-1] if ids else None, name), set())
            if not nodes and name in self._named:
                above = f"child of {ids[-1]!r:.200}" if ids else "top node"
                raise DataError(f"{place}: in the label {'/'.join(path)!r:.200}, {name!r:.200} is no {above}")
            ids.append(self._one(name, nodes, place))
        return tuple(ids)

    def _one(self, label: str, nodes: set[str], place: str) -> str:
        """Return the node of a label among the candidates: the one with that id, or the only one."""
        if label in nodes:
            return label
        if len(nodes) == 1:
            return next(iter(nodes))
        if nodes:
            raise DataError(
                f"{place}: several nodes have the name {label!r:.200}; write their ids, or whole paths"
            )
        raise DataError(
            f"{place}: label {label!r:.100} is not a node of the taxonomy{suggest(label, self._named)}"
        )
