"""TFLite: the module that flies -> one file a batch size, by litert-torch; no TensorFlow."""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import litert_torch
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgeslim.errors import MissingExtra
from edgeslim.ground.flight import FlightModel
from edgeslim.ground.formats import HEAD, Written
from edgeslim.ground.vit import Block, LayerScale
from edgeslim.onboard.machine import available_threads
from edgeslim.onboard.quiet import quiet_libraries
from edgeslim.onboard.runtimes.litert import interpreter_class
from edgeslim.target import Target


def convert(model: nn.Module, example: torch.Tensor, target: Target, batches: tuple[int, ...], folder: Path) -> Written:
    """Write `model` once for each of `batches`. Raises whatever the converter raises."""
    models = {}
    for batch in batches:
        tiles = example[torch.arange(batch) % len(example)]
        with quiet():
            converted = litert_torch.convert(model, (tiles,))
            name = target.model_file.format(batch=batch)
            converted.export(str(folder / name))
        models[str(batch)] = name
    return _described(folder, models)


def unfolded(model: FlightModel) -> FlightModel:
    """A copy from whose blocks' LayerNorms and LayerScales the converter makes operators of their own.

    It would fold a product with a constant of one dimension, right before or behind a matrix product, into that one.
    """
    apart = copy.deepcopy(model)
    for block in [module for module in apart.modules() if isinstance(module, Block)]:
        for name, module in list(block.named_children()):
            if isinstance(module, nn.LayerNorm):
                setattr(block, name, _NormApart(module))
            elif isinstance(module, LayerScale):
                setattr(block, name, _ScaleApart(module))
    return apart


_NOTHING = 1e-36
"""What is added of a value that is no constant; no LayerScale is so small that it would show. By 0 it would go."""


class _ScaleApart(nn.Module):
    """LayerScale by what is no constant to the converter: whatever its shape, that would go into the product before."""

    def __init__(self, scale: LayerScale) -> None:
        super().__init__()
        self._gamma = nn.Parameter(scale.gamma.detach())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, d) -> (B, N, d)."""
        return x * (self._gamma + _NOTHING * x[:, :1, :1])


class _NormApart(nn.Module):
    """LayerNorm, then its product and its sum."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self._norm = nn.LayerNorm(norm.normalized_shape, norm.eps, elementwise_affine=False)
        self._weight, self._bias = (nn.Parameter(p.detach().view(1, 1, -1)) for p in (norm.weight, norm.bias))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(B, N, d) -> (B, N, d)."""
        normed: torch.Tensor = self._norm(x)
        return normed * self._weight + self._bias


def quantise(
    base: Written, precision: str, calibration: NDArray[np.float32], kept: Collection[str], folder: Path
) -> Written:
    """Write the network in fp16 (weights), dynamic or static int8.

    `calibration` (n, bands, H, W) gives the ranges of static int8. Raises MissingExtra without ai-edge-quantizer.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe_manager
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
        from ai_edge_quantizer.qtyping import (
            ComputePrecision,
            OpQuantizationConfig,
            TensorDataType,
            TensorQuantizationConfig,
            TFLOperationName,
        )
    except ImportError:
        raise MissingExtra("ai_edge_quantizer", "ground-tflite") from None
    # Matrix products with constant weights alone: the rest loses accuracy and, of a ViT, gains no time.
    linear = TFLOperationName.FULLY_CONNECTED

    def recipe(left_out: Collection[str]) -> list[Any]:
        chosen = recipe_manager.RecipeManager()
        if precision == "fp16":
            half = TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT)
            config = OpQuantizationConfig(weight_tensor_config=half, compute_precision=ComputePrecision.FLOAT)
            for operation in (linear, TFLOperationName.CONV_2D):
                chosen.add_quantization_config(".*", operation, config, AlgorithmName.FLOAT_CASTING)
        elif precision == "int8-dynamic":
            chosen.add_dynamic_config(".*", linear, num_bits=8)
        else:
            chosen.add_static_config(".*", linear, activation_num_bits=8, weight_num_bits=8)
        for layer in sorted(left_out):
            chosen.add_quantization_config(
                _where(layer, _logits_tensor(base)), linear, algorithm_key=AlgorithmName.NO_QUANTIZE
            )
        return list(chosen.get_quantization_recipe())

    # In static int8, what the head is given would leave the network as int8, too: the features.
    always = {HEAD} if precision in ("fp16", "int8-static") else set()
    for batch, name in base.models.items():
        with quiet():
            made = quantizer.Quantizer(str(base.folder / name))
            made.load_quantization_recipe(recipe(always | set(kept)))
            ranges = None
            if made.need_calibration:
                # Beside the network, of which they are: whichever layers are left out, the ranges stay the same.
                cache = base.folder.with_name(f"{base.folder.name}-ranges-b{batch}.npz")
                if not cache.exists():
                    whole = quantizer.Quantizer(str(base.folder / name))
                    whole.load_quantization_recipe(recipe(always))
                    inputs = _calibration(base.folder / name, int(batch), calibration)
                    # By default it takes 16 threads, which on fewer cores wait for one another.
                    _write_ranges(cache, whole.calibrate(inputs, num_threads=available_threads()))
                ranges = _read_ranges(cache)
            made.quantize(ranges).export_model(str(folder / name))
    return _described(folder, base.models)


def _write_ranges(path: Path, ranges: dict[str, dict[str, NDArray[Any]]]) -> None:
    """Tensor -> least and largest value, as arrays of the types they have."""
    names = sorted(ranges)
    ends = {f"{end}{i}": ranges[name][end] for i, name in enumerate(names) for end in ("min", "max")}
    np.savez(path, allow_pickle=False, names=np.array(names), **ends)


def _read_ranges(path: Path) -> dict[str, dict[str, NDArray[Any]]]:
    with np.load(path, allow_pickle=False) as kept:
        names = kept["names"].tolist()
        return {name: {end: kept[f"{end}{i}"] for end in ("min", "max")} for i, name in enumerate(names)}


def _where(layer: str, logits: str) -> str:
    """Pattern of the names that litert-torch gives what "encoder.blocks.3.mlp.fc1" puts out.

    They are CLASS_NAME of each module, joined by slashes; a list of modules has none of its own. What is an output of
    the network is called as that.
    """
    if layer == HEAD:
        return re.escape(logits)
    parts = [part for part in layer.split(".") if part != "blocks"]
    return ".*" + "/".join(rf"[^/;]*_{re.escape(part)}" for part in parts) + ";.*"


def _logits_tensor(base: Written) -> str:
    name = next(iter(base.models.values()))
    return str(_open(base.folder / name).get_signature_runner().get_output_details()[base.names[1]]["name"])


def _calibration(path: Path, batch: int, tiles: NDArray[np.float32]) -> dict[str, list[dict[str, NDArray[np.float32]]]]:
    """Whole batches of tiles by signature and input, in an order of their own.

    Ranges are averages in which a batch counts the less the longer ago it was, and a folder has tiles class by class:
    in their order the last class would say what the ranges are.
    """
    interpreter = _open(path)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    tiles = np.random.default_rng(0).permutation(tiles)
    whole = [tiles[i : i + batch] for i in range(0, len(tiles) - batch + 1, batch)]
    return {key: [{signature["inputs"][0]: part} for part in whole]}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converter's libraries speak through loggers, warnings and the file descriptors themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            quiet_libraries(),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _open(path: Path) -> Any:
    with quiet():
        return interpreter_class()[0](model_path=str(path))


def _described(folder: Path, models: dict[str, str]) -> Written:
    """Names of the tensors and operators, read back from the file of the first batch size."""
    interpreter = _open(folder / next(iter(models.values())))
    signature = next(iter(interpreter.get_signature_list().values()))
    (tiles,), (logits, features) = signature["inputs"], sorted(signature["outputs"])
    operators = Counter(str(op["op_name"]) for op in interpreter._get_ops_details())
    return Written(folder, models, (tiles, logits, features), {"operators": dict(sorted(operators.items()))})
