"""The AAPD converter: three forms and four packings of the same documents, the tree, the published files."""

from __future__ import annotations

import gc
import gzip
import json
import os
import shutil
import sys
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from programs import compose

from hblm.config.prepare import PrepareConfig
from hblm.config.train import Dataset
from hblm.data.convert.label_trees import read_tree
from hblm.data.converters import load_converter
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.preparation import run
from hblm.data.raw.archives import Raw
from hblm.data.writer import write_dataset
from hblm.document import SPLITS, Document
from hblm.errors import DataError
from hblm.taxonomy import Taxonomy

ROOT = Path(__file__).parents[2]
PUBLISHED = Path(os.environ.get("HBLM_SHARED_DATA", ROOT.parent / "shared" / "data")) / "aapd_hjcl"
needs_published = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"no {PUBLISHED}")

Raws = Mapping[str, Sequence[tuple[str, str]]]  # split -> text and labels, as SGM writes them
INVENTED: Raws = {
    "train": [
        ("we count invented trees , slowly", "cs.DS math.CO"),
        ("a made-up bound \\( n ^ 2 \\)", "cs.ds"),
        ("\u2028 quanta – of “nothing” ,  twice", "quant-ph"),
    ],
    "val": [("nothing is learnt from noise", "stat.ml cs.lg")],
    "test": [("old words", "cmp-lg cs.CL"), ("neurons that never were", "q-bio.NC")],
}


def write(folder: Path, files: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True)
    for name, content in files.items():
        (folder / name).write_text(content, encoding="utf-8", newline="\n")
    return folder


def lines(rows: Sequence[str]) -> str:
    return "".join(f"{row}\n" for row in rows)


def aligned(raws: Raws) -> dict[str, str]:
    texts = {f"text_{split}": lines([text for text, _ in rows]) for split, rows in raws.items()}
    return texts | {f"label_{split}": lines([labels for _, labels in rows]) for split, rows in raws.items()}


def hedwig(raws: Raws) -> dict[str, str]:
    categories = list(converter().CATEGORIES)

    def row(text: str, labels: str) -> str:
        return "".join(str(int(name in labels.lower().split())) for name in categories) + f"\t{text}"

    names = {"train": "train.tsv", "val": "dev.tsv", "test": "test.tsv"}
    return {names[split]: lines([row(*document) for document in raws[split]]) for split in SPLITS}


def jsonl(raws: Raws, record: Callable[[str, list[str]], Mapping[str, Any]]) -> dict[str, str]:
    return {
        f"{split}.jsonl": lines([json.dumps(record(text, labels.split())) for text, labels in rows])
        for split, rows in raws.items()
    }


FORMS: Mapping[str, Callable[[Raws], dict[str, str]]] = {
    "text_label": aligned,
    "text_label .txt": lambda raws: {f"{name}.txt": text for name, text in aligned(raws).items()},
    "hedwig": hedwig,
    "jsonl, one string": lambda raws: jsonl(raws, lambda text, labels: {"token": text, "label": labels}),
    "jsonl, tokens": lambda raws: jsonl(
        raws, lambda text, labels: {"token": text.split(" "), "label": labels, "topic": [], "keyword": []}
    ),
    "jsonl, other keys": lambda raws: jsonl(raws, lambda text, labels: {"labels": labels, "text": text}),
    "jsonl, closed": lambda raws: jsonl(
        raws,
        lambda text, labels: {
            "label": [*labels, *(label.partition(".")[0] for label in labels)],
            "token": text,
        },
    ),
}


def converter() -> Any:
    """Return the module datasets/aapd.py."""
    return sys.modules[load_converter("aapd").__module__]


def own_config() -> Dataset:
    """Return what conf/dataset/aapd.yaml says."""
    dataset: Dataset = compose("prepare", PrepareConfig, "dataset=aapd").dataset
    return dataset


Convert = Callable[..., Prepared]


@pytest.fixture
def convert(tmp_path: Path) -> Convert:
    """Return a function that converts a raw download, writes the dataset and opens it."""

    def made(raw: Path, name: str = "aapd", *, allow: bool = False, **options: Any) -> Prepared:
        folder, scratch = tmp_path / "data" / name, tmp_path / f"scratch {name}"
        scratch.mkdir()
        conversion = load_converter("aapd")(raw, options, scratch, lambda title, total: lambda steps: None)
        expect = own_config().expect if allow else {}
        write_dataset(folder, conversion, converter="aapd", expect=expect, allow_mismatch=allow)
        return open_prepared(folder)

    return made


def documents(prepared: Prepared) -> dict[str, list[Document]]:
    return {split: list(prepared.documents(split)) for split in SPLITS}


def content(prepared: Prepared) -> dict[str, bytes]:
    return {name: (prepared.folder / name).read_bytes() for name in prepared.files}


def manifest(prepared: Prepared) -> Mapping[str, Any]:
    assert prepared.manifest is not None
    return prepared.manifest


# --- forms and packings


def test_documents_have_their_text_and_closed_labels_in_lower_case(tmp_path: Path, convert: Convert) -> None:
    assert documents(convert(write(tmp_path / "raw", aligned(INVENTED)))) == {
        "train": [
            Document("train-1", "we count invented trees , slowly", ("cs", "math", "cs.ds", "math.co")),
            Document("train-2", "a made-up bound \\( n ^ 2 \\)", ("cs", "cs.ds")),
            Document("train-3", "\u2028 quanta – of “nothing” ,  twice", ("quant-ph",)),
        ],
        "val": [Document("val-1", "nothing is learnt from noise", ("cs", "stat", "cs.lg", "stat.ml"))],
        "test": [
            Document("test-1", "old words", ("cmp-lg", "cs", "cs.cl")),
            Document("test-2", "neurons that never were", ("q-bio", "q-bio.nc")),
        ],
    }


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_files(form: str, tmp_path: Path, convert: Convert) -> None:
    found = convert(write(tmp_path / "one", FORMS[form](INVENTED)), "one")
    assert content(found) == content(convert(write(tmp_path / "raw", aligned(INVENTED))))
    assert manifest(found)["options"]["form"] == form.partition(",")[0].partition(" ")[0]


def packed(kind: str, folder: Path) -> Path:
    """Return the download that holds the folder's files, packed in one of the ways people do."""
    target = folder.with_name(f"packed.{kind}")
    if kind == "sub-folder":
        shutil.copytree(folder, target / "Castor" / "data")
        (target / "README.md").write_text("about")
    elif kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("__MACOSX/AAPD/._text_train", b"\0\5\x16\7")
            archive.writestr("AAPD/", b"")
            for file in folder.iterdir():
                archive.write(file, f"AAPD/{file.name}")
    else:
        with tarfile.open(target, "w:gz") as archive:
            archive.add(folder, ".")
    return target


@pytest.mark.parametrize("kind", ["sub-folder", "zip", "tar.gz"])
@pytest.mark.parametrize("form", ["text_label", "hedwig", "jsonl, one string"])
def test_every_packing_gives_the_same_files(form: str, kind: str, tmp_path: Path, convert: Convert) -> None:
    raw = write(tmp_path / "AAPD", FORMS[form](INVENTED))
    found = convert(packed(kind, raw), "packed")
    assert content(found) == content(convert(raw))
    used = [source["name"] for source in manifest(found)["sources"]]
    names = (
        [f"Castor/data/{path.name}" for path in raw.iterdir()] if kind == "sub-folder" else [f"packed.{kind}"]
    )
    assert used == sorted(names)


def test_compressed_files_are_read_and_closed(tmp_path: Path, convert: Convert) -> None:
    raw = tmp_path / "compressed"
    raw.mkdir()
    for name, text in aligned(INVENTED).items():
        (raw / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    with warnings.catch_warnings(record=True) as left_open:
        warnings.simplefilter("always")
        found = convert(raw)
        gc.collect()
    assert content(found) == content(convert(write(tmp_path / "raw", aligned(INVENTED)), "plain"))
    assert [str(warning.message) for warning in left_open] == []


def test_a_split_may_come_in_numbered_parts(tmp_path: Path, convert: Convert) -> None:
    files = FORMS["jsonl, one string"](INVENTED)
    first, *rest = files.pop("train.jsonl").splitlines(keepends=True)
    parts = {"train-00000-of-2.jsonl": first, "train-00001-of-2.jsonl": "".join(rest)}
    found = documents(convert(write(tmp_path / "raw", files | parts)))["train"]
    assert [document.text for document in found] == [text for text, _ in INVENTED["train"]]


@pytest.mark.parametrize("word", ["valid", "dev"])
def test_validation_may_be_called_otherwise(word: str, tmp_path: Path, convert: Convert) -> None:
    files = aligned(INVENTED)
    files |= {f"{part}_{word}": files.pop(f"{part}_val") for part in ("text", "label")}
    assert documents(convert(write(tmp_path / "raw", files)))["val"][0].text == INVENTED["val"][0][0]


def test_equal_input_gives_equal_bytes(tmp_path: Path, convert: Convert) -> None:
    raw = write(tmp_path / "raw", aligned(INVENTED))
    assert content(convert(raw, "one")) == content(convert(raw, "other"))


# --- tree


def test_the_tree_has_61_nodes_on_two_levels() -> None:
    tree = converter().tree()
    assert [len(level) for level in tree.levels] == [9, 52]
    parents = {node.id: node.parent for node in tree.nodes}
    assert [node for node, parent in parents.items() if parent is None] == [
        *("cmp-lg", "cond-mat", "cs", "math", "nlin", "physics", "q-bio", "quant-ph", "stat")
    ]
    assert all(parent is None or node.startswith(f"{parent}.") for node, parent in parents.items())
    sizes = {top: list(parents.values()).count(top) for top in parents}
    assert {top: size for top, size in sizes.items() if size} == {
        "cs": 33,
        "math": 8,
        "stat": 4,
        "physics": 2,
        "cond-mat": 2,
        "q-bio": 2,
        "nlin": 1,
    }


def test_nodes_have_readable_names_which_may_repeat() -> None:
    names = {node.id: node.name for node in converter().tree().nodes}
    assert names["cs.it"] == names["math.it"] == "Information Theory"
    assert all(name[0].isupper() for name in names.values())


def test_every_digit_of_hedwig_is_one_of_the_54_categories(tmp_path: Path, convert: Convert) -> None:
    rows = lines(["0" * at + "1" + "0" * (53 - at) + f"\ttext {at}" for at in range(54)])
    found = convert(write(tmp_path / "raw", dict.fromkeys(("train.tsv", "dev.tsv", "test.tsv"), rows)))
    given = [document.labels[-1] for document in found.documents("test")]
    assert given[:8] == ["cs.it", "math.it", "cs.lg", "cs.ai", "stat.ml", "cs.ds", "cs.si", "cs.dm"]
    assert given[-3:] == ["nlin.ao", "q-bio.qm", "math.nt"]
    archives = {top for top, below in pairwise(node.id for node in found.taxonomy.nodes) if "." not in top}
    assert set(given) == {node.id for node in found.taxonomy.nodes} - archives | {"quant-ph", "cmp-lg"}
    assert len(set(given)) == 54


def test_added_parents_are_counted(tmp_path: Path, convert: Convert) -> None:
    raw = write(tmp_path / "raw", aligned(INVENTED))
    assert manifest(convert(raw))["repaired"]["documents_closed"] == 5  # all but quant-ph
    closed = write(tmp_path / "closed", FORMS["jsonl, closed"](INVENTED))
    assert manifest(convert(closed, "closed"))["repaired"]["documents_closed"] == 0


# --- options and expectations


def test_the_dataset_options_name_every_key_with_its_default() -> None:
    dataset, options = own_config(), converter().Options
    assert dataset.prepare == options._field_defaults
    assert dataset.expect == {
        "documents": {"train": 53840, "val": 1000, "test": 1000},
        "levels": [9, 52],
    }


def test_options_are_recorded(tmp_path: Path, convert: Convert) -> None:
    raw = write(tmp_path / "raw", aligned(INVENTED))
    plain = manifest(convert(raw, "plain"))["options"]
    assert plain == {"clean": "none", "encoding": None, "form": "text_label"}
    found = convert(raw, clean="hiagm", encoding="utf-8")
    assert manifest(found)["options"] == {"clean": "hiagm", "encoding": "utf-8", "form": "text_label"}
    assert [document.text for document in found.documents("train")] == [
        *("count invented trees slowly", "made bound", "quanta nothing twice")
    ]


def test_an_encoding_is_used(tmp_path: Path, convert: Convert) -> None:
    raw = write(tmp_path / "raw", aligned(INVENTED))
    (raw / "text_val").write_bytes("caf\xe9 – noise\n".encode("cp1252"))
    (raw / "text_train").write_text("\n".join(text for text, _ in INVENTED["train"]), encoding="utf-8-sig")
    found = documents(convert(raw, encoding="cp1252"))
    assert found["val"][0].text == "café – noise"
    assert found["train"][2].text == INVENTED["train"][2][0]  # a byte-order mark is the stronger claim


def test_other_counts_than_expected_are_refused_with_a_table(tmp_path: Path) -> None:
    raw = write(tmp_path / "raw", aligned(INVENTED))
    with pytest.raises(DataError) as caught:
        run(compose("prepare", PrepareConfig, "dataset=aapd", f"raw={raw}", "encoder=tiny"))
    assert [line.split() for line in str(caught.value).splitlines()[1:]] == [
        ["expected", "found"],
        ["documents", "in", "train", "53,840", "3", "differs", "by", "-53,837"],
        ["documents", "in", "val", "1,000", "1", "differs", "by", "-999"],
        ["documents", "in", "test", "1,000", "2", "differs", "by", "-998"],
        ["levels", "2", "2"],
        ["nodes", "on", "level", "0", "9", "9"],
        ["nodes", "on", "level", "1", "52", "52"],
    ]
    assert "allow_mismatch=true" in str(caught.value)
    assert not Path("data/aapd").exists()


def test_other_counts_may_be_allowed(tmp_path: Path, convert: Convert) -> None:
    found = manifest(convert(write(tmp_path / "raw", aligned(INVENTED)), allow=True))
    assert found["expected"] == {
        "documents": {"train": 53840, "val": 1000, "test": 1000},
        "levels": [9, 52],
        "met": False,
    }
    assert found["warnings"] == ["the counts are not those expected (allow_mismatch=true)"]


# --- the published files


def published(split: str) -> list[dict[str, Any]]:
    with (PUBLISHED / f"{split}.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def require_published(prepared: Prepared, split: str) -> None:
    """Compare a prepared split, document for document, with the published one."""
    expected, found = published(split), list(prepared.documents(split))
    assert len(found) == len(expected) == 1000
    assert [document.text for document in found] == [record["token"] for record in expected]
    assert [set(document.labels) for document in found] == [set(record["label"]) for record in expected]


def published_tree() -> Taxonomy:
    with Raw(PUBLISHED / "aapd.taxonomy") as files:
        return read_tree(files.files[0])


@needs_published
@pytest.mark.parametrize("form", ["text_label", "hedwig"])
def test_the_published_sets_come_out_of_their_raw_form(form: str, tmp_path: Path, convert: Convert) -> None:
    virtual = {"cs", "math", "stat", "physics", "cond-mat", "q-bio", "nlin"}
    raws = {"train": INVENTED["train"]}
    for split in ("val", "test"):
        raws[split] = [
            (record["token"], " ".join(label for label in record["label"] if label not in virtual))
            for record in published(split)
        ]
    found = convert(write(tmp_path / "raw", FORMS[form](raws)))
    for split in ("val", "test"):
        require_published(found, split)
    counts = manifest(found)["counts"]
    assert [round(counts[split]["labels"] / 1000, 2) for split in ("val", "test")] == [4.10, 4.12]


@needs_published
def test_the_published_files_are_read_as_they_are(tmp_path: Path, convert: Convert) -> None:
    raw = tmp_path / "hjcl"
    raw.mkdir()
    for path in PUBLISHED.iterdir():
        shutil.copyfile(path, raw / path.name)
    records = [record | {"token": f"anew {at}"} for at, record in enumerate(published("val"))]
    (raw / "train.jsonl").write_text(lines(list(map(json.dumps, records))))
    found = convert(raw)
    for split in ("val", "test"):
        require_published(found, split)
    assert manifest(found)["repaired"]["documents_closed"] == 0
    assert [source["name"] for source in manifest(found)["sources"]] == [
        *("test.jsonl", "train.jsonl", "val.jsonl")
    ]


@needs_published
def test_the_tree_is_the_published_one() -> None:
    trees = [converter().tree(), published_tree()]
    one, other = ({node.id: node.parent for node in tree.nodes} for tree in trees)
    assert one == other


@needs_published
def test_every_published_category_is_in_the_tree_under_its_published_name() -> None:
    names = {node.id: node.name for node in converter().tree().nodes}
    assert names == json.loads((PUBLISHED / "label_mapping.json").read_text())
    used = {label for split in ("val", "test") for record in published(split) for label in record["label"]}
    assert used == names.keys()


@needs_published
def test_the_order_of_hedwigs_digits_is_that_of_the_published_list() -> None:
    order = json.loads((PUBLISHED / "label_mapping.json").read_text())
    found = [label for label in converter().CATEGORIES if "." in label]
    assert found == [label for label in order if "." in label]
