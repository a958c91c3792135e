from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.ground.profile_toml import profile_toml
from edgeslim.onboard.scores import wilson_interval
from edgeslim.profile import Band, Profile, load_profile, take_profile
from edgeslim.shelf import shelf_folder


def test_a_written_card_reads_back_whole(tiny: Profile, tmp_path: Path) -> None:
    assert tiny.checkpoint is not None
    assert tiny.radiometry is not None
    bands = (tiny.bands[0], Band("VV", "vv"), Band("elevation", "elevation"))
    profile = replace(tiny, bands=bands, radiometry=replace(tiny.radiometry, unit="dB"))
    path = tmp_path / "tiny.toml"
    path.write_text(profile_toml(profile), encoding="utf-8")
    assert load_profile(path) == replace(profile, checkpoint=tmp_path / "tiny.safetensors")


@pytest.mark.parametrize(("right", "count"), [(0, 10), (5, 10), (97, 100), (3140, 3262), (3262, 3262)])
def test_the_interval_is_wilsons(right: int, count: int) -> None:
    low, high = wilson_interval(right / count, count)
    # Its ends are the shares p from which what was seen is 1.96 deviations off: (share - p)^2 = z^2 p (1 - p) / count.
    z2 = 1.959963984540054**2
    a, b, c = 1 + z2 / count, -(2 * right / count + z2 / count), (right / count) ** 2
    roots = [(-b + sign * math.sqrt(b * b - 4 * a * c)) / (2 * a) for sign in (-1, 1)]
    assert (low, high) == pytest.approx(roots, abs=6e-5)


def test_the_shipped_scores_carry_their_intervals() -> None:
    record = json.loads(Path(shelf_folder("profiles"), "eurosat-rgb.json").read_text(encoding="utf-8"))
    for score in take_profile("eurosat-rgb").scores:
        assert score.interval == wilson_interval(score.value, record["parts"]["test"])
