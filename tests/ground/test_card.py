from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgeslim.ground.card import _toml
from edgeslim.profile import Band, Profile, load_profile


def test_a_written_card_reads_back_whole(tiny: Profile, tmp_path: Path) -> None:
    assert tiny.checkpoint is not None
    assert tiny.radiometry is not None
    bands = (tiny.bands[0], Band("VV", "vv"), Band("elevation", "elevation"))
    profile = replace(tiny, bands=bands, radiometry=replace(tiny.radiometry, unit="dB"))
    path = tmp_path / "tiny.toml"
    path.write_text(_toml(profile), encoding="utf-8")
    assert load_profile(path) == replace(profile, checkpoint=tmp_path / "tiny.safetensors")
