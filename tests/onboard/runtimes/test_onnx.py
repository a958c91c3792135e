"""When ONNX Runtime gives memory back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeslim.manifest import read_manifest
from edgeslim.onboard.open_runtime import open_runtime
from tests.onboard.artifacts import make_artifact

pytest.importorskip("onnxruntime")


class Recorded:
    """A session that notes which runs were told to give memory back."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.shrunk: list[bool] = []

    def run(self, names: list[str], inputs: dict[str, Any], options: Any) -> Any:
        self.shrunk.append(options is not None)
        return self._session.run(names, inputs, options)


def test_batches_of_the_size_that_streams_keep_their_memory(tmp_path: Path) -> None:
    folder = make_artifact(tmp_path / "artifact")
    runtime: Any = open_runtime(folder, read_manifest(folder), 1)
    runtime._session = recorded = Recorded(runtime._session)
    # Four golden tiles first, then batches of two, which are fewer; what is left of a chunk is odd.
    for batch in (4, 2, 2, 2, 1, 2, 2, 4, 2, 2):
        runtime.run(np.ones((batch, 3, 8, 8), np.float32))
    assert recorded.shrunk == [True, True, False, False, True, True, False, True, True, False]
