"""Programs whose output nobody reads any more, as behind `| head`: their work is done all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import made_results
import pytest
from programs import TINY

PRINTER = """
import subprocess, sys
from hblm.console import outlive_readers
outlive_readers()
outlive_readers()
for number in range(20_000):
    print(number)
    print(number, file=sys.stderr, flush=True)
sys.stdout.flush()
subprocess.run(["echo", "a child"], check=True)
open("done", "w").close()
sys.exit(3)
"""


def unread(*argv: str, both: bool = False) -> tuple[int, str]:
    """Run Python with a standard output that nobody reads; return exit code and standard error."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, *argv],
        check=False,
        stdout=writing,
        stderr=subprocess.STDOUT if both else subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    return done.returncode, done.stderr or ""


@pytest.mark.parametrize("unbuffered", [(), ("-u",)])
@pytest.mark.parametrize("both", [False, True])
@pytest.mark.slow
def test_output_without_a_reader_is_dropped(unbuffered, both):
    code, printed = unread(*unbuffered, "-c", PRINTER, both=both)
    assert Path("done").exists()
    assert code == 3
    assert both or printed.split() == [str(number) for number in range(20_000)]


@pytest.mark.parametrize("unbuffered", [(), ("-u",)])
@pytest.mark.slow
def test_a_reader_gets_all(unbuffered):
    done = subprocess.run(
        [sys.executable, *unbuffered, "-c", PRINTER], check=False, capture_output=True, text=True
    )
    assert done.stdout == "".join(f"{number}\n" for number in range(20_000)) + "a child\n"


@pytest.mark.parametrize(
    "both", [pytest.param(False, marks=pytest.mark.slow), pytest.param(True, marks=pytest.mark.long)]
)
def test_programs_write_their_files_without_a_reader(learnable, both):
    def run(*argv: str) -> None:
        code, printed = unread("-m", *argv, both=both)
        assert (code, "Traceback" in printed, "Broken" in printed) == (0, False, False), printed

    made_results.write(Path("outputs"), "made", made_results.result(seed=1))
    run("hblm.aggregate")
    assert {path.suffix for path in Path("outputs/tables").iterdir()} == {".md", ".csv", ".tex", ".html"}
    run("hblm.aggregate", "--help")
    run("hblm.prepare", "dataset=custom", f"dataset.path={learnable}", "check=true")
    before = {*Path("outputs/results").iterdir()}
    run("hblm.train", *TINY, f"dataset.path={learnable}", "trainer.epochs=1")
    (result,) = set(Path("outputs/results").glob("*.json")) - before
    run("hblm.train", *TINY, f"dataset.path={learnable}", "trainer.epochs=1")
    run("hblm.evaluate", f"checkpoint=outputs/checkpoints/{result.stem}", "device=cpu")
    assert len(list(Path("outputs/results").glob("eval_*.json"))) == 1
    run("hblm.sweep", "plan", "sweep=smoke", "output_dir=outputs")
