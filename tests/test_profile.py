from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.profile import load_profile, take_profile
from edgeslim.shelf import card_paths, shelf_folder

CARD = """
schema = 1
id = "tiny"
name = "Tiny"
[architecture]
depth = 1
dim = 16
attention_heads = 2
head_dim = 8
ffn_hidden = 32
patch_size = 8
tile_px = 16
bands = 1
[[score]]
width_multiplier = 0.5
metric = "accuracy"
dataset = "test part"
value = 0.9
source = "a test"
"""


def test_every_shipped_card_loads_and_names_its_source() -> None:
    for path in card_paths("profiles"):
        profile = load_profile(path)
        assert profile.id == path.stem
        assert profile.source != "unknown"
        assert profile.licence != "unknown"


def test_scores_are_never_interpolated(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(CARD)
    profile = load_profile(tmp_path / "tiny.toml")
    score = profile.score_at(0.5)
    assert score is not None
    assert score.value == 0.9
    assert profile.score_at(0.625) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('id = "tiny"', 'id = "other"', "expected the file's name 'tiny'"),
        ("dim = 16", "dims = 16", "unknown key 'dims'"),
        ("depth = 1", "depth = -1", "architecture.depth: found -1"),
        ('metric = "accuracy"', "", "[[score]] 1: missing key 'metric'"),
        ("value = 0.9", 'value = "high"', "[[score]] 1: value: found 'high', expected a number"),
        ("[architecture]", "[architektur]", "unknown key 'architektur'"),
    ],
)
def test_wrong_cards_name_file_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "tiny.toml").write_text(CARD.replace(old, new, 1))
    with pytest.raises(InputError) as error:
        load_profile(tmp_path / "tiny.toml")
    assert message in str(error.value)


def test_an_unknown_encoder_lists_the_nearest() -> None:
    with pytest.raises(UnknownName, match="vit-s-16"):
        take_profile("vit-s16")


def test_land_shares_need_a_source_and_a_range(tmp_path: Path) -> None:
    card = take_profile("eurosat-rgb")
    text = (shelf_folder("profiles") / "eurosat-rgb.toml").read_text()
    path = tmp_path / "eurosat-rgb.toml"
    lines = [line for line in text.splitlines() if not line.startswith("land_share_source")]
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match="missing key 'land_share_source'"):
        load_profile(path)
    share = next(line for line in text.splitlines() if line.startswith("land_share ="))
    path.write_text(text.replace(share, "land_share = 1.5", 1))
    with pytest.raises(InputError, match=r"\[\[class\]\] 1: land_share: found 1.5, expected more than 0"):
        load_profile(path)
    assert sum(label.land_share or 0 for label in card.classes) == pytest.approx(1)
