"""What is learnt without labels: views, the contrast, masked patches, and the sandwich of either."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from edgeslim.errors import InputError
from edgeslim.ground.training import views
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.contrastive import Contrast, Contrastive, info_nce
from edgeslim.ground.training.masked import Masked, MaskedAutoencoding, check_maskable, normalise_patches, patches_of
from edgeslim.ground.training.recipe import Recipe
from edgeslim.ground.training.sandwich import distance, widths_of_step
from edgeslim.ground.vit import Vit
from tests.ground.conftest import TINY
from tests.ground.training.several import OBJECTIVES, PLAIN, RECIPE, made, unlabelled


def _drawn(count: int = 5, bands: int = 3, side: int = 16) -> Tensor:
    return torch.randn(count, bands, side, side, generator=torch.Generator().manual_seed(2))


def test_a_crop_of_an_even_tile_is_even_and_shows_nothing_from_outside() -> None:
    flat = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 2, 16, 16)
    torch.testing.assert_close(views.crop(flat, Chance.seeded(0)), flat)
    tiles = _drawn(40)
    seen = views.crop(tiles, Chance.seeded(1))
    assert (seen.amax((2, 3)) <= tiles.amax((2, 3)) + 1e-5).all()
    assert (seen.amin((2, 3)) >= tiles.amin((2, 3)) - 1e-5).all()


@pytest.mark.parametrize("bands", [1, 2, 13])
def test_a_view_of_any_number_of_bands_loses_one_at_most(bands: int) -> None:
    tiles = 3 + _drawn(400, bands, 4).abs()
    lost = (views.drop_band(tiles, Chance.seeded(0)) == 0).all(3).all(2).sum(1)
    if bands == 1:
        assert int(lost.sum()) == 0
    else:
        assert int(lost.max()) == 1
        assert 0.05 < float(lost.float().mean()) < 0.16
    assert views.view(tiles, Chance.seeded(0)).shape == tiles.shape


def test_the_contrast_is_the_cross_entropy_of_the_right_key() -> None:
    generator = torch.Generator().manual_seed(0)
    keys = F.normalize(torch.randn(6, 4, generator=generator), dim=1)
    queries = F.normalize(torch.randn(2, 4, generator=generator), dim=1)
    expected = 0.0
    for row, query in enumerate(queries):
        similar = torch.tensor([float(query @ key) / 0.3 for key in keys])
        expected -= float(similar[3 + row] - similar.logsumexp(0)) / 2
    assert float(info_nce(queries, keys, 3, 0.3)) == pytest.approx(expected, rel=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.sampled_from([2, 4, 8]), st.integers(0, 3), st.integers(0, 1))
def test_a_patch_is_the_pixels_that_the_embedding_sees(bands: int, size: int, row: int, column: int) -> None:
    side = 4 * size
    tiles = torch.arange(2 * bands * side * side, dtype=torch.float32).view(2, bands, side, side)
    found = patches_of(tiles, size)[1, 4 * row + column].view(size, size, bands)
    cut = tiles[1, :, row * size : (row + 1) * size, column * size : (column + 1) * size]
    assert torch.equal(found.permute(2, 0, 1), cut)


def test_a_patch_without_any_variation_is_all_zeros() -> None:
    patches = torch.cat([torch.full((1, 1, 12), 7.0), torch.arange(12.0).view(1, 1, 12)], 1)
    flat, varied = normalise_patches(patches)[0]
    assert torch.equal(flat, torch.zeros(12))
    assert float(varied.mean()) == pytest.approx(0, abs=1e-6)
    assert float(varied.std(unbiased=False)) == pytest.approx(1, rel=1e-5)


def test_what_is_hidden_is_not_seen() -> None:
    model = made("mae")[0].eval()
    assert isinstance(model, Masked)
    tiles, order = _drawn(3), Chance.seeded(4).rand(3, PLAIN.patches).argsort(1)
    seen, hidden = order[:, :4], order[:, 4:]
    other = tiles.clone()
    for tile, places in zip(other, hidden.tolist(), strict=True):
        for place in places:
            row, column = divmod(place, 4)
            tile[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 9.0
    with torch.no_grad():
        one, two = (model.encoder.encode(model.visible(t, seen)) for t in (tiles, other))
        assert torch.equal(one, two)
        assert one.shape == (3, 5, PLAIN.dim)
        assert model.decode(one, seen, hidden).shape == (3, 12, 4 * 4 * 3)


def test_an_encoder_that_would_see_hidden_patches_is_refused() -> None:
    check_maskable(PLAIN)
    with pytest.raises(InputError, match="found patches that overlap"):
        check_maskable(TINY)
    with pytest.raises(InputError, match="found positions 'alibi', expected 'absolute'"):
        check_maskable(replace(PLAIN, class_token=False, positions="alibi"))


def test_a_regular_step_is_the_full_width_and_a_slimmable_one_the_sandwich() -> None:
    assert widths_of_step(PLAIN, replace(RECIPE, slimmable=False), Chance.seeded(0)) == [1.0]
    widths = widths_of_step(PLAIN, RECIPE, Chance.seeded(0))
    assert (len(widths), widths[0], widths[1]) == (5, 1.0, 1 / PLAIN.head_dim)
    assert set(widths) <= set(PLAIN.width_steps())


def test_the_full_width_is_not_drawn_to_the_narrow_one() -> None:
    narrow, full = _drawn(2).requires_grad_(), _drawn(2).requires_grad_()
    torch.autograd.backward(distance(narrow, full * 2))
    assert full.grad is None
    assert float(distance(narrow, 3 * narrow).detach()) == pytest.approx(0, abs=1e-6)


def _by_hand(objective: str, recipe: Recipe, chosen: Tensor) -> dict[str, Tensor]:
    """Gradients of a slimmable step, width after width, each with its own backward pass."""
    model, _ = made(objective, recipe)
    average, chance = copy.deepcopy(model), Chance.seeded(3)
    tiles = unlabelled().normalised(chosen)
    if isinstance(model, Contrast) and isinstance(average, Contrast):
        one, two = views.view(tiles, chance), views.view(tiles, chance)
        with torch.no_grad():
            first, second = average.key(one), average.key(two)
            full = model.encoder(torch.cat([one, two]))
        for number, width in enumerate(widths_of_step(PLAIN, recipe, chance)):
            features = model.encoder(torch.cat([one, two]), width)
            queries = model.query(features)
            labels = torch.arange(len(one))
            loss = F.cross_entropy(queries[: len(one)] @ second.T / recipe.temperature, labels)
            loss = loss + F.cross_entropy(queries[len(one) :] @ first.T / recipe.temperature, labels)
            if number:
                loss = loss + recipe.distil_weight * (1 - F.cosine_similarity(features, full)).mean()
            loss.backward()
    elif isinstance(model, Masked):
        tiles = views.crop(views.dihedral(tiles, chance), chance)
        order = chance.rand(len(tiles), PLAIN.patches).argsort(1)
        seen, hidden = order[:, :4], order[:, 4:]
        pixels = normalise_patches(patches_of(tiles, PLAIN.patch_size))
        target = torch.stack([pixel[places] for pixel, places in zip(pixels, hidden, strict=True)])
        with torch.no_grad():
            full = model.encoder.encode(model.visible(tiles, seen))
        for number, width in enumerate(widths_of_step(PLAIN, recipe, chance)):
            encoded = model.encoder.encode(model.visible(tiles, seen), width)
            loss = (model.decode(encoded, seen, hidden) - target).square().mean()
            if number:
                loss = loss + recipe.distil_weight * (1 - F.cosine_similarity(encoded, full, dim=2)).mean()
            loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("objective", ["contrastive", "mae"])
def test_a_slimmable_step_sums_the_objective_and_the_distance_of_every_width(objective: str) -> None:
    recipe, chosen = replace(RECIPE, distil_weight=0.7), torch.arange(3, 11)
    model, learnt = made(objective, recipe)
    torch.autograd.backward(learnt.loss(model, copy.deepcopy(model), chosen, Chance.seeded(3)))
    expected = _by_hand(objective, recipe, chosen)
    assert expected.keys() == {name for name, p in model.named_parameters() if p.grad is not None}
    for name, parameter in model.named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("objective", ["contrastive", "mae"])
def test_the_log_looks_at_the_validation_part_without_touching_chance(objective: str) -> None:
    model, learnt = made(objective)
    torch.manual_seed(8)
    before = torch.get_rng_state()
    assert learnt.scores(model) == learnt.scores(model)
    assert torch.equal(torch.get_rng_state(), before)


def test_tiles_are_normalised_where_they_lie() -> None:
    tiles = unlabelled(4)
    on_cpu = tiles.normalised(torch.tensor([2, 0]))
    torch.testing.assert_close(on_cpu, (tiles.images[[2, 0]].float() - 120) / 60)
    # The meta device stands for a GPU: it takes no operand of the CPU, either.
    assert tiles.to(torch.device("meta")).normalised(slice(2)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_bf16_is_near_fp32(objective: str) -> None:
    losses = []
    for precision in ("fp32", "bf16"):
        model, learnt = made(objective, replace(RECIPE, precision=precision))
        with torch.no_grad():
            losses.append(float(learnt.loss(model, copy.deepcopy(model), torch.arange(16), Chance.seeded(3))))
    assert losses[1] == pytest.approx(losses[0], rel=0.02)


def test_a_model_of_another_objective_is_refused() -> None:
    tiles = unlabelled()
    for learnt in (Contrastive(RECIPE, tiles, tiles), MaskedAutoencoding(RECIPE, tiles, tiles)):
        with pytest.raises(TypeError, match="found Vit"):
            learnt.scores(Vit(PLAIN))
