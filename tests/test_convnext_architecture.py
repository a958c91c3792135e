from dataclasses import replace

import pytest

from edgeslim.convnext_architecture import ConvNextArchitecture
from edgeslim.errors import InputError

TINY = ConvNextArchitecture(depths=(2, 1, 3), dims=(8, 12, 20), hidden=(32, 48, 80), tile_px=64, bands=3)


def test_a_width_cuts_only_the_hidden_axes() -> None:
    assert TINY.at(0.5) == replace(TINY, hidden=(16, 24, 40))
    assert TINY.at(0.001).hidden == (1, 1, 1)
    assert TINY.at(1.0) == TINY


@pytest.mark.parametrize(
    ("depth", "depths"), [(1, (1,)), (2, (2,)), (3, (2, 1)), (4, (2, 1, 1)), (5, (2, 1, 2)), (6, (2, 1, 3))]
)
def test_a_depth_keeps_the_first_blocks_of_all_stages(depth: int, depths: tuple[int, ...]) -> None:
    cut = TINY.at(1.0, depth)
    stages = len(depths)
    assert cut == replace(TINY, depths=depths, dims=TINY.dims[:stages], hidden=TINY.hidden[:stages])
    assert cut.depth == depth
    assert cut.dim == TINY.dims[stages - 1]


def test_sides_halve_from_stage_to_stage_and_leave_out_what_is_over() -> None:
    assert TINY.sides == (16, 8, 4)
    assert replace(TINY, tile_px=63).sides == (15, 7, 3)
    assert TINY.stride == 16


def test_width_steps_are_those_of_the_narrowest_stage() -> None:
    assert [TINY.at(w).hidden[0] for w in TINY.width_steps()] == list(range(1, 33))


def test_dictionary_round_trip() -> None:
    assert ConvNextArchitecture.from_dict(TINY.to_dict()) == TINY


@pytest.mark.parametrize("cut", [(0.0, None), (1.1, None), (1.0, 0), (1.0, 7)])
def test_a_cut_outside_its_range_is_refused(cut: tuple[float, int | None]) -> None:
    with pytest.raises(InputError, match="expected"):
        TINY.at(*cut)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bands": 0}, "architecture.bands: found 0"),
        ({"tile_px": 15}, "expected at least the total stride 16"),
        ({"dims": [8, 12, 11]}, "expected no stage narrower"),
        ({"dims": [8, 12]}, "found 3 depths, 2 dims and 3 hidden"),
        ({"depths": [], "dims": [], "hidden": []}, "expected one of each a stage"),
        ({"hidden": [32, 48, 0]}, "architecture.hidden: found .32, 48, 0."),
        ({"depths": [2, 1.5, 3]}, "depths 2: found 1.5"),
        ({"ffn": "mlp"}, "unknown key 'ffn'"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConvNextArchitecture.from_dict({**TINY.to_dict(), **change})
