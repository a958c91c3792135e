"""A device as the text of its card."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.device import Device, device_names, load_device, take_device
from edgeslim.device_card import device_text
from edgeslim.figure import Figure
from edgeslim.shelf import read_record

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib


@pytest.mark.parametrize("name", device_names())
def test_every_card_is_read_back_as_it_was(name: str, tmp_path: Path) -> None:
    device = take_device(name)
    path = tmp_path / f"{device.id}.toml"
    path.write_text(device_text(device), encoding="utf-8")
    assert load_device(path) == device


@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip),
    st.floats(0, 1e300, exclude_min=True),
)
def test_any_text_and_any_number_are_read_back(text: str, value: float) -> None:
    device = replace(take_device("x86-64-host"), aliases=(), name=text, storage_mb_s=Figure(value, text))
    assert read_record(Device, tomllib.loads(device_text(device)), "card") == device
