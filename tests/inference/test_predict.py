"""Predictions of new texts: rows in order, formats, exit codes; with a model made of words, without torch."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from programs import compose
from words import TREE, Words, predictor_of

from hblm.config.predict import PredictConfig
from hblm.errors import ConfigError, DataError
from hblm.files import HOST
from hblm.inference import predict
from hblm.inference.rows.input_rows import InputRow
from hblm.inference.rows.windows import SECONDS, Windows

BODY = {"nodes": ["b"], "names": ["Body"], "scores": [0.9]}
AT_ONCE = 50
CAT = {"nodes": ["a", "a1"], "names": ["Animal", "Ape"], "scores": [0.9, 0.9]}


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> Words:
    """Let the program predict with words."""
    model = Words()
    predictor = predictor_of(model)
    predictor.texts_at_once = AT_ONCE
    monkeypatch.setattr(predict, "open_predictor", lambda config: predictor)
    return model


def config(*overrides: str) -> PredictConfig:
    return compose("predict", PredictConfig, "checkpoint=x", *overrides)


def predicted(*overrides: str, code: int = 0) -> list[dict[str, Any]]:
    """Return the rows of a prediction in a new file, and check the exit code."""
    output = Path("out.jsonl")
    output.unlink(missing_ok=True)
    assert exit_code(f"output={output}", *overrides) == code
    return [json.loads(line) for line in output.read_text().splitlines()]


def exit_code(*overrides: str) -> int:
    try:
        predict.run(config(*overrides))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def left_over() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


def test_every_row_gives_a_row_in_order(words: Words, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in.jsonl").write_text(
        '{"id": 4, "text": "a1 of b"}\n{"id": null, "text": ""}\nbroken\n{"text": "b", "id": [1, "é"]}\n'
    )
    assert predicted("input=in.jsonl", "keep=[id]", "on_error=report", code=1) == [
        {"row": 1, "id": 4, "paths": [BODY, CAT]},
        {"row": 2, "id": None, "paths": []},
        {"row": 3, "error": "in.jsonl:3: not valid JSON: Expecting value (column 1)"},
        {"row": 4, "id": [1, "é"], "paths": [BODY]},
    ]
    captured = capsys.readouterr()
    assert captured.err.startswith("4 rows, 1 errors, ")
    assert captured.err.endswith(" s of loading\n")
    assert not captured.out
    assert [*words.batches] == [["a1 of b", "", "b"]]


def test_a_bad_row_ends_the_run_and_leaves_nothing(words: Words) -> None:
    Path("in.csv").write_text("text\na\nx,y\nb\n")
    with pytest.raises(DataError, match=r"^in.csv:3: 2 cells, .*; on_error=report goes on after a bad row$"):
        exit_code("input=in.csv", "output=new/out.jsonl")
    assert not list(Path("new").iterdir())


def test_what_the_first_row_shows_is_reported_before_a_model_is_loaded(monkeypatch: Any) -> None:
    monkeypatch.setattr(predict, "open_predictor", lambda config: pytest.fail("a model was loaded"))
    Path("in.csv").write_text("text,b\na\nb,2\n")
    for keys, message in {
        ("input=in.csv", "text=x"): "text=x is no column",
        ("input=in.csv",): r"^in.csv:2: 1 cells",
        ("input=none.csv",): "input=none.csv is not there",
    }.items():
        with pytest.raises((ConfigError, DataError), match=message):
            exit_code(*keys, "output=out.csv")
    assert left_over() == ["in.csv"]


def test_rows_before_a_bad_one_are_printed(words: Words, capfdbinary: Any) -> None:
    Path("in.txt").write_bytes(b"b\n" * 60 + b"a1\n\xff\nb\n")
    with pytest.raises(DataError, match=r"^in.txt:62: not UTF-8"):
        exit_code("input=in.txt")
    lines = capfdbinary.readouterr().out.splitlines()
    assert len(lines) == 61
    assert json.loads(lines[-1]) == {"row": 61, "paths": [CAT]}
    assert [len(batch) for batch in words.batches] == [50, 11]


def test_windows_keep_the_order(words: Words) -> None:
    names = [node.id for node in TREE.nodes]
    texts = [names[number % 4] for number in range(1_000)]
    Path("in.txt").write_text("".join(f"{text}\n" for text in texts))
    rows = predicted("input=in.txt")
    assert [row["row"] for row in rows] == [*range(1, 1_001)]
    assert [row["paths"][0]["nodes"][-1] for row in rows] == texts
    assert max(map(len, words.batches)) <= AT_ONCE


def test_what_is_written_of_each_document(words: Words) -> None:
    Path("in.txt").write_text("a1\n")
    cases: dict[tuple[str, ...], tuple[list[list[str]], list[float]]] = {
        (): ([["a", "a1"]], [0.9, 0.1, 0.9, 0.1]),
        ("consistency=cap",): ([], [0.1, 0.1, 0.1, 0.1]),
        ("consistency=none",): ([["a1"]], [0.1, 0.1, 0.9, 0.1]),
        ("threshold=0.05",): ([["a", "a1"], ["b"], ["a", "a2"]], [0.9, 0.1, 0.9, 0.1]),
        ("threshold=0.05", "top_k=2"): ([["a", "a1"], ["b"]], [0.9, 0.1, 0.9, 0.1]),
        ("threshold=0.95", "top_k=2"): ([], [0.9, 0.1, 0.9, 0.1]),
        ("top_k=2",): ([["a", "a1"], ["b"]], [0.9, 0.1, 0.9, 0.1]),
    }
    for keys, (paths, scores) in cases.items():
        (row,) = predicted("input=in.txt", "all_scores=true", *keys)
        assert [path["nodes"] for path in row["paths"]] == paths, keys
        assert row["scores"] == dict(zip(("a", "b", "a1", "a2"), scores, strict=True)), keys
    assert "scores" not in predicted("input=in.txt")[0]


def test_csv_has_the_paths_as_json(words: Words) -> None:
    names = ['one, "two"', "line\nend", "return\rend", "=1+1", ""]
    Path("in.jsonl").write_text(
        "".join(json.dumps({"id": name, "n": [1, None], "text": "a1"}) + "\n" for name in names)
        + '{"id": "x", "n": true}\n'
    )
    given = ("input=in.jsonl", "output=out.csv", "keep=[id,n]", "on_error=report", "all_scores=true")
    assert exit_code(*given) == 1
    with open("out.csv", newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["row", "id", "n", "paths", "scores", "error"]
    assert [row["id"] for row in rows] == [*names, ""]
    assert [row["n"] for row in rows] == ["[1,null]"] * 5 + [""]
    assert json.loads(rows[0]["paths"]) == [CAT]
    assert json.loads(rows[0]["scores"]) == {"a": 0.9, "b": 0.1, "a1": 0.9, "a2": 0.1}
    assert [row["error"] for row in rows] == [""] * 5 + ["in.jsonl:6: no 'text'; the record has 'id', 'n'"]
    assert pd.read_csv("out.csv")["row"].tolist() == [1, 2, 3, 4, 5, 6]
    exit_code("input=in.jsonl", "output=out2.csv", "top_k=1", "text=id")
    assert Path("out2.csv").read_text().splitlines()[0] == "row,paths"


def test_parquet_has_nested_columns(words: Words) -> None:
    Path("in.jsonl").write_text(
        '{"id": 7, "s": null, "text": "a1"}\nbroken\n{"id": 8, "s": null, "text": ""}\n'
    )
    keys = ("input=in.jsonl", "keep=[id,s]", "all_scores=true")
    assert exit_code(*keys, "output=out.parquet", "on_error=report") == 1
    table = pq.read_table("out.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "row": "int64",
        "id": "int64",
        "s": "string",
        "paths": "list<element: struct<nodes: list<element: string>, names: list<element: string>, "
        "scores: list<element: float>>>",
        "scores": "map<string, float ('scores')>",
        "error": "string",
    }
    scores = [[*map(np.float32, (0.9, 0.1, 0.9, 0.1))]]
    assert table["row"].to_pylist() == [1, 2, 3]
    assert table["id"].to_pylist() == [7, None, 8]
    assert table["paths"].to_pylist()[1:] == [None, []]
    assert table["paths"].to_pylist()[0][0]["nodes"] == ["a", "a1"]
    assert [[value for _, value in row] for row in table["scores"].to_pylist()[:1]] == scores
    assert table["error"].to_pylist()[::2] == [None, None]
    Path("in.txt").write_text("")
    assert exit_code("input=in.txt", "output=empty.parquet") == 0
    assert pq.read_table("empty.parquet").schema.names == ["row", "paths"]


def test_parquet_names_a_value_of_another_type(words: Words) -> None:
    lines = [json.dumps({"id": number, "text": "b"}) for number in range(60)]
    Path("in.jsonl").write_text("\n".join([*lines, '{"id": "x", "text": "b"}']))
    with pytest.raises(DataError, match="row 61: id is 'x', and the first rows have int64; Parquet has one"):
        exit_code("input=in.jsonl", "keep=[id]", "output=out.parquet")
    assert left_over() == ["in.jsonl"]
    Path("in.jsonl").write_text("\n".join([*lines, '{"id": 1.5, "text": "b"}']))
    with pytest.raises(DataError, match=r"row 61: id is 1\.5, and the first rows have int64"):
        exit_code("input=in.jsonl", "keep=[id]", "output=out.parquet")


@pytest.mark.parametrize(
    ("first", "later", "stored"),
    [
        ({"a": 1}, {"b": 2}, ['{"a":1}', '{"b":2}']),
        ({}, [{}], ["{}", "[{}]"]),
        ([{"a": 1}], [], ['[{"a":1}]', "[]"]),
        ([], ["x"], ["[]", '["x"]']),
        ([1.5, None], [2], [[1.5, None], [2]]),
        (2**63, 2**64 - 1, [2**63, 2**64 - 1]),
        (2**70, "x", [str(2**70), "x"]),
    ],
)
def test_parquet_keeps_every_value(words: Words, first: Any, later: Any, stored: Any) -> None:
    rows = [first, *[None] * 60, later]
    table = [json.dumps({"m": value, "text": "b"}) for value in rows]
    Path("in.jsonl").write_text("\n".join(table))
    assert exit_code("input=in.jsonl", "keep=[m]", "output=out.parquet") == 0
    kept = pq.read_table("out.parquet")["m"].to_pylist()
    assert kept[::61] == stored
    assert kept[1:-1] == [None] * 60


def test_values_keep_their_types(words: Words) -> None:
    table = pa.table({"text": ["b"], "day": [pd.Timestamp("2024-02-03")], "big": [2**63 - 1], "x": [b"\xff"]})
    pq.write_table(table, "in.parquet")
    keys = ("input=in.parquet", "keep=[day,big]")
    assert predicted(*keys)[0] == {"row": 1, "day": "2024-02-03T00:00:00", "big": 2**63 - 1, "paths": [BODY]}
    exit_code(*keys, "output=out.parquet")
    assert pq.read_table("out.parquet")["day"].to_pylist() == [pd.Timestamp("2024-02-03")]
    exit_code(*keys, "output=out.csv")
    assert Path("out.csv").read_text().splitlines()[1].startswith(f"1,2024-02-03T00:00:00,{2**63 - 1},")
    Path("in.jsonl").write_text(f'{{"text": "b", "n": {10**30}, "f": NaN}}')
    assert predicted("input=in.jsonl", "keep=[n]")[0]["n"] == 10**30
    assert predicted("input=in.jsonl", "keep=[f]")[0]["f"] is None


def test_a_file_is_replaced_by_request_alone(words: Words) -> None:
    Path("in.txt").write_text("b\n")
    Path("out.jsonl").write_text("kept")
    with pytest.raises(ConfigError, match=r"output=out.jsonl is there already; write force=true"):
        exit_code("input=in.txt", "output=out.jsonl")
    assert Path("out.jsonl").read_text() == "kept"
    Path("in.jsonl").write_text('{"text": 5}')
    with pytest.raises(DataError):
        exit_code("input=in.jsonl", "output=out.jsonl", "force=true")
    assert Path("out.jsonl").read_text() == "kept"
    exit_code("input=in.txt", "output=out.jsonl", "force=true")
    assert json.loads(Path("out.jsonl").read_text()) == {"row": 1, "paths": [BODY]}
    Path("link.jsonl").symlink_to("in.txt")
    with pytest.raises(ConfigError, match=r"output=link.jsonl is the input, which would be replaced"):
        exit_code("input=in.txt", "output=link.jsonl", "force=true")
    with pytest.raises(ConfigError, match="output=/dev/null is a pipe or a device, and"):
        exit_code("input=in.txt", "output=/dev/null", "output_format=parquet")
    with pytest.raises(ConfigError, match=r"output=. is a folder"):
        exit_code("input=in.txt", "output=.", "output_format=csv")
    assert exit_code("input=in.txt", "output=/dev/null", "output_format=csv") == 0
    assert Path("/dev/null").is_char_device()


@pytest.fixture
def stalled() -> Iterator[threading.Event]:
    """Make a pipe whose reader reads nothing; give the event that ends it, which is set after 8 seconds."""
    os.mkfifo("pipe")
    let_go = threading.Event()

    def read() -> None:
        with open("pipe", "rb") as stream:
            if not let_go.wait(8):
                let_go.set()
                stream.read()

    reader = threading.Thread(target=read)
    reader.start()
    yield let_go
    let_go.set()
    reader.join()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_while_the_reader_of_the_output_stalls(
    words: Words, stalled: threading.Event, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr("hblm.inference.rows.output_files._CHECK_EVERY", 0.05)
    Path("in.txt").write_text("b\n" * 20_000)  # more than a pipe holds
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.5, os.kill, (os.getpid(), number))
    timer.start()
    try:
        assert exit_code("input=in.txt", "output=pipe", "output_format=jsonl") == 128 + number
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)
    assert not stalled.is_set()


def test_a_signal_ends_it_while_a_pipe_has_no_reader(words: Words) -> None:
    os.mkfifo("pipe")
    Path("in.txt").write_text("b\n")
    ended = threading.Event()
    reader = threading.Thread(target=lambda: ended.wait(5) or Path("pipe").read_bytes())
    reader.start()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    assert exit_code("input=in.txt", "output=pipe", "output_format=jsonl") == 143
    assert time.monotonic() - started < 4
    ended.set()
    timer.join()
    reader.join()


def test_a_reader_of_a_pipe_may_end_early(words: Words, stalled: threading.Event) -> None:
    Path("in.txt").write_text("b\n" * 20_000)
    threading.Timer(0.3, stalled.set).start()
    assert exit_code("input=in.txt", "output=pipe", "output_format=jsonl") == 0


def test_what_a_killed_run_left_is_removed(words: Words) -> None:
    Path("in.txt").write_text("b\n")
    ended = 2**22 + 1  # above every process id
    Path(f".out.jsonl.{HOST}.{ended}.tmp").write_text("half")
    assert exit_code("input=in.txt", "output=out.jsonl") == 0
    assert left_over() == ["in.txt", "out.jsonl"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("input=a.txt", "keep=[row]"), "keep=[row]: row is a column that the output has itself"),
        (("input=a.txt", "keep=[a,a]"), "keep=[a,a]: a is there twice"),
        (
            ("input=a.txt", "output=a.xlsx"),
            "output=a.xlsx: the name does not end in .jsonl, .csv",
        ),
        (("input=a.txt", "output_format=parquet"), "output_format=parquet needs a file"),
        (("input=a.txt", "top_k=0"), "top_k=0 is out of range"),
        (("input=a.txt", "calibrate=x"), "calibrate=x acts with confidence="),
        (("input=a.txt", "threshold=0.5", "tune=node"), "threshold=0.5 contradicts tune=node"),
        (("input=a.txt", "format=xml"), "format=xml is not one of txt, jsonl"),
    ],
)
def test_keys_that_contradict_each_other(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(*overrides)
    assert message in str(caught.value)


def test_a_window_is_taken_soon_after_its_first_row() -> None:
    go_on = threading.Event()

    def rows() -> Any:
        yield InputRow(1, "x")
        go_on.wait(30)
        yield InputRow(2, "y")

    with Windows(rows(), 10) as windows:
        taken = windows.taken(lambda: None)
        assert [row.number for row in next(taken)] == [1]
        assert not go_on.is_set()
        go_on.set()
        assert [[row.number for row in window] for window in taken] == [[2]]
    assert 0 < SECONDS <= 0.5


def test_a_window_is_bounded_and_the_reader_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hblm.inference.rows.windows.CHARACTERS", 10)
    read = 0

    def rows() -> Any:
        nonlocal read
        for read in range(1, 100):
            yield InputRow(read, "xxxx")
        raise DataError("the end")

    sizes = []
    taken = Windows(rows(), 5).taken(lambda: None)
    for window in itertools.islice(taken, 33):
        sizes.append(len(window))
        assert read <= sum(sizes) + 4  # a window is ahead, and a row waits for its place
    assert sizes == [3] * 33
    with pytest.raises(DataError, match="the end"):
        next(taken)


def test_a_check_ends_the_wait_for_rows() -> None:
    ended = threading.Event()

    def stop() -> None:
        raise KeyboardInterrupt

    def rows() -> Any:
        ended.wait(30)
        yield InputRow(1)

    with Windows(rows(), 5) as windows, pytest.raises(KeyboardInterrupt):
        next(windows.taken(stop))
    ended.set()


def test_the_reader_ends_with_the_consumer() -> None:
    def endless() -> Any:
        for number in itertools.count(1):
            yield InputRow(number)

    with Windows(endless(), 5) as windows:
        next(windows.taken(lambda: None))
        (reader,) = [thread for thread in threading.enumerate() if thread.name == "reader"]
    reader.join(10)
    assert not reader.is_alive()
