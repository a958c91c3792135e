"""Training on tiles small enough for a test: the sandwich rule, resuming, the split, and the verb's files."""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from edgeslim.cli import app_for
from edgeslim.errors import InputError
from edgeslim.ground.labelled import PARTS, LabelledTiles, load_labelled, part_of
from edgeslim.ground.training import augment
from edgeslim.ground.training.augment import Chance
from edgeslim.ground.training.classifier import Classifier
from edgeslim.ground.training.embedded import train_embedded
from edgeslim.ground.training.heads import temperature
from edgeslim.ground.training.recipe import Course, Recipe
from edgeslim.ground.training.supervised import Supervised, sandwich
from edgeslim.ground.training.train import fit, statistics
from edgeslim.ground.vit import Vit, fold_batch_norm, init_weights
from edgeslim.profile import Profile, load_profile
from tests.ground.conftest import TINY

COLOURS = {"Forest": (30, 70, 60), "River": (40, 60, 110), "Highway": (150, 140, 130)}


@pytest.fixture(scope="module")
def tiles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tiles")
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir()
        for i in range(60):
            pixels = np.clip(random.normal(colour, 12, (16, 16, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{name}_{i}.png")
    return folder


@pytest.fixture(scope="module")
def parts(tiles: Path) -> dict[str, LabelledTiles]:
    return load_labelled(tiles, 16)


def _classifier(parts: dict[str, LabelledTiles], hint_channels: int = 0) -> Classifier:
    encoder = Vit(TINY, batch_norm=True)
    init_weights(encoder, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    return Classifier(encoder, 3, *statistics(parts["train"].images), hint_channels)


@given(st.text(min_size=1))
def test_the_split_follows_from_the_name_alone(name: str) -> None:
    first = int(hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:16], 16) / 16**16
    low, high = PARTS[part_of(name)]
    assert low <= first < high


def test_a_folder_and_a_zip_of_it_split_alike(tiles: Path, parts: dict[str, LabelledTiles], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in tiles.rglob("*.png"):
            archive.write(path, f"root/{path.parent.name}/{path.name}")
    zipped = load_labelled(tmp_path / "tiles.zip", 16)
    assert {part: data.names for part, data in zipped.items()} == {part: data.names for part, data in parts.items()}
    assert all(torch.equal(zipped[part].images, parts[part].images) for part in parts)
    names = [name for data in parts.values() for name in data.names]
    assert len(names) == len(set(names)) == 180


def test_unusable_tiles_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="neither a folder nor a zip"):
        load_labelled(tmp_path / "none", 16)
    with pytest.raises(InputError, match="no image found"):
        load_labelled(tmp_path, 16)
    (tmp_path / "Forest").mkdir()
    Image.new("RGB", (9, 16)).save(tmp_path / "Forest" / "a.png")
    with pytest.raises(InputError, match=r"Forest/a.png is 9x16 px, expected 16x16"):
        load_labelled(tmp_path, 16)
    (tmp_path / "Forest" / "a.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"Forest/a.png cannot be read"):
        load_labelled(tmp_path, 16)


def test_the_sandwich_sums_widest_narrowest_and_random(parts: dict[str, LabelledTiles]) -> None:
    model = _classifier(parts, hint_channels=5).eval()
    images, labels = parts["train"].images[:8].float(), parts["train"].labels[:8]
    target = torch.nn.functional.one_hot(labels, 3).float()
    maps = torch.randn(8, 5, 4, 4, generator=torch.Generator().manual_seed(1))
    recipe = Recipe(random_widths=1, hint_weight=0.7)
    model.zero_grad()
    torch.autograd.backward(sandwich(model, images, target, maps, recipe, Chance.seeded(3)))
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    drawn = int(1 + float(torch.rand(1, generator=torch.Generator().manual_seed(3)) ** 1.5) * (TINY.head_dim - 2))
    model.zero_grad()
    soft = target
    for width in (1.0, 1 / TINY.head_dim, (drawn + 1) / TINY.head_dim):
        encoded = model.encoder.encode(model.tokens(images), width)
        torch.nn.functional.cross_entropy(model.classify(encoded), soft).backward(retain_graph=True)
        assert model.hint is not None
        hinted = model.hint(encoded).transpose(1, 2).reshape(8, 5, 4, 4)
        (0.7 * (hinted - maps).square().mean()).backward()
        if width == 1.0:
            soft = model.classify(encoded).detach().softmax(1)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_stopped_run_resumes_to_the_same_weights(
    parts: dict[str, LabelledTiles], tmp_path: Path, optimizer: str
) -> None:
    recipe = Recipe(epochs=3, batch=32, warmup_epochs=1, optimizer=optimizer)
    objective = Supervised(recipe, parts["train"], parts["validation"])
    whole = fit(_classifier(parts), recipe, objective, tmp_path / "a", say=lambda _: None)

    class Stopped(Exception):
        pass

    def stop(line: str) -> None:
        if line.startswith("epoch 2"):
            raise Stopped

    with pytest.raises(Stopped):
        fit(_classifier(parts), recipe, objective, tmp_path / "b", say=stop)
    lines: list[str] = []
    resumed = fit(_classifier(parts), recipe, objective, tmp_path / "b", say=lines.append)
    assert lines[0] == "resuming after epoch 2 of 3"
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_folding_batch_norm_keeps_the_function(parts: dict[str, LabelledTiles]) -> None:
    encoder = Vit(TINY, batch_norm=True)
    init_weights(encoder, torch.Generator().manual_seed(0))
    images = parts["train"].images[:32].float() / 50 - 2
    encoder.train()(images)
    encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(fold_batch_norm(encoder)(images), encoder(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("way", [augment.mixup, augment.cutmix, augment.patchwork, augment.mosaic])
def test_mixed_targets_say_what_share_of_a_tile_is_whose(way: Callable[..., tuple[torch.Tensor, torch.Tensor]]) -> None:
    # Each tile is filled with its own number: what is left of it can be counted.
    images = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 32, 32).clone()
    for seed in range(6):
        mixed, target = way(images, torch.eye(8), Chance.seeded(seed))
        torch.testing.assert_close(target.sum(1), torch.ones(8))
        if way is augment.patchwork and int(torch.randint(1, 3, (), generator=torch.Generator().manual_seed(seed))) > 1:
            continue  # the second join takes parts of joined tiles: their shares hold on average only
        expected = (target * torch.arange(8.0)).sum(1)
        torch.testing.assert_close(mixed.mean((1, 2, 3)), expected, rtol=1e-4, atol=1e-4)


def test_radiometry_stays_in_range_and_spares_a_share() -> None:
    images = torch.full((400, 3, 4, 4), 100.0)
    changed = augment.radiometry(images, Chance.seeded(0), 0.1, share=0.65)
    assert changed.min() >= 0
    assert changed.max() <= 255
    spared = float((changed == images).flatten(1).all(1).float().mean())
    assert 0.27 < spared < 0.43
    # Blue loses most to the atmosphere, red least: red, green, blue order.
    mean = augment.surface_reflectance(images).mean((0, 2, 3))
    assert mean[0] > mean[1] > mean[2]


@settings(max_examples=15, deadline=None)
@given(st.floats(0.25, 4.0))
def test_the_temperature_is_found_again(true: float) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 2
    labels = torch.multinomial((logits / true).softmax(1), 1, generator=generator).flatten()
    assert temperature(logits, labels) == pytest.approx(true, rel=0.15)


def test_the_whole_recipe_writes_a_card_that_loads(tiny: Profile, tiles: Path, tmp_path: Path) -> None:
    recipe = Recipe(
        epochs=12, batch=32, warmup_epochs=1, learning_rate=5e-3, optimizer="muon", mixed_teacher_share=0.25
    )
    bare = replace(tiny, checkpoint=None, checkpoint_sha256=None)
    course = Course(teacher_epochs=1, calm_epochs=1, every=5)
    trained = train_embedded(bare, tiles, recipe, course, tmp_path, say=lambda _: None)
    seen = [json.loads(line)["epoch"] for line in (tmp_path / "student" / "log.jsonl").read_text().splitlines()]
    assert seen == [5, 10, 12]
    card = load_profile(tmp_path / "tiny.toml")
    assert [row.width_multiplier for row in trained.rows] == TINY.width_steps()
    assert card.score_at(1.0) is not None
    assert card.score_at(1.0).value == round(trained.rows[-1].as_imaged, 4)  # type: ignore[union-attr]
    # Three plainly different colours: chance would be a third.
    assert min(trained.rows[-1].as_imaged, trained.rows[-1].as_surface) > 0.6
    text = (tmp_path / "tiny.md").read_text()
    assert f"{trained.rows[-1].as_imaged:.2%}" in text
    assert str(tmp_path) not in text
    # The command is the verb's own: every flag stands in its help, and what it remakes is this run.
    words = re.findall(r"^    edgeslim train (.*)$", text, re.MULTILINE)[0].split()
    assert dict(zip(words[1::2], words[2::2], strict=True)) == {
        "--epochs": "12",
        "--calm-epochs": "1",
        "--teacher-epochs": "1",
        "--random-widths": "1",
        "--optimizer": "muon",
        "--precision": "fp32",
        "--seed": "0",
        "--learning-rate": "0.005",
        "--warmup-epochs": "1",
        "--batch": "32",
        "--mixed-teacher-share": "0.25",
    }
    verb = typer.main.get_command(app_for(["train"])).commands["train"]  # type: ignore[attr-defined]
    assert {word for word in words if word.startswith("--")} <= {flag for known in verb.params for flag in known.opts}
