"""Parallel branches (arXiv 2304.05215) run one by one, against the wide block that they are fused into."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from edgeslim import cost
from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.families.checkpoint_file import read_header
from edgeslim.families.family import all_families
from edgeslim.families.recognition import recognise
from edgeslim.ground.checkpoints.checkpoint import open_checkpoint, read_checkpoint
from edgeslim.ground.slimming.first import slim_state
from edgeslim.ground.slimming.slim import slim
from edgeslim.ground.slimming.stream import slim_file
from edgeslim.ground.vit import Attention, Mlp, SwiGlu, Vit, side_by_side
from tests.ground.conftest import random_vit
from tests.ground.counter import count_flop

FUSED = Architecture(
    depth=2,
    dim=20,
    attention_heads=6,
    head_dim=10,
    ffn_hidden=3 * 30,
    patch_size=8,
    tile_px=16,
    bands=4,
    class_token=False,
    pool="mean",
    branches=3,
)
SWIGLU = replace(FUSED, ffn="swiglu")
_BRANCH = re.compile(r"(?P<block>blocks\.\d+\.(?:attn|mlp))\.(?P<branch>\d+)\.(?P<layer>\w+)\.(?P<kind>weight|bias)")


def fuse_branches(state: Mapping[str, Tensor], branches: int) -> dict[str, Tensor]:
    """The state dict of one wide block for each block of branches: those under `blocks.N.attn.B.` and `.mlp.B.`."""
    fused = {key: value for key, value in state.items() if not _BRANCH.fullmatch(key)}
    for key in state:
        found = _BRANCH.fullmatch(key)
        if found is None or found["branch"] != "0":
            continue
        block, layer, kind = found["block"], found["layer"], found["kind"]
        each = [state[f"{block}.{number}.{layer}.{kind}"] for number in range(branches)]
        fused[f"{block}.{layer}.{kind}"] = side_by_side(layer, kind, each)
    return fused


class Parallel(nn.Module):
    """One block: a sum of attentions, then a sum of feed-forward networks, each group behind one LayerNorm."""

    def __init__(self, arch: Architecture) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(arch.dim, eps=1e-6), nn.LayerNorm(arch.dim, eps=1e-6)
        one = replace(
            arch,
            branches=1,
            attention_heads=arch.attention_heads // arch.branches,
            ffn_hidden=arch.ffn_hidden // arch.branches,
        )
        self.head_dim, self.ffn_hidden = one.head_dim, one.ffn_hidden
        self.attn = nn.ModuleList(Attention(one) for _ in range(arch.branches))
        self.mlp = nn.ModuleList((Mlp if arch.ffn == "mlp" else SwiGlu)(one) for _ in range(arch.branches))

    def forward(
        self, x: Tensor, head_dim: int | None = None, ffn_hidden: int | None = None, places: Tensor | None = None
    ) -> Tensor:
        assert places is None
        y = self.norm1(x)
        x = x + torch.stack([branch(y, head_dim) for branch in self.attn]).sum(0)
        y = self.norm2(x)
        hidden = None if ffn_hidden is None else ffn_hidden // len(self.mlp)
        return x + torch.stack([branch(y, hidden) for branch in self.mlp]).sum(0)


def published(arch: Architecture) -> Vit:
    """The encoder with its branches apart, of random weights."""
    encoder = Vit(arch)
    encoder.blocks = nn.ModuleList(Parallel(arch) for _ in range(arch.depth))
    generator = torch.Generator().manual_seed(4)
    for parameter in encoder.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return encoder.eval()


def tiles() -> Tensor:
    return torch.randn(3, 4, 16, 16, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("arch", [FUSED, SWIGLU], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("width", [1.0, 0.7, 0.5, 0.3, 0.01])
def test_a_fused_and_slimmed_encoder_is_the_sum_of_its_slimmed_branches(arch: Architecture, width: float) -> None:
    apart = published(arch)
    fused = Vit(arch).eval()
    fused.load_state_dict(fuse_branches(apart.state_dict(), arch.branches))
    slimmed = slim(fused, width)
    with torch.no_grad():
        torch.testing.assert_close(slimmed(tiles()), apart(tiles(), width), rtol=1e-4, atol=1e-5)
    assert cost.flop(arch.at(width)) * 3 == count_flop(slimmed, tiles())


def test_branches_apart_run_the_same_products() -> None:
    assert count_flop(published(FUSED), tiles()) == 3 * cost.flop(FUSED)


@pytest.mark.parametrize("arch", [FUSED, SWIGLU], ids=["mlp", "swiglu"])
@pytest.mark.parametrize("width", [0.7, 0.3, 0.01])
def test_slimmed_is_masked(arch: Architecture, width: float) -> None:
    """The narrow encoder is the full one with zeros where it is cut, but for the softmax's scale."""
    encoder = random_vit(arch)
    narrow = arch.at(width)
    slimmed = slim(encoder, width)
    masked = {key: value.clone() for key, value in encoder.state_dict().items()}
    scale = (arch.head_dim / narrow.head_dim) ** 0.5
    for number in range(arch.depth):
        block = f"blocks.{number}."
        for kind in ("weight", "bias"):
            qkv = masked[f"{block}attn.qkv.{kind}"].view(3, arch.attention_heads, arch.head_dim, -1)
            qkv[:, :, narrow.head_dim :] = 0
            qkv[0] *= scale
        for hidden in range(arch.branches):
            # Of each branch the first units stay: unit j of branch b is hidden unit j * branches + b.
            cut = slice(narrow.ffn_hidden // arch.branches * arch.branches + hidden, None, arch.branches)
            masked[f"{block}mlp.fc2.weight"][:, cut] = 0
    whole = Vit(arch).eval()
    whole.load_state_dict(masked)
    with torch.no_grad():
        torch.testing.assert_close(whole(tiles()), slimmed(tiles()), rtol=1e-4, atol=1e-5)
        assert torch.equal(encoder(tiles(), width), slimmed(tiles()))


def test_slimming_comes_before_or_after_fusing() -> None:
    state = published(FUSED).state_dict()
    fused_then_cut = slim_state(fuse_branches(state, 3), FUSED, 0.5)
    assert fused_then_cut["blocks.0.mlp.fc1.weight"].shape == (45, 20)
    for branch in range(3):
        kept = state[f"blocks.0.mlp.{branch}.fc1.weight"][:15]
        assert torch.equal(fused_then_cut["blocks.0.mlp.fc1.weight"][branch::3], kept)


def test_a_checkpoint_of_branches_is_recognised_and_fused(tmp_path: Path) -> None:
    apart = published(FUSED)
    save_file(apart.state_dict(), tmp_path / "a.safetensors")
    reading = recognise(read_header(tmp_path / "a.safetensors")[0], all_families(), "a")
    assert reading.family.id == "parallel-vit"
    assert reading.architecture(head_dim=10) == FUSED
    found = read_checkpoint(tmp_path / "a.safetensors", FUSED)
    expected = fuse_branches(apart.state_dict(), 3)
    assert found.encoder.keys() == expected.keys()
    assert all(torch.equal(found.encoder[name], value) for name, value in expected.items())
    # Slimmed from the file, tensor by tensor, it is what the branches are at that width.
    done = slim_file(open_checkpoint(tmp_path / "a.safetensors", FUSED), 0.5, tmp_path / "slim.safetensors", {})
    slimmed = read_checkpoint(tmp_path / "slim.safetensors", done.architecture).build()
    with torch.no_grad():
        torch.testing.assert_close(slimmed(tiles()), apart(tiles(), 0.5), rtol=1e-4, atol=1e-5)
    lame = {
        name: value for name, value in apart.state_dict().items() if ".attn.2." not in name or "blocks.1" not in name
    }
    save_file(lame, tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="expected one of each of 3 branches"):
        read_checkpoint(tmp_path / "b.safetensors", FUSED)
