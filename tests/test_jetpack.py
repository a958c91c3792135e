from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.jetpack import JetPack, jetpacks, load_jetpack, require_versions, take_jetpack, version_of
from edgeslim.shelf import shelf_folder
from edgeslim.target import take_target

ALL = jetpacks()


def test_the_releases_that_there_are() -> None:
    assert [card.id for card in ALL] == [
        *("jetpack-4.6", "jetpack-5.1", "jetpack-6.0", "jetpack-6.1", "jetpack-6.2", "jetpack-7.0", "jetpack-7.2")
    ]
    assert take_jetpack("6.2").tensorrt.value == "10.3.0"
    with pytest.raises(UnknownName, match=r"jetpack-6\.2"):
        take_jetpack("jetpack-6.3")


@pytest.mark.parametrize("card", ALL, ids=[card.id for card in ALL])
def test_every_figure_names_where_it_is_stated(card: JetPack) -> None:
    figures = [card.l4t, card.ubuntu, card.python, card.cuda, card.tensorrt, card.tensorrt_opset, card.tensorrt_lacks]
    for figure in [*figures, *card.onnxruntime, *(build.opset for build in card.onnxruntime)]:
        assert any(mark in figure.source for mark in ("https://", ":docs/")), figure


def test_later_releases_take_no_less() -> None:
    for before, after in itertools.pairwise(ALL):
        assert before.tensorrt_opset.value <= after.tensorrt_opset.value
        assert set(before.tensorrt_lacks.value) >= set(after.tensorrt_lacks.value)


def test_the_target_loads_wherever_edgeslim_runs() -> None:
    """From the first JetPack whose Python is new enough: opset, LayerNormalization, IR version."""
    target = take_target("tensorrt")
    assert target.opset is not None
    assert target.opset >= 17, "the first with LayerNormalization as one operator"
    able = [card for card in ALL if version_of(card.python.value) >= (3, 10)]
    assert able[0].id == "jetpack-6.0"
    for card in able:
        for build in card.onnxruntime:
            assert require_versions("x", target.opset, target.operators, build.version, card.tensorrt.value) == ()
    assert target.opset == min(card.tensorrt_opset.value for card in able), "no lower than it must be"
    for card in ALL[:2]:
        with pytest.raises(InputError, match="TensorRT"):
            require_versions("x", target.opset, target.operators, "1.20.0", card.tensorrt.value)


def test_onnx_runtime_alone_is_judged_too() -> None:
    assert require_versions("x", 20, ("Gelu",), "1.20.1", None) == ()
    with pytest.raises(InputError, match=r"opset 22 for onnxruntime 1\.17\.1, expected at most 20"):
        require_versions("x", 22, (), "1.17.1", None)
    with pytest.raises(InputError, match=r"expected onnxruntime 1\.11\.0 or later"):
        require_versions("x", 17, (), "1.8.0", None)


def test_versions() -> None:
    assert version_of("10.3.0.30") == (10, 3, 0, 30)
    assert version_of("1.24.0+cu130") == (1, 24, 0)
    assert version_of("10.3") > version_of("8.6.2")
    with pytest.raises(InputError, match="expected numbers with dots"):
        version_of("latest")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "schema: found 2, expected 1"),
        ('value = "10.3.0"', 'value = "ten"', "tensorrt: version: found 'ten'"),
        ("value = 20", "value = 0", "expected an opset from 1 to 99"),
        ("value = 20", 'value = "20"', "expected a whole number"),
        ("cuda = {", "cudnn = {", "unknown key 'cudnn'"),
        ("[[onnxruntime]]", "[[onnx]]", "unknown key 'onnx'"),
    ],
)
def test_wrong_cards_name_file_key_found_and_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (shelf_folder("jetpacks") / "jetpack-6.2.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "jetpack-6.2.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_jetpack(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_figure_without_a_source_does_not_load(tmp_path: Path) -> None:
    lines = (shelf_folder("jetpacks") / "jetpack-6.2.toml").read_text(encoding="utf-8").splitlines()
    bare = [line.split(", source = ")[0] + ', source = " " }' if line.startswith("cuda") else line for line in lines]
    path = tmp_path / "jetpack-6.2.toml"
    path.write_text("\n".join(bare), encoding="utf-8")
    with pytest.raises(InputError, match="cuda: source: found nothing"):
        load_jetpack(path)


def test_a_card_of_ones_own_comes_first(tmp_path: Path) -> None:
    folder = tmp_path / "jetpacks"
    folder.mkdir()
    text = (shelf_folder("jetpacks") / "jetpack-6.2.toml").read_text(encoding="utf-8")
    (folder / "jetpack-6.2.toml").write_text(text.replace('value = "10.3.0"', 'value = "10.7.0"', 1), encoding="utf-8")
    assert {card.id: card.tensorrt.value for card in jetpacks(tmp_path)}["jetpack-6.2"] == "10.7.0"
