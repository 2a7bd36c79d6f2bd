"""Contradictions between method=NAME and the options beside it, which make another method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hblm.config.compose import Composer, Unreadable
from hblm.config.groups import STAND_IN, shipped_options


def contradicted_method(choices: Mapping[str, str | None], config: Any) -> str | None:
    """Return the chosen method if the other options make another one.

    A preset of the user's own is not judged: its name does not fix a method.
    """
    name = choices.get("method")
    return name if name in shipped_options("method") and config.method != name else None


def contradiction(name: str, config: Any, causes: Sequence[str]) -> str:
    """Return the message that the options beside method=`name` make another method, and how to write that."""
    others = " and ".join(causes) or "the other options"
    return (
        f"method={name} contradicts {others}: together they make method={config.method}; leave {others} out, "
        f"or write {' '.join([f'method={config.method}', *causes])}"
    )


def contradicting(composer: Composer, name: str, cell: Sequence[str]) -> list[str]:
    """Return the overrides of a run that contradict its method, each alone or only together."""
    chosen = f"method={name}"
    others = [text for text in cell if text != chosen]

    def method_of(texts: Sequence[str]) -> str | None:
        try:
            method: str = composer.compose(texts).config.method
        except Unreadable:  # a required option was left out
            return None
        return method

    alone = [text for text in others if method_of([chosen, STAND_IN, text]) not in (name, None)]
    return alone or [text for text in others if method_of([each for each in cell if each != text]) == name]
