"""Quantisation: which layers suffer most from int8, so that those are left alone first. Asks no format's library."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgeslim.ground.flight import FlightModel
from edgeslim.ground.vit import Vit


def layers_by_harm(model: FlightModel, tiles: NDArray[np.generic]) -> list[str]:
    """Names of the linear layers, the one first whose int8 weights and inputs move the logits of `tiles` most.

    Each is quantised alone, as the formats do it: weights to int8 a row, inputs to 8 bits by their own range. What the
    blocks before it give is the same each time, and computed once.
    """
    given = torch.from_numpy(np.ascontiguousarray(tiles, np.float32))
    layers = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    blocks = list(model.encoder.blocks) if isinstance(model.encoder, Vit) else []
    harm = {}
    with torch.inference_mode():
        between: list[Tensor] = []
        hooks = [block.register_forward_hook(lambda _, __, output: between.append(output)) for block in blocks]
        expected = model(given)[0]
        for hook in hooks:
            hook.remove()
        for name, layer in layers.items():
            before = layer.weight.data
            hook = layer.register_forward_pre_hook(_quantised_input)
            try:
                layer.weight.data = _int8_rows(before)
                with _replayed(blocks[: _blocks_before(name, len(blocks))], between):
                    harm[name] = float((model(given)[0] - expected).abs().mean())
            finally:
                layer.weight.data = before
                hook.remove()
    return sorted(harm, key=lambda name: -harm[name])


def _blocks_before(name: str, blocks: int) -> int:
    """How many of the encoder's blocks a layer cannot change."""
    if name == "head":
        return blocks
    parts = name.split(".")
    return int(parts[2]) if parts[:2] == ["encoder", "blocks"] else 0


@contextlib.contextmanager
def _replayed(blocks: Sequence[nn.Module], outputs: Sequence[Tensor]) -> Iterator[None]:
    """Give these outputs instead of computing these blocks."""
    for block, output in zip(blocks, outputs, strict=False):
        block.forward = lambda *_, output=output, **__: output
    try:
        yield
    finally:
        for block in blocks:
            del block.forward


def _int8_rows(weight: Tensor) -> Tensor:
    """Symmetric int8 with one scale a row, and back."""
    scale = weight.abs().amax(dim=1, keepdim=True).clamp_min(1e-12) / 127
    return (weight / scale).round().clamp(-127, 127) * scale


def _quantised_input(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """8 bits over the range of the whole tensor, 0 among the values, and back."""
    (x,) = inputs
    low, high = x.amin().clamp_max(0), x.amax().clamp_min(0)
    scale = ((high - low) / 255).clamp_min(1e-12)
    zero = (-low / scale).round()
    return ((((x / scale).round() + zero).clamp(0, 255) - zero) * scale,)


def layers_to_try(ranked: list[str]) -> list[tuple[str, ...]]:
    """What is left in fp32, try by try: one layer, two, four, ...; at most half of them, or int8 is pointless."""
    tries, count = [], 1
    while count <= len(ranked) // 2:
        tries.append(tuple(ranked[:count]))
        count *= 2
    return tries
