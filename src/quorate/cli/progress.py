"""How far a long command is."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from typing import TextIO

LINE_S = 10.0
"""Between two lines of progress where there is no terminal."""
REWRITE_S = 0.1
"""Between two states of the line of progress on a terminal."""


class ProgressLine:
    """How far things are, on stderr: one line that is rewritten on a terminal, now and then a new one elsewhere."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._next = clock() + (0.0 if self._is_terminal else LINE_S)

    def show(self, text: Callable[[], str]) -> None:
        now = self._clock()
        if now < self._next:
            return
        if self._is_terminal:
            self._next = now + REWRITE_S
            width = shutil.get_terminal_size().columns
            self._stream.write(f"\r{text()[: width - 1]}\x1b[K")
        else:
            self._next = now + LINE_S
            self._stream.write(f"{text()}\n")
        self._stream.flush()

    def clear(self) -> None:
        """Make room for other output."""
        if self._is_terminal:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
