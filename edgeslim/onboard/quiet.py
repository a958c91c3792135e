"""Quiet: what a library's own code writes to standard error, past Python, is dropped.

libtiff and LiteRT do so for what they also report as an error, or for no error at all; a person is told one line.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Drop it within; for short stretches in which this process writes no message of its own."""
    try:
        kept = os.dup(2)
    except OSError:  # a service may have been started without one
        yield
        return
    try:
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
