"""Folds: canonical tensors that no key map can say, because a family computes them anew for each tile.

What they are computed from does not depend on the tile's values, only on what is asked once: the bands, the places of
the patches. So they are computed here, once, and the encoder that flies has plain tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgeslim.architecture import Architecture
from edgeslim.errors import InputError
from edgeslim.families.family import SeenBand
from edgeslim.families.reading import Reading

_GENERATOR_HEADS = 4
"""Of the weight generator, in every release of DOFA, Copernicus-FM and Clay; shapes do not tell them."""
_SCALE = 0.01
"""Of the generated weights and bias."""
_PANOPTICON_RADAR = {"V": 0, "H": 1}
"""Rows of its embeddings of the polarisation that was sent, and of the one that was received."""
_PANOPTICON_ORBITS = {"ascending": 0, "descending": 1}
"""Rows of its embedding of the orbit; the mean of both where it is not known."""
_CLAY_SCALE = 0.02
"""Of Clay's generated weights; its bias has none."""
_CLAY_TOLD = 8
"""Last dimensions of Clay's positions: week, hour, latitude and longitude, a sine and a cosine each."""
_NM_PER_UM = 1000.0
_GALILEO_GROUPS = ("S1", "S2_RGB", "S2_Red_Edge", "S2_NIR_10m", "S2_NIR_20m", "S2_SWIR", "NDVI")
"""Rows of its channel embedding."""
_GALILEO_MONTH = 5
"""June, from 0: what its authors take where no month is known."""
_GALILEO_PIXEL_M = 10.0
"""Ground sample distance that its positions are counted in."""


def folded(state: dict[str, Tensor], reading: Reading, arch: Architecture, where: str) -> dict[str, Tensor]:
    """A state dict with what its family's fold makes, and without what it is made of.

    Raises InputError naming `where` where a part of the fold is missing or has another shape.
    """
    if reading.family.fold is None:
        return state
    parts = {name.removeprefix("fold."): value for name, value in state.items() if name.startswith("fold.")}
    kept = {name: value for name, value in state.items() if not name.startswith("fold.")}
    try:
        with torch.no_grad():
            _FOLDS[reading.family.fold](parts, kept, reading, arch)
    except KeyError as error:
        raise InputError(f"{where}: fold {reading.family.fold}: {error} is missing") from None
    except (RuntimeError, IndexError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(f"{where}: fold {reading.family.fold}: a tensor has another shape ({reason})") from None
    return kept


class _Residual(nn.Module):
    """x + f(w2 f(w1 x)), of an activation f."""

    def __init__(self, width: int, activation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.w1, self.w2, self.activation = nn.Linear(width, width), nn.Linear(width, width), activation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.activation(self.w2(self.activation(self.w1(x))))


class _WeightGenerator(nn.Module):
    """A transformer over weight tokens, one token a band and a bias token -> kernel of each band, and a bias.

    Xiong et al., arXiv 2403.15356, section 3.2. Names of the parameters are the original's.
    """

    def __init__(self, width: int, hidden: int, layers: int, tokens: int, kernel: int, dim: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(width, _GENERATOR_HEADS, hidden, dropout=0.0, activation="gelu")
        self.transformer_encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.fc_weight, self.fc_bias = nn.Linear(width, kernel), nn.Linear(width, dim)
        self.weight_tokens = nn.Parameter(torch.empty(tokens, width))
        self.bias_token = nn.Parameter(torch.empty(1, width))

    def forward(self, bands: Tensor) -> tuple[Tensor, Tensor]:
        """(C, width) tokens of bands -> (C, kernel) weights, (d,) bias."""
        tokens = self.transformer_encoder(torch.cat([self.weight_tokens, bands, self.bias_token]))
        weights: Tensor = self.fc_weight(tokens[len(self.weight_tokens) : -1] + bands)
        bias: Tensor = self.fc_bias(tokens[-1])
        return weights, bias


def _generated(
    parts: dict[str, Tensor], bands: Tensor, arch: Architecture, activation: Callable[[Tensor], Tensor] = F.relu
) -> tuple[Tensor, Tensor]:
    """Kernels (C, patch x patch x d) and bias (d,) of the (C, width) encoded bands, as the generator puts them out."""
    inside = {key.removeprefix("weight_generator."): value for key, value in parts.items()}
    tokens, width = inside["weight_tokens"].shape
    layers = {key.split(".")[2] for key in inside if key.startswith("transformer_encoder.layers.")}
    kernel = arch.patch_size**2 * arch.dim
    hidden = len(inside["transformer_encoder.layers.0.linear1.weight"])
    generator = _WeightGenerator(width, hidden, len(layers), tokens, kernel, arch.dim).eval()
    generator.load_state_dict({key: inside[key] for key in generator.state_dict()})
    residual = _Residual(width, activation)
    residual.load_state_dict({key: inside[f"fclayer.{key}"] for key in residual.state_dict()})
    made: tuple[Tensor, Tensor] = generator(residual(bands))
    return made


def _generate(parts: dict[str, Tensor], state: dict[str, Tensor], bands: Tensor, arch: Architecture) -> None:
    """Patch embedding of the (C, width) encoded bands, into `state`."""
    weights, bias = _generated(parts, bands, arch)
    kernels = weights.view(len(bands), arch.patch_size, arch.patch_size, arch.dim)
    state["patch_embed.proj.weight"] = (kernels.permute(3, 0, 1, 2) * _SCALE).contiguous()
    state["patch_embed.proj.bias"] = bias * _SCALE


def sine_cosine(values: Tensor, width: int) -> Tensor:
    """(N,) -> (N, width): sines, then cosines of the values times 10000^(-j / (width / 2)) (arXiv 1706.03762)."""
    # In the original's order: a wavelength of radar times a rate that is off by its last bit is another angle.
    rates = 1 / 10000 ** (torch.arange(width // 2, dtype=torch.float32) / (width / 2))
    angles = values[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def fourier(values: Tensor, width: int, shortest: float, longest: float) -> Tensor:
    """(N,) -> (N, width): sines, then cosines of 2 pi values / periods, which grow from `shortest` to `longest`.

    Bodnar et al., arXiv 2405.13063, in float64 as theirs.
    """
    periods = torch.logspace(math.log10(shortest), math.log10(longest), width // 2, dtype=torch.float64)
    angles = values.double()[:, None] * (2 * math.pi / periods)
    return torch.cat([angles.sin(), angles.cos()], dim=1).float()


def _nanometres(micrometres: Iterable[float | None]) -> Tensor:
    return torch.tensor([_NM_PER_UM * (value or 0.0) for value in micrometres], dtype=torch.float32)


def _dofa(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Kernels of the bands asked, from their wavelengths."""
    wavelengths = torch.tensor([band.wavelength_um for band in reading.bands], dtype=torch.float32) * _NM_PER_UM
    _generate(parts, state, sine_cosine(wavelengths, parts["weight_generator.weight_tokens"].shape[1]), arch)


def _copernicus_fm(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Kernels of the bands asked, from wavelengths and widths; place, time and area of a patch are unknown.

    For what is unknown the family has learned tokens, whose projections it adds to every position.
    """
    width = parts["weight_generator.weight_tokens"].shape[1]
    bands: tuple[SeenBand, ...] = reading.bands
    centres = fourier(_nanometres(band.wavelength_um for band in bands), width, 100, 1e9)
    widths = fourier(_nanometres(band.bandwidth_um for band in bands), width, 1, 1e9)
    _generate(parts, state, centres + widths, arch)
    for kind in ("coord", "scale", "time"):
        token, weight, bias = (parts[f"{kind}_{name}"] for name in ("token", "fc.weight", "fc.bias"))
        state["pos_embed"] = state["pos_embed"] + F.linear(token, weight, bias)


def _galileo(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Positions of groups of bands at one time: channel, time, month and place, a quarter of the dimension each.

    The month is June, and a pixel 10 m. Its embedding is made for any side of a patch (Beyer et al., arXiv 2212.08013):
    another than the stored one is resampled, so that a smooth patch, enlarged, embeds as it did.
    """
    quarter, side = arch.dim // 4, arch.tile_px // arch.patch_size
    places = torch.arange(side) * (arch.patch_size * _GALILEO_PIXEL_M / 10)
    # Its rates fall a quarter as fast as usual (they divide by the width twice), which is what the weights learned.
    half = quarter // 2
    rates = 1 / 10000 ** (torch.arange(half // 2, dtype=torch.float32) / half / 2)
    angles = places[:, None] * rates
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    place = torch.cat([along.repeat(side, 1), along.repeat_interleave(side, 0)], dim=1)
    always = [parts["pos_embed"][0], parts["month_embed.weight"][_GALILEO_MONTH]]
    several = len(reading.modalities) > 1
    for number, (modality, kernel) in enumerate(zip(reading.modalities, reading.kernels, strict=True)):
        said = [parts["s_t_channel_embed"][_GALILEO_GROUPS.index(modality.key)], *always]
        positions = torch.cat([*(part.expand(side * side, -1) for part in said), place], dim=1)[None]
        state[f"pos_embed.{number}" if several else "pos_embed"] = positions
        state[kernel] = resampled_patches(state[kernel], arch.patch_size)


def _panopticon(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Products of the attention over bands, multiplied out (ground/band_attention.py), for the bands asked.

    In each head, of dimension k and with the learned query q: a band's token is t = W x + b + e, of its pixels x and of
    e that tells the band; its score is q . K t / sqrt(k) = (W' K' q . x + K' q . (b + e)) / sqrt(k), ' transposed; and
    what it adds to the patch's token, as its softmax weighs it, is P V t = P V W x + P V (b + e). In float64: the
    longest of these products adds up 2304 terms twice.
    """
    wide = {name: value.double() for name, value in parts.items()}
    kernel, heads = wide["conv3d.weight"].flatten(1), arch.band_attention_heads
    told = wide["conv3d.bias"] + torch.stack([_told(band, wide, len(kernel)) for band in reading.bands])
    query, keys = (value.view(heads, -1, *value.shape[1:]) for value in (wide["query"].flatten(), wide["key.weight"]))
    slopes = torch.einsum("hk,hkw->hw", query, keys) * query.shape[1] ** -0.5
    values = (wide["value.weight"] @ torch.cat([kernel, told.T], dim=1)).view(heads, query.shape[1], -1)
    embedded = torch.einsum("dhk,hkv->dhv", wide["proj.weight"].view(arch.dim, heads, -1), values)
    pixels = kernel.shape[1]
    made = {
        "score.weight": slopes @ kernel,
        "band_score": slopes @ told.T,
        "proj.weight": embedded[:, :, :pixels].flatten(1),
        "proj.bias": wide["proj.bias"],
        "band_shift.weight": embedded[:, :, pixels:].flatten(1),
    }
    state |= {f"patch_embed.{name}": value.float().contiguous() for name, value in made.items()}


def _told(band: SeenBand, parts: dict[str, Tensor], width: int) -> Tensor:
    """(width,) what tells a band: sines and cosines of its whole nanometres, or polarisation and orbit of a radar's."""
    pair, _, orbit = band.name.partition(" ")
    if not set(pair) <= set(_PANOPTICON_RADAR):
        # 0.57 um is 569.99... nm in binary, and 570 is meant.
        nanometres = math.floor(round(band.wavelength_um * _NM_PER_UM, 6))
        return sine_cosine(torch.tensor([float(nanometres)]), width)[0].double()
    sent, received = (_PANOPTICON_RADAR[letter] for letter in pair)
    orbits = parts["orbit"]
    seen = orbits[_PANOPTICON_ORBITS[orbit]] if orbit else orbits.mean(0)
    return torch.cat([parts["transmit"][sent], parts["receive"][received], seen])


def _evenly(values: Tensor, count: int, base: float) -> Tensor:
    """(N,) -> (N, 2 count): sines, then cosines of the values times base^(-j / (count - 1)), j = 0 ... count - 1."""
    # In the original's order, as in sine_cosine.
    rates = 1.0 / base ** (torch.arange(count) / (count - 1))
    angles = values[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _clay(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Kernels of the bands asked, and positions for the ground sample distance asked; time and place are unknown.

    Their sines and cosines are zeros then, as in a fifth of Clay's training tiles. Positions fall so slowly (their base
    is 10000^(2 / dimensions)) that each rate is nearly the distance itself, which the weights learned.
    """
    assert reading.gsd_m is not None
    width = parts["weight_generator.weight_tokens"].shape[1]
    wavelengths = torch.tensor([band.wavelength_um for band in reading.bands], dtype=torch.float32)
    weights, bias = _generated(parts, _evenly(wavelengths, width // 2, 10000.0), arch, F.gelu)
    kernels = weights.view(len(reading.bands), arch.dim, arch.patch_size, arch.patch_size)
    state["patch_embed.proj.weight"] = (kernels.transpose(0, 1) * _CLAY_SCALE).contiguous()
    state["patch_embed.proj.bias"] = bias
    side, told = arch.tile_px // arch.patch_size, arch.dim - _CLAY_TOLD
    count = told // 4
    rates = 1.0 / 10000 ** (2 * (torch.arange(count) / (count - 1)) / told) * reading.gsd_m
    angles = torch.arange(side)[:, None] * rates
    along = torch.cat([angles.sin(), angles.cos()], dim=1)
    place = torch.cat([along.repeat(side, 1), along.repeat_interleave(side, 0)], dim=1)
    state["pos_embed"] = F.pad(place, (0, _CLAY_TOLD, int(arch.class_token), 0))[None]


def _scale_mae(parts: dict[str, Tensor], state: dict[str, Tensor], reading: Reading, arch: Architecture) -> None:
    """Positions as far apart as the ground sample distance asked says: a patch a step at 1 m, ten at 10 m.

    Reed et al., arXiv 2212.14532, section 3: half of the dimensions tell the column, half the row. Positions that the
    checkpoint stores are not used, which the original computes anew, too.
    """
    assert reading.gsd_m is not None
    side = arch.tile_px // arch.patch_size
    along = sine_cosine(torch.arange(side, dtype=torch.float32) * reading.gsd_m, arch.dim // 2)
    place = torch.cat([along.repeat(side, 1), along.repeat_interleave(side, 0)], dim=1)
    state["pos_embed"] = F.pad(place, (0, 0, int(arch.class_token), 0))[None]


def resampled_patches(weight: Tensor, side: int) -> Tensor:
    """(d, C, p, p) patch embedding -> (d, C, side, side), by the pseudo-inverse of bicubic resizing.

    Of all kernels of the new side, the ones whose products with resized patches are nearest those of the old with the
    patches as they were (Beyer et al., arXiv 2212.08013, section 3.4).
    """
    old = weight.shape[-1]
    if old == side:
        return weight
    each = torch.eye(old * old).view(old * old, 1, old, old)
    resized = F.interpolate(each, (side, side), mode="bicubic", antialias=True, align_corners=False)
    back = torch.linalg.pinv(resized.view(old * old, side * side))
    found: Tensor = weight.flatten(2) @ back.T
    return found.view(*weight.shape[:2], side, side)


_FOLDS: dict[str, Callable[[dict[str, Tensor], dict[str, Tensor], Reading, Architecture], None]] = {
    "dofa": _dofa,
    "copernicus-fm": _copernicus_fm,
    "galileo": _galileo,
    "clay": _clay,
    "panopticon": _panopticon,
    "scale-mae": _scale_mae,
}
