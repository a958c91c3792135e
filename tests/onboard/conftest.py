from __future__ import annotations

from pathlib import Path

import pytest

from tests.onboard.artifacts import make_artifact


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed-form artifact: three bands, three classes, tiles of 8 px. Read only."""
    return make_artifact(tmp_path_factory.mktemp("artifacts") / "artifact")
