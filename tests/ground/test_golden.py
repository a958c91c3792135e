"""Image tiles as raw band values: each channel goes to the band of its colour."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgeslim.errors import InputError
from edgeslim.ground.golden import file_tiles, image_tiles
from edgeslim.profile import Band, Profile


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "Forest").mkdir()
    pixels = np.zeros((16, 16, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "Forest" / "one.png")
    return tmp_path


def test_channels_go_to_the_bands_of_their_colours(tiny: Profile, folder: Path) -> None:
    usual = image_tiles(tiny, folder).tiles[0, :, 0, 0]
    assert np.argsort(usual).tolist() == [0, 1, 2]
    turned = replace(tiny, bands=tuple(reversed(tiny.bands)))
    assert image_tiles(turned, folder).tiles[0, :, 0, 0].tolist() == usual[::-1].tolist()


def test_a_band_that_no_image_has_is_refused(tiny: Profile, folder: Path) -> None:
    infrared = replace(tiny, bands=(*tiny.bands[:2], Band("B08", "nir", 0.842)))
    with pytest.raises(InputError, match="whose bands are red, green, blue, expected B08, too"):
        image_tiles(infrared, folder)


def test_a_folder_whose_name_is_no_text_can_be_named(tiny: Profile, folder: Path) -> None:
    named = folder.rename(folder.with_name(os.fsdecode(b"\xe4\n")))  # of Latin-1; UTF-8 has no such byte
    for found in (image_tiles(tiny, named), file_tiles(tiny, named)):
        assert found.source == r"1 tiles of \udce4\n"
