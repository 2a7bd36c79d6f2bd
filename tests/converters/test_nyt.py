"""The NYT converter: the contract, forms of LDC's corpus, texts and labels, the published lists and trees."""

from __future__ import annotations

import gzip
import hashlib
import random
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from conversions import (
    SHARED,
    Files,
    below,
    by_id,
    changed,
    content,
    conversion_of,
    documents,
    first_file,
    flipped,
    ids,
    manifest,
    own_config,
    repaired,
    tar_of,
)
from converter_contract import DAMAGED, ConverterContract, Download, Fault, TinySet
from raws import packed

from hblm.data.converters import load_script
from hblm.data.dataset import Prepared, open_prepared
from hblm.data.raw import many_files, parallel
from hblm.data.raw.many_files import ParsedFile
from hblm.data.raw.news_xml import Article
from hblm.document import SPLITS, Document
from hblm.errors import DataError
from hblm.taxonomy import Taxonomy

SET = "nyt"
needs_lists = pytest.mark.skipif(not (SHARED / "nyt_splits").is_dir(), reason="no published lists")
needs_trees = pytest.mark.skipif(not (SHARED / "taxonomies").is_dir(), reason="no published trees")

Convert = Callable[..., Prepared]


def script() -> Any:
    return load_script(SET)


# --- invented articles, lists and a tree

DTD = "http://www.nitf.org/IPTC/NITF/3.3/specification/dtd/nitf-3-3.dtd"
DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>\n'
DOCTYPE = f'<!DOCTYPE nitf SYSTEM "{DTD}">\n'
BODY = (
    "<body.head><hedline><hl1>Invented</hl1></hedline><abstract><p>An abstract.</p></abstract></body.head>"
    '<body.content><block class="lead_paragraph"><p>Lead.</p></block>'
    '<block class="full_text"><p>Lead.</p><p>More.</p></block></body.content>'
)
TEXT = "Lead. Lead. More."  # of that body: all paragraphs but the first
AFRICA = "Top/News/World/Africa"
DISEASES = "Top/News/Health/Diseases, Conditions, and Health Topics"


def classifier(path: str, kind: str = ' type="taxonomic_classifier"') -> str:
    return f'<classifier class="online_producer"{kind}>{path}</classifier>'


def nitf(
    identity: str,
    *paths: str,
    body: str = BODY,
    head: str = DECLARATION + DOCTYPE,
    classifiers: str = "",
    encoding: str = "utf-8",
    doc_id: str | None = None,
) -> bytes:
    """Return an article as LDC wrote it; one without paths has a path of three names."""
    found = classifiers or "".join(map(classifier, paths or ("Top/Features/Travel",)))
    named = f'<doc-id id-string="{identity}"/>' if doc_id is None else doc_id
    return (
        f'{head}<nitf version="-//IPTC//DTD NITF 3.3//EN"><head><title>Invented</title>'
        f'<meta name="online_sections" content="Top/News/U.S."/>'
        f"<docdata>{named}<identified-content>"
        f'<classifier class="indexing_service" type="descriptor">Top/News/U.S./X</classifier>{found}'
        f'</identified-content></docdata><pubdata date.publication="19990103T000000" name="Example"/>'
        f"</head><body>{body}</body></nitf>\n"
    ).encode(encoding)


def paragraphs(*texts: str) -> str:
    """Return a body with an abstract and these paragraphs as its full text."""
    found = "".join(f"<p>{text}</p>" for text in texts)
    return f'<abstract><p>An abstract.</p></abstract><block class="full_text">{found}</block>'


def listing(articles: Iterable[str], year: str = "1999") -> bytes:
    return "".join(f"Nytimes/{year}/{article}.xml\n" for article in articles).encode()


def lists(**splits: str | Sequence[str]) -> dict[str, bytes]:
    """Return the three lists; articles as a sequence, or separated by blanks."""
    return {
        f"idnewnyt_{split}.json": listing(found.split() if isinstance(found, str) else found)
        for split, found in splits.items()
    }


TREE: Mapping[str, Sequence[str]] = {  # its lines in an order of their own, as in the published file
    "Root": ["Top/Opinion", "Top/News", "Top/Features"],
    "Top/News/World": [AFRICA],
    "Top/News": ["Top/News/World", "Top/News/U.S.", "Top/News/Health"],
    "Top/News/Health": [DISEASES],
    "Top/Opinion": ["Top/Opinion/Opinion"],
    "Top/Features": ["Top/Features/Travel"],
}
NODES = {child: None if parent == "Root" else parent for parent, below in TREE.items() for child in below}
TAXONOMY = "".join("\t".join([parent, *below]) + "\n" for parent, below in TREE.items()).encode()
VOCAB = "".join(f"{node}\n" for node in ["Root", *NODES]).encode()

# the corpus: what is listed, and an article that is not
DATES = {"0099901": "1999/01/03", "0099902": "1999/01/17", "0000013": "2001/12/31", "0099904": "1999/01/03"}
ARTICLES: Files = {
    "0099901": nitf("0099901", AFRICA, "Top/Features/Travel"),
    "0099902": nitf("0099902", "Top/Opinion/Opinion/Letters", body=paragraphs("Two", "parts.")),
    "0000013": nitf("13", DISEASES, "Top/News"),
    "0099904": nitf("99904", "Top/News/U.S."),
    "0099999": nitf("0099999", "Top/News/World"),
}
LISTS = lists(train="0099902 0099901", val="0000013", test="0099904")
CONTROL: Files = {**LISTS, "nyt.taxonomy": TAXONOMY}
DOCUMENTS = {
    "train": [
        Document("0099902", "Two parts.", ("Top/Opinion", "Top/Opinion/Opinion")),
        Document(
            "0099901",
            TEXT,
            (
                *("Top/Features", "Top/News", "Top/Features/Travel", "Top/News/World"),
                "Top/News/World/Africa",
            ),
        ),
    ],
    "val": [Document("0000013", TEXT, ("Top/News", "Top/News/Health", DISEASES))],
    "test": [Document("0099904", TEXT, ("Top/News", "Top/News/U.S."))],
}


def date(article: str) -> str:
    return DATES.get(article, "1999/01/03")


def unpacked(articles: Files) -> dict[str, bytes]:
    return {f"data/{date(name)}/{name}.xml": data for name, data in articles.items()}


def flattened(articles: Files) -> dict[str, bytes]:
    return {f"Nytimes/{date(name)[:4]}/{name}.xml": data for name, data in articles.items()}


def by_month(articles: Files) -> dict[str, bytes]:
    months: dict[str, dict[str, bytes]] = {}
    for name, data in articles.items():
        year, month, day = date(name).split("/")
        months.setdefault(f"data/{year}/{month}.tgz", {})[f"{month}/{day}/{name}.xml"] = data
    return {name: tar_of(members, "gz") for name, members in months.items()}


BESIDE: Files = {"dtd/nitf-3-3.dtd": b"<!ELEMENT nitf (head?, body)>\n", "docs/overview.pdf": b"%PDF-1.4\n"}


# form -> the name of the download, and its files
FORMS: Mapping[str, tuple[str, Callable[[Files], Mapping[str, bytes]]]] = {
    "an archive a month": ("raw", by_month),
    "LDC's folder": ("raw", lambda found: below("nyt_corpus", {**by_month(found), **BESIDE})),
    "unpacked": ("raw", lambda found: {**unpacked(found), **BESIDE}),
    "flattened": ("raw", flattened),
    "a month unpacked": (
        "raw",
        lambda found: {
            **{name: data for name, data in by_month(found).items() if "1999" not in name},
            **{name: data for name, data in unpacked(found).items() if "1999" in name},
        },
    ),
    "LDC's download": (
        "nyt_corpus_LDC2008T19.tgz",
        lambda found: below("nyt_corpus", {**by_month(found), **BESIDE}),
    ),
    "LDC's download in a folder": (
        "raw",
        lambda found: {
            "LDC/nyt_corpus_LDC2008T19.tgz": tar_of(below("nyt_corpus", by_month(found)), "gz"),
        },
    ),
    "a zip of months": ("nyt.zip", by_month),
    "a zip, flattened": ("nyt.zip", flattened),
    "a tar, unpacked": ("nyt.tar", unpacked),
}


@pytest.fixture
def trained_on(convert: Convert) -> Callable[..., Prepared]:
    """Return a function that converts articles, all for training, and one each for the other splits."""
    number = 0

    def made(articles: Files, **options: Any) -> Prepared:
        nonlocal number
        number += 1
        files = {**articles, "0000013": ARTICLES["0000013"], "0099904": ARTICLES["0099904"]}
        named = lists(train=list(articles), val="0000013", test="0099904")
        return convert({**flattened(files), **named, "nyt.taxonomy": TAXONOMY}, f"set {number}", **options)

    return made


def trained(prepared: Prepared) -> dict[str, Document]:
    return {document.id: document for document in prepared.documents("train")}


# --- the contract

SOUND = ARTICLES["0099902"]

# a fault of article 0099902 -> its bytes, and what the message must say
BROKEN: Mapping[str, tuple[bytes, Sequence[str]]] = {
    "cut in its text": (SOUND[: SOUND.index(b"parts")], ["not well-formed"]),
    "empty": (b"", ["not well-formed"]),
    "another root": (b"<html><body>404</body></html>", ["<nitf>", "<html>"]),
    "a story of Reuters": (b'<newsitem itemid="99902"><text/></newsitem>', ["<nitf>", "<newsitem>"]),
    "another id": (nitf("0099901"), ["doc-id", "0099901"]),
    "an id that only ends so": (nitf("10099902"), ["doc-id", "10099902"]),
    "an id that is no number": (nitf("x99902"), ["doc-id", "x99902"]),
}

# changes of lists and tree -> the place of the message, and other parts of it
CONTROLS: Mapping[str, tuple[Mapping[str, bytes | None], str, Sequence[str]]] = {
    "JSON": (
        {"idnewnyt_val.json": b'["Nytimes/1999/0000013.xml"]\n'},
        "idnewnyt_val.json:1",
        ["Nytimes/1995/0799990.xml", '["Nytimes'],
    ),
    "an id alone": (
        {"idnewnyt_val.json": b"Nytimes/1999/0000013.xml\n13\n"},
        "idnewnyt_val.json:2",
        ["'13'"],
    ),
    "a blank line between": (
        {"idnewnyt_train.json": b"0099902.xml\n\n0099901.xml\n"},
        "idnewnyt_train.json:2",
        ["expected a line such as"],
    ),
    "an empty list": ({"idnewnyt_test.json": b""}, "idnewnyt_test.json", ["no article"]),
    "no list for validation": (
        {"idnewnyt_val.json": None},
        "",
        ["no idnewnyt_val.json", "dataset.prepare.lists="],
    ),
    "no lists": (
        dict.fromkeys(LISTS),
        "",
        ["no", "idnewnyt_train.json", "idnewnyt_val.json", "idnewnyt_test.json", "dataset.prepare.lists="],
    ),
    "no tree": (
        {"nyt.taxonomy": None},
        "",
        ["no nyt.taxonomy", "nyt_label.vocab", "dataset.prepare.lists="],
    ),
    "a list twice": (
        {"old/idnewnyt_val.json": b"x"},
        "",
        ["idnewnyt_val.json is there 2 times", "@old/idnewnyt_val.json"],
    ),
    "a node without its parent": (
        {"nyt.taxonomy": None, "nyt_label.vocab": VOCAB + b"Top/News/Sports/Soccer\n"},
        f"nyt_label.vocab:{len(NODES) + 2}",
        ["'Top/News/Sports/Soccer'", "'Top/News/Sports'"],
    ),
    "an empty vocabulary": (
        {"nyt.taxonomy": None, "nyt_label.vocab": b"Root\n"},
        "nyt_label.vocab",
        ["no nodes"],
    ),
    "a branch without its parent": (
        {"nyt.taxonomy": TAXONOMY + b"Top/News/Sports\tTop/News/Sports/Soccer\n"},
        f"nyt.taxonomy:{len(TREE) + 1}",
        ["'Top/News/Sports'"],
    ),
    "an empty tree": ({"nyt.taxonomy": b""}, "nyt.taxonomy", ["parent"]),
    "an article that is not there": (
        {"idnewnyt_val.json": b"Nytimes/1999/0000013.xml\nNytimes/1999/0055555.xml\n"},
        "",
        ["1 of 5 ", "0055555.xml", "@idnewnyt_val.json:2"],
    ),
}


TWICE: Mapping[str, tuple[Files, str, str]] = {  # what is there as well -> the second place, and the first
    "in another folder": (
        {**flattened(ARTICLES), "Nytimes/2001/0099901.xml": ARTICLES["0099901"]},
        "/Nytimes/2001/0099901.xml",
        "/Nytimes/1999",
    ),
    "with other content": (
        {**flattened(ARTICLES), "old/0099901.xml": b"<broken"},
        "/old/0099901.xml",
        "/Nytimes/1999",
    ),
    "in an archive twice": (
        {**flattened(ARTICLES), "more/01.tgz": tar_of({"01/02/0099904.xml": ARTICLES["0099904"]}, "gz")},
        "/more/01.tgz:01/02/0099904.xml",
        "/Nytimes/1999",
    ),
}


def truncated_tar(data: bytes) -> bytes:
    """Return a whole gzip of a tar that ends in its last file."""
    plain = gzip.decompress(data)
    return gzip.compress(plain[: plain.rindex(b"</nitf>") - 5])


UNREADABLE: Mapping[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "a web page": lambda data: b"<html>Log in first</html>",
    "its first bytes": lambda data: data[:7],
    "half of it": lambda data: data[: len(data) // 2],
    "all but its last bytes": lambda data: data[:-6],
    "another byte": flipped,
    "another checksum": lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
    "a tar without its end": truncated_tar,
}
MIDDLE = tar_of(
    {f"06/01/0050{at:03}.xml": nitf(f"50{at:03}", body=paragraphs("x" * at)) for at in range(40)}, "gz"
)  # a month that nobody lists
MONTH = "data/2000/06.tgz"


def faults() -> Iterator[tuple[str, Fault]]:
    for name, (data, words) in BROKEN.items():
        yield (
            name,
            Fault(
                f"Nytimes/{date('0099902')[:4]}/0099902.xml",
                tuple(words),
                {f"Nytimes/{date('0099902')[:4]}/0099902.xml": data},
            ),
        )
    for name, (changes, place, words) in CONTROLS.items():
        yield name, Fault(place, tuple(words), changes)
    for name, (files, second, first) in TWICE.items():
        yield f"an article {name}", Fault(second[1:], ("second time", f"@{first[1:]}"), files)
    yield (
        "another tree",
        Fault(
            "",
            ("has a text and a label of the tree; is it NYT's?",),
            {"nyt.taxonomy": b"Root\tCCAT\nCCAT\tC15\n"},
        ),
    )
    missing = {name: None for name in flattened(ARTICLES) if "/1999/" in name}
    yield "no article of a year", Fault("", ("listed articles are not there (1999: 3)",), missing)
    long = flattened({key: nitf(key, body="") for key in ARTICLES})
    place = f"Nytimes/{date('0099902')[:4]}/0099902.xml"
    yield (
        "a long article",
        Fault(place, ("more than 700 bytes",), {**long, place: SOUND + b" " * 700}, longest=700),
    )


def form_of(form: str, control: Files = CONTROL) -> Callable[[Path], Download]:
    name, files = FORMS[form]
    return lambda place: (packed(place / name, {**files(ARTICLES), **control}), {})


def with_lists_in(form: str, name: str) -> Callable[[Path], Download]:
    def made(place: Path) -> Download:
        where = packed(place / name, below("HiAGM-master/data", CONTROL))
        raw, files = FORMS[form]
        other = {**lists(train="0099999", val="0099999", test="0099999"), "nyt.taxonomy": b"broken"}
        return packed(place / raw, {**files(ARTICLES), **other}), {"lists": str(where)}

    return made


def many(number: int) -> Files:
    articles = {
        f"{at:07}": nitf(f"{at:07}", body=paragraphs("word " * 4_000)) for at in range(100, 100 + number)
    }
    rest = {key: ARTICLES[key] for key in ("0000013", "0099904")}
    named = lists(train=list(articles), val="0000013", test="0099904")
    return {**flattened({**articles, **rest}), **named, "nyt.taxonomy": TAXONOMY}


class TestContract(ConverterContract):
    tiny = TinySet(
        name=SET,
        files={**flattened(ARTICLES), **CONTROL},
        documents=DOCUMENTS,
        needed="idnewnyt_train.json",
        texts=list(CONTROL),
        forms={
            **{form: form_of(form) for form in FORMS},
            "lists in a folder": form_of("an archive a month", below("HiAGM/data", CONTROL)),
            "lists in upper case": form_of("flattened", {key.upper(): data for key, data in CONTROL.items()}),
            "lists elsewhere": with_lists_in("flattened", "lists"),
            "lists elsewhere in a zip": with_lists_in("LDC's download", "lists.zip"),
            "lists elsewhere in a tar.gz": with_lists_in("an archive a month", "lists.tar.gz"),
        },
        options={"text": "full_text", "paragraphs": "glued", "overlaps": "keep", "clean": "lower"},
        unrecorded=("lists",),
        wrong={
            "text": ({"text": "body"}, ("text=body", "published", "full_text")),
            "paragraphs": ({"paragraphs": "glue"}, ("paragraphs=glue", "did you mean glued?")),
            "overlaps": ({"overlaps": True}, ("overlaps=true", "drop", "keep")),
            "a name": ({"list": "x"}, ("dataset.prepare.list", "did you mean lists?")),
            "a number": ({"lists": 3}, ("lists=3", "text or null")),
        },
        faults=dict(faults()),
        published={
            "documents": {"train": 23280, "val": 5816, "test": 7259},
            "levels": [4, 27, 51, 47, 17, 12, 6, 2],
        },
        many=many,
    )

    @pytest.mark.parametrize("fault", ["JSON", "an empty list", "no tree", "a node without its parent"])
    def test_a_fault_of_lists_elsewhere_has_its_place(self, fault: str, tmp_path: Path) -> None:
        changes, place, words = CONTROLS[fault]
        raw = packed(tmp_path / "raw", flattened(ARTICLES))
        where = packed(tmp_path / "lists", changed(CONTROL, changes))
        self._require_one_message(
            tmp_path, raw, f"{where}/{place}" if place else str(where), words, {"lists": str(where)}
        )

    def test_lists_that_are_nowhere_are_called_by_their_option(self, tmp_path: Path) -> None:
        raw = packed(tmp_path / "raw", {**flattened(ARTICLES), **CONTROL})
        self._require_one_message(
            tmp_path,
            raw,
            f"dataset.prepare.lists={tmp_path}/nowhere is not there",
            [],
            {"lists": f"{tmp_path}/nowhere"},
        )

    @pytest.mark.parametrize("fault", ["cut in its text", "another id"])
    @pytest.mark.parametrize("form", ["an archive a month", "LDC's download"])
    def test_a_broken_article_in_an_archive_has_its_place(
        self, form: str, fault: str, tmp_path: Path
    ) -> None:
        data, words = BROKEN[fault]
        name, files = FORMS[form]
        raw = packed(tmp_path / name, {**files({**ARTICLES, "0099902": data}), **CONTROL})
        inside = ":nyt_corpus" if form == "LDC's download" else ""
        self._require_one_message(tmp_path, raw, f"{raw}{inside}/data/1999/01.tgz:01/17/0099902.xml", words)

    @pytest.mark.parametrize("fault", UNREADABLE)
    def test_a_month_that_cannot_be_read_between_good_ones_is_named(self, fault: str, tmp_path: Path) -> None:
        files = {**by_month(ARTICLES), MONTH: UNREADABLE[fault](MIDDLE), **CONTROL}
        raw = packed(tmp_path / "raw", files)
        self._require_one_message(tmp_path, raw, f"{raw}/{MONTH}", [DAMAGED])
        if fault == "another byte":
            raw = packed(tmp_path / "nyt.tgz", files)
            self._require_one_message(tmp_path, raw, f"{raw}:{MONTH}", [DAMAGED])

    def test_a_month_that_a_worker_process_cannot_read_is_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(parallel, "n_cores", lambda: 2)
        more = {f"data/200{year}/02.tgz": tar_of({"02/x.txt": b"x"}, "gz") for year in range(5)}
        raw = packed(tmp_path / "raw", {**by_month(ARTICLES), **more, MONTH: flipped(MIDDLE), **CONTROL})
        self._require_one_message(tmp_path, raw, f"{raw}/{MONTH}", [DAMAGED])

    @pytest.mark.parametrize("size", [0, 1 << 30])
    def test_a_download_that_is_cut_short_beside_whole_lists_is_named(
        self, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(many_files, "_STREAMED", size)
        apart = packed(tmp_path / "lists", dict(CONTROL))
        data = tar_of({**by_month(ARTICLES), "about.txt": random.Random(1).randbytes(20_000)}, "gz")
        raw = tmp_path / "nyt_corpus_LDC2008T19.tgz"
        raw.write_bytes(data[: len(data) - 9_000])
        self._require_one_message(tmp_path, raw, str(raw), [DAMAGED], {"lists": str(apart)})

    def test_months_both_packed_and_unpacked_are_named(self, tmp_path: Path) -> None:
        loose = {name: data for name, data in unpacked(ARTICLES).items() if "/1999/01/03/" in name}
        raw = packed(tmp_path / "raw", {**by_month(ARTICLES), **loose, **CONTROL})
        self._require_one_message(
            tmp_path,
            raw,
            f"{raw}/data/1999/01/03/0099901.xml",
            ["second time", f"{raw}/data/1999/01.tgz:"],
        )


# --- forms of the corpus


def test_archives_that_were_read_are_sources(convert: Convert) -> None:
    files = {**by_month(ARTICLES), **CONTROL}
    found = convert(files)
    assert {source["name"]: source for source in manifest(found)["sources"]} == {
        name: {"name": name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in files.items()
    }


def test_loose_files_are_one_source(convert: Convert) -> None:
    files = flattened(ARTICLES)
    found = convert({**files, **CONTROL, "docs/about.txt": b"x"})
    read = [files[name] for name in sorted(files) if "0099999" not in name]
    hashes = b"".join(hashlib.sha256(data).digest() for data in read)
    (loose,) = [source for source in manifest(found)["sources"] if source["name"] not in CONTROL]
    assert loose["name"] == "4 files of 5"
    assert (loose["files"], loose["bytes"]) == (5, sum(map(len, read)))
    assert loose["sha256"] == hashlib.sha256(hashes).hexdigest()


def test_files_that_are_no_articles_are_left_alone(tmp_path: Path, convert: Convert) -> None:
    strange = dict.fromkeys(
        ["Nytimes/1999/index.xml", "Nytimes/1999/0099901.xml.bak", "Nytimes/1999/x0099901.xml", "README.xml"],
        b"<broken",
    )
    mac = {"__MACOSX/Nytimes/1999/._0099901.xml": b"\0", "Nytimes/1999/._0099901.xml": b"\0"}
    for name in ("raw", "raw.zip"):
        files = {**flattened(ARTICLES), **CONTROL, **strange, **mac}
        assert documents(convert(packed(tmp_path / name, files), f"of {name}")) == DOCUMENTS


@pytest.mark.parametrize("form", FORMS)
def test_an_article_that_is_not_listed_may_be_broken(form: str, tmp_path: Path, convert: Convert) -> None:
    name, files = FORMS[form]
    broken = {"0099999": b"<nitf><head>", "0012345": b"", "0012346": b"\0\xff" * 9}
    raw = packed(tmp_path / name, {**files({**ARTICLES, **broken}), **CONTROL})
    assert documents(convert(raw)) == DOCUMENTS


# --- the tree


def test_both_files_give_the_same_tree(convert: Convert) -> None:
    articles = flattened(ARTICLES)
    trees = {
        "tree": {"nyt.taxonomy": TAXONOMY},
        "vocab": {"nyt_label.vocab": VOCAB},
        "both": {"nyt.taxonomy": TAXONOMY, "nyt_label.vocab": VOCAB},
        "turned": {"nyt_label.vocab": b"\r\n".join(reversed(VOCAB.splitlines()))},
    }
    found = {
        name: content(convert({**articles, **LISTS, **files}, f"of {name}")) for name, files in trees.items()
    }
    assert found["vocab"] == found["both"] == found["turned"] == found["tree"]


def test_ids_are_whole_paths_and_names_their_last_parts(convert: Convert) -> None:
    tree = convert({**flattened(ARTICLES), **CONTROL}).taxonomy
    assert [len(level) for level in tree.levels] == [3, 5, 2]
    assert {node.id: node.parent for node in tree.nodes} == NODES
    names = {node.id: node.name for node in tree.nodes}
    assert (names["Top/Opinion"], names["Top/Opinion/Opinion"]) == ("Opinion", "Opinion")
    assert (names["Top/News/U.S."], names[AFRICA]) == ("U.S.", "Africa")
    assert names[DISEASES] == "Diseases, Conditions, and Health Topics"


def published_tree(name: str) -> Taxonomy:
    tree: Taxonomy = first_file(SHARED / "taxonomies" / name, script().read_nodes)
    return tree


@needs_trees
def test_both_published_files_are_one_tree_of_166_nodes_on_8_levels() -> None:
    tree = published_tree("nyt.taxonomy")
    assert tree == published_tree("nyt_label.vocab")
    assert [len(level) for level in tree.levels] == [4, 27, 51, 47, 17, 12, 6, 2]
    lines = (SHARED / "taxonomies" / "nyt_label.vocab").read_text(encoding="utf-8").splitlines()
    assert {node.id for node in tree.nodes} == {line.strip() for line in lines} - {"Root"}
    assert len(tree) == 166
    for node in tree.nodes:
        above, _, name = node.id.rpartition("/")
        assert (node.name, node.parent or "Top") == (name, above)
    assert [node.id for node in tree.nodes[:4]] == [
        *("Top/Classifieds", "Top/Features", "Top/News", "Top/Opinion")
    ]
    names = Counter(node.name for node in tree.nodes)
    assert (len(names), names["Reviews"], names["New York"], names["Opinion"]) == (135, 5, 3, 2)
    assert names["U.S."] >= 1
    assert any("," in name for name in names)


# --- labels

LABELS: Mapping[str, tuple[Sequence[str], Sequence[str]]] = {
    "every beginning": ([AFRICA], ["Top/News", "Top/News/World", AFRICA]),
    "several paths": (
        [AFRICA, "Top/News/U.S.", "Top/Features/Travel"],
        ["Top/News", "Top/News/World", AFRICA, "Top/News/U.S.", "Top/Features", "Top/Features/Travel"],
    ),
    "a path twice": (["Top/News/U.S."] * 2, ["Top/News", "Top/News/U.S."]),
    "two names": (["Top/News", "Top/Features/Travel"], ["Top/Features", "Top/Features/Travel"]),
    "one name": (["Top", "Top/News/U.S."], ["Top/News", "Top/News/U.S."]),
    "below the deepest kept node": ([f"{AFRICA}/Kenya/Nairobi"], ["Top/News", "Top/News/World", AFRICA]),
    "out of the tree early": (["Top/News/Sports/Soccer"], ["Top/News"]),
    "a top that is not kept": (["Top/Reference/Maps", "Top/News/U.S."], ["Top/News", "Top/News/U.S."]),
    "a node's name elsewhere": (["Top/Features/World/Africa"], ["Top/Features"]),
    "not from the top": (["News/World/Africa", "Top/News/U.S."], ["Top/News", "Top/News/U.S."]),
    "another case": (["Top/News/world"], ["Top/News"]),
    "commas": ([DISEASES], ["Top/News", "Top/News/Health", DISEASES]),
    "a beginning of a name with commas": (["Top/News/Health/Diseases"], ["Top/News", "Top/News/Health"]),
    "dots": (["Top/News/U.S."], ["Top/News", "Top/News/U.S."]),
    "a name on two levels": (["Top/Opinion/Opinion"], ["Top/Opinion", "Top/Opinion/Opinion"]),
    "a name on three": (["Top/Opinion/Opinion/Opinion"], ["Top/Opinion", "Top/Opinion/Opinion"]),
    "blanks around": (["\n   Top/News/U.S.\n  "], ["Top/News", "Top/News/U.S."]),
    "no kept node but the top": (["Top/Opinion/Letters"], ["Top/Opinion"]),
}


def test_labels_are_the_kept_beginnings_of_paths(trained_on: Callable[..., Prepared]) -> None:
    names = {f"{number:07}": name for number, name in enumerate(LABELS, 100)}
    found = trained_on({key: nitf(key, *LABELS[name][0]) for key, name in names.items()})
    given = {names[key]: set(document.labels) for key, document in trained(found).items()}
    assert given == {name: set(expected) for name, (_, expected) in LABELS.items()}
    assert repaired(found)["documents_closed"] == 0


KINDS = [
    *("descriptor", "general_descriptor", "online_sections", "types_of_material", "names"),
    *("biographical_categories", "taxonomic", "Taxonomic_Classifier", "taxonomic_classifiers", ""),
]


def test_only_taxonomic_classifiers_count(trained_on: Callable[..., Prepared]) -> None:
    others = "".join(classifier(AFRICA, f' type="{kind}"') for kind in KINDS) + classifier(AFRICA, "")
    indexed = classifier("Top/News/Health/X").replace("online_producer", "indexing_service")
    articles = {
        "0000001": nitf("1", classifiers=others + classifier("Top/Opinion/Opinion") + others),
        "0000002": nitf("2", classifiers=others + indexed),
        "0000003": nitf("3", classifiers=others),
    }
    found = trained_on(articles)
    assert {key: document.labels for key, document in trained(found).items()} == {
        "0000001": ("Top/Opinion", "Top/Opinion/Opinion"),
        "0000002": ("Top/News", "Top/News/Health"),
    }
    assert manifest(found)["dropped"] == {"train": 1}


# --- texts

LEAD = '<block class="lead_paragraph"><p>Lead.</p></block>'
FULL = '<block class="full_text"><p>Lead.</p><p>More.</p></block>'
ABSTRACT = "<abstract><p>An abstract.</p></abstract>"
CORRECTION = '<block class="correction_text"><p>Fixed.</p></block>'

# body -> the text as published, and the block of the full text
BODIES: Mapping[str, tuple[str, str, str]] = {
    "an abstract": (ABSTRACT + LEAD + FULL, "Lead. Lead. More.", "Lead. More."),
    "no abstract": (LEAD + FULL, "Lead. More.", "Lead. More."),
    "the full text alone": (FULL, "More.", "Lead. More."),
    "a block after it": (LEAD + FULL + CORRECTION, "Lead. More. Fixed.", "Lead. More."),
    "a block before it": (CORRECTION + FULL, "Lead. More.", "Lead. More."),
    "an empty abstract": ("<abstract><p/></abstract>" + FULL, "Lead. More.", "Lead. More."),
}


@pytest.mark.parametrize("text", ["published", "full_text"])
def test_the_text_is_of_the_paragraphs_asked_for(text: str, trained_on: Callable[..., Prepared]) -> None:
    names = {f"{number:07}": name for number, name in enumerate(BODIES, 100)}
    articles = {key: nitf(key, body=BODIES[name][0]) for key, name in names.items()}
    found = trained_on(articles, text=text)
    at = 1 if text == "published" else 2
    assert {names[key]: document.text for key, document in trained(found).items()} == {
        name: expected[at] for name, expected in BODIES.items()
    }
    assert manifest(found)["options"]["text"] == text


def test_paragraphs_may_be_glued(trained_on: Callable[..., Prepared]) -> None:
    body = f"{ABSTRACT}{LEAD}<block class='full_text'><p>Lead.</p><p/><p>Mo<b>re</b></p><p>still</p></block>"
    articles = {"0000001": nitf("1", body=body)}
    spaced, glued = trained_on(articles), trained_on(articles, paragraphs="glued")
    alone = trained_on(articles, paragraphs="glued", text="full_text")
    assert trained(spaced)["0000001"].text == "Lead. Lead. More still"
    assert trained(glued)["0000001"].text == "Lead.Lead.Morestill"
    assert trained(alone)["0000001"].text == "Lead.Morestill"
    assert manifest(glued)["options"]["paragraphs"] == "glued"


@pytest.mark.parametrize(("head", "latin_1"), [("", 1), ('<?xml version="1.0" encoding="iso-8859-1"?>\n', 0)])
def test_articles_in_an_undeclared_encoding_are_counted(
    head: str, latin_1: int, trained_on: Callable[..., Prepared]
) -> None:
    article = nitf("1", head=head, body=paragraphs("café", "Ü x"), encoding="iso-8859-1")
    found = trained_on({"0000001": article})
    assert trained(found)["0000001"].text == "café Ü x"
    assert repaired(found)["articles_read_as_iso_8859_1"] == latin_1


@pytest.mark.parametrize(
    "doc_id", ['<doc-id id-string="1"/>', '<doc-id id-string="0000001"/>', "", "<doc-id/>"]
)
def test_an_id_may_lack_its_zeros_or_be_missing(doc_id: str, trained_on: Callable[..., Prepared]) -> None:
    assert list(trained(trained_on({"0000001": nitf("", doc_id=doc_id)}))) == ["0000001"]


# --- documents that are dropped

TEXTLESS = {
    "0000001": nitf("1", body=ABSTRACT),
    "0000002": nitf("2", body=paragraphs("", " \n")),
    "0000003": nitf("3", body=""),
}
LABELLESS = {
    "0000004": nitf("4", "Top/News", "Top"),
    "0000005": nitf("5", "Top/Reference/Maps/Old"),
    "0000006": nitf("6", classifiers=classifier("")),
    "0000007": nitf("7", classifiers=classifier(AFRICA, ' type="descriptor"')),
}
NEITHER = {"0000008": nitf("8", "Top", body=ABSTRACT)}
LACKING = {**TEXTLESS, **LABELLESS, **NEITHER}
LACKING_LISTS = lists(
    train="0000001 0099902 0000004 0099901 0000008",
    val="0000005 0000013 0000002",
    test="0099904 0000003 0000006 0000007",
)
LISTED = {"train": 5, "val": 3, "test": 4}


def lacking(tmp_path: Path) -> Path:
    files = {**flattened({**ARTICLES, **LACKING}), **LACKING_LISTS, "nyt.taxonomy": TAXONOMY}
    return packed(tmp_path / "raw", files)


def test_articles_without_text_or_label_are_dropped_and_counted(tmp_path: Path, convert: Convert) -> None:
    found = convert(lacking(tmp_path))
    assert documents(found) == DOCUMENTS
    assert manifest(found)["dropped"] == {"train": 3, "val": 2, "test": 3}
    counts = {name: count for name, count in repaired(found).items() if name.endswith("_dropped")}
    assert sum(counts.values()) == len(LACKING)
    assert counts["articles_without_label_dropped"] == 4
    assert manifest(found)["counts"]["train"]["blank_texts"] == 0


def test_nothing_dropped_is_not_counted(convert: Convert) -> None:
    found = convert({**flattened(ARTICLES), **CONTROL})
    assert "dropped" not in manifest(found)
    assert not any(count for name, count in repaired(found).items() if name.endswith("dropped"))


def test_what_was_dropped_counts_for_what_is_expected(tmp_path: Path, convert: Convert) -> None:
    raw, levels = lacking(tmp_path), [3, 5, 2]
    found = convert(raw, expect={"documents": LISTED, "levels": levels})
    assert manifest(found)["expected"] == {"documents": LISTED, "levels": levels, "met": True}
    with pytest.raises(DataError) as caught:
        convert(raw, "other", expect={"documents": {"train": 2, "val": 3, "test": 4}})
    assert [line.split() for line in str(caught.value).splitlines()[2:]] == [
        ["documents", "in", "train", "2", "5", "differs", "by", "+3"],
        ["documents", "in", "val", "3", "3"],
        ["documents", "in", "test", "4", "4"],
    ]


def test_an_article_of_two_splits_is_dropped_in_both(tmp_path: Path, convert: Convert) -> None:
    control = {**CONTROL, **lists(train="0000001 0099901", val="0000001 0000013", test="0099904")}
    raw = packed(tmp_path / "raw", {**flattened({**ARTICLES, **LACKING}), **control})
    assert manifest(convert(raw, "drop"))["dropped"] == {"train": 1}
    keep = convert(raw, "keep", overlaps="keep", expect={"documents": {"train": 2, "val": 2, "test": 1}})
    assert manifest(keep)["dropped"] == {"train": 1, "val": 1}
    assert repaired(keep)["articles_without_text_dropped"] == 1


# --- articles that the lists name again

A, B, C, D, E = LETTERS = [f"000000{number}" for number in range(1, 6)]
AGAIN = {
    **lists(train=[A, B, A, C], val=[D, A, D, A], test=[E, B, D, E, A, A]),
    "nyt.taxonomy": TAXONOMY,
}


def again(tmp_path: Path) -> Path:
    articles = {letter: nitf(letter, body=paragraphs(f"Text {letter}.")) for letter in LETTERS}
    return packed(tmp_path / "raw", {**flattened(articles), **AGAIN})


def test_articles_named_again_are_dropped_there(tmp_path: Path, convert: Convert) -> None:
    assert ids(convert(again(tmp_path))) == {"train": [A, B, C], "val": [D], "test": [E]}


def test_articles_named_again_may_be_kept_where_the_lists_name_them(tmp_path: Path, convert: Convert) -> None:
    prepared = convert(again(tmp_path), overlaps="keep")
    assert ids(prepared) == {
        "train": [A, B, f"{A}-2", C],
        "val": [D, f"{A}-3", f"{D}-2", f"{A}-4"],
        "test": [E, f"{B}-2", f"{D}-3", f"{E}-2", f"{A}-5", f"{A}-6"],
    }
    assert all(each.text == f"Text {identity[:7]}." for identity, each in by_id(prepared).items())


@pytest.mark.parametrize("overlaps", ["drop", "keep"])
def test_articles_named_again_are_counted_by_list(overlaps: str, tmp_path: Path, convert: Convert) -> None:
    found = repaired(convert(again(tmp_path), overlaps=overlaps))
    assert {name: count for name, count in found.items() if "listed" in name} == {
        "articles_listed_again_in_train": 1,  # A
        "articles_listed_in_val_and_train": 1,  # A
        "articles_listed_again_in_val": 2,  # D, A
        "articles_listed_in_test_and_train": 2,  # B, A
        "articles_listed_in_test_and_val": 1,  # D, the others being in train
        "articles_listed_again_in_test": 2,  # E, A
    }


# --- the published lists


class Everything:
    """A corpus that has every article that is asked for, in the order of their ids."""

    sources: Sequence[Mapping[str, Any]] = ()

    def __init__(self, path: Path, pattern: str, parse: object, wanted: frozenset[str]) -> None:
        self.wanted = wanted

    def files(self) -> Iterator[ParsedFile]:
        for key in sorted(self.wanted):
            yield ParsedFile(
                key, f"x/{key}.xml", Article(key, f"Text {key}.", False, ("Top/News/World",), False), ""
            )


def listed(split: str) -> list[str]:
    """Return the articles of a published list, line by line."""
    text = (SHARED / "nyt_splits" / f"idnewnyt_{split}.json").read_text(encoding="ascii")
    return [line.rpartition("/")[2].removesuffix(".xml") for line in text.splitlines()]


def published(folder: Path) -> Path:
    """Copy the published lists and tree."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in SPLITS:
        shutil.copyfile(SHARED / "nyt_splits" / f"idnewnyt_{split}.json", folder / f"idnewnyt_{split}.json")
    shutil.copyfile(SHARED / "taxonomies" / "nyt.taxonomy", folder / "nyt.taxonomy")
    return folder


def lines_of_the_published_lists() -> dict[str, list[str]]:
    """Return the ids of the documents, a line of a list each: the n-th time an article is named, with -n."""
    seen: Counter[str] = Counter()
    found: dict[str, list[str]] = {}
    for split in SPLITS:
        found[split] = []
        for article in listed(split):
            seen[article] += 1
            found[split].append(article if seen[article] == 1 else f"{article}-{seen[article]}")
    return found


@pytest.mark.slow
@needs_lists
@needs_trees
def test_the_published_lists_give_a_document_for_each_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script(), "Corpus", Everything)
    found = conversion_of(SET, published(tmp_path / "raw"), tmp_path / "work", overlaps="keep")
    given = {split: [document.id for document in found.splits[split]] for split in SPLITS}
    assert {split: len(these) for split, these in given.items()} == {
        "train": 23_345,
        "val": 5_834,
        "test": 7_292,
    }
    assert (found.documents, found.warnings) == (36_471, [])
    expected = lines_of_the_published_lists()
    assert {split: set(these) for split, these in given.items()} == {
        split: set(these) for split, these in expected.items()
    }
    assert given == expected  # in the order of the lists


@needs_lists
@needs_trees
@pytest.mark.parametrize(("keep", "sizes"), [(False, (23_280, 5_816, 7_259)), (True, (23_345, 5_834, 7_292))])
@pytest.mark.slow
def test_the_published_lists_and_their_repetitions_are_counted(
    keep: bool, sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    counts: Counter[str] = Counter()
    _, lines, _, _ = script().read_lists(published(tmp_path / "raw"))
    assert len(lines) == 36_471
    found = script().documents_of(lines, keep, counts)
    assert len({document.article for document in found}) == 36_355
    splits = Counter(document.split for document in found)
    assert tuple(splits[split] for split in SPLITS) == sizes
    assert sum(counts.values()) == 36_471 - 36_355
    assert counts == {  # train and val share 17 articles, train and test 20, val and test 6, all three 4
        "articles_listed_again_in_train": 65,
        "articles_listed_in_val_and_train": 17,
        "articles_listed_again_in_val": 1,
        "articles_listed_in_test_and_train": 20,
        "articles_listed_in_test_and_val": 2,
        "articles_listed_again_in_test": 11,
    }


def test_lists_that_are_not_the_published_ones_are_named(convert: Convert) -> None:
    warnings = manifest(convert({**flattened(ARTICLES), **CONTROL}))["warnings"]
    assert [warning.partition(" ")[0] for warning in warnings] == ["nyt.taxonomy", *LISTS]
    assert all("not the published" in warning for warning in warnings)
    for warning, md5 in zip(warnings, ("f0579450", "77c45d1c", "934ba269", "8c454ba8"), strict=True):
        assert md5 in warning


@needs_lists
@needs_trees
@pytest.mark.slow
def test_one_list_that_is_not_the_published_one_is_named(tmp_path: Path) -> None:
    raw = published(tmp_path / "raw")
    assert script().read_lists(raw)[3] == []
    file = raw / "idnewnyt_val.json"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    _, lines, _, notes = script().read_lists(raw)
    assert [note.partition(" ")[0] for note in notes] == ["idnewnyt_val.json"]
    assert len(lines) == 36_471


def test_lists_may_have_other_line_ends_and_folders(convert: Convert) -> None:
    files = {
        "idnewnyt_train.json": b"\xef\xbb\xbfNytimes/1999/0099902.xml\r\n/x y/1999/0099901.xml\r\n",
        "idnewnyt_val.json": b"0000013.xml",
        "idnewnyt_test.json": b"Nytimes/1987/0099904.xml\n\n\n",
        "nyt.taxonomy": TAXONOMY,
    }
    assert documents(convert({**flattened(ARTICLES), **files})) == DOCUMENTS


def test_the_cleaning_of_the_papers_may_be_had(trained_on: Callable[..., Prepared]) -> None:
    articles = {"0000001": nitf("1", body=paragraphs("The U.S. had 3 made-up", "plans, in 1999."))}
    assert trained(trained_on(articles, clean="hiagm_nyt"))["0000001"].text == "us made plans"
    assert trained(trained_on(articles, clean="hpt"))["0000001"].text == (
        "the u.s. had 3 made-up plans, in 1999."
    )


# --- the whole set


def generated(folder: Path, blank: frozenset[str]) -> Path:
    """Write a month archive for each month of the listed articles, and others that nobody lists.

    Labels and texts are invented; `blank` are articles without text.
    """
    published(folder)
    draw = random.Random(1)
    nodes = [node.id for node in published_tree("nyt_label.vocab").nodes]
    months: dict[tuple[str, str], list[str]] = {}
    for split in SPLITS:
        for line in (folder / f"idnewnyt_{split}.json").read_text(encoding="ascii").splitlines():
            _, year, name = line.split("/")
            months.setdefault((year, f"{int(name[:7]) % 12 + 1:02}"), []).append(name[:7])
    for at, ((year, month), articles) in enumerate(months.items()):
        found = {}
        for article in dict.fromkeys(articles):
            text = "" if article in blank else f"Lead {draw.random()}."
            paths = [f"{path}/Below/More" for path in draw.sample(nodes, 3)]
            found[f"{month}/{draw.randint(1, 28):02}/{article}.xml"] = nitf(
                article.lstrip("0"), *paths, body=f"{ABSTRACT}<block class='full_text'><p>{text}</p></block>"
            )
        found[f"{month}/01/99{at:05}.xml"] = b"<nitf>never read"
        path = folder / "nyt_corpus" / "data" / year / f"{month}.tgz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar_of(found, "gz"))
    return folder


@pytest.mark.slow
@needs_lists
@needs_trees
@pytest.mark.long
def test_the_whole_set_is_prepared_as_the_papers_have_it(tmp_path: Path) -> None:
    first: dict[str, str] = {}
    for split in SPLITS:
        for article in listed(split):
            first.setdefault(article, split)
    blank = frozenset(random.Random(2).sample(sorted(first), 50))
    raw = generated(tmp_path / "raw", blank)
    command = [sys.executable, "-m", "hblm.prepare", "dataset=nyt", f"raw={raw}", "encoder=minilm"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    found = open_prepared(Path("data/nyt"))
    assert ids(found) == {
        split: [article for article, where in first.items() if where == split and article not in blank]
        for split in SPLITS
    }
    made, config = manifest(found), own_config(SET)
    assert made["expected"] == {**config.expect, "met": True}
    assert made["dropped"] == dict(Counter(first[article] for article in blank))
    assert made["repaired"]["articles_without_text_dropped"] == 50
    assert made["warnings"] == []
    assert [len(level) for level in found.taxonomy.levels] == [4, 27, 51, 47, 17, 12, 6, 2]
    held = {split: made["counts"][split]["documents"] + made["dropped"].get(split, 0) for split in SPLITS}
    assert held == {"train": 23_280, "val": 5_816, "test": 7_259}
    archives = {path.relative_to(raw).as_posix() for path in raw.rglob("*.tgz")}
    assert {source["name"] for source in made["sources"]} == archives | {
        *(f"idnewnyt_{split}.json" for split in SPLITS),
        "nyt.taxonomy",
    }
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stdout
