from dataclasses import replace
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.profile import OPEN_LICENCES, card_facts, licence_obstacle, load_profile, take_profile
from edgeslim.score import Score
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
        assert profile.checkpoint is None or licence_obstacle(profile.licence) is None


@pytest.mark.parametrize(
    "licence",
    [*OPEN_LICENCES, "apache-2.0", " MIT ", "MIT AND Apache-2.0", "CC-BY-4.0 and mit", "CC-BY-NC-4.0 OR Apache-2.0"],
)
def test_open_licences_have_no_obstacle(licence: str) -> None:
    assert licence_obstacle(licence) is None


@pytest.mark.parametrize(
    ("licence", "obstacle"),
    [
        ("CC-BY-NC-4.0", "research-only"),
        ("cc-by-nc-sa-4.0", "research-only"),
        ("CC-BY-NC-ND-4.0", "research-only"),
        ("Non-Commercial, ask the authors", "research-only"),
        ("for research purposes only", "research-only"),
        ("academic use", "research-only"),
        ("Apache-2.0 AND CC-BY-NC-4.0", "research-only"),
        ("CC-BY-ND-4.0", "against changed copies"),
        ("unknown", "not known to be open"),
        ("", "not known to be open"),
        ("custom", "not known to be open"),
        ("none: an architecture without weights", "not known to be open"),
        ("OpenRAIL", "not known to be open"),
        ("Apache-2.0-with-a-catch", "not known to be open"),
        ("Apache", "not known to be open"),
        ("MIT AND custom", "not known to be open"),
        ("custom OR unknown", "not known to be open"),
        ("Apache-2.0 (code); weights: ask", "not known to be open"),
    ],
)
def test_all_other_licences_have_an_obstacle(licence: str, obstacle: str) -> None:
    assert licence_obstacle(licence) == obstacle


BANDS = """
[[band]]
name = "VV"
common_name = "vv"
[radiometry]
levels = ["GRD"]
scale = 1.0
offset = 0.0
clip = [0.0, 1.0]
mean = [0.5]
std = [0.1]
image_scale = 1.0
unit = "dB"
"""


def test_wavelengths_stand_where_known_and_units_in_words(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(CARD + BANDS)
    profile = load_profile(path)
    assert profile.bands[0].wavelength_um is None
    assert profile.radiometry is not None
    assert profile.radiometry.unit == "dB"
    path.write_text(CARD + BANDS.replace('unit = "dB"', ""))
    radiometry = load_profile(path).radiometry
    assert radiometry is not None
    assert radiometry.unit == "1"
    path.write_text(CARD + BANDS.replace('unit = "dB"', 'unit = " "'))
    with pytest.raises(InputError, match=r"\[radiometry\]: unit: found ' ', expected 1 to 200 printable"):
        load_profile(path)
    path.write_text(CARD + BANDS.replace('common_name = "vv"', 'common_name = "vv"\nwavelength_um = 0'))
    with pytest.raises(InputError, match=r"\[\[band\]\] 1: wavelength_um: found 0, expected more than 0 micrometres"):
        load_profile(path)


def test_each_band_may_have_a_range_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_text(CARD + BANDS.replace("mean", "band_clip = [[0.2, 0.9]]\nmean"))
    profile = load_profile(path)
    assert profile.radiometry is not None
    assert profile.radiometry.clips == ((0.2, 0.9),)
    assert card_facts(profile)["radiometry"]["band_clip"] == ((0.2, 0.9),)
    path.write_text(CARD + BANDS)
    plain = load_profile(path)
    assert plain.radiometry is not None
    assert plain.radiometry.clips == ((0.0, 1.0),)
    assert "band_clip" not in card_facts(plain)["radiometry"]
    for ranges, message in (
        ("[[0.2, 1.1]]", r"band_clip: found 0.2 to 1.1, expected the lower end first, inside clip, 0 to 1"),
        ("[[0.9, 0.2]]", "band_clip: found 0.9 to 0.2, expected the lower end first"),
        ("[[0.2, 0.9], [0.2, 0.9]]", "radiometry: band_clip: found 2 ranges, expected 1"),
    ):
        path.write_text(CARD + BANDS.replace("mean", f"band_clip = {ranges}\nmean"))
        with pytest.raises(InputError, match=message):
            load_profile(path)


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


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"value": 1.2}, "value: found 1.2, expected a share from 0 to 1"),
        ({"width_multiplier": 0.0}, "width_multiplier: found 0, expected more than 0, at most 1"),
        ({"interval": (0.95, 0.99)}, "interval: found 0.95 to 0.99, expected shares about the value 0.9"),
    ],
)
def test_a_score_that_cannot_be_is_refused(wrong: dict[str, object], said: str) -> None:
    score = Score(0.5, "accuracy", "a part", 0.9, "a test", "a probe", (0.8, 0.95))
    assert score.basis == "accuracy, a part, a probe, 95 % interval 0.800 to 0.950; a test"
    with pytest.raises(InputError) as refused:
        replace(score, **wrong)  # type: ignore[arg-type]
    assert str(refused.value) == said
