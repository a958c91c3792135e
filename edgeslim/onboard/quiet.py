"""Quiet: libraries neither chat on standard error, past Python, nor report home.

libtiff and LiteRT write what they also report as an error, or no error at all; a person is told one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def keep_openvino_home() -> None:
    """Have OpenVINO imported without its statistics of use; to be called before it is.

    Its import would report itself to a server, from a thread, and leave an identity in the home folder (2026.4), unless
    the package that does so is not there; NNCF asks for the same package.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]


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
