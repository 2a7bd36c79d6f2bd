"""Windows of rows: a thread reads ahead into one of bounded size, and the consumer takes it whole."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

from hblm.inference.rows.input_rows import InputRow

CHARACTERS = 8_000_000  # of all texts of a window
SECONDS = 0.5  # from the first row of a window until it is taken, however few rows it has
_CHECK_EVERY = 0.5  # seconds between calls of `check` while no row arrives


class Windows:
    """Reads rows in a thread of its own, as many ahead as fit into a window; a context manager ends it."""

    def __init__(self, rows: Iterable[InputRow], most: int) -> None:
        """Start to read; a window has at most `most` rows."""
        self._rows, self._most = rows, most
        self._waiting: list[InputRow] = []
        self._characters = 0
        self._since = 0.0  # when the first waiting row arrived
        self._over = self._closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        # a daemon: a reader that waits for standard input cannot be stopped
        threading.Thread(target=self._read, name="reader", daemon=True).start()

    def __enter__(self) -> Windows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def taken(self, check: Callable[[], None]) -> Iterator[list[InputRow]]:
        """Yield the windows: as soon as they are full, or SECONDS after their first row, or at the end.

        Args:
            check: is called at times while no row arrives; it may raise.

        Raises:
            Exception: that of the rows, after the rows before it.
        """
        while True:
            with self._changed:
                while not self._is_due():
                    self._changed.wait(self._patience())
                    check()
                window, self._waiting, self._characters = self._waiting, [], 0
                self._changed.notify_all()
            if window:
                yield window
            elif self._error:
                raise self._error
            else:
                return

    def _read(self) -> None:
        try:
            for row in self._rows:
                self._put(row)
                if self._closed:
                    return
        except BaseException as error:
            self._error = error
        with self._changed:
            self._over = True
            self._changed.notify_all()

    def _put(self, row: InputRow) -> None:
        with self._changed:
            while self._is_full() and not self._closed:
                self._changed.wait()
            if not self._waiting:
                self._since = time.monotonic()
            self._waiting.append(row)
            self._characters += len(row.text)
            if len(self._waiting) == 1 or self._is_full():
                self._changed.notify_all()

    def _is_full(self) -> bool:
        return len(self._waiting) >= self._most or self._characters >= CHARACTERS

    def _is_due(self) -> bool:
        if self._over or self._is_full():
            return True
        return bool(self._waiting) and time.monotonic() - self._since >= SECONDS

    def _patience(self) -> float:
        """Return for how many seconds to wait for a change."""
        if not self._waiting:
            return _CHECK_EVERY
        return max(self._since + SECONDS - time.monotonic(), 0.001)
