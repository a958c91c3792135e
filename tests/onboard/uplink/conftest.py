from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import write_delta
from tests.onboard.uplink.updates import with_head


@dataclass(frozen=True)
class Updates:
    """Three artifacts of one encoder, and what takes a board from one to the next. Read only."""

    one: Path
    two: Path
    three: Path
    bundle: Path
    """Of two."""
    delta: Path
    """From one to two."""
    next: Path
    """From two to three."""
    wrong: Path
    """From one to one whose golden tiles fail."""


@pytest.fixture(scope="session")
def updates(tmp_path_factory: pytest.TempPathFactory) -> Updates:
    folder = tmp_path_factory.mktemp("updates")
    one, two, three = (with_head(folder / str(n), n, 40_000) for n in (1, 2, 3))
    wrong = with_head(folder / "4", 4, 40_000, wrong_logit=0.5)
    write_bundle(two, folder / "two.tar.xz")
    write_delta(one, two, folder / "two.delta")
    write_delta(two, three, folder / "three.delta")
    write_delta(one, wrong, folder / "wrong.delta")
    return Updates(
        one, two, three, *(folder / name for name in ("two.tar.xz", "two.delta", "three.delta", "wrong.delta"))
    )
