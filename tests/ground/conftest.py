from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgeslim.architecture import Architecture
from edgeslim.ground.checkpoints.checkpoint import Checkpoint, write_checkpoint
from edgeslim.ground.vit import Vit, init_weights
from edgeslim.manifest import sha256_of
from edgeslim.profile import Profile, load_profile

CARD = """
schema = 1
id = "tiny"
licence = "Apache-2.0"
source = "random weights, for tests"
gsd_m = 10.0
checkpoint = "tiny.safetensors"
checkpoint_sha256 = "{digest}"

[architecture]
depth = 2
dim = 24
attention_heads = 3
head_dim = 8
ffn_hidden = 40
patch_size = 4
tile_px = 16
bands = 3
class_token = false
pool = "mean"
stem_channels = [4, 8]

[[band]]
name = "B04"
common_name = "red"
wavelength_um = 0.665
[[band]]
name = "B03"
common_name = "green"
wavelength_um = 0.56
[[band]]
name = "B02"
common_name = "blue"
wavelength_um = 0.49

[radiometry]
levels = ["L1C", "L2A"]
scale = 0.0001
offset = 0.0
clip = [0.0, 2750.0]
mean = [947.5, 1045.9, 1121.8]
std = [556.3, 375.8, 317.7]
image_scale = 10.784313725490197

[[class]]
name = "Forest"
title = "Forest"
color = "1E6B33"
[[class]]
name = "Highway"
title = "Highway"
color = "6E6E78"
[[class]]
name = "River"
title = "River"
color = "57A7DB"
"""

TINY = Architecture(
    depth=2,
    dim=24,
    attention_heads=3,
    head_dim=8,
    ffn_hidden=40,
    patch_size=4,
    tile_px=16,
    bands=3,
    class_token=False,
    pool="mean",
    stem_channels=(4, 8),
)


def random_vit(arch: Architecture, seed: int = 0) -> Vit:
    """An encoder whose every parameter is random, so that a wrong index shows."""
    encoder = Vit(arch)
    generator = torch.Generator().manual_seed(seed)
    init_weights(encoder, generator)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return encoder.eval()


@pytest.fixture(scope="session")
def tiny_cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A --cards folder whose encoder "tiny" has random weights and a head at every width."""
    cards = tmp_path_factory.mktemp("cards")
    shelf = cards / "profiles"
    shelf.mkdir()
    encoder = random_vit(TINY)
    generator = torch.Generator().manual_seed(1)
    heads = {
        j: (torch.randn(3, 24, generator=generator), torch.randn(3, generator=generator))
        for j in range(1, TINY.head_dim + 1)
    }
    state = {key: value.detach() for key, value in encoder.state_dict().items()}
    write_checkpoint(Checkpoint(TINY, state, heads), shelf / "tiny.safetensors", {}, torch.float32)
    (shelf / "tiny.toml").write_text(CARD.format(digest=sha256_of(shelf / "tiny.safetensors")))
    return cards


@pytest.fixture(scope="session")
def tiny(tiny_cards: Path) -> Profile:
    return load_profile(tiny_cards / "profiles" / "tiny.toml")
