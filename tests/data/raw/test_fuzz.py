"""Damaged raw files of every kind, by the hundred: each is prepared, or refused for a reason in words."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import random
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

import datasets
from hblm.config.train import Dataset, Encoder
from hblm.data.preparation import prepare
from hblm.errors import HblmError

SEED = int(os.environ.get("HBLM_FUZZ_SEED", "1"))
ROUNDS = int(os.environ.get("HBLM_FUZZ_ROUNDS", "22"))  # of each kind
SECONDS = 60.0  # of a kind
ROWS: list[dict[str, Any]] = [
    {"id": str(at), "text": f'text "{at}", of Café\n2nd', "label": f"{'ab'[at % 2]}/{'xyz'[at % 3]}", "n": at}
    for at in range(24)
]


def csv(sign: str) -> bytes:
    lines = [
        ["id", "text", "label"],
        *([row["id"], f'"{row["text"][:4]}{sign}"', row["label"]] for row in ROWS),
    ]
    return "\n".join(sign.join(line) for line in lines).encode()


def jsonl() -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def parquet(**options: Any) -> bytes:
    rows = [{**row, "label": [row["label"]]} for row in ROWS] if options.pop("lists", False) else ROWS
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream, **options)
    return stream.getvalue()


def zipped() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.csv", csv(","))
        archive.writestr("test.jsonl", jsonl().replace(b'"id": "', b'"id": "t'))
    return stream.getvalue()


def tarred() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("train.csv")
        info.size = len(csv(","))
        archive.addfile(info, io.BytesIO(csv(",")))
    return stream.getvalue()


def sheet() -> bytes:
    book, stream = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["text", "label"])
    for row in ROWS:
        book.active.append([row["text"], row["label"]])
    book.save(stream)
    return stream.getvalue()


TAXONOMY = json.dumps(
    {
        "nodes": [
            *({"id": top, "name": top, "parent": None} for top in "ab"),
            *({"id": f"{top}/{low}", "name": low, "parent": top} for top in "ab" for low in "xyz"),
        ]
    }
).encode()
KINDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "csv": lambda: {"x.csv": csv(",")},
    "tsv": lambda: {"x.tsv": csv("\t")},
    "jsonl": lambda: {"x.jsonl": jsonl()},
    "json": lambda: {"x.json": jsonl()},
    "parquet": lambda: {"x.parquet": parquet()},
    "parquet of lists": lambda: {"x.parquet": parquet(lists=True, compression="zstd")},
    "zip": lambda: {"x.zip": zipped()},
    "tar": lambda: {"x.tar": tarred()},
    "tar.gz": lambda: {"x.tar.gz": gzip.compress(tarred())},
    "csv.gz": lambda: {"x.csv.gz": gzip.compress(csv(","))},
    "xlsx": lambda: {"x.xlsx": sheet()},
    "taxonomy": lambda: {"taxonomy.json": TAXONOMY, "x.csv": csv(",")},
    "tree": lambda: {"x.taxonomy": b"Root\ta\tb\na\tx\ty\tz\nb\tu\n", "x.csv": csv(",")},
    "saved": lambda: saved(),
}


def saved() -> dict[str, bytes]:
    folder = Path("saved")
    shutil.rmtree(folder, ignore_errors=True)
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(ROWS).save_to_disk(str(folder))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def bits(data: bytearray, draw: random.Random) -> None:
    for _ in range(draw.choice((1, 1, 3, 20))):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def cut(data: bytearray, draw: random.Random) -> None:
    del data[draw.randrange(len(data)) :]


def swap(data: bytearray, draw: random.Random) -> None:
    one, other = draw.randrange(len(data)), draw.randrange(len(data))
    data[one], data[other] = data[other], data[one]


def insert(what: Callable[[random.Random], bytes]) -> Callable[[bytearray, random.Random], None]:
    def change(data: bytearray, draw: random.Random) -> None:
        at = draw.randrange(len(data) + 1)
        data[at:at] = what(draw)

    return change


def number(data: bytearray, draw: random.Random) -> None:
    """Put a huge number in the place of a digit."""
    digits = [at for at, byte in enumerate(data) if 48 <= byte <= 57] or [0]
    at = draw.choice(digits)
    data[at : at + 1] = draw.choice((b"9" * 400, b"9" * 5000, b"1e999", b"-1", b"NaN", b"4294967296"))


def repeat(data: bytearray, draw: random.Random) -> None:
    start = draw.randrange(len(data))
    data[start:start] = data[start : start + draw.randrange(1, 200)] * draw.choice((1, 2, 50))


MUTATIONS: list[Callable[[bytearray, random.Random], None]] = [
    *(bits, bits, cut, swap, number, repeat),
    insert(lambda draw: b"\0" * draw.choice((1, 2, 300))),
    insert(lambda draw: draw.choice((b"[", b"{", b'{"a":', b'"')) * draw.choice((1, 100_000))),
    insert(
        lambda draw: draw.choice(("\ud800", "\ufeff", "\u2028", "\r", "\x1a")).encode(
            "utf-8", "surrogatepass"
        )
    ),
    insert(lambda draw: draw.randbytes(8)),
    insert(lambda draw: b'"' + rb"\ud800" + b'"'),
]


def failure(name: str, files: dict[str, bytes], options: dict[str, Any]) -> str:
    """Prepare files; return the error that is none for the user, "" where there is none."""
    for folder in ("raw", "data"):
        shutil.rmtree(folder, ignore_errors=True)
    Path("raw").mkdir()
    for file, content in files.items():
        Path("raw", file).write_bytes(content)
    raw = Path("raw", *files) if len(files) == 1 else Path("raw")
    dataset = Dataset(name="fuzz", path="data/fuzz", converter="custom", source="files", prepare=options)
    started = time.monotonic()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            prepare(dataset, raw, Encoder(model_name="tiny"))
    except HblmError as error:
        if "Traceback" in str(error) or len(str(error)) > 5000:
            return f"{name}: a message of {len(str(error))} characters: {error!s:.200}"
    except (Exception, pyarrow.ArrowException) as error:  # the fault that is looked for
        return f"{name}: {type(error).__name__}: {error!s:.200}"
    return f"{name}: {time.monotonic() - started:.0f} s" if time.monotonic() - started > 30 else ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore")  # of the libraries, about what is damaged
def test_a_damaged_file_is_prepared_or_refused(kind: str) -> None:
    draw = random.Random(f"{SEED} {kind}")
    whole = KINDS[kind]()
    options = {"id": "none"} if kind == "xlsx" else {}
    assert failure(kind, whole, options) == "" or kind == "xlsx"
    end = time.monotonic() + SECONDS * max(1, ROUNDS / 22)
    found = []
    for round_ in range(ROUNDS):
        if time.monotonic() > end:
            break
        damaged = draw.choice([name for name, content in whole.items() if content])
        content = bytearray(whole[damaged])
        for _ in range(draw.choice((1, 1, 2))):
            if content:
                draw.choice(MUTATIONS)(content, draw)
        found.append(failure(f"{kind} {round_}", {**whole, damaged: bytes(content)}, options))
    assert [fault for fault in found if fault] == []
