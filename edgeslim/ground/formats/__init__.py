"""Formats: one module each, of two functions.

    convert   the module that flies -> the network's files in fp32
    quantise  those files -> the same network in another precision, but for the layers that are to be kept

Layers are called as in the module: "encoder.blocks.3.mlp.fc1". A converter raises whatever its library raises.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.errors import MissingExtra
from edgeslim.ground.flight import FlightModel
from edgeslim.onboard.quiet import forbid_telemetry, quiet_libraries
from edgeslim.target import Target

_NEEDS = {
    "onnx": ("onnx", "ground"),
    "openvino": ("openvino", "ground-openvino"),
    "tflite": ("litert_torch", "ground-tflite"),
}

HEAD = "head"
"""The layer behind the features. fp16 leaves it in fp32, a few kilobytes: what it rounds is the logits themselves."""
SMALLEST_BYTES = 1024
"""Tensors smaller than this are not worth a place, or a precision, of their own."""


def is_rounded(shape: Sequence[int], nbytes: int) -> bool:
    """Whether fp16 rounds a tensor that is not the head's: what is large in two dimensions.

    Biases, LayerNorms and LayerScales are few and stay in fp32: each of their values goes into every token alike, so
    that their errors do not average out.
    """
    return nbytes >= SMALLEST_BYTES and math.prod(shape) > max(shape)


@dataclass(frozen=True, slots=True)
class Written:
    """Files of one network in one precision."""

    folder: Path
    """Where they lie."""
    models: dict[str, str]
    """Batch size, or "any" -> file that a runtime loads."""
    names: tuple[str, str, str]
    """Tensors: tiles, logits, features."""
    graph: dict[str, Any]
    """Opset where it has one, and how often each operator stands in it."""


class Format(Protocol):
    """What each module here has."""

    def unfolded(self, model: FlightModel) -> FlightModel:
        """The same function in such operators that the converter folds none of its tensors into another, for fp16."""

    def convert(
        self, model: nn.Module, example: torch.Tensor, target: Target, batches: tuple[int, ...], folder: Path
    ) -> Written:
        """Write `model` in fp32; `example` is a (2, bands, H, W) float32 batch."""

    def quantise(
        self, base: Written, precision: str, calibration: NDArray[np.float32], kept: Collection[str], folder: Path
    ) -> Written:
        """Write what `convert` wrote in another precision, `kept` layers as they are.

        `base` may name the files of some batch sizes alone: only they are written. What is found out of the network on
        the way, such as the ranges of its tensors, may be kept in files FOLDER-ranges* beside the folder of `base`.
        """


def format_called(name: str) -> Format:
    """The module of a format. Raises MissingExtra where what it needs is not installed."""
    forbid_telemetry()
    try:
        with quiet_libraries():  # of what a converter lacks for other uses than ours
            return cast(Format, import_module(f"edgeslim.ground.formats.{name}"))
    except ImportError as error:
        module, extra = _NEEDS[name]
        raise MissingExtra(error.name or module, extra) from None
