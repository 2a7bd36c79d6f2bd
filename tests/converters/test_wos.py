"""The WOS converter: the contract, sheets and texts in any encoding, the published merge, split and ids."""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
import random
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import pytest
from conversions import SHARED, by_id, content, first_file, flipped, manifest, own_config, zip_of
from converter_contract import DAMAGED, ConverterContract, Download, Fault, TinySet
from raws import packed
from sklearn.model_selection import train_test_split
from wos_rows import published_counts
from wos_rows import rows as published_rows

from hblm.data.convert.label_trees import read_tree
from hblm.data.converters import load_converter, load_script
from hblm.data.dataset import Prepared
from hblm.document import SPLITS, Document
from hblm.taxonomy import Node, Taxonomy

SET = "wos"
ORACLE, TREE = SHARED / "wos_oracle", SHARED / "taxonomies" / "wos.taxonomy"
needs_oracle = pytest.mark.skipif(not (ORACLE.is_dir() and TREE.is_file()), reason=f"no {ORACLE}")

Convert = Callable[..., Prepared]

Cell = str | float | bool | None
Row = Sequence[Cell]
HEADER = ("Y1", "Y2", "Y", "Domain", "area", "keywords", "Abstract")
INVENTED: Sequence[Row] = [
    (0, 12, 12, "CS ", "Computer graphics ", " a; b", 'We present a made-up renderer, which "never" ends.'),
    (5, 2, 74, " Medical", "  Alzheimer's Disease ", "c", "Nothing – “ever” – was forgotten: 5 % of cafés."),
    (6, 5, 125, "biochemistry ", "DNA/RNA sequencing", "", '"Quoted" at its start and at its "end"'),
    (0, 12, 12, "CS", "Computer graphics", "d, e", "  blanks  around,\u00a0and inside  "),
    (3, 4, 50, "MAE", " computer-aided design", "f", '"'),
    (2, 13, 46, "Psychology ", "Attention", '"g"', "It's 7:30; p < 0.05 & q > 1"),
    (4, 4, 68, "Civil\u00a0", "Water Pollution", "h", "plain words"),
    (1, 10, 27, "ECE", "Electric motor ", "-", "three, commas, here"),
]
# By id, which is the row: text, domain, area.
EXPECTED = {
    "0": ('We present a made-up renderer, which "never" ends.', "CS", "Computer graphics"),
    "1": ("Nothing – “ever” – was forgotten: 5 % of cafés.", "Medical", "Alzheimer's Disease"),
    "2": ('"Quoted" at its start and at its "end"', "biochemistry", "DNA/RNA sequencing"),
    "3": ("blanks  around,\u00a0and inside", "CS", "Computer graphics"),
    "4": ('"', "MAE", "computer-aided design"),
    "5": ("It's 7:30; p < 0.05 & q > 1", "Psychology", "Attention"),
    "6": ("plain words", "Civil", "Water Pollution"),
    "7": ("three, commas, here", "ECE", "Electric motor"),
}


def as_text(
    rows: Sequence[Row] = INVENTED, encoding: str = "utf-8", end: str = "\n", header: Row = HEADER
) -> bytes:
    """Return a table as Excel saves text: cells with commas or quotes in quotes, quotes in them doubled."""

    def cell(value: Cell) -> str:
        text = "" if value is None else str(value)
        return '"' + text.replace('"', '""') + '"' if set(text) & set('",\t\r\n') else text

    return "".join("\t".join(map(cell, row)) + end for row in (header, *rows)).encode(encoding)


def as_sheet(rows: Sequence[Row] = INVENTED, header: Row = HEADER, *, number: type = int) -> bytes:
    """Return a table as a workbook."""
    book = openpyxl.Workbook()
    for row in (header, *rows):
        book.active.append([number(cell) if type(cell) is int else cell for cell in row])
    stream = io.BytesIO()
    book.save(stream)
    return stream.getvalue()


def with_row(at: int, row: Row) -> list[Row]:
    """Return the invented rows, one of them replaced."""
    return [*INVENTED[:at], row, *INVENTED[at + 1 :]]


def changed(**cells: Cell) -> list[Row]:
    """Return the invented rows, cells of the third one (line or row 4) replaced."""
    return with_row(2, [cells.get(name, cell) for name, cell in zip(HEADER, INVENTED[2], strict=True)])


SHEET, TEXT = as_sheet(), as_text()
FIRST_LINES = as_text(INVENTED[:3])


def script() -> Any:
    return load_script(SET)


def file(path: Path, data: bytes) -> Path:
    """Write a file, and folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def rows_of(prepared: Prepared) -> dict[str, tuple[str, ...]]:
    """Return text and labels of all documents."""
    return {identity: (each.text, *each.labels) for identity, each in by_id(prepared).items()}


def labels(prepared: Prepared) -> list[tuple[str, ...]]:
    """Return the labels of all documents, in the order of the rows."""
    return [each.labels for _, each in sorted(by_id(prepared).items(), key=lambda pair: int(pair[0]))]


# --- the contract


BOTH = (("Data.xlsx", SHEET), ("Data.txt", TEXT))
OTHERS = {
    "WebOfScience/WOS5736/X.txt": b"an abstract a line\n",
    "WebOfScience/WOS46985/Y.txt": b"12\n74",
    "WebOfScience/WOS46985/YL1.txt": b"0\r5",
    "__MACOSX/WebOfScience/Meta-data/._Data.xlsx": b"\0\5\x16\7",
    "WebOfScience/Meta-data/.~lock.Data.xlsx#": b",nobody,",
    "WebOfScience/Meta-data/~$Data.xlsx": b"\6nobody",
}


def whole(name: str, data: bytes) -> dict[str, bytes]:
    """Return the files of WebOfScience.zip, with a table."""
    return {**OTHERS, f"WebOfScience/Meta-data/{name}": data}


def downloaded(name: str, data: bytes) -> dict[str, bytes]:
    """Return the files of 9rw3vkcfy4-6.zip."""
    return {"ReadMe.txt": b"Copyright (c) nobody", "WebOfScience.zip": zip_of(whole(name, data))}


# packing -> what writes the name and the bytes of a table as a download
TABLES: Mapping[str, Callable[[Path, str, bytes], Path]] = {
    "the file": lambda place, name, data: file(place / name, data),
    "the file under another name": lambda place, name, data: file(place / f"wos 2{Path(name).suffix}", data),
    "the file in upper case": lambda place, name, data: file(place / name.upper(), data),
    "Meta-data": lambda place, name, data: packed(place / "Meta-data", {name: data}),
    "a folder": lambda place, name, data: packed(place / "set", whole(name, data)),
    "a zip": lambda place, name, data: packed(place / "WebOfScience.zip", whole(name, data)),
    "a zip in a zip": lambda place, name, data: packed(place / "9rw3vkcfy4-6.zip", downloaded(name, data)),
    "a zip in a folder": lambda place, name, data: packed(place / "download", downloaded(name, data)),
    "compressed": lambda place, name, data: packed(place / "set", {f"{name}.gz": gzip.compress(data)}),
    "beside archives": lambda place, name, data: packed(
        place / "set", {name: data, "old.zip": zip_of({"Data.txt": FIRST_LINES}), "cut.zip": b"PK"}
    ),
}


def form_of(packing: str, name: str, data: bytes) -> Callable[[Path], Download]:
    return lambda place: (TABLES[packing](place, name, data), {})


FORMS = {
    **{f"{name}, {packing}": form_of(packing, name, data) for packing in TABLES for name, data in BOTH},
    "the second version": form_of("a zip in a zip", "Data.xls", SHEET),
    "a sheet beside a text": lambda place: (
        packed(place / "set", {"Data.txt": FIRST_LINES, "a/Data.txt": FIRST_LINES, "Data.xlsx": SHEET}),
        {},
    ),
}


def text(place: str, *words: str, data: bytes, **options: Any) -> Fault:
    return Fault(f"Data.txt{place}", words, {"Data.txt": data}, options)


def sheet(place: str, *words: str, data: bytes) -> Fault:
    return Fault(f"Data.xlsx{place}", words, {"Data.txt": None, "Data.xlsx": data})


def without(*names: str) -> Mapping[str, Any]:
    """Return header and rows without some columns."""
    kept = [at for at, name in enumerate(HEADER) if name not in names]
    return {"rows": [[row[at] for at in kept] for row in INVENTED], "header": [HEADER[at] for at in kept]}


def in_parts(data: bytes, change: Callable[[str, bytes], bytes | None]) -> bytes:
    """Return a zip with each member changed, or left out."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        parts = {name: change(name, archive.read(name)) for name in archive.namelist()}
    return zip_of({name: part for name, part in parts.items() if part is not None})


FAULTS: Mapping[str, Fault] = {
    # columns
    "no Domain": text(
        ":1", "no column Domain;", "Y1, Y2, Y, Domain, area", data=as_text(**without("Domain"))
    ),
    "no Y2 and no area": text(
        ":1", "no Y2 and no area".replace("no Y2", "no column Y2"), data=as_text(**without("Y2", "area"))
    ),
    "no Abstract in a sheet": sheet(": row 1", "no column Abstract;", data=as_sheet(**without("Abstract"))),
    "no header": text(":1", "no column Y1", "Abstract", data=TEXT.split(b"\n", 1)[1]),
    "commas": text(":1", "no column Y1", data=TEXT.replace(b"\t", b",")),
    # rows of another length
    "6 columns": text(":4", "6 columns", "has 7", "Data.xlsx", data=as_text(with_row(2, INVENTED[2][:6]))),
    "8 columns": text(":4", "8 columns", "has 7", "Data.xlsx", data=as_text(with_row(2, (*INVENTED[2], "")))),
    "a tab in an abstract": text(":4", "8 columns", "tab", data=as_text(changed(Abstract="a\tb"))),
    "a line end in an abstract": text(
        ":5", "1 columns", "line end", "Data.xlsx", data=as_text(changed(Abstract="a\nb"))
    ),
    "a blank line": text(":4", "has 7", data=TEXT.replace(b"6\t5\t", b"\n6\t5\t")),
    "a blank row in a sheet": sheet(": row 4", data=as_sheet([*INVENTED[:2], [], *INVENTED[2:]])),
    # names
    "no domain": text(":4", "Domain is empty", data=as_text(changed(Domain=""))),
    "no area": text(":4", "area is empty", data=as_text(changed(area=""))),
    "no domain in a sheet": sheet(": row 4", "Domain is empty", data=as_sheet(changed(Domain=None))),
    # codes
    "Y1 is a word": text(":4", "Y1 is 'six'", "whole number", data=as_text(changed(Y1="six"))),
    "Y1 is a fraction": text(":4", "Y1 is '1.5'", data=as_text(changed(Y1=1.5))),
    "Y1 is below 0": text(":4", "Y1 is '-1'", data=as_text(changed(Y1=-1))),
    "Y1 has thousands of digits": text(":4", "Y1 is '7777", data=as_text(changed(Y1="7" * 5000))),
    "Y1 is a word in a sheet": sheet(": row 4", "Y1 is 'x'", data=as_sheet(changed(Y1="x"))),
    "Y1 is true in a sheet": sheet(": row 4", "Y1 is ", data=as_sheet(changed(Y1=True))),
    # bytes
    "no encoding": text(
        ":4",
        "not cp1252 at byte 47 of the line",
        data=as_text(changed(Abstract="caf#"), "cp1252").replace(b"#", b"\xe9\x81"),
    ),
    "not the encoding told": text(
        ":3", "not UTF-8 at byte", data=as_text(encoding="cp1252"), encoding="utf-8"
    ),
    "UTF-16 cut in a character": text("", "16", data=as_text(encoding="utf-16")[:-1]),
    "an empty file": text("", data=b""),
    "a header alone": text("", data=as_text([])),
    "a header alone in a sheet": sheet("", data=as_sheet([])),
    # workbooks
    **{
        f"a sheet cut at {share} %": sheet("", data=SHEET[: len(SHEET) * share // 100])
        for share in (0, 50, 99)
    },
    "a text called xlsx": sheet("", "not a spreadsheet", data=TEXT),
    "a workbook without rows": sheet(
        "",
        "no sheet of it has rows",
        data=in_parts(
            as_sheet(),
            lambda name, part: (
                part[: part.index(b"<row")] + part[part.index(b"</sheetData>") :] if b"<row" in part else part
            ),
        ),
    ),
    # files
    "none of both": Fault(
        "",
        ("no Data.xlsx and no Data.txt", "ReadMe.txt", "WOS5736/X.txt"),
        {"Data.txt": None, "WOS5736/X.txt": b"x", "WOS5736/Y.txt": b"0"},
    ),
    "another kind of file": Fault(
        "", ("no Data.xlsx", "Data.pdf"), {"Data.txt": None, "Data.pdf": b"%PDF-1.4"}
    ),
    "two texts": Fault("", ("Data.txt is there 2 times", "keep one"), {"a/Data.txt": TEXT}),
    "two sheets": Fault("", ("is there 2 times", "keep one"), {"a/Data.xlsx": SHEET, "b/Data.xlsx": SHEET}),
    "too few rows": text("", "2 rows below its header, too few for three splits", data=as_text(INVENTED[:2])),
    "a long line": Fault(
        "Data.txt:4",
        ("a line of more than 200 characters",),
        {"Data.txt": as_text(changed(Abstract="x" * 200))},
        longest=200,
    ),
}


WOS_ZIP = zip_of(whole("Data.txt", TEXT))
# fault -> the files of the outer zip, the place inside it, and what the message says
ARCHIVES: Mapping[str, tuple[Mapping[str, bytes], str, str]] = {
    "an inner zip cut": ({"WebOfScience.zip": WOS_ZIP[: len(WOS_ZIP) // 2]}, ":WebOfScience.zip", DAMAGED),
    "changed": (
        {"WebOfScience.zip": flipped(zip_of({"Data.txt": TEXT}), 80)},
        ":WebOfScience.zip:Data.txt",
        DAMAGED,
    ),
    "climbing": (
        {"WebOfScience.zip": zip_of({"Data.txt": TEXT, "../../x": b""})},
        ":WebOfScience.zip",
        "'../../x', a path that leaves",
    ),
    "two": ({"a/W.zip": WOS_ZIP, "b/W.zip": WOS_ZIP}, "", "Data.txt is there 2 times"),
    "without a table": ({"ReadMe.txt": b"(c)", "W.zip": zip_of(OTHERS)}, "", "no Data.xlsx and no Data.txt"),
}


def many(number: int) -> dict[str, bytes]:
    return {"Data.txt": as_text([(*INVENTED[0][:6], f"{at} {'word ' * 4_000}") for at in range(number)])}


class TestContract(ConverterContract):
    tiny = TinySet(
        name=SET,
        files={"ReadMe.txt": b"(c)", "Data.txt": TEXT},
        documents={
            split: [Document(str(at), EXPECTED[str(at)][0], EXPECTED[str(at)][1:]) for at in rows]
            for split, rows in script().published_split(len(INVENTED)).items()
        },
        needed="Data.txt",
        texts=["Data.txt"],
        forms=FORMS,
        options={"merge": "none", "clean": "hiagm", "encoding": "utf-8"},
        wrong={
            "merge": ({"merge": "publishd"}, ("dataset.prepare.merge=publishd", "did you mean published?")),
            "clean": ({"clean": "hiagmm"}, ("clean=hiagmm", "did you mean hiagm?")),
            "a name": ({"encodin": "utf-8"}, ("dataset.prepare.encodin", "did you mean encoding?")),
            "no encoding": ({"encoding": "utf-9"}, ("encoding=utf-9 is no encoding",)),
            "a number": ({"encoding": 8}, ("encoding=8 is not a text",)),
        },
        faults=FAULTS,
        published={"documents": {"train": 30070, "val": 7518, "test": 9397}, "levels": [7, 134]},
        many=many,
    )

    @pytest.mark.parametrize("name", ["an inner zip cut", "changed", "climbing", "two", "without a table"])
    def test_a_fault_of_a_zip_in_a_zip_is_one_message(self, name: str, tmp_path: Path) -> None:
        files, place, words = ARCHIVES[name]
        (tmp_path / "raws").mkdir()
        raw = packed(tmp_path / "raws" / "9rw3vkcfy4-6.zip", dict(files))
        self._require_one_message(tmp_path, raw, f"{raw}{place}", [words])


# --- sheets and texts


@pytest.fixture
def reference(convert: Convert) -> dict[str, bytes]:
    """Return the files that the invented rows give when they come as a sheet."""
    return content(convert({"Data.xlsx": SHEET}, "reference"))


@pytest.mark.parametrize("number", [int, float, str])
def test_a_sheet_gives_texts_and_names_whatever_kind_its_numbers_are(
    number: type, tmp_path: Path, convert: Convert
) -> None:
    found = convert(file(tmp_path / "Data.xlsx", as_sheet(number=number)))
    assert rows_of(found) == EXPECTED
    assert manifest(found)["options"] == {"clean": "none", "encoding": None, "merge": "published"}


ENCODINGS = {
    "UTF-8": (b"", "utf-8"),
    "UTF-8 with its mark": (codecs.BOM_UTF8, "utf-8"),
    "UTF-16 LE": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "UTF-16 BE": (codecs.BOM_UTF16_BE, "utf-16-be"),
    "UTF-16 LE without a mark": (b"", "utf-16-le"),
    "UTF-16 BE without a mark": (b"", "utf-16-be"),
    "cp1252": (b"", "cp1252"),
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("kind", ENCODINGS)
def test_a_text_in_any_encoding_gives_the_bytes_of_the_sheet(
    kind: str, end: str, tmp_path: Path, convert: Convert, reference: Mapping[str, bytes]
) -> None:
    mark, encoding = ENCODINGS[kind]
    found = convert(file(tmp_path / "Data.txt", mark + as_text(encoding=encoding, end=end)))
    assert rows_of(found) == EXPECTED
    assert content(found) == reference


@pytest.mark.parametrize("kind", ENCODINGS)
def test_the_options_of_the_manifest_make_the_same_bytes_again(
    kind: str, tmp_path: Path, convert: Convert, reference: Mapping[str, bytes]
) -> None:
    mark, encoding = ENCODINGS[kind]
    raw = file(tmp_path / "Data.txt", mark + as_text(encoding=encoding, end="\r\n"))
    options = manifest(convert(raw))["options"]
    assert options["encoding"] is not None
    again = convert(raw, "again", **options)
    assert content(again) == reference
    assert manifest(again)["options"] == options


@pytest.mark.parametrize("kind", [kind for kind in ENCODINGS if kind != "cp1252"])
def test_letters_that_windows_has_not_are_kept(kind: str, tmp_path: Path, convert: Convert) -> None:
    mark, encoding = ENCODINGS[kind]
    rows = changed(Abstract="β-amyloid ≤ 3 µm, 日本 😀 \u2028 x\x0by")
    found = convert(file(tmp_path / "Data.txt", mark + as_text(rows, encoding)))
    assert rows_of(found)["2"][0] == "β-amyloid ≤ 3 µm, 日本 😀 \u2028 x\x0by"


def test_one_letter_of_windows_far_down_the_file_tells_the_encoding(tmp_path: Path, convert: Convert) -> None:
    rows: list[Row] = [(0, 0, 0, "CS", "Cryptography", "", "word " * 300 + str(at)) for at in range(900)]
    rows[-1] = (0, 0, 0, "CS", "Cryptography", "", "naïve – Bayes")
    found = convert(file(tmp_path / "Data.txt", as_text(rows, "cp1252")))
    assert rows_of(found)["899"][0] == "naïve – Bayes"


def test_an_encoding_that_is_told_is_used(tmp_path: Path, convert: Convert) -> None:
    raw = file(tmp_path / "Data.txt", as_text(changed(Abstract="čeština"), "cp1250"))
    found = convert(raw, encoding="cp1250")
    assert rows_of(found)["2"][0] == "čeština"
    assert manifest(found)["options"]["encoding"] == "cp1250"


def test_quotes_that_no_program_put_around_a_cell_stay(tmp_path: Path, convert: Convert) -> None:
    lines = [b"\t".join(str(cell).encode() for cell in row) for row in (HEADER, *INVENTED)]
    lines[3] = 'a "b" and "c", d'.join(("6\t5\t1\tbiochemistry\tImmunology\t\t", "")).encode()
    lines[4] = b'0\t12\t12\t"CS "\t" Computer graphics"\t"k"\t" ""x"" and y "'
    found = rows_of(convert(file(tmp_path / "Data.txt", b"\n".join(lines))))
    assert found["2"] == ('a "b" and "c", d', "biochemistry", "Immunology")
    assert found["3"] == ('"x" and y', "CS", "Computer graphics")


def test_columns_are_found_by_name_in_any_order(tmp_path: Path, convert: Convert) -> None:
    order = [6, 3, 0, 5, 1, 4]  # without Y
    header = [("abstract ", " DOMAIN", "y1", "Keywords", "Y2 ", "Area")[at] for at in range(6)]
    rows = [[row[at] for at in order] for row in INVENTED]
    for name, data in (("Data.txt", as_text(rows, header=header)), ("Data.xlsx", as_sheet(rows, header))):
        assert rows_of(convert(file(tmp_path / name, data), name)) == EXPECTED


def test_columns_without_a_name_at_the_end_do_no_harm(tmp_path: Path, convert: Convert) -> None:
    header, rows = (*HEADER, ""), [(*row, "") for row in INVENTED]
    for name, data in (
        ("Data.txt", as_text(rows, header=header)),
        ("Data.xlsx", as_sheet([(*row, "a note") for row in INVENTED])),
    ):
        assert rows_of(convert(file(tmp_path / name, data), name)) == EXPECTED


def test_blank_lines_at_the_end_and_a_missing_last_end_do_no_harm(tmp_path: Path, convert: Convert) -> None:
    for name, data in (("one", as_text() + b"\n\n \n"), ("other", as_text()[:-1])):
        assert rows_of(convert(file(tmp_path / name / "Data.txt", data), name)) == EXPECTED


def test_an_abstract_may_hold_line_ends_and_tabs_in_a_sheet(tmp_path: Path, convert: Convert) -> None:
    found = convert(file(tmp_path / "Data.xlsx", as_sheet(changed(Abstract="one\ttwo\nthree"))))
    assert rows_of(found)["2"][0] == "one\ttwo\nthree"


def test_an_abstract_may_be_empty(tmp_path: Path, convert: Convert) -> None:
    for name, data in (
        ("Data.txt", as_text(changed(Abstract=""))),
        ("Data.xlsx", as_sheet(changed(Abstract=None))),
    ):
        found = convert(file(tmp_path / name, data), name)
        assert rows_of(found)["2"] == ("", "biochemistry", "DNA/RNA sequencing")
        assert sum(count["blank_texts"] for count in manifest(found)["counts"].values()) == 1


def test_codes_are_numbers_and_not_their_spelling(tmp_path: Path, convert: Convert) -> None:
    rows: list[Row] = [(1, 9, 0, "ECE", "small", "", "x"), *[(1, 9, 0, "ECE", "large", "", "y")] * 6]
    rows.append(("01", " 09 ", 0, "ECE", "small", "", "z"))
    rows.extend([(1, 9, 0, "ECE", "large", "", "y")] * 2)
    for name, data in (("Data.txt", as_text(rows)), ("Data.xlsx", as_sheet(rows, number=float))):
        found = labels(convert(file(tmp_path / name, data), name))
        assert [area for _, area in found] == ["small"] + ["large"] * 9


def test_the_licence_is_recorded(convert: Convert) -> None:
    assert "2017 Kamran Kowsari" in manifest(convert({"Data.txt": TEXT}))["licence"]


# --- merging, worked out by hand


def merge(*rows: str) -> str:
    """Merge rows written as code, domain and area (1Ma), and return the areas."""
    areas = script().merged([row[0] for row in rows], [(row[1], row[2]) for row in rows])
    return "".join(areas)


def test_a_small_area_after_the_larger_one_of_its_code_is_merged() -> None:
    assert merge("1ML", "1MS", "1ML", "1MS", "1ML") == "LLLLL"


def test_a_small_area_before_the_larger_one_keeps_its_rows_until_then() -> None:
    assert merge("1MS", "1ML", "1ML", "1MS", "1ML") == "SLLLL"
    assert merge("1MS", "1MS", "1ML", "1MS", "1ML", "1ML", "1ML") == "SSLLLLL"
    assert merge("1MS", "1MS", "1ML", "1ML", "1ML") == "SSLLL"


def test_of_three_areas_the_first_larger_one_that_was_seen_is_taken_and_not_the_largest() -> None:
    # a has 3 rows, b 2, c 1
    assert merge("1Mb", "1Mc", "1Ma", "1Mb", "1Ma", "1Ma") == "bbaaaa"
    assert merge("1Ma", "1Mb", "1Mc", "1Mb", "1Ma", "1Ma") == "aaaaaa"
    assert merge("1Mb", "1Ma", "1Mc", "1Mb", "1Ma", "1Ma") == "babaaa"  # c comes to b, though b comes to a
    assert merge("1Mc", "1Mb", "1Ma", "1Mb", "1Ma", "1Ma") == "cbaaaa"


def test_areas_with_equally_many_rows_stay_apart() -> None:
    assert merge("1Ma", "1Mb", "1Mb", "1Ma") == "abba"
    assert merge("1Ma", "1Mb", "1Mb", "1Ma", "1Mc") == "abbaa"


def test_rows_of_a_name_count_under_all_its_codes() -> None:
    assert merge("2Ma", "2Ma", "1Mb", "1Mb", "1Ma", "1Mb") == "aabbab"  # 3 to 3
    assert merge("2Ma", "2Ma", "2Ma", "1Ma", "1Mb", "1Mb") == "aaaaaa"  # 4 to 2
    assert merge("1Mb", "2Ma", "2Ma", "2Ma") == "baaa"  # nothing under code 2 but a


def test_rows_of_a_name_count_in_their_own_domain_only() -> None:
    # d has 1 row in M and 4 in P: Atrial Fibrillation and Depression
    assert merge("1Mf", "1Mf", "1Md", "2Pd", "2Pd", "2Pd", "2Pd") == "fffdddd"
    # a name that the row's domain has not is never taken
    assert merge("1Pl", "1Pl", "1Pl", "1Ms", "1Pl") == "lllsl"


def test_nothing_is_merged_across_codes() -> None:
    assert merge("1Ma", "1Ma", "2Mb", "3Mc", "1Ma") == "aabca"


SHARED_CODE: Sequence[Row] = [
    *[(5, 7, 32, "Medical ", "Atrial Fibrillation", "", f"af {at}") for at in range(5)],
    *[(5, 7, 40, "Medical", " Depression", "", f"md {at}") for at in range(2)],
    *[(2, 9, 40, "Psychology", "Depression ", "", f"pd {at}") for at in range(6)],
    *[(3, 1, 9, "MAE", "MAE", "", f"mm {at}") for at in range(2)],
]


@pytest.mark.parametrize("as_table", [as_text, as_sheet])
def test_names_without_their_blanks_are_merged(
    as_table: Callable[[Sequence[Row]], bytes], tmp_path: Path, convert: Convert
) -> None:
    raw = file(tmp_path / f"Data.{'txt' if as_table is as_text else 'xlsx'}", as_table(SHARED_CODE))
    found = convert(raw)
    assert labels(found) == [
        *[("Medical", "Atrial Fibrillation")] * 7,
        *[("Psychology", "Depression")] * 6,
        *[("MAE", "MAE/MAE")] * 2,
    ]
    assert manifest(found)["repaired"]["documents_with_their_area_merged"] == 2
    assert manifest(found)["repaired"]["documents_closed"] == 0


def test_without_merging_one_area_may_stand_under_two_domains(tmp_path: Path, convert: Convert) -> None:
    found = convert(file(tmp_path / "Data.txt", as_text(SHARED_CODE)), merge="none")
    assert labels(found) == [
        *[("Medical", "Atrial Fibrillation")] * 5,
        *[("Medical", "Medical/Depression")] * 2,
        *[("Psychology", "Psychology/Depression")] * 6,
        *[("MAE", "MAE/MAE")] * 2,
    ]
    assert manifest(found)["repaired"]["documents_with_their_area_merged"] == 0
    nodes = {node.id: node for node in found.taxonomy.nodes}
    assert nodes["Medical/Depression"] == Node("Medical/Depression", "Depression", "Medical")
    assert nodes["MAE/MAE"] == Node("MAE/MAE", "MAE", "MAE")
    assert [len(level) for level in found.taxonomy.levels] == [3, 4]


def test_the_tree_does_not_depend_on_the_order_of_rows() -> None:
    pairs = [("B", "x"), ("A", "x"), ("A", "y"), ("B", "A"), ("B", "z"), ("A", "y")]
    expected = script().tree(pairs)
    assert expected == script().tree(pairs[::-1])
    tree, node_of = expected
    assert node_of == {
        ("A", "x"): "A/x",
        ("A", "y"): "y",
        ("B", "A"): "B/A",
        ("B", "x"): "B/x",
        ("B", "z"): "z",
    }
    assert {(node.id, node.name, node.parent) for node in tree.nodes} == {
        *[("A", "A", None), ("B", "B", None), ("A/x", "x", "A"), ("y", "y", "A")],
        *[("B/A", "A", "B"), ("B/x", "x", "B"), ("z", "z", "B")],
    }


def test_abbreviated_domains_have_their_full_name_as_text(tmp_path: Path, convert: Convert) -> None:
    found = convert(file(tmp_path / "Data.txt", as_text()))
    assert {node.id: node.text for node in found.taxonomy.nodes if node.text} == {
        "CS": "Computer Science",
        "ECE": "Electrical Engineering",
        "MAE": "Mechanical Engineering",
        "Civil": "Civil Engineering",
        "Medical": "Medical Science",
    }
    assert manifest(found)["version"] == 2


def test_an_area_has_no_text_whatever_its_name(tmp_path: Path, convert: Convert) -> None:
    found = convert(file(tmp_path / "Data.txt", as_text(SHARED_CODE)), merge="none")
    assert {node.id: node.text for node in found.taxonomy.nodes}["MAE/MAE"] is None


@needs_oracle
def test_domains_are_called_what_the_read_me_calls_them() -> None:
    words = " ".join((ORACLE / "ReadMe.txt").read_text(encoding="utf-8").split())
    for text in script().DOMAINS.values():
        assert text in words


# --- splits

STARTS = {
    "train": [43817, 20131, 22368, 39288, 2020],
    "val": [14007, 3595, 10052, 36681, 27854],
    "test": [539, 27780, 37168, 22575, 17027],
}
DIGESTS = {"train": "b7fcedff9356919f", "val": "500febfb9638923e", "test": "01c9499e50a92520"}


def require_golden(split: Mapping[str, Sequence[int | str]]) -> None:
    """Compare the rows of each split, in their order, with the published ones."""
    assert {name: list(map(int, rows[:5])) for name, rows in split.items()} == STARTS
    digests = {
        name: hashlib.sha256(",".join(map(str, rows)).encode()).hexdigest() for name, rows in split.items()
    }
    assert {name: digest[:16] for name, digest in digests.items()} == DIGESTS
    assert [len(split[name]) for name in SPLITS] == [30070, 7518, 9397]


def test_the_split_is_the_published_one() -> None:
    require_golden(script().published_split(46_985))


@pytest.mark.parametrize("rows", [3, 4, 5, 8, 10, 15, 26, 101, 1000, 4685])
def test_the_split_is_that_of_numpy_and_scikit_learn(rows: int) -> None:
    before = np.random.get_state()
    np.random.seed(7)
    order = list(range(rows))
    np.random.shuffle(order)
    np.random.set_state(before)
    rest, test = train_test_split(order, test_size=0.2, random_state=0)
    train, val = train_test_split(rest, test_size=0.2, random_state=0)
    assert script().published_split(rows) == {"train": train, "val": val, "test": test}


def test_drawing_the_split_leaves_the_generator_of_others_alone() -> None:
    before = np.random.get_state(legacy=False)["state"]["key"].tolist()
    script().published_split(100)
    assert np.random.get_state(legacy=False)["state"]["key"].tolist() == before


def test_documents_stand_in_the_order_of_the_split(tmp_path: Path, convert: Convert) -> None:
    rows = [(0, 0, 0, "CS", "Cryptography", "", f"text {at}") for at in range(60)]
    found = convert(file(tmp_path / "Data.txt", as_text(rows)))
    for split, expected in script().published_split(60).items():
        assert [(int(each.id), each.text) for each in found.documents(split)] == [
            (at, f"text {at}") for at in expected
        ]


def test_a_node_without_a_training_document_is_named(tmp_path: Path, convert: Convert) -> None:
    rows: list[Row] = [(0, 0, 0, "CS", "Cryptography", "", f"text {at}") for at in range(60)]
    split = script().published_split(60)
    for at in (split["test"][3], split["val"][0]):
        rows[at] = (1, 1, 1, "ECE", "Voltage law", "", "x")
    rows[split["train"][0]] = (1, 2, 2, "ECE", "Electricity", "", "y")
    found = convert(file(tmp_path / "Data.txt", as_text(rows)))
    assert manifest(found)["warnings"] == [
        "Voltage law has no training document (2 in all), so no model can learn it"
    ]


# --- the published ids


@lru_cache(1)
def real() -> Sequence[tuple[str, str, str, str, str]]:
    """Return Y1, Y2, Y, Domain and area of the 46,985 rows."""
    found: Sequence[tuple[str, str, str, str, str]] = published_rows(ORACLE, TREE)
    return found


def parents(tree: Taxonomy) -> dict[str, str | None]:
    return {node.id: node.parent for node in tree.nodes}


def published_tree() -> dict[str, str | None]:
    return parents(first_file(TREE, read_tree))


@needs_oracle
def test_the_published_rows_have_the_areas_that_are_known_of_them() -> None:
    pairs = Counter((domain, area) for _, _, _, domain, area in real())
    assert len(pairs) == 145
    assert len({area for _, area in pairs}) == 143
    assert Counter(domain for _, _, _, domain, _ in real()) == {
        "CS": 6514,
        "ECE": 5483,
        "Psychology": 7142,
        "MAE": 3297,
        "Civil": 4237,
        "Medical": 14625,
        "biochemistry": 5687,
    }
    assert [pairs[domain, "Depression"] for domain in ("Medical", "Psychology")] == [130, 380]
    assert [pairs["ECE", area] for area in ("Electrical generator", "Analog signal processing")] == [240, 407]


@needs_oracle
def test_merging_gives_the_published_counts_and_tree() -> None:
    pairs = [(domain, area) for _, _, _, domain, area in real()]
    areas = script().merged([f"{y1}-{y2}" for y1, y2, *_ in real()], pairs)
    domains = [domain for domain, _ in pairs]
    assert Counter(domains) + Counter(areas) == published_counts(ORACLE)
    tree, node_of = script().tree(zip(domains, areas, strict=True))
    assert parents(tree) == published_tree()
    assert [len(level) for level in tree.levels] == [7, 134]
    assert all(area == node for (_, area), node in node_of.items())
    moved = Counter((*pair, area) for pair, area in zip(pairs, areas, strict=True) if pair[1] != area)
    assert moved == {
        ("ECE", "Satellite radio", "Electric motor"): 148,
        ("ECE", "Single-phase electric power", "Electric motor"): 6,
        ("ECE", "Electrical generator", "Analog signal processing"): 239,
        ("Civil", "Bamboo as a Building Material", "Water Pollution"): 2,
        ("Civil", "Underwater Windmill", "Water Pollution"): 1,
        ("Civil", "Transparent Concrete", "Smart Material"): 3,
        ("Civil", "Nano Concrete", "Smart Material"): 7,
        ("Civil", "Highway Network System", "Geotextile"): 4,
        ("biochemistry", "DNA/RNA sequencing", "Cell biology"): 14,
        ("Medical", "Depression", "Atrial Fibrillation"): 130,
        ("Medical", "Schizophrenia", "Bipolar Disorder"): 38,
        ("Medical", "Outdoor Health", "Digestive Health"): 2,
    }


@needs_oracle
def test_rows_in_another_order_are_merged_otherwise() -> None:
    turned = real()[::-1]
    areas = script().merged([f"{y1}-{y2}" for y1, y2, *_ in turned], [row[3:] for row in turned])
    found = Counter(row[3] for row in turned) + Counter(areas)
    assert found != published_counts(ORACLE)


@needs_oracle
def test_without_merging_the_published_rows_have_145_areas() -> None:
    tree, node_of = script().tree((domain, area) for _, _, _, domain, area in real())
    assert [len(level) for level in tree.levels] == [7, 145]
    assert {pair for pair, node in node_of.items() if node != pair[1]} == {
        (domain, area) for domain in ("Medical", "Psychology") for area in ("Depression", "Schizophrenia")
    }


def notes(rows: Sequence[tuple[str, str, str, str, str]]) -> list[str]:
    """Return what is said of rows whose nodes are all trained on."""
    codes = [f"{y1}-{y2}" for y1, y2, *_ in rows]
    found: list[str] = script()._notes(codes, [row[3:] for row in rows], ["train"] * len(rows))
    return found


@needs_oracle
def test_rows_in_another_order_are_told() -> None:
    rows = list(real())
    assert notes(rows) == []
    at = next(at for at, row in enumerate(rows) if row[:2] != rows[0][:2])
    other_codes = [("0", "0", *rows[0][2:]), *rows[1:]]
    assert rows[0][:2] != ("0", "0")
    swapped = [rows[at], *rows[1:at], rows[0], *rows[at + 1 :]]
    for others in (swapped, rows[::-1], sorted(rows), other_codes):
        (note,) = notes(others)
        assert "another order" in note
        assert "splits" in note
    assert notes(rows[:-1]) == []  # no set of the papers: the counts that are expected say so


@pytest.mark.slow
@needs_oracle
def test_the_published_rows_give_the_published_set(tmp_path: Path) -> None:
    rows = "".join(
        f'{y1}\t{y2}\t{y}\t{domain} \t {area}\tk\t"text, {at}"\r\n'
        for at, (y1, y2, y, domain, area) in enumerate(real())
    )
    raw = file(tmp_path / "Data.txt", ("\t".join(HEADER) + "\r\n" + rows).encode("utf-16"))
    found = load_converter("wos")(raw, {}, tmp_path, lambda title, total: lambda steps: None)
    made = {split: list(found.splits[split]) for split in SPLITS}
    require_golden({split: [each.id for each in each_split] for split, each_split in made.items()})
    documents = [each for split in SPLITS for each in made[split]]
    assert all(each.text == f"text, {each.id}" for each in documents)
    assert Counter(label for each in documents for label in each.labels) == published_counts(ORACLE)
    assert {len(each.labels) for each in documents} == {2}
    assert parents(found.taxonomy) == published_tree()
    (only,) = (each for each in documents if "Electrical generator" in each.labels)
    assert only in made["test"]
    assert real()[int(only.id)][:2] == ("1", "9")
    assert found.warnings[0].startswith(
        "areas merged: Electrical generator -> Analog signal processing (239), Satellite radio -> Electric m"
    )
    assert found.warnings[1:] == [
        "Electrical generator has no training document (1 in all), so no model can learn it"
    ]
    merged = 148 + 6 + 239 + 2 + 1 + 3 + 7 + 4 + 14 + 130 + 38 + 2
    assert found.counts == {"documents_with_their_area_merged": merged}


@pytest.mark.slow
@needs_oracle
@pytest.mark.long
def test_the_sheet_of_the_published_rows_gives_the_bytes_of_their_text(
    tmp_path: Path, convert: Convert
) -> None:
    source = random.Random(5)
    rows: list[Row] = [
        (int(y1), int(y2), int(y), f"{domain} ", area, "", f'“{source.random()}”, "{at}"')
        for at, (y1, y2, y, domain, area) in enumerate(real())
    ]
    inner = {"WebOfScience/Meta-data/Data.xlsx": as_sheet(rows)}
    raw = packed(tmp_path / "9rw3vkcfy4-6.zip", {"WebOfScience.zip": zip_of(inner)})
    found = convert(raw, "sheet", expect=own_config(SET).expect)
    assert content(found) == content(convert(file(tmp_path / "Data.txt", as_text(rows, "cp1252", "\r\n"))))
    require_golden({split: [each.id for each in found.documents(split)] for split in SPLITS})
    assert json.loads((found.folder / "manifest.json").read_text())["expected"]["met"] is True
