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


UNEVEN = TINY.sized([32, 8, 48, 20, 60, 80])


def test_sizes_are_said_of_each_block_where_they_differ() -> None:
    assert (UNEVEN.hidden, UNEVEN.block_hidden) == ((32, 48, 80), (32, 8, 48, 20, 60, 80))
    assert UNEVEN.stage_sizes == ((32, 8), (48,), (20, 60, 80))
    assert UNEVEN.inner_text == "hidden channels 8 to 32/48/20 to 80"
    assert UNEVEN.is_uneven
    assert TINY.inner_sizes == (32, 32, 48, 80, 80, 80)
    assert TINY.sized(TINY.inner_sizes) == TINY
    assert not TINY.is_uneven


def test_what_is_alike_in_each_stage_is_written_as_it_always_was() -> None:
    assert "block_hidden" not in TINY.to_dict()
    assert UNEVEN.to_dict()["block_hidden"] == [32, 8, 48, 20, 60, 80]
    assert ConvNextArchitecture.from_dict(UNEVEN.to_dict()) == UNEVEN


def test_a_width_and_a_depth_cut_each_block() -> None:
    assert UNEVEN.at(0.5).inner_sizes == (16, 4, 24, 10, 30, 40)
    assert UNEVEN.at(0.001) == TINY.at(0.001)
    assert UNEVEN.at(1.0, 5).stage_sizes == ((32, 8), (48,), (20, 60))
    assert UNEVEN.at(1.0, 5).hidden == (32, 48, 60)
    assert UNEVEN.at(1.0, 1) == TINY.at(1.0, 1)
    assert UNEVEN.is_aligned(1, 4)
    assert not UNEVEN.is_aligned(1, 8)


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
        ({"hidden": [32, 48, 0]}, "architecture.hidden: found (32, 48, 0)"),
        ({"block_hidden": [32, 8, 48]}, "found (32, 8, 48), expected a number for each of the 6 blocks"),
        ({"block_hidden": [32, 8, 48, 20, 60, 70]}, "the largest of the stages 32/48/80"),
        ({"block_hidden": [32, 0, 48, 20, 60, 80]}, "block_hidden: found"),
        ({"block_hidden": [32, 32, 48, 80, 80, 80]}, "or none where a stage's are alike"),
        ({"depths": [2, 1.5, 3]}, "depths 2: found 1.5"),
        ({"ffn": "mlp"}, "unknown key 'ffn'"),
    ],
)
def test_impossible_shapes_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as caught:
        ConvNextArchitecture.from_dict({**TINY.to_dict(), **change})
    assert message in str(caught.value)
