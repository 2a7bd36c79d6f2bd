"""Child processes with limited memory, for libraries that may unpack a small file to many gigabytes.

A kilobyte of Parquet or a few megabytes of a spreadsheet can unpack to many gigabytes inside the library,
before it returns anything. pyarrow reserves the size that a page states. calamine aborts the whole process
when it gets no memory. If the size of a file does not exclude that, the library runs in a child process,
which may hold MEMORY bytes and fails alone.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO

MEMORY = 1 << 30  # bytes that the child process may hold besides its code

_NO_MEMORY = 3  # exit code


@contextlib.contextmanager
def output_of(module: str, content: IO[bytes], *arguments: str) -> Iterator[IO[bytes]]:
    """Run `python -m module arguments` on a file as stdin and yield its stdout.

    Args:
        module: a module that calls `run` as a program.
        content: the file; if it is not on disk, it is copied to an unnamed temporary file.
        arguments: of the program.

    Raises:
        OSError: the file cannot be read; the message is that of the library, or says that memory ran out.
    """
    with contextlib.ExitStack() as opened:
        if not (isinstance(content, io.BufferedReader) and isinstance(content.raw, io.FileIO)):
            copy = opened.enter_context(tempfile.TemporaryFile())
            shutil.copyfileobj(content, copy, 1 << 20)
            copy.seek(0)
            content = copy
        errors = opened.enter_context(tempfile.TemporaryFile())
        environment = {**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system", "OMP_NUM_THREADS": "1"}
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=content,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        assert process.stdout is not None
        try:
            with process.stdout:
                try:
                    yield process.stdout
                    process.stdout.read(1)  # wait for the end of the output
                except ValueError:  # the output ends in the middle, probably because the process failed
                    process.stdout.close()
                    if process.wait() == 0:
                        raise
            code = process.wait()
        finally:
            process.kill()
            process.wait()
        if code:
            errors.seek(0)
            raise OSError(_reason(code, errors.read(1 << 16).decode("utf-8", "replace")))


def _reason(code: int, errors: str) -> str:
    """Return why a process failed, by its exit code and what it wrote to stderr."""
    if code == 1:
        lines = errors.split("\n")
        return lines[-2] if lines[1:] else "the reader failed"
    return f"it unpacks to more than {MEMORY >> 20} MiB at once, or is damaged"


def run(write: Callable[[IO[bytes], IO[bytes]], None]) -> int:
    """Limit the memory of this process, call `write(stdin, stdout)`, and return the exit code.

    The last line of stderr is the message of an exception.
    """
    _limit_memory()
    output = sys.stdout.buffer
    try:
        write(sys.stdin.buffer, output)
        output.flush()
    except MemoryError:
        return _NO_MEMORY
    except BrokenPipeError:  # the parent process has read enough
        os._exit(0)
    except Exception as error:  # the libraries raise many types, and this process does nothing else
        print(f"\n{' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
