"""A device as the text of its card."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeslim.device import complete, take_device
from edgeslim.device_card import DeviceCard, all_cards, load_card
from edgeslim.device_text import device_text
from edgeslim.figure import Figure
from edgeslim.shelf import read_record

try:
    import tomllib
except ModuleNotFoundError:
    import tomli as tomllib


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.id)
def test_every_card_is_read_back_as_it_was(card: DeviceCard, tmp_path: Path) -> None:
    path = tmp_path / f"{card.id}.toml"
    path.write_text(device_text(card), encoding="utf-8")
    assert load_card(path) == card


@given(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(str.strip),
    st.floats(1e-30, 1e30),
)
def test_any_text_and_any_number_are_read_back(text: str, value: float) -> None:
    device = replace(take_device("x86-64-host"), aliases=(), name=text, storage_mb_s=Figure(value, text))
    assert complete(read_record(DeviceCard, tomllib.loads(device_text(device)), "card")) == device
