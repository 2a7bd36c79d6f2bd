"""JSON files with a value or two changed, as in an untrusted or damaged file."""

from __future__ import annotations

import copy
import json
import random
from typing import Any

DEEP = "@deep@"  # in place of what no JSON writer here would write
ODD: list[Any] = [
    *(None, True, False, 0, -1, 7, 0.5, 1e308, 10**18, 10**30, 10**400, float("nan"), float("inf")),
    *(
        "",
        "text",
        "x" * 100_000,
        "../../x",
        "/",
        "a/b",
        "a\0b",
        "\x1b[31m",
        "\u202e",
        "${oc.env:HOME}",
        "\ud800",
    ),
    *([], [7], ["a"], [[]], {}, {"a": 1}, {"overall": {}}, DEEP),
]


def mutated(value: Any, draw: random.Random) -> str:
    """Return the text of a JSON value with one or two changes."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2))):
        if not places(value):
            break
        holder, key = draw.choice(places(value))
        kind = draw.random()
        if kind < 0.6:
            holder[key] = draw.choice(ODD)
        elif kind < 0.8:
            del holder[key]
        elif kind < 0.9:
            other, place = draw.choice(places(value))
            one, two = copy.deepcopy((holder[key], other[place]))
            holder[key], other[place] = two, one
        elif isinstance(holder, dict):
            holder[draw.choice(("file", "split", "x" * 9_999, "", "micro_f1", "a.b", "${x}"))] = draw.choice(
                ODD
            )
    text = json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000)
    return text[: draw.randrange(len(text))] if draw.random() < 0.02 else text


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every place in a value as (container, key); shallow ones are repeated, to be drawn as often."""
    found: list[list[tuple[Any, Any]]] = [[({"": value}, "")]]
    while found[-1]:
        below = []
        for holder, key in found[-1]:
            inner = holder[key]
            if isinstance(inner, dict):
                below += [(inner, name) for name in inner]
            elif isinstance(inner, list):
                below += [(inner, at) for at in range(len(inner))][:20]
        found.append(below)
    most = max(map(len, found))
    return [place for level in found[1:-1] for place in (level * (1 + most // (4 * len(level))))]
