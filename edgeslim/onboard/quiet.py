"""Quiet: libraries neither chat on standard error, past Python, nor report home.

libtiff and LiteRT write what they also report as an error, or no error at all; a person is told one line.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def forbid_telemetry() -> None:
    """Switch off the statistics of use of ONNX Runtime, OpenVINO and NNCF; to be called before they are imported.

    ONNX Runtime (1.29 and later) would write to the home folder and look for a network. So would the import of OpenVINO
    (2026.4), from a thread, unless the package that does it is not there; NNCF asks for the same package.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
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
