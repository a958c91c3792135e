"""TFLite: the module that flies -> one file a batch size, by litert-torch; no TensorFlow."""

from __future__ import annotations

import contextlib
import io
import logging
import os
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
from edgeslim.ground.formats import Written
from edgeslim.onboard.runtimes.litert import interpreter_class
from edgeslim.target import Target


def convert(
    model: nn.Module, example: torch.Tensor, target: Target, batches: tuple[int, ...], folder: Path
) -> Written:
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


def quantise(
    base: Written, precision: str, calibration: NDArray[np.float32], kept: Collection[str], folder: Path
) -> Written:
    """Write the network in fp16 (weights), dynamic or static int8.

    `calibration` (n, bands, H, W) gives the ranges of static int8. Raises MissingExtra without ai-edge-quantizer.
    """
    try:
        from ai_edge_quantizer import quantizer, recipe
        from ai_edge_quantizer.algorithm_manager import AlgorithmName
        from ai_edge_quantizer.qtyping import ComputePrecision, OpQuantizationConfig, TensorQuantizationConfig
        from ai_edge_quantizer.qtyping import TensorDataType, TFLOperationName
    except ImportError:
        raise MissingExtra("ai_edge_quantizer", "ground-tflite") from None
    for batch, name in base.models.items():
        with quiet():
            made = quantizer.Quantizer(str(base.folder / name))
            if precision == "fp16":
                made.update_quantization_recipe(
                    regex=".*",
                    operation_name=TFLOperationName.FULLY_CONNECTED,
                    op_config=OpQuantizationConfig(
                        weight_tensor_config=TensorQuantizationConfig(num_bits=16, dtype=TensorDataType.FLOAT),
                        compute_precision=ComputePrecision.FLOAT,
                    ),
                    algorithm_key=AlgorithmName.FLOAT_CASTING,
                )
            elif precision == "int8-dynamic":
                made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
            else:
                made.load_quantization_recipe(recipe.static_wi8_ai8())
            for layer in sorted(kept):
                made.update_quantization_recipe(
                    regex=f".*{re.escape(layer)}.*",
                    operation_name=TFLOperationName.ALL_SUPPORTED,
                    algorithm_key=AlgorithmName.NO_QUANTIZE,
                )
            ranges = None
            if made.need_calibration:
                ranges = made.calibrate(_calibration(base.folder / name, int(batch), calibration))
            made.quantize(ranges).export_model(str(folder / name))
    return _described(folder, base.models)


def _calibration(path: Path, batch: int, tiles: NDArray[np.float32]) -> dict[str, list[dict[str, NDArray[np.float32]]]]:
    """Whole batches of tiles by signature and input."""
    interpreter = _open(path)
    key, signature = next(iter(interpreter.get_signature_list().items()))
    whole = [tiles[i : i + batch] for i in range(0, len(tiles) - batch + 1, batch)]
    return {key: [{signature["inputs"][0]: part} for part in whole]}


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The converter's libraries speak through loggers, warnings and the file descriptors themselves."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    kept = os.dup(2)
    try:
        with (
            Path(os.devnull).open("w") as nothing,
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            os.dup2(nothing.fileno(), 2)
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        logging.disable(before)


def _open(path: Path) -> Any:
    with quiet():
        return interpreter_class()[0](model_path=str(path))


def _described(folder: Path, models: dict[str, str]) -> Written:
    """Names of the tensors and operators, read back from the file of the first batch size."""
    interpreter = _open(folder / next(iter(models.values())))
    runner = interpreter.get_signature_runner()
    tiles = next(iter(runner.get_input_details().values()))["name"]
    outputs = runner.get_output_details()
    logits, features = (outputs[key]["name"] for key in sorted(outputs))
    operators = Counter(str(op["op_name"]) for op in interpreter._get_ops_details())
    return Written(folder, models, (tiles, logits, features), {"operators": dict(sorted(operators.items()))})
