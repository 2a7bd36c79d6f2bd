"""Parametrizes the contract of converters by the tables of each set."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

pytest.register_assert_rewrite("conversions", "converter_contract")

import conversions  # noqa: E402 (after the registration, so that its asserts are rewritten)
import converter_contract  # noqa: E402


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    tiny = getattr(metafunc.cls, "tiny", None)
    if tiny is None:
        return
    if {"form", "streamed"} <= set(metafunc.fixturenames):
        forms = [*converter_contract.PACKINGS, *tiny.forms]
        streamed = [False, True] if tiny.name in ("nyt", "rcv1v2") else [False]
        metafunc.parametrize(("form", "streamed"), [(form, each) for form in forms for each in streamed])
    if {"fault", "packing"} <= set(metafunc.fixturenames):  # each in a folder and in one kind of archive
        packed = [(fault, (".zip", ".tar.gz")[at % 2]) for at, fault in enumerate(tiny.faults)]
        metafunc.parametrize(("fault", "packing"), [(fault, "") for fault in tiny.faults] + packed)
    for argument, table in (
        ("sound", converter_contract.SOUND),
        ("damage", converter_contract.DAMAGE),
        ("wrong", tiny.wrong),
    ):
        if argument in metafunc.fixturenames:
            metafunc.parametrize(argument, table)


@pytest.fixture
def convert(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., conversions.Prepared]:
    """Return a function that runs the converter of the test file's set, as `conversions.converted` does."""
    name = request.module.SET

    def made(raw: Path | conversions.Files, target: str = "", **options: object) -> conversions.Prepared:
        return partial(conversions.converted, name)(raw, tmp_path, target, **options)

    return made
