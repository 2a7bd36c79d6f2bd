"""The texts of raw files: encodings, line ends, rows of cells; every way in which they can be wrong."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import itertools
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from raws import TEXT, fault_in, file_of, packed

from hblm.data.raw import delimited, text
from hblm.data.raw.archives import Raw, RawFile
from hblm.data.raw.delimited import read_rows
from hblm.data.raw.text import encoding_of, read_lines, read_text, require_encoding
from hblm.errors import ConfigError, DataError, HblmError

# --- encodings


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (b"", "utf-8"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("told", [None, "cp1252"])
def test_a_mark_says_the_encoding_whatever_was_told(
    mark: bytes, encoding: str, end: str, told: str | None
) -> None:
    file = file_of(mark + end.join(["één", "čeština", "drie"]).encode(encoding))
    expected = ["één", "čeština", "drie"]
    told = told if mark else None
    assert list(read_lines(file, told)) == expected
    assert "".join(read_text(file, told)) == "\n".join(expected)


def test_a_byte_of_a_character_is_no_line_end() -> None:
    assert list(read_lines(file_of("čਊ\rb\rc".encode("utf-16")))) == ["čਊ", "b", "c"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "UTF-16LE", "utf_16_le"])
def test_utf_16_without_a_mark_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("ab\ncd".encode(encoding)), encoding)) == ["ab", "cd"]


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le"])
def test_utf_32_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("ab\ncd".encode(encoding)), encoding)) == ["ab", "cd"]


@pytest.mark.parametrize("encoding", ["cp1252", "iso-8859-1", "cp037", "gb18030"])
def test_another_encoding_is_read_if_it_is_said(encoding: str) -> None:
    assert list(read_lines(file_of("é\nè\n".encode(encoding)), encoding)) == ["é", "è"]


FAR = 200_000  # lines, 2 MB: far beyond what is looked at for the encoding

# fault -> bytes, the encoding that is told, and what the message must say after the file's name
WRONG_ENCODINGS: dict[str, tuple[bytes, str | None, str]] = {
    "first line": (b"caf\xe9\n", None, ":1: not UTF-8 at byte 4 of the line"),
    "last line": (b"a\nb\n\nab\xff", None, ":4: not UTF-8 at byte 3 of the line"),
    "far away": (b"0123456789\n" * FAR + b"ab\xe9c\nx\n", None, f":{FAR + 1}: not UTF-8 at byte 3 "),
    "CRLF": (b"a\r\nb\xe9\r\n", None, ":2: not UTF-8 at byte 2 of the line"),
    "CR": (b"a\rb\rcd\xe9\r", None, ":3: not UTF-8 at byte 3 of the line"),
    "CR, far away": (b"0123456789\r" * FAR + b"ab\xe9\r", None, f":{FAR + 1}: not UTF-8 at byte 3 "),
    "a CR inside a line": (b"a\rb\xff\nc\n", None, ":1: not UTF-8 at byte 4 of the line"),
    "CRs inside earlier lines": (b"a\rb\nc\rd\ne\xff\n", None, ":3: not UTF-8 at byte 2 of the line"),
    "after a mark": (codecs.BOM_UTF8 + b"a\nb\xe9\n", None, ":2: not UTF-8 at byte 2 of the line"),
    "cut in a character": (b"a\ncaf\xc3", None, ":2: not UTF-8 at byte 4 of the line"),
    "ascii": (b"a\nb\xc3\xa9", "ascii", ":2: not ascii at byte 2 of the line"),
    "cp1252": (b"a\nbc\x81", "cp1252", ":2: not cp1252 at byte 3 of the line"),
    "UTF-16": ("a\nb".encode("utf-16") + b"\0\xd8", None, ": not UTF-16; "),
    "UTF-16 without a mark": ("ab".encode("utf-16-le"), "utf-16", ": not UTF-16"),
}


@pytest.mark.parametrize("fault", WRONG_ENCODINGS)
def test_bytes_in_another_encoding_are_named_with_their_place(fault: str) -> None:
    data, encoding, expected = WRONG_ENCODINGS[fault]
    with pytest.raises(DataError) as caught:
        list(read_lines(file_of(data, "a.txt"), encoding))
    assert str(caught.value).lower().startswith(f"a.txt{expected}".lower())
    assert "write dataset.prepare.encoding=" in str(caught.value)
    with pytest.raises(DataError):
        "".join(read_text(file_of(data), encoding))


def test_utf_16_without_a_mark_blames_no_wrong_line() -> None:
    lone = "ab\ncd\n".encode("utf-16-le") + b"\0\xd8a\0\n\0"
    with pytest.raises(DataError, match=r"^x.txt(:3)?: not utf-16-le"):
        list(read_lines(file_of(lone), "utf-16-le"))


def test_the_place_in_a_compressed_member_is_that_in_its_text(tmp_path: Path) -> None:
    path = packed(tmp_path / "x.zip", {"dir/a.txt.gz": gzip.compress(b"a\nb\xe9\n")})
    assert fault_in(path).startswith(f"{path}:dir/a.txt.gz:2: not UTF-8 at byte 2 ")


@pytest.mark.parametrize("read", [read_lines, read_text])
def test_a_file_of_nul_bytes_is_no_text(read: Callable[[RawFile], Iterator[str]]) -> None:
    for data in (bytes(5000), TEXT[:1000] + bytes(4000), "a plain text".encode("utf-16-le")):
        with pytest.raises(DataError, match=r"^x.txt: not a text in utf-8: .* NUL; .*encoding=utf-16-le"):
            list(read(file_of(data)))


@pytest.mark.parametrize("name", [None, "utf-8", "CP1252", "latin 1", "utf-16-le"])
def test_an_encoding_that_is_known_passes(name: str | None) -> None:
    require_encoding(name)


@pytest.mark.parametrize("name", ["utf-9", "ansi?", "hex", "rot13", "zlib"])
def test_an_encoding_that_no_text_has_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"dataset.prepare.encoding={name}.* is no encoding; write utf-8"):
        require_encoding(name)


# --- the encoding of a whole file

FAR_IN = b"0123456789\n" * FAR  # 2 MB
# kind -> bytes and the encoding that they are in
ENCODED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "utf-8"),
    "one letter": (b"a", "utf-8"),
    "ASCII": (b"a\r\nb\n", "utf-8"),
    "UTF-8": ("één\nčeština\n日本".encode(), "utf-8"),
    "UTF-8 with its mark": (codecs.BOM_UTF8 + "één".encode(), "utf-8-sig"),
    "UTF-8 with its mark, broken later": (codecs.BOM_UTF8 + b"\xff", "utf-8-sig"),
    "UTF-8 with some NULs": (b"a long enough text\0\0\0" + "é".encode(), "utf-8"),
    "UTF-16 LE": (codecs.BOM_UTF16_LE + "één".encode("utf-16-le"), "utf-16"),
    "UTF-16 BE": (codecs.BOM_UTF16_BE + "één".encode("utf-16-be"), "utf-16"),
    "UTF-16, its mark alone": (codecs.BOM_UTF16_LE, "utf-16"),
    "UTF-16 of other letters": ("日本".encode("utf-16"), "utf-16"),
    "UTF-32 LE": (codecs.BOM_UTF32_LE + "één".encode("utf-32-le"), "utf-32"),
    "UTF-32 BE": (codecs.BOM_UTF32_BE + "één".encode("utf-32-be"), "utf-32"),
    "UTF-16 LE without a mark": ("een\tdrie é\r\n".encode("utf-16-le"), "utf-16-le"),
    "UTF-16 BE without a mark": ("een\tdrie é\r\n".encode("utf-16-be"), "utf-16-be"),
    "UTF-16 LE, a letter": ("a".encode("utf-16-le"), "utf-16-le"),
    "UTF-16 BE, a letter": ("a".encode("utf-16-be"), "utf-16-be"),
    "UTF-16 LE, a third Greek": ("αβγ abcde ".encode("utf-16-le") * 50, "utf-16-le"),
    "UTF-16 BE, a third Greek": ("αβγ abcde ".encode("utf-16-be") * 50, "utf-16-be"),
    "UTF-16 LE, long": (("0123456789\n" * FAR).encode("utf-16-le"), "utf-16-le"),
    "cp1252": ("café\nnaïve".encode("cp1252"), "other"),
    "cp1252, first": ("ébène".encode("cp1252"), "other"),
    "cp1252, last": (b"caf\xe9", "other"),
    "cp1252, quotes": ("“a” – ’s".encode("cp1252"), "other"),
    "a broken letter at the end": (b"caf\xc3", "other"),
    "cp1252, far away": (FAR_IN + b"caf\xe9\n", "other"),
    "a broken letter, far away": (FAR_IN + b"caf\xc3", "other"),
    "UTF-8, far away": (FAR_IN + "čeština".encode(), "utf-8"),
    "half a surrogate": (b"a\xed\xa0\x80b", "other"),
}


@pytest.mark.parametrize("kind", ENCODED)
def test_the_encoding_is_told_by_the_bytes(kind: str) -> None:
    data, expected = ENCODED[kind]
    assert encoding_of(file_of(data), "other") == expected


@pytest.mark.parametrize("letter", ["é", "日", "😀"])
def test_a_letter_on_the_edge_of_a_block_is_whole(letter: str) -> None:
    encoded = letter.encode()
    for before in range(1, len(encoded)):
        data = b"a" * (text._HEAD - before) + encoded
        assert encoding_of(file_of(data + b"b"), "cp1252") == "utf-8"
        assert encoding_of(file_of(data), "cp1252") == "utf-8"
        assert encoding_of(file_of(data[:-1] + b"b"), "cp1252") == "cp1252"


def test_a_stream_that_gives_little_at_once_is_read_whole() -> None:
    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size, 3) if size is not None and size > 0 else size)

    for data, expected in (("čeština".encode() * 3, "utf-8"), (b"0123456789\xe9", "cp1252")):
        file = RawFile("x", "x", Path("x"), lambda data=data: Slow(data))  # type: ignore[misc]
        assert encoding_of(file, "cp1252") == expected


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(st.sampled_from('abc é\t"'), max_size=9).map("x{}".format), max_size=5),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(
        [
            *[("utf-8", b""), ("utf-16-le", b""), ("utf-16-be", b""), ("cp1252", b"")],
            *[("utf-8", codecs.BOM_UTF8), ("utf-16-le", codecs.BOM_UTF16_LE)],
            *[("utf-16-be", codecs.BOM_UTF16_BE), ("utf-32-le", codecs.BOM_UTF32_LE)],
        ]
    ),
)
def test_lines_in_an_encoding_that_was_told_by_the_bytes_are_read_again(
    lines: list[str], end: str, kind: tuple[str, bytes]
) -> None:
    encoding, mark = kind
    file = file_of(mark + end.join([*lines, "the end"]).encode(encoding))
    assert list(read_lines(file, encoding_of(file, "cp1252"))) == [*lines, "the end"]


def test_a_damaged_file_has_no_encoding(tmp_path: Path) -> None:
    path = tmp_path / "x.txt.gz"
    for data in (gzip.compress(TEXT)[:-200], b"no gzip"):
        path.write_bytes(data)
        with Raw(path) as raw, pytest.raises(DataError) as caught:
            encoding_of(raw.files[0], "cp1252")
        assert str(caught.value).startswith(f"{path}: damaged or cut short")


def test_telling_the_encoding_closes_the_file() -> None:
    for data, _ in ENCODED.values():
        stream = io.BytesIO(data)
        encoding_of(RawFile("x", "x", Path("x"), lambda stream=stream: stream), "other")  # type: ignore[misc]
        assert stream.closed


# --- lines

# kind -> bytes and the lines that they are
LINES: dict[str, tuple[bytes, list[str]]] = {
    "nothing": (b"", []),
    "only blanks": (b"\n \r\n\t\n", []),
    "no last end": (b"a\nb", ["a", "b"]),
    "Windows ends": (b"a\r\nb\r\n", ["a", "b"]),
    "old Mac's ends": (b"a\rb\r", ["a", "b"]),
    "a CR in a line": (b"a\rb\nc\r\n", ["a\rb", "c"]),
    "ends doubled by a bad copy": (b"a\r\r\nb\r\r\n", ["a", "b"]),
    "blank lines at the end": (b"a\n\n \n\r\n\t", ["a"]),
    "blank lines in the middle": (b"a\n\n\n \nb\n\n", ["a", "", "", "", "b"]),
    "blank lines at the start": (b"\n\na\n", ["", "", "a"]),
    "blank lines of an old Mac": (b"a\r\rb\r\r", ["a", "", "b"]),
    "separators that end nothing": (
        "a\u2028b\u2029c\x85d\x0be\x0cf\x1cg\nh".encode(),
        ["a\u2028b\u2029c\x85d\x0be\x0cf\x1cg", "h"],
    ),
    "white space around a text": (b"  a \n\tb\t\n", ["  a ", "\tb\t"]),
    "a NUL": (b"a long enough text\0\n", ["a long enough text\0"]),
}


@pytest.mark.parametrize("kind", LINES)
def test_lines_end_where_they_should(kind: str) -> None:
    data, expected = LINES[kind]
    assert list(read_lines(file_of(data))) == expected


def test_a_windows_end_on_the_edge_of_what_is_looked_at_is_one_end() -> None:
    long = b"a" * (text._HEAD - 1)
    assert list(read_lines(file_of(long + b"\r\nb\r\nc\r\n")))[1:] == ["b", "c"]


def test_a_text_comes_whole_with_plain_line_ends() -> None:
    assert "".join(read_text(file_of(b"\r\na\r\n\rb\n\n"))) == "\na\n\nb\n\n"
    long = "é" * 200_000
    assert "".join(read_text(file_of(long.encode()))) == long


WITHOUT_ENDS = st.text(st.sampled_from("ab \té\u2028\x85\x0b\x0c\x1e\u00a0\ufeff😀"), max_size=5)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(WITHOUT_ENDS, max_size=8),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from(["utf-8-sig", "utf-16", "gb18030"]),
    st.booleans(),
)
def test_lines_that_were_written_are_read_again(
    lines: list[str], end: str, encoding: str, last_end: bool
) -> None:
    data = (end.join(lines) + end * last_end).encode(encoding)
    expected = ["" if line.isspace() else line for line in lines]
    while expected and not expected[-1]:
        expected.pop()
    assert list(read_lines(file_of(data), encoding)) == expected


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Make ten characters the longest line."""
    before = csv.field_size_limit()
    for module in (text, delimited):
        monkeypatch.setattr(module, "LONGEST", 10)
    yield 10
    csv.field_size_limit(before)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_line_above_the_longest_is_refused(end: str, short: int) -> None:
    file = file_of(f"a{end or chr(10)}{'é' * (short + 1)}{end}".encode())
    with pytest.raises(DataError, match=r"^x.txt:2: a line of more than 10 characters; .*of file"):
        list(read_lines(file))


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", ""])
def test_a_line_of_the_longest_length_is_read(end: str, short: int) -> None:
    line = "é" * short
    assert list(read_lines(file_of(f"{line}{end}".encode()))) == [line]


LONG_LINE = """
import resource, sys
from pathlib import Path
from hblm.data.raw.archives import Raw
from hblm.data.raw.text import read_lines
from hblm.errors import DataError
with Raw(Path(sys.argv[1])) as raw:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        list(read_lines(raw.files[0]))
    except DataError as error:
        print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss has another unit elsewhere")
@pytest.mark.parametrize("kind", ["plain", "compressed", "in another encoding"])
def test_an_endless_line_is_refused_in_little_memory(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.txt.gz" if kind == "compressed" else "a.txt")
    with gzip.open(path, "wb", 1) if kind == "compressed" else path.open("wb") as stream:
        stream.write(b"a line\n")
        if kind == "in another encoding":
            stream.write(b"caf\xe9 ")
        for _ in range(200):
            stream.write(b"word " * 200_000)
    found = subprocess.run(
        [sys.executable, "-c", LONG_LINE, str(path)], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = "not UTF-8 at byte 4" if kind == "in another encoding" else "a line of more than 16,777,216 "
    assert found[0].startswith(f"{path}:2: {expected}")
    assert int(found[1]) < 150


# --- rows of cells


def rows_of(data: bytes, **options: str | None) -> list[tuple[int, list[str]]]:
    """Return the rows of a text, cells separated by commas if nothing else is said."""
    return list(read_rows(file_of(data, "x.csv"), **{"delimiter": ",", **options}))


def test_cells_may_hold_lines_quotes_and_delimiters() -> None:
    data = b'a,"b, ""c""\nd\r\n\ne",f\n"","",""\ng,h,i'
    assert rows_of(data) == [
        (1, ["a", 'b, "c"\nd\r\n\ne', "f"]),
        (5, ["", "", ""]),
        (6, ["g", "h", "i"]),
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_row_bears_the_number_of_its_first_line(end: str) -> None:
    data = end.join(["a,b", "", '"c', "", 'd",e', "", "", "f,g", '"h', 'i",j', ""]).encode()
    assert [number for number, _ in rows_of(data)] == [1, 3, 8, 9]


@pytest.mark.parametrize("quote", ['"', None])
def test_empty_lines_are_no_rows(quote: str | None) -> None:
    assert rows_of(b"\na,b\n\n\r\nc,d\n\n", quote=quote) == [(2, ["a", "b"]), (5, ["c", "d"])]


@pytest.mark.parametrize("quote", ['"', None])
def test_a_cell_of_a_megabyte_is_read(quote: str | None) -> None:
    long = "é word " * 150_000
    assert rows_of(f"a,{long}\n".encode(), quote=quote) == [(1, ["a", long])]
    if quote:
        long = long.replace("word", "word\n")
        assert rows_of(f'a,"{long}"\nb,c\n'.encode()) == [(1, ["a", long]), (150_002, ["b", "c"])]


def test_quotes_are_plain_text_if_it_is_said() -> None:
    assert rows_of(b'a "b\t"c"d\r\n"\t\n', delimiter="\t", quote=None) == [
        (1, ['a "b', '"c"d']),
        (2, ['"', ""]),
    ]


def test_separators_of_lines_in_cells_end_no_row() -> None:
    text = "a\u2028b\x85c\x0cd"
    for quote in ('"', None):
        assert rows_of(f"{text},x\n".encode(), quote=quote) == [(1, [text, "x"])]


# fault -> bytes, and what the message must say after the file's name
BROKEN_ROWS: dict[str, tuple[bytes, list[str]]] = {
    "never closed": (b'a,b\n"c,d\ne,f\n', [":2: ", "opened in this row and never closed", "quote=none"]),
    "closed late": (b'a,b\n"c,d\ne,"f"\ng', [":2: ", "quote=none"]),
    "text after a quote": (b'a,b\n\n"c\nd"e,f\n', [":3: ", "expected after", "quote=none"]),
    "not the encoding": (b"a,b\nc,\xe9\n", [":2: ", "not UTF-8 at byte 3"]),
}


@pytest.mark.parametrize("fault", BROKEN_ROWS)
def test_a_broken_row_is_named_with_its_first_line(fault: str) -> None:
    data, expected = BROKEN_ROWS[fault]
    with pytest.raises(DataError) as caught:
        rows_of(data)
    assert str(caught.value).startswith(f"x.csv{expected[0]}")
    for part in expected:
        assert part in str(caught.value)


def test_a_quote_that_swallows_the_file_is_named_before_it_fills_memory(short: int) -> None:
    taken = itertools.count()

    class Counted(io.BytesIO):
        def read1(self, size: int | None = -1) -> bytes:
            next(taken)
            return super().read1(100)

    data = b'a,b\n"c,d\n' + b"e,f\n" * 10_000
    file = RawFile("x.csv", "x.csv", Path("x.csv"), lambda: Counted(data))
    with pytest.raises(DataError, match=r"^x.csv:2: a quote is opened in this row and never closed"):
        list(read_rows(file, delimiter=","))
    assert next(taken) < 10


def test_a_row_above_the_longest_line_is_refused(short: int) -> None:
    for quote in ('"', None):
        with pytest.raises(DataError, match=r"^x.csv:2: a line of more than 10 characters"):
            rows_of(b"a,b\n0123456789,b\n", quote=quote)


def test_a_bare_carriage_return_is_text() -> None:
    assert rows_of(b'a,"b\rc"\nd,e\n') == [(1, ["a", "b\rc"]), (2, ["d", "e"])]
    assert rows_of(b"a,b\rc\nd,e\n", quote=None) == [(1, ["a", "b\rc"]), (2, ["d", "e"])]
    assert rows_of(b'a,b\nc,d\re\n"f\r\ng",h\r\n') == [
        (1, ["a", "b"]),
        (2, ["c", "d\re"]),
        (3, ["f\r\ng", "h"]),
    ]


@pytest.mark.parametrize("options", [{"delimiter": ";\n"}, {"delimiter": ""}, {"quote": "''"}, {"quote": ""}])
def test_signs_that_no_table_has_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(HblmError):
        rows_of(b"a,b\n", **options)


CELLS = st.text(st.sampled_from('ab,;"\t \n\ré\u2028\x85'), max_size=6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=6), st.sampled_from(",;\t"))
def test_rows_that_were_written_are_read_again(rows: list[list[str]], delimiter: str) -> None:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    numbers = []
    for row in rows:
        numbers.append(stream.getvalue().count("\n") + 1)
        writer.writerow(row)
    found = rows_of(stream.getvalue().encode(), delimiter=delimiter)
    assert found == list(zip(numbers, rows, strict=True))


@pytest.mark.parametrize("blank", [b"\n", b" \t\n", b"\r\n"])
@pytest.mark.parametrize("ends", [False, True])
def test_lines_that_are_blank_without_end_are_refused(
    blank: bytes, ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hblm.data.raw.text.MOST_BLANK", 10)
    fine = b"".join(b"a\n" + blank * 9 for _ in range(5))
    assert len(list(read_lines(file_of(fine), ends=True))) == 50
    with pytest.raises(DataError, match=r"x\.txt:12: 11 empty lines"):
        list(read_lines(file_of(b"a\n" + blank * 12 + b"b\n"), ends=ends))
