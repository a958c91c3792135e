"""Consoles: results on stdout, progress and errors on stderr. What is printed is what was found, to the letter."""

from __future__ import annotations

import re
import sys
from typing import IO, Any, cast

from rich.console import Console

_PADDING = re.compile(r"[ ]+$", re.MULTILINE)


class _Unpadded:
    """A stream without the blanks that rich fills a table's lines up with: files and diffs are none the better."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return int(self._stream.write(_PADDING.sub("", text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def stdout_console(*, soft_wrap: bool = False) -> Console:
    """For results."""
    file = None if sys.stdout.isatty() else cast(IO[str], _Unpadded(sys.stdout))
    return Console(file=file, highlight=False, emoji=False, soft_wrap=soft_wrap)


def stderr_console() -> Console:
    """For progress and errors; lines as long as they are."""
    return Console(stderr=True, highlight=False, emoji=False, soft_wrap=True)
