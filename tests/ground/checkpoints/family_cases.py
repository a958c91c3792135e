"""Cases: small modules of the libraries that define the families, with random weights, and their checkpoints.

Shared by tests/ground/checkpoints/test_families.py and benchmarks/families.py.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

NEAR = 1e-5
"""Of the features' range: what issue and cards call equal."""
DIM, HEADS, DEPTH, TILE = 48, 3, 3, 32
Features = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Case:
    """A module of an original library."""

    family: str
    """That its checkpoint must be recognised as."""
    make: Callable[[], tuple[dict[str, Tensor], Features]]
    """Its checkpoint, and its features of tiles. Skips where the library is not installed."""
    made_for: str | None = None
    """Modality or bands asked."""
    bands: int = 5
    """Of a tile."""
    tile_px: int = TILE
    """Of a tile."""
    heads: int = HEADS
    """Of attention."""

    def tiles(self, count: int) -> Tensor:
        """(count, bands, tile_px, tile_px), seeded."""
        return seeded_tiles(count, self.bands, self.tile_px)


def seeded_tiles(count: int, bands: int, tile_px: int) -> Tensor:
    """(count, bands, tile_px, tile_px)."""
    return torch.randn(count, bands, tile_px, tile_px, generator=torch.Generator().manual_seed(1))


CASES: dict[str, Case] = {}


def case(
    family: str, prefix: str = "", rename: Callable[[Any], Any] = dict, made_for: str | None = None, **tile: int
) -> Callable[[Any], Any]:
    """Add what makes (module, features) to the cases."""

    def add(make: Callable[[], tuple[nn.Module, Features]]) -> Any:
        def made() -> tuple[dict[str, Tensor], Features]:
            module, features = make()
            state = {key: value.detach().clone() for key, value in rename(written(module)).items()}
            return {prefix + key: value for key, value in state.items()}, features

        CASES[make.__name__] = Case(family, made, made_for, **tile)
        return make

    return add


def random_value(name: str, shape: Iterable[int]) -> Tensor:
    """The value of a tensor of this name, in every module that has one."""
    size = tuple(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    value = torch.randn(size, generator=generator) * (0.3 if len(size) > 1 else 0.5)
    return value + 1 if "norm" in name and name.endswith("weight") else value


def randomised(module: nn.Module) -> nn.Module:
    """Every tensor random, so that none is an identity that hides a wrong name."""
    with torch.no_grad():
        for name, value in module.state_dict().items():
            value.copy_(random_value(name, value.shape))
    return module.eval()


def library(name: str) -> Any:
    """timm, transformers, torchgeo. Their torchvision misses, beside a torch for processors, what no ViT needs."""
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            torch.library.define(f"torchvision::{operator}", "(Tensor boxes, Tensor scores, float limit) -> Tensor")
    return pytest.importorskip(name, reason=f"{name} is not installed: no checkpoint was held against it")


def timm_vit(**options: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    timm = library("timm")
    pooled = "global_pool" in options
    sizes = {"img_size": TILE, "patch_size": 8, "in_chans": 5, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    made: Any = randomised(timm.models.VisionTransformer(**sizes, num_classes=0, **options))
    return made, made if pooled else (lambda tiles: made.forward_features(tiles)[:, 0])


def hugging(kind: str, **options: Any) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    hub = library("transformers")
    sizes = {"image_size": TILE, "patch_size": 8, "num_channels": 5, "hidden_size": DIM}
    sizes |= {"num_hidden_layers": DEPTH, "num_attention_heads": HEADS}
    config = getattr(hub, f"{kind}Config")(**sizes | options)
    more = {"add_pooling_layer": False} if kind == "ViT" else {}
    made = randomised(getattr(hub, f"{kind}Model")(config, **more))
    if kind == "CLIPVision":
        return made, lambda tiles: made(tiles).pooler_output
    return made, lambda tiles: made(tiles).last_hidden_state[:, 0]


def written(module: Any) -> dict[str, Tensor]:
    """As its library writes it: transformers gives tensors other names in files than in modules."""
    if not hasattr(module, "save_pretrained"):
        return dict(module.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        module.save_pretrained(folder)
        return load_file(Path(folder) / "model.safetensors")


def as_meta_writes(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv2 with registers under the names of Meta's repository, blocks in chunks of two."""
    found = {}
    for name, value in state.items():
        if name == "pos_embed":  # theirs has a place for the class token
            value = torch.cat([torch.zeros(1, 1, DIM), value], dim=1)
        renamed = re.sub(r"^blocks\.(\d+)\.", lambda m: f"blocks.{int(m[1]) // 2}.{m[1]}.", name)
        found[renamed.replace("reg_token", "register_tokens")] = value
    return found | {"mask_token": torch.zeros(1, DIM)}


@case("timm")
def plain() -> Any:
    return timm_vit()


@case("timm", prefix="module.base_encoder.")
def moco_without_qkv_bias() -> Any:
    return timm_vit(qkv_bias=False)


@case("timm")
def registers_without_positions_of_their_own() -> Any:
    return timm_vit(reg_tokens=4, no_embed_class=True)


@case("dinov2", prefix="teacher.backbone.", rename=as_meta_writes)
def dinov2_in_chunks() -> Any:
    return timm_vit(reg_tokens=4, no_embed_class=True, init_values=0.1)


@case("hf-vit")
def transformers_vit() -> Any:
    return hugging("ViT", intermediate_size=96)


@case("hf-dinov2")
def transformers_dinov2() -> Any:
    return hugging("Dinov2", mlp_ratio=2)


@case("hf-dinov2")
def transformers_dinov2_with_registers() -> Any:
    return hugging("Dinov2WithRegisters", mlp_ratio=2)


def as_meta_writes_dinov3(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's DINOv3 under the names of Meta's repository, whose bias of k is there and masked away."""
    found = {"rope_embed.periods": torch.ones(4), "mask_token": torch.zeros(1, DIM)}
    for name, value in state.items():
        block = name.rsplit(".", 1)[0]
        if name.endswith("q_bias"):
            found[f"{block}.qkv.bias"] = torch.cat([value, torch.ones(DIM), state[f"{block}.v_bias"]])
            found[f"{block}.qkv.bias_mask"] = torch.full((3 * DIM,), torch.nan)
        elif not name.endswith(("v_bias", "k_bias")):
            renamed = re.sub(r"gamma_([12])$", r"ls\1.gamma", name)
            found[renamed.replace("reg_token", "storage_tokens")] = value
    return found


@case("dinov3", rename=as_meta_writes_dinov3, tile_px=256)
def dinov3_of_meta() -> Any:
    library("timm")
    sizes = {"img_size": 256, "patch_size": 16, "in_chans": 5, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    turned = {"rope_type": "dinov3", "rope_temperature": 100, "use_rot_pos_emb": True, "use_abs_pos_emb": False}
    others = {"init_values": 1.0, "num_reg_tokens": 4, "use_fc_norm": False, "global_pool": "token", "num_classes": 0}
    eva = library("timm.models.eva").Eva
    norm = partial(nn.LayerNorm, eps=1e-5)
    made: Any = randomised(eva(**sizes, **turned, **others, qkv_bias=True, rope_rotate_half=True, norm_layer=norm))
    return made, lambda tiles: made.forward_features(tiles)[:, 0]


@case("hf-dinov3", tile_px=256)
def transformers_dinov3() -> Any:
    return hugging("DINOv3ViT", patch_size=16, intermediate_size=96, num_register_tokens=4)


@case("hf-dinov3-gated", tile_px=256)
def transformers_dinov3_gated() -> Any:
    gated = {"use_gated_mlp": True, "hidden_act": "silu"}
    return hugging("DINOv3ViT", patch_size=16, intermediate_size=64, num_register_tokens=4, **gated)


@case("hf-clip")
def transformers_clip() -> Any:
    return hugging("CLIPVision", intermediate_size=96)


def beside_texts(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As it is published: the encoder of texts stands in the same file, under names of its own and like ones."""
    texts = ("logit_scale", "positional_embedding", "transformer.resblocks.0.ln_1.weight", "ln_final.bias")
    return {f"visual.{name}": value for name, value in state.items()} | {name: torch.ones(7) for name in texts}


@case("clip", rename=beside_texts, bands=3)
def open_clip_beside_texts() -> Any:
    return open_clip()


@case("clip", bands=3)
def open_clip() -> Any:
    library("timm")  # makes room for torchvision, which it imports
    original = library("open_clip.transformer")
    made: Any = randomised(original.VisionTransformer(TILE, 8, DIM, DEPTH, HEADS, 4.0, output_dim=24))

    def features(tiles: Tensor) -> Tensor:
        made.proj = None  # it is in the checkpoint, and not in the encoder
        return made(tiles)

    return made, features


@case("timm-parallel")
def timm_parallel() -> Any:
    return timm_vit(block_fn=partial(library("timm").models.vision_transformer.ParallelThingsBlock, num_parallel=3))


@case("timm-fc-norm")
def timm_norm_of_the_mean() -> Any:
    return timm_vit(global_pool="avg", reg_tokens=2)


@case("timm-fc-norm")
def timm_norm_of_the_mean_without_class_token() -> Any:
    return timm_vit(global_pool="avg", class_token=False, init_values=0.1)


@case("dofa", made_for="B04,B03,0.49,VV,B12")
def dofa() -> Any:
    made = randomised(library("torchgeo.models").DOFA(**torchgeo_sizes()))
    return made, lambda tiles: made(tiles, [0.665, 0.56, 0.49, 3.75, 2.19])


def without_fc_norm(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As pretraining leaves it."""
    return {name: value for name, value in state.items() if not name.startswith("fc_norm")}


@case("dofa", rename=without_fc_norm, made_for="B02,B03,B04,B08,B11")
def dofa_as_published() -> Any:
    made: Any = randomised(library("torchgeo.models").DOFA(**torchgeo_sizes()))
    nn.init.ones_(made.fc_norm.weight)
    nn.init.zeros_(made.fc_norm.bias)
    return made, lambda tiles: made(tiles, [0.49, 0.56, 0.665, 0.842, 1.61])


@case("copernicus-fm", made_for="B04,B03,0.49/0.065,VV,B12")
def copernicus_fm() -> Any:
    made = randomised(library("torchgeo.models").CopernicusFM(**torchgeo_sizes()))
    told = {"wavelengths": [665, 560, 490, 5e7, 2190], "bandwidths": [30, 35, 65, 1e9, 180]}
    return made, lambda tiles: made(tiles, torch.full((len(tiles), 4), torch.nan), **told)


def torchgeo_sizes() -> dict[str, int]:
    sizes = {"img_size": TILE, "patch_size": 8, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS}
    return {**sizes, "num_classes": 0}


def terramind_vit(modalities: dict[str, int], asked: str, **options: Any) -> tuple[nn.Module, Features]:
    """TerraMind's encoder, from its files: importing all of terratorch needs much that no encoder does."""
    made: Any = randomised(
        terratorch_file("terramind.model.terramind_vit").TerraMindViT(
            img_size=TILE, modalities=[dict(modalities)], dim=DIM, encoder_depth=DEPTH, num_heads=HEADS, **options
        )
    )
    names = asked.split("+")

    def features(tiles: Tensor) -> Tensor:
        parts = tiles.split([modalities[name] for name in names], dim=1)
        return made(dict(zip(names, parts, strict=True)))[-1].mean(1)

    return made, features


def terratorch_file(name: str) -> Any:
    """A file of terratorch's backbones, without what stands in the packages around it."""
    library("timm")  # makes room for torchvision, which the files import
    package = "terratorch"
    if package not in sys.modules:
        found = importlib.util.find_spec(package)
        if found is None or not found.submodule_search_locations:
            pytest.skip("terratorch is not at hand: no checkpoint was held against it")
        folder = Path(found.submodule_search_locations[0])
        for parts in ("", "models", "models.backbones", "models.backbones.terramind", "models.backbones.clay_v1"):
            stub = ModuleType(f"{package}.{parts}".rstrip("."))
            stub.__path__ = [str(folder.joinpath(*parts.split(".")))]
            sys.modules[stub.__name__] = stub
    return importlib.import_module(f"terratorch.models.backbones.{name}")


def beside_a_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As it is published: what generates modalities stands in the same file."""
    return {**state, "decoder.0.norm1.weight": torch.ones(DIM), "mask_token": torch.zeros(1, 1, DIM)}


TERRAMIND = {"untok_sen2l2a@224": 12, "untok_sen2rgb@224": 3, "untok_sen1grd@224": 2, "untok_sen1rtc@224": 2}


def without_the_bias(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As it is published: what is added to the scores is computed."""
    return {name: value for name, value in state.items() if name != "attn_bias"}


def beside_both(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As it is published: the encoder of both sensors stands in the same file."""
    return {**without_the_bias(state), "joint_encoder.layers.0.0.to_qkv.weight": torch.ones(3 * DIM, DIM)}


@case("croma", rename=without_the_bias, made_for="s2", bands=12, tile_px=120, heads=16)
def croma_optical() -> Any:
    made: Any = library("torchgeo.models").CROMA(["optical"], DIM, DEPTH)
    bias = made.attn_bias.clone()
    randomised(made).attn_bias.copy_(bias)
    return made, lambda tiles: made(x_optical=tiles)["optical_encodings"].mean(1)


@case("croma", rename=beside_both, made_for="s1", bands=2, tile_px=120, heads=16)
def croma_radar_beside_optical() -> Any:
    made: Any = library("torchgeo.models").CROMA(["sar", "optical"], DIM, 2 * DEPTH)
    bias = made.attn_bias.clone()
    randomised(made).attn_bias.copy_(bias)
    return made, lambda tiles: made.s1_encoder(tiles, made.attn_bias).mean(1)


@case("terramind", made_for="s2l2a", bands=12)
def terramind_base() -> Any:
    norm = partial(terratorch_file("terramind.model.tm_utils").LayerNorm, eps=1e-6, bias=False)
    bare = dict.fromkeys(("qkv_bias", "proj_bias", "mlp_bias"), False)
    return terramind_vit(TERRAMIND, "untok_sen2l2a@224", **bare, gated_mlp=True, act_layer=nn.SiLU, norm_layer=norm)


@case("terramind", rename=beside_a_decoder, made_for="s1rtc", bands=2)
def terramind_tiny() -> Any:
    return terramind_vit(TERRAMIND, "untok_sen1rtc@224")


@case("terramind", made_for="s2l2a+s1grd", bands=14)
def terramind_of_two_modalities() -> Any:
    norm = partial(terratorch_file("terramind.model.tm_utils").LayerNorm, eps=1e-6, bias=False)
    bare = dict.fromkeys(("qkv_bias", "proj_bias", "mlp_bias"), False)
    both = "untok_sen2l2a@224+untok_sen1grd@224"
    return terramind_vit(TERRAMIND, both, **bare, gated_mlp=True, act_layer=nn.SiLU, norm_layer=norm)


@case("prithvi", prefix="encoder.", bands=6, tile_px=224)
def prithvi_made_for_three_dates() -> Any:
    made: Any = terratorch_file("prithvi_mae").PrithviViT(224, (1, 16, 16), 3, 6, DIM, DEPTH, HEADS)
    positions = made.pos_embed.clone()
    randomised(made)
    made.pos_embed.copy_(positions)  # fixed ones: for another number of dates the original computes them anew
    return made, lambda tiles: made.forward_features(tiles[:, :, None])[-1][:, 1:].mean(1)


@case("prithvi", bands=6, tile_px=224)
def prithvi_with_scales_of_time_and_place() -> Any:
    both = {"coords_encoding": ["time", "location"], "coords_scale_learn": True}
    made: Any = randomised(terratorch_file("prithvi_mae").PrithviViT(224, (1, 16, 16), 1, 6, DIM, DEPTH, HEADS, **both))
    return made, lambda tiles: made.forward_features(tiles)[-1][:, 1:].mean(1)


def galileo_features(original: Any, encoder: Any, *asked: str) -> Features:
    """Mean of the tokens of groups of bands in June, all else masked."""

    def features(tiles: Tensor) -> Tensor:
        count, side, groups = len(tiles), tiles.shape[-1], original.SPACE_TIME_BANDS_GROUPS_IDX
        place_time = torch.zeros(count, side, side, 1, len(original.SPACE_TIME_BANDS))
        place_time[..., [band for group in asked for band in groups[group]]] = tiles.permute(0, 2, 3, 1)[:, :, :, None]
        masked = torch.ones(count, side, side, 1, len(groups))
        masked[..., [list(groups).index(group) for group in asked]] = 0
        place, time = torch.zeros(count, side, side, 16), torch.zeros(count, 1, 6)
        others = (torch.ones(count, side, side, 3), torch.ones(count, 1, 3), torch.ones(count, 4))
        june = torch.full((count, 1), 5)
        found = encoder(place_time, place, time, torch.zeros(count, 18), masked, *others, june, patch_size=8)
        return encoder.average_tokens(*found[:-1])

    return features


@case("galileo", made_for="swir", bands=2, tile_px=64)
def galileo() -> Any:
    original = library("single_file_galileo")
    made = randomised(original.Encoder(8, DIM, DEPTH, 2, HEADS))
    return made, galileo_features(original, made, "S2_SWIR")


@case("galileo", made_for="rgb+narrow-nir+s1", bands=6, tile_px=64)
def galileo_of_three_groups() -> Any:
    original = library("single_file_galileo")
    made = randomised(original.Encoder(8, DIM, DEPTH, 2, HEADS))
    return made, galileo_features(original, made, "S2_RGB", "S2_NIR_20m", "S1")


GROUPED = {
    "img_size": TILE,
    "patch_size": 8,
    "in_chans": 10,
    "embed_dim": DIM,
    "depth": DEPTH,
    "num_heads": HEADS,
    "norm_layer": partial(nn.LayerNorm, eps=1e-6),
    "channel_embed": 16,
}


numpy_of_its_day = partial(mock.patch.object, np, "float", float, create=True)
"""SatMAE's positions are made by a name that NumPy had until 1.20."""


def repository(name: str) -> Any:
    """A file of a repository that is no package; what it imports of timm has moved since."""
    library("timm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return library(name)


def satmae_vit(*, global_pool: bool) -> tuple[nn.Module, Features]:
    original = repository("models_vit_group_channels").GroupChannelsVisionTransformer
    with numpy_of_its_day():
        made: Any = randomised(original(global_pool, **GROUPED, qkv_bias=True, num_classes=0))
    return made, made.forward_features


@case("satmae", bands=10)
def satmae() -> Any:
    return satmae_vit(global_pool=False)


@case("satmae-fc-norm", bands=10)
def satmae_tuned() -> Any:
    return satmae_vit(global_pool=True)


@case("satmae", bands=10)
def satmae_pp_pretrained() -> Any:
    small = {"decoder_channel_embed": 8, "decoder_embed_dim": 24, "decoder_depth": 1, "decoder_num_heads": 2}
    original = repository("models_mae_group_channels").MaskedAutoencoderGroupChannelViT
    with numpy_of_its_day():
        made: Any = randomised(original(**GROUPED, **small))
    made.pos_embed[:, 0] = 0  # as it is stored: pretraining gives the class token no place, tuning gives it this one
    # Nothing is masked: what stays is shuffled, which the class token does not see.
    return made, lambda tiles: made.forward_encoder(tiles, 0.0)[0][:, 0]


def beside_its_decoder(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As pretraining writes it."""
    names = ("decoder_pos_embed_spatial", "decoder_blocks.0.attn.q.weight", "decoder_pred.bias", "mask_token")
    return state | {name: random_value(name, (7,)) for name in names}


@case("spectralgpt", rename=beside_its_decoder, bands=12)
def spectralgpt() -> Any:
    sizes = {name: value for name, value in GROUPED.items() if name != "channel_embed"} | {"in_chans": 1}
    original = repository("models_vit_tensor").VisionTransformer
    made: Any = original(num_frames=12, t_patch_size=3, sep_pos_embed=True, **sizes)
    made.head = nn.Identity()
    return randomised(made), made


def beside_its_decoders(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As its authors' training writes it: what rebuilds tiles stands in the same file."""
    decoder = {"mask_token_decoder": torch.ones(1, 1, 8), "fpn.do1.0.weight": torch.ones(8, 8, 2, 2)}
    return {**state, **decoder, "fcn.conv.weight": torch.ones(1), "decoder_embed.weight": torch.ones(8, DIM)}


def scale_mae_vit(gsd_m: float) -> tuple[nn.Module, Features]:
    sizes = {"img_size": 224, "patch_size": 16, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}
    made = randomised(library("torchgeo.models").ScaleMAE(res=gsd_m, **sizes))
    return made, made


@case("scale-mae", made_for="@10m", bands=3, tile_px=224)
def scale_mae() -> Any:
    return scale_mae_vit(10.0)


@case("scale-mae", rename=beside_its_decoders, made_for="@0.3", bands=3, tile_px=224)
def scale_mae_as_it_was_trained() -> Any:
    return scale_mae_vit(0.3)


CLAY_SIZES = {"img_size": 256, "patch_size": 8, "dim": DIM, "depth": DEPTH, "heads": HEADS, "dim_head": 16}


def clay_features(encoder: Any, waves: list[float], gsd_m: float) -> Features:
    """Class token, time and place unknown."""

    def features(tiles: Tensor) -> Tensor:
        unknown = torch.zeros(len(tiles), 4)
        told = {"time": unknown, "latlon": unknown, "gsd": torch.tensor(gsd_m), "waves": torch.tensor(waves)}
        found = encoder({"pixels": tiles, **told})
        return found[-1][:, 0] if isinstance(found, list) else found

    return features


def beside_its_teacher(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As its training writes it: the decoder and the teacher stand in the same file."""
    others = {"model.teacher.blocks.0.ls1.gamma": torch.ones(DIM), "model.decoder.mask_patch": torch.ones(DIM)}
    return {**{f"model.encoder.{name}": value for name, value in state.items()}, **others}


@case("clay", rename=beside_its_teacher, made_for="B04,B03,0.46,VV,B12@10m", tile_px=256)
def clay_v1_5() -> Any:
    library("timm")  # makes room for torchvision, which it imports
    original = library("claymodel.finetune.embedder.factory")
    torch.set_float32_matmul_precision("highest")  # as it was before that import
    made = randomised(original.EmbeddingEncoder(**CLAY_SIZES, mlp_ratio=4.0))
    return made, clay_features(made, [0.665, 0.56, 0.46, 3.5, 2.19], 10.0)


@case("clay", made_for="B02,B03,B04@0.6m", bands=3, tile_px=256)
def clay_v1() -> Any:
    original = terratorch_file("clay_v1.modules")
    with warnings.catch_warnings(action="ignore"):  # of torch, about nested tensors that the original asks for
        made = randomised(original.EmbeddingEncoder(**CLAY_SIZES, mlp_ratio=2.0))
    return made, clay_features(made, [0.493, 0.56, 0.665], 0.6)


def panopticon_vit(told: list[float]) -> tuple[nn.Module, Features]:
    """Panopticon as torchgeo puts it together, around a smaller DINOv2."""
    timm, original = library("timm"), library("torchgeo.models.panopticon")
    sizes = {"img_size": 224, "patch_size": 14, "embed_dim": DIM, "depth": DEPTH, "num_heads": HEADS, "num_classes": 0}
    made: Any = timm.models.VisionTransformer(**sizes, init_values=0.1)
    over_bands = {"attn_cfg": {"num_heads": 16}}
    made.patch_embed = original.PanopticonPE(attn_dim=96, embed_dim=DIM, patch_size=14, chnfus_cfg=over_bands)
    randomised(made)

    def features(tiles: Tensor) -> Tensor:
        return made({"imgs": tiles, "chn_ids": torch.tensor(told).repeat(len(tiles), 1)})

    return made, features


@case("panopticon", made_for="B04,B03,0.57,B12,VH", tile_px=224)
def panopticon() -> Any:
    return panopticon_vit([664, 559, 570, 2203, -2])


@case("panopticon", prefix="model.", made_for="VV ascending,HV descending,HH", bands=3, tile_px=224)
def panopticon_of_radar() -> Any:
    return panopticon_vit([-5, -12, -3])


CONVNEXT = {"depths": (1, 2, 1, 1), "dims": (8, 16, 24, DIM)}
"""Of small ConvNeXt V2s, whose hidden channels are four times as many."""
convnext_case = partial(case, tile_px=40)
"""Of a tile whose last pixels two of the four convolutions that halve it do not look at."""


def timm_convnext(**options: Any) -> tuple[nn.Module, Features]:
    made: Any = library("timm").models.convnext.ConvNeXt(
        in_chans=5, use_grn=True, ls_init_value=None, **CONVNEXT, **options
    )
    made = randomised(made)
    return made, lambda tiles: made.forward_head(made.forward_features(tiles), pre_logits=True)


@convnext_case("timm-convnextv2")
def timm_convnext_of_convolutions() -> Any:
    return timm_convnext(conv_mlp=True, num_classes=0)


@convnext_case("timm-convnextv2")
def timm_convnext_of_linear_layers_with_a_head() -> Any:
    return timm_convnext(conv_mlp=False, num_classes=7)


@convnext_case("hf-convnextv2")
def transformers_convnext() -> Any:
    hub = library("transformers")
    config = hub.ConvNextV2Config(hidden_sizes=CONVNEXT["dims"], depths=CONVNEXT["depths"], num_channels=5)
    made: Any = randomised(hub.ConvNextV2Model(config))
    return made, lambda tiles: made(tiles).pooler_output


@convnext_case("mmearth")
def mmearth_with_patches_of_8() -> Any:
    return mmearth(patch_size=8, num_classes=7)


@convnext_case("mmearth", prefix="encoder.", rename=beside_a_decoder)
def mmearth_as_it_is_pretrained() -> Any:
    return mmearth(patch_size=16, num_classes=7)


def mmearth(**options: Any) -> tuple[nn.Module, Features]:
    made: Any = randomised(repository("mmearth_models.convnextv2").ConvNeXtV2(in_chans=5, **CONVNEXT, **options))
    return made, made.forward_features


def sparse_names(name: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Name and shape of a dense tensor as MinkowskiEngine's modules have it, that sparse training is made of."""
    if len(shape) == 4 and name.endswith("weight"):
        places, each = shape[2] * shape[3], (shape[1], shape[0])
        return name.replace("weight", "kernel"), (places, *each[each[0] == 1 :])
    if "grn" in name:
        return name, (1, shape[-1])
    layer, kind = name.rsplit(".", 1)
    if "pwconv" in name:
        return f"{layer}.linear.{kind}", shape
    if re.search(r"norm$|^(?:initial_conv|stem)\.1$|^downsample_layers\.\d\.0$", layer):
        return f"{layer}.ln.{kind}", shape
    return name, (1, *shape)


def trained_sparsely(dense: nn.Module, but: str, remap: Callable[[Any], Any]) -> dict[str, Tensor]:
    """A sparse checkpoint, put into `dense` as `remap` of its authors makes it; names in `but` are dense in it, too."""
    kept = {n: tuple(v.shape) for n, v in dense.state_dict().items() if not n.startswith(("head.", "norm."))}
    names = [(n, shape) if re.match(but, n) else sparse_names(n, shape) for n, shape in kept.items()]
    saved = {f"encoder.{n}": random_value(f"encoder.{n}", shape) for n, shape in names}
    missing, unexpected = dense.load_state_dict(remap(saved), strict=False)
    assert not unexpected
    assert set(missing) <= {"head.weight", "head.bias", "norm.weight", "norm.bias"}
    dense.eval()
    return saved


@convnext_case("mmearth", rename=lambda state: state["saved"])
def mmearth_as_it_is_trained_sparsely() -> Any:
    dense, features = mmearth(patch_size=16, num_classes=7)
    for name in ("weight", "bias"):
        nn.init.constant_(getattr(dense.norm, name), float(name == "weight"))
    saved = trained_sparsely(dense, "$", repository("mmearth_models.remap").remap_checkpoint_keys)
    return AsSaved(saved), features


@convnext_case("convnextv2", rename=lambda state: state["saved"])
def convnext_as_fcmae_trains_it_sparsely() -> Any:
    dense, features = convnext_authors()
    for name in ("weight", "bias"):
        nn.init.constant_(getattr(dense.norm, name), float(name == "weight"))
    saved = trained_sparsely(
        dense, r"downsample_layers\.0\.", repository("convnextv2_authors.remap").remap_checkpoint_keys
    )
    return AsSaved(saved), features


class AsSaved:
    """Stands for a module whose checkpoint is made otherwise."""

    def __init__(self, saved: dict[str, Tensor]) -> None:
        self.saved = saved

    def state_dict(self) -> dict[str, Any]:
        return {"saved": self.saved}


@convnext_case("convnextv2")
def convnext_of_its_authors() -> Any:
    return convnext_authors()


def convnext_authors() -> tuple[Any, Features]:
    # Sparse training alone needs that library, which has to be built for a GPU.
    with mock.patch.dict(sys.modules, {"MinkowskiEngine": mock.MagicMock()}):
        original = repository("convnextv2_authors.convnextv2").ConvNeXtV2
    made: Any = randomised(original(in_chans=5, num_classes=7, **CONVNEXT))
    return made, made.forward_features
