"""The label forest: nodes, levels, parents, and the taxonomy order of all tensors."""

from __future__ import annotations

import heapq
import itertools
import json
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from hblm.document import decode_json
from hblm.errors import DataError, nearest
from hblm.files import require_file

_MOST = 1 << 22  # objects and lists in a taxonomy.json


@dataclass(frozen=True, slots=True)
class Node:
    """A label.

    Attributes:
        id: unique in a taxonomy.
        name: for people; names may repeat.
        parent: the parent's id, None for a root.
        text: a description of the node; None for no description. It is not compared: taxonomies that differ
            only in texts are equal.
    """

    id: str
    name: str
    parent: str | None
    text: str | None = field(default=None, compare=False)

    @property
    def words(self) -> str:
        """Return the text, else the name (if blank, the id) with spaces for underscores."""
        if self.text is not None:
            return self.text
        return (self.name if self.name.strip() else self.id).replace("_", " ")

    def as_json(self) -> dict[str, str | None]:
        """Return the node's row of taxonomy.json; `text` is a key only where there is a text."""
        row = {"id": self.id, "name": self.name, "parent": self.parent}
        return row if self.text is None else row | {"text": self.text}


class Taxonomy:
    """A forest of nodes in taxonomy order: a stable sort by level, so that each level is one slice.

    Attributes:
        nodes: the N nodes in taxonomy order.
        index: node id -> position in that order.
        parents: position of each node's parent, -1 for a root.
        levels: one `range` of positions per level, coarsest first.

    Raises:
        DataError: there is no node, or a node has an empty or duplicate id, a lone surrogate, two parents, an
            unknown parent, or itself as an ancestor.
    """

    def __init__(
        self, nodes: Iterable[Node], place: Callable[[str], str] = lambda node_id: "taxonomy"
    ) -> None:
        """Order the nodes; `place` returns the file and line of a node id ("" for the file), for messages."""
        given = list(nodes)
        if not given:
            raise DataError(f"{place('')}: the taxonomy has no nodes")
        by_id: dict[str, Node] = {}
        for node in given:
            _check_text(node, place)
            other = by_id.setdefault(node.id, node)
            if other is not node and other.parent != node.parent:
                raise DataError(
                    f"{place(node.id)}: node {node.id!r:.200} has two parents, {other.parent!r:.200} "
                    f"and {node.parent!r:.200}; give each of the two places a node id of its own (names may "
                    f"repeat)"
                )
            if other is not node:
                raise DataError(f"{place(node.id)}: node {node.id!r:.200} is there twice; ids must be unique")
        depth = _depths(by_id, place)
        self.nodes: tuple[Node, ...] = tuple(sorted(given, key=lambda node: depth[node.id]))
        self.index: dict[str, int] = {node.id: position for position, node in enumerate(self.nodes)}
        self.parents: tuple[int, ...] = tuple(
            -1 if node.parent is None else self.index[node.parent] for node in self.nodes
        )
        counts = [0] * (max(depth.values()) + 1)
        for node in self.nodes:
            counts[depth[node.id]] += 1
        starts = [sum(counts[:level]) for level in range(len(counts) + 1)]
        self.levels: tuple[range, ...] = tuple(
            range(start, stop) for start, stop in itertools.pairwise(starts)
        )

    def __len__(self) -> int:
        return len(self.nodes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Taxonomy) and self.nodes == other.nodes

    __hash__ = None  # type: ignore[assignment]

    def ancestors(self, node_id: str) -> list[str]:
        """Return the ids above a node, its parent first, its root last."""
        above = []
        position = self.parents[self.index[node_id]]
        while position >= 0:
            above.append(self.nodes[position].id)
            position = self.parents[position]
        return above

    def close(self, labels: Iterable[str]) -> set[str]:
        """Return the labels with all their ancestors."""
        closed: set[str] = set()
        for label in labels:
            if label not in closed:
                closed.update((label, *self.ancestors(label)))
        return closed

    def suggest(self, label: str) -> str:
        """Return "; did you mean X?" for the node id closest to an unknown label, or ""."""
        return suggest(label, self.index)

    def level_parents(self, level: int) -> list[int]:
        """Return, for each node of `level` >= 1, its parent's position within level - 1."""
        start = self.levels[level - 1].start
        return [self.parents[position] - start for position in self.levels[level]]

    def to_json(self) -> str:
        """Return taxonomy.json: one node a line, in taxonomy order."""
        rows = ",\n".join(json.dumps(node.as_json(), ensure_ascii=False) for node in self.nodes)
        return '{"nodes": [\n' + rows + "\n]}\n"


def read_taxonomy(path: Path) -> Taxonomy:
    """Read a taxonomy.json.

    Raises:
        DataError: the file is missing or not in the format, with line and node.
    """
    try:
        require_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
    return decode_taxonomy(content, str(path))


def decode_taxonomy(content: bytes, path: str) -> Taxonomy:
    """Read the bytes of a taxonomy.json; `path` is its name in messages.

    Raises:
        DataError: not UTF-8, or not in the format, with line and node.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: not UTF-8 at byte {error.start} of the file") from None
    return parse_taxonomy(text, path)


def parse_taxonomy(text: str, path: str, plain: Callable[[str], str] = str) -> Taxonomy:
    """Read the text of a taxonomy.json.

    Args:
        text: of the file.
        path: its name in messages.
        plain: is applied to ids, names and parents; converters normalise labels by the same function.

    Raises:
        DataError: not in the format, with line and node.
    """
    if text.count("{") + text.count("[") > _MOST:  # each takes 30 times its size in memory
        raise DataError(f"{path}: not a taxonomy: more than {_MOST:,} objects and lists")
    try:
        value = decode_json(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg} (column {error.colno})"
        ) from None
    except RecursionError:
        raise DataError(f"{path}: not a taxonomy: nested too deeply") from None
    except ValueError as error:  # a duplicate key, or a number with more digits than Python converts
        raise DataError(f"{path}: not a taxonomy: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("nodes"), list):
        raise DataError(f'{path}: expected {{"nodes": [{{"id", "name", "parent"}}, ...]}}')
    nodes = [_node(item, f"{path}: node {number}", plain) for number, item in enumerate(value["nodes"], 1)]
    spelt = {node.id: item["id"] for node, item in zip(nodes, value["nodes"], strict=True)}

    def place(node_id: str) -> str:
        return f"{path}:{_line_of(text, spelt.get(node_id, node_id))}" if node_id else path

    return Taxonomy(nodes, place)


def _node(item: object, place: str, plain: Callable[[str], str]) -> Node:
    if not isinstance(item, dict):
        raise DataError(f'{place}: expected an object {{"id", "name", "parent"}}, found {item!r:.60}')
    missing = [key for key in ("id", "name", "parent") if key not in item]
    if missing:
        raise DataError(f"{place} has no {' and no '.join(missing)}: {item!r:.120}")
    identity, name, parent = item["id"], item["name"], item["parent"]
    if not isinstance(identity, str) or not identity or not isinstance(name, str):
        raise DataError(f"{place}: id and name must be strings, and id not empty: {item!r:.120}")
    text = item.get("text")
    if text is not None and not isinstance(text, str):
        raise DataError(f"{place} ({identity!r:.60}): text must be a string or null, found {text!r:.60}")
    has_text = text is not None and text.strip() != ""
    above = _parent(parent, f"{place} ({identity!r:.60})")
    return Node(
        plain(identity), plain(name), None if above is None else plain(above), text if has_text else None
    )


def _parent(given: object, place: str) -> str | None:
    """Return the parent's id; a list of one id is that id."""
    parent = given[0] if isinstance(given, list) and len(given) == 1 else given
    if parent is None and given is None:
        return None
    if isinstance(parent, str):
        return parent
    if isinstance(parent, list) and parent and all(isinstance(each, str) for each in parent):
        listed = ", ".join(f"{each!r:.60}" for each in parent[:5]) + (", ..." if parent[5:] else "")
        raise DataError(
            f"{place}: {len(parent)} parents ({listed}), but a taxonomy is a forest: a node has one parent; "
            f"give each of the places a node id of its own (names may repeat), or keep one parent"
        )
    raise DataError(f"{place}: parent must be a node id, a list of one, or null, found {given!r:.60}")


def _check_text(node: Node, place: Callable[[str], str]) -> None:
    """Refuse an empty id, or a text that cannot be encoded in UTF-8.

    Raises:
        DataError: why.
    """
    if not node.id:
        raise DataError(f"{place('')}: a node (name {node.name!r:.60}) has an empty id")
    try:
        (node.id + node.name + (node.text or "")).encode("utf-8")
    except UnicodeEncodeError:
        where = f"{place(node.id)}: node {node.id!r:.60}"
        raise DataError(f"{where}: id, name or text holds a lone surrogate") from None


def names_are_words(taxonomy: Taxonomy) -> bool:
    """Return whether the nodes have names in words, such as "Computer vision", and not codes, such as "C15".

    It is True if there are at least half as many different texts (`Node.words`) as nodes, when case and all
    parts that are not words are ignored. A word is one of

    - a run of letters of three or more; of five or more if all are capitals (PERFORMANCE, but not GCAT); of
      two or more in a script without case (Arabic, Hebrew, Hindi);
    - one or more letters that are as wide as ideographs (Chinese, Japanese, Korean).

    A run with a digit (G06F) and a number are not words; words beside them count ("3D printing", "Windows
    10"). So names that differ only in parts that are not words are codes ("class 1", "class 2"; "math.co",
    "math.pr"), and so are names most of which repeat.
    """
    different = {_words(node.words) for node in taxonomy.nodes} - {()}
    return 2 * len(different) >= len(taxonomy)


def _words(text: str) -> tuple[str, ...]:
    runs = ("".join(run) for kind, run in itertools.groupby(text, key=_kind) if kind)
    return tuple(run.casefold() for run in runs if _is_word(run))


def _kind(sign: str) -> str:
    """Return the kind of runs a character belongs to: wide letters, other letters and digits, or ""."""
    if unicodedata.category(sign)[0] not in "LMN":  # letters, the marks on them, numbers
        return ""
    return "wide" if sign.isalpha() and unicodedata.east_asian_width(sign) == "W" else "narrow"


def _is_word(run: str) -> bool:
    if _kind(run[0]) == "wide":
        return True
    if any(sign.isnumeric() for sign in run):
        return False
    has_case = run.lower() != run.upper()
    return len(run) >= ((5 if run.isupper() else 3) if has_case else 2)


def suggest(given: str, known: Iterable[str]) -> str:
    """Return `nearest` of the 50 names that share most pairs of characters, because difflib is slow."""
    given = given[:200]
    pairs = set(map("".join, itertools.pairwise(given)))

    def shared(name: str) -> float:
        return sum(pair in name for pair in pairs) / (len(given) + len(name))

    return nearest(given, heapq.nlargest(50, known, key=shared))


def faults_of_part(part: Taxonomy, whole: Taxonomy) -> list[str]:
    """Return a fault for each node of `part` that `whole` lacks or has below another node.

    Without faults `part` is `whole`, or a part of it that is closed under ancestors. Nodes are compared by
    their ids; order, names and texts may differ.
    """
    faults = []
    for node in part.nodes:
        if node.id not in whole.index:
            faults.append(
                f"node {node.id!r:.100} is not one of its {len(whole)} nodes{whole.suggest(node.id)}"
            )
        elif (parent := whole.nodes[whole.index[node.id]].parent) != node.parent:
            places = [f"below {above!r:.100}" if above else "a root" for above in (node.parent, parent)]
            faults.append(f"node {node.id!r:.100} is {places[0]}, and there it is {places[1]}")
    return faults


def _line_of(text: str, node_id: str) -> int:
    """Return the line of the last node with an id: of duplicates, the later one is the error."""
    forms = "|".join(re.escape(json.dumps(node_id, ensure_ascii=escape)) for escape in (False, True))
    places = [match.start() for match in re.finditer(rf'"id"\s*:\s*(?:{forms})', text)]
    return text.count("\n", 0, places[-1] if places else 0) + 1


def _depths(by_id: dict[str, Node], place: Callable[[str], str]) -> dict[str, int]:
    """Return each node's number of ancestors, without recursion, which has a limit of depth.

    Raises:
        DataError: an unknown parent, or a node that is its own ancestor.
    """
    depth: dict[str, int] = {}
    for start in by_id:
        trail: list[str] = []
        seen: set[str] = set()
        current: str | None = start
        while current is not None and current not in depth:
            if current in seen:
                circle = [*trail[trail.index(current) :], current]
                raise DataError(
                    f"{place(current)}: node {current!r:.200} is its own ancestor: {' -> '.join(circle):.500}"
                )
            trail.append(current)
            seen.add(current)
            parent = by_id[current].parent
            if parent is not None and parent not in by_id:
                raise DataError(
                    f"{place(current)}: node {current!r:.200} has the parent {parent!r:.200}, which is not "
                    f"a node{suggest(parent, by_id)}"
                )
            current = parent
        above = -1 if current is None else depth[current]
        for steps, node_id in enumerate(reversed(trail), 1):
            depth[node_id] = above + steps
    return depth
