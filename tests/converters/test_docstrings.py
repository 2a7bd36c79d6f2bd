"""The docstrings converter: labels from paths, support, near duplicates, no leaks, the same bytes again."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from conversions import own_config
from hypothesis import given, settings
from hypothesis import strategies as st

from hblm.data.converters import load_script
from hblm.data.raw.docstrings import Source, Wanted, clean, forbidden_names, leaks, read_sources, shingles
from hblm.data.writer import write_dataset
from hblm.errors import ConfigError, DataError

WORDS = [
    "alder birch cedar dogwood elm fir ginkgo hazel ivy juniper larch maple nutmeg oak pine quince",
    "river lake pond brook spring delta marsh lagoon fjord estuary creek bayou canal inlet gulf strait",
]


def prose(number: int, length: int = 20) -> str:
    """Return words that no other number's text shares in a row of three."""
    pool = " ".join(WORDS).split()
    source = np.random.default_rng(number)
    return " ".join(source.choice(pool, length))


@pytest.fixture(scope="session")
def script() -> ModuleType:
    module: ModuleType = load_script("docstrings")
    return module


Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return an installer of fake packages: files by path, and what importlib.metadata reads."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)

    def make(name: str, files: Mapping[str, str | bytes], *, record: bool = True) -> None:
        for path, content in files.items():
            (site / path).parent.mkdir(parents=True, exist_ok=True)
            (site / path).write_bytes(content if isinstance(content, bytes) else content.encode())
        info = site / f"{name.replace('-', '_')}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\nLicense-Expression: MIT\n"
        )
        if record:
            (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))
        else:
            (info / "top_level.txt").write_text("\n".join({path.split("/")[0] for path in files}))

    return make


def functions(first: int, count: int) -> str:
    """Return a module of `count` functions with docstrings of their own."""
    return "\n".join(f'def f{at}():\n    """{prose(at)}"""\n' for at in range(first, first + count))


Convert = Callable[..., tuple[dict[str, dict[str, Any]], Any]]


@pytest.fixture
def convert(script: ModuleType, tmp_path: Path) -> Convert:
    """Return a function that converts and gives the documents by id, each with its split, and the rest."""

    def run(**options: Any) -> tuple[dict[str, dict[str, Any]], Any]:
        scratch = tmp_path / f"scratch{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        given = {"min_support": 1, "min_words": 5, **options}
        conversion = script.convert(None, given, scratch, lambda title, total: lambda steps: None)
        documents = {
            document.id: {"text": document.text, "labels": document.labels, "split": split}
            for split, found in conversion.splits.items()
            for document in found
        }
        return documents, conversion

    return run


# --- files, ids, labels


def test_ids_and_labels_come_from_paths(install: Install, convert: Convert) -> None:
    install(
        "wood-works",
        {
            "wood/__init__.py": f'"""{prose(0)}"""',
            "wood/saw.py": f'def cut():\n    """{prose(1)}"""\n    def inner():\n        """{prose(2)}"""',
            "wood/tools/plane/blade.py": f'class Edge:\n    """{prose(3)}"""\n    async def hone(self):\n'
            f'        """{prose(4)}"""\nif True:\n    def f():\n        """{prose(5)}"""\n'
            f'else:\n    def f():\n        """{prose(6)}"""\n',
            "bark.py": f'"""{prose(7)}"""',
        },
    )
    documents, conversion = convert(packages=["wood-works"])
    assert {identity: document["labels"] for identity, document in documents.items()} == {
        "wood": ("wood",),
        "wood.saw:cut": ("wood", "wood.saw"),
        "wood.tools.plane.blade:Edge": ("wood", "wood.tools", "wood.tools.plane"),
        "wood.tools.plane.blade:Edge.hone": ("wood", "wood.tools", "wood.tools.plane"),
        "wood.tools.plane.blade:f": ("wood", "wood.tools", "wood.tools.plane"),
        "wood.tools.plane.blade:f#2": ("wood", "wood.tools", "wood.tools.plane"),
        "bark": ("bark",),
    }
    names = {node.id: (node.name, node.parent) for node in conversion.taxonomy.nodes}
    assert names["wood.tools.plane"] == ("plane", "wood.tools")
    assert names["wood"] == ("wood", None)
    assert conversion.sources == [{"name": "wood-works", "version": "1.5", "licence": "MIT"}]


def test_files_that_are_not_prose_of_the_package_are_left_out(install: Install, convert: Convert) -> None:
    text = f'"""{prose(0)}"""'
    install(
        "wood",
        {
            "wood/a.py": functions(1, 10),
            "wood/tests/test_a.py": text,
            "wood/_vendor/six.py": text,
            "wood/made.py": f"#!/usr/bin/env python\n# This file is auto-generated.\n{text}",
            "wood/broken.py": f"{text}\ndef (",
            "wood/nul.py": f"{text}\0",
            "wood/latin.py": b'"""caf\xe9"""',
            "wood/declared.py": f'# coding: latin-1\n"""{prose(11)} caf\xe9"""'.encode("latin-1"),
            "wood/escape.py": f'"""{prose(12)} \\d"""',  # a SyntaxWarning, which must not be seen
            "wood/not-a-module.py": text,
            "wood-1.5.data/scripts/run.py": text,
        },
    )
    documents, conversion = convert(packages=["wood"])
    assert len(documents) == 12
    assert documents["wood.declared"]["text"].endswith("café")
    assert conversion.counts["files_generated"] == 1
    assert conversion.counts["files_unparsable"] == 3


def test_a_file_that_went_away_is_counted(tmp_path: Path) -> None:
    assert read_sources(Wanted(5, False), [Source(tmp_path / "gone.py", "gone", "gone")]) == (
        [],
        {"files_unreadable": 1},
    )


def test_a_package_installed_in_place_is_found_by_import(install: Install, convert: Convert) -> None:
    install("wood", {"wood/a.py": functions(0, 5), "wood/__init__.py": ""}, record=False)
    assert len(convert(packages=["wood"])[0]) == 5


def test_a_package_that_is_not_installed_is_a_warning_unless_it_is_all(
    install: Install, convert: Convert
) -> None:
    install("wood", {"wood/a.py": functions(0, 5)})
    _, conversion = convert(packages=["wood", "no-such-package-here"])
    assert ["no-such-package-here" in warning for warning in conversion.warnings] == [True]
    with pytest.raises(DataError, match="none of them is installed"):
        convert(packages=["no-such-package-here"])


# --- support, sample, splits


def test_a_node_below_the_support_leaves_its_documents_to_its_parent(
    install: Install, convert: Convert
) -> None:
    install(
        "wood",
        {
            "wood/tools/saw.py": functions(0, 8),
            "wood/tools/file.py": functions(10, 3),
            "wood/glue.py": functions(20, 2),
        },
    )
    install("cork", {"cork/a.py": functions(30, 4)})
    documents, conversion = convert(packages=["wood", "cork"], min_support=5)
    labels = Counter(document["labels"][-1] for document in documents.values())
    assert labels == {"wood.tools.saw": 8, "wood.tools": 3, "wood": 2}
    assert [node.id for node in conversion.taxonomy.nodes] == ["wood", "wood.tools", "wood.tools.saw"]
    assert conversion.counts["documents_of_small_packages"] == 4
    assert conversion.counts["documents_cut_to_a_parent"] == 5
    assert conversion.counts["nodes_below_min_support"] == 4
    with pytest.raises(DataError, match="min_support=50"):
        convert(packages=["wood", "cork"], min_support=50)


def test_every_node_has_a_training_document(install: Install, convert: Convert) -> None:
    install("wood", {f"wood/m{at}.py": functions(10 * at, 2) for at in range(30)})
    documents, conversion = convert(packages=["wood"])
    trained = {x for found in documents.values() if found["split"] == "train" for x in found["labels"]}
    assert trained == {node.id for node in conversion.taxonomy.nodes}
    assert {found["split"] for found in documents.values()} == {"train", "val", "test"}


def test_samples_are_seeded_nested_and_drawn_before_support(install: Install, convert: Convert) -> None:
    install("wood", {f"wood/m{at}.py": functions(100 * at, 20) for at in range(5)})
    drawn = {size: set(convert(packages=["wood"], max_documents=size)[0]) for size in (10, 40, 100, 1000)}
    assert [len(found) for found in drawn.values()] == [10, 40, 100, 100]
    assert drawn[10] < drawn[40] < drawn[100]
    assert set(convert(packages=["wood"], max_documents=40)[0]) == drawn[40]
    assert set(convert(packages=["wood"], max_documents=40, seed=14)[0]) != drawn[40]
    few, conversion = convert(packages=["wood"], max_documents=40, min_support=8)
    support = Counter(label for document in few.values() for label in document["labels"])
    assert min(support.values()) >= 8
    assert conversion.counts["documents_not_sampled"] == 60


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_suport": 3}, "did you mean min_support"),
        ({"min_words": 0}, "min_words=0"),
        ({"max_documents": 0}, "max_documents=0"),
        ({"seed": "x"}, "seed=x is not a whole number"),
        ({"near_duplicates": 0}, "near_duplicates=0"),
        ({"packages": "torch"}, "packages=torch is not a list"),
    ],
)
def test_wrong_options_are_refused(convert: Convert, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        convert(**{"packages": ["packaging"], **options})


def test_the_dataset_options_name_every_key_with_its_default(script: ModuleType) -> None:
    prepare = own_config("docstrings").prepare
    assert set(prepare) == set(script.Options._fields)
    assert all(prepare[key] == value for key, value in script.Options._field_defaults.items())


# --- near duplicates


def test_the_first_of_near_duplicates_is_kept(install: Install, convert: Convert) -> None:
    words = prose(0, 60).split()
    one_word, many_words = [*words[:30], "sequoia", *words[31:]], [*words[:30], *prose(1, 30).split()]
    texts = [words, words, one_word, many_words, [word.upper() + "," for word in words]]
    code = "\n".join(f'def f{at}():\n    """{" ".join(text)}"""' for at, text in enumerate(texts))
    install("wood", {"wood/a.py": code, "wood/b.py": functions(2, 3)})
    documents, conversion = convert(packages=["wood"])
    assert [identity for identity in documents if ".a:" in identity] == ["wood.a:f0", "wood.a:f3"]
    assert conversion.counts["near_duplicates"] == 3


sets = st.sets(st.integers(0, 30), min_size=1, max_size=30)


@settings(max_examples=60, deadline=None)
@given(st.lists(sets, max_size=12), st.sampled_from([0.3, 0.5, 0.8, 1.0]))
@pytest.mark.slow
def test_only_what_is_alike_is_dropped(script: ModuleType, given_sets: list[set[int]], bound: float) -> None:
    unlike = script.NearDuplicateFilter(bound)
    arrays = [np.array(sorted(values), dtype=np.uint32) for values in given_sets]
    found = unlike.add(arrays[:5]) + unlike.add(arrays[5:])
    kept: list[set[int]] = []
    for values, fresh in zip(given_sets, found, strict=True):
        alike = [len(values & other) / len(values | other) >= bound for other in kept]
        assert fresh or any(alike)
        assert not (fresh and values in kept)
        if fresh:
            kept.append(values)


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.9])
def test_min_hash_proposes_nearly_all_pairs_at_the_threshold(script: ModuleType, threshold: float) -> None:
    source = np.random.default_rng(0)
    common, own, missed = 100, int(50 * (1 - threshold) / threshold), 0
    for _ in range(300):
        values = source.choice(2**32, common + 2 * own, replace=False).astype(np.uint32)
        one, other = np.sort(values[: common + own]), np.sort(np.r_[values[:common], values[common + own :]])
        missed += all(script.NearDuplicateFilter(threshold).add([one, other]))
    assert missed <= 9  # one of a hundred expected at most


def test_shingles_are_the_distinct_runs_of_three_words() -> None:
    assert len(shingles("a b c d a b c")) == 4
    assert np.array_equal(shingles("A b, c!"), shingles("a B c"))
    assert not np.array_equal(shingles("a b c"), shingles("c b a"))
    assert len(shingles("a b")) == 1


# --- cleaning


CLEANED = {
    "doctest": ("Add.\n\n>>> add(1, 2)\n3\n\nThen rest.", "Add. Then rest."),
    "fence": ("Run:\n```python\nx = 1\n\ny = 2\n```\nDone.", "Run: Done."),
    "literal block": ("As in::\n\n    x = 1\n\n    y\n\nDone.", "As in: Done."),
    "code directive": ("Do.\n\n.. code-block:: python\n\n    x = 1\n\nDone.", "Do. Done."),
    "note": (".. note:: Mind the gap.\n    And the step.", "Mind the gap. And the step."),
    "version": (".. versionadded:: 1.2\n   The knob.", "The knob."),
    "roles": ("See :class:`Tree` and :py:func:`~a.b.cut`, :math:`x^2`.", "See Tree and"),
    "fields": (":param int depth: how deep\n:returns: the tree", "int depth how deep the tree"),
    "numpydoc": ("Parameters\n----------\ndepth : int\n    How deep.", "depth: int How deep."),
    "links": (
        "Read [the guide](../guide#a) or `more <http://x.y/z>`_ or https://a.b/c?d.",
        "Read the guide or more or",
    ),
    "emphasis": (
        "**Never** do *that*, but 2**3 and *args and **kwargs stay.",
        "Never do that , but 2**3 and *args and **kwargs stay.",
    ),
    "licence": ("Cut wood.\n\nCopyright 2020 The Authors.\nAll rights reserved.\n\nMore.", "Cut wood. More."),
    "holes": ("Takes %(axis)s and {size}, keeps {1, 2}.", "Takes and , keeps {1, 2}."),
    "rulers": ("A\n=====\n0 0 1\n+---+\nb", "A b"),
    "decimals and names": ("Uses numpy.linalg.norm at 0.5, e.g. here.", "Uses at here."),
    "characters": ("a\ud800b soft\u00adhyphen \x07bell \ufb01le", "a b softhyphen bell file"),
}


@pytest.mark.parametrize("kind", CLEANED)
def test_cleaning(kind: str) -> None:
    docstring, expected = CLEANED[kind]
    assert clean(docstring, frozenset()) == expected.replace(" ,", "").replace("  ", " ")


def test_forbidden_words_are_compared_without_case_and_outer_underscores() -> None:
    forbidden = forbidden_names("torch.nn._functions.conv", "hugging-hub")
    assert clean("Torch _conv_ NN's __functions convolve conv2d: hub, HUGGING/x", forbidden) == (
        "'s convolve conv2d: /x"
    )


# st.characters reads the table of Unicode, which takes seconds in each process
anything = st.text((st.integers(0, 0xD7FF) | st.integers(0xE000, 0x10FFFF)).map(chr), max_size=4)
names = st.text(st.sampled_from("__aZé7"), min_size=1, max_size=5).filter(str.isidentifier)
paths = st.lists(names, min_size=1, max_size=4)
glue = st.sampled_from(
    ["", " ", ".", "..", "_", "`", "\n", "\u00ad", "\u200b", "*", "|", "~", "::", "<", ">", "$"]
)


@settings(max_examples=80, deadline=None)
@given(paths, st.lists(st.tuples(st.one_of(names, anything, st.integers(0, 9)), glue, st.booleans())))
def test_no_cleaned_text_tells_where_it_stood(path: list[str], pieces: list[tuple[Any, str, bool]]) -> None:
    """Pieces of the path, of other names and of anything, glued together by what cleaning takes out."""
    docstring = "".join(
        f"{path[at % len(path)].upper() if own else piece}{join}"
        for at, (piece, join, own) in enumerate(pieces)
    )
    text = clean(docstring, forbidden_names(".".join(path), "some-dist"))
    assert not re.search(r"\w+(\.\w+)+", text)
    words = set(re.findall(r"\w+", text))
    words |= {word.strip("_") for word in words}
    secret = {name.lower() for name in path} | {name.strip("_").lower() for name in path} | {"some", "dist"}
    assert not {word.lower() for word in words} & secret
    assert text == " ".join(text.split())
    text.encode()


def test_leaks_tells_what_was_left() -> None:
    assert leaks("the conv of a.b at 1.5", frozenset({"conv"})) == ["1.5", "a.b", "conv"]


# --- the whole
@pytest.mark.slow
def test_same_input_same_bytes_with_processes_or_without(
    script: ModuleType, install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("wood", {f"wood/m{at % 3}/n{at}.py": functions(10 * at, 3) for at in range(130)})
    monkeypatch.setenv("PYTHONHASHSEED", "7")  # of the processes started from here
    options = {"packages": ["wood"], "min_words": 5, "min_support": 3, "max_documents": 200}
    advanced: Counter[str] = Counter()

    def progress(title: str, total: int | None) -> Callable[[int], None]:
        return lambda steps: advanced.update({title: steps})

    manifests = []
    for folder, processors in (("a", 2), ("b", 1)):
        monkeypatch.setattr("hblm.data.raw.parallel.n_cores", lambda found=processors: found)
        (tmp_path / folder).mkdir()
        conversion = script.convert(None, options, tmp_path / folder, progress)
        manifests.append(write_dataset(tmp_path / folder / "wood", conversion, converter="docstrings"))
    assert manifests[0] == manifests[1]
    assert advanced == {"reading docstrings": 2 * 130}


def test_an_installed_package(script: ModuleType, tmp_path: Path) -> None:
    options = {"packages": ["packaging"], "min_support": 5}
    conversion = script.convert(None, options, tmp_path, lambda title, total: lambda steps: None)
    manifest = write_dataset(tmp_path / "out", conversion, converter="docstrings")
    assert manifest["taxonomy"]["levels"][0] == 1
    lines = [
        line
        for split in ("train", "val", "test")
        for line in (tmp_path / "out" / f"{split}.jsonl").read_text("utf-8").splitlines()
    ]
    assert len(lines) >= 30
    for document in map(json.loads, lines):
        module = document["id"].partition(":")[0]
        assert len(document["text"].split()) >= 15
        assert not re.search(r"\w\.\w", document["text"])
        assert not set(re.findall(r"\w+", document["text"].lower())) & set(module.split("."))


def test_names_may_stay(install: Install, convert: Convert) -> None:
    """The words of the module's path stay; dotted names go all the same."""
    text = f"{prose(3)} with a saw of wood, see wood.saw.cut"
    install("wood", {"wood/saw.py": f'"""{text}"""'})
    removed, _ = convert(packages=["wood"])
    kept, conversion = convert(packages=["wood"], names="keep")
    assert "saw" not in removed["wood.saw"]["text"].split()
    assert "with a saw of wood, see" in kept["wood.saw"]["text"]
    assert "wood.saw" not in kept["wood.saw"]["text"]
    assert conversion.options["names"] == "keep"
