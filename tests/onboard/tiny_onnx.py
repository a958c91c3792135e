"""ONNX files by hand: the on-board tests run where the onnx package is not installed.

Only what is needed of the protobuf wire format: varints, length-delimited fields and float payloads.
"""

from __future__ import annotations

import numpy as np

_FLOAT = 1  # TensorProto.DataType


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _int(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _tensor(name: str, array: np.ndarray) -> bytes:
    dims = b"".join(_int(1, d) for d in array.shape)
    return dims + _int(2, _FLOAT) + _bytes(8, name) + _bytes(9, array.astype("<f4").tobytes())


def _value(name: str, dims: list[int | str]) -> bytes:
    shape = b"".join(_bytes(1, _bytes(2, d) if isinstance(d, str) else _int(1, d)) for d in dims)
    return _bytes(1, name) + _bytes(2, _bytes(1, _int(1, _FLOAT) + _bytes(2, shape)))


def _node(kind: str, inputs: list[str], output: str) -> bytes:
    return b"".join(_bytes(1, i) for i in inputs) + _bytes(2, output) + _bytes(4, kind)


def linear_of_means(
    weight: np.ndarray, bias: np.ndarray, tile_px: int, input_name: str = "tiles", features: bool = False
) -> bytes:
    """A network whose logits are mean(tile) @ weight + bias; weight (bands, classes), bias (classes,).

    With `features` the means are an output, too.
    """
    bands, classes = weight.shape
    graph = b"".join(
        [
            _bytes(1, _node("GlobalAveragePool", [input_name], "pooled")),
            _bytes(1, _node("Flatten", ["pooled"], "means")),
            _bytes(1, _node("Gemm", ["means", "weight", "bias"], "logits")),
            _bytes(2, "tiny"),
            _bytes(5, _tensor("weight", weight)),
            _bytes(5, _tensor("bias", bias)),
            _bytes(11, _value(input_name, ["batch", bands, tile_px, tile_px])),
            _bytes(12, _value("logits", ["batch", classes])),
            *([_bytes(12, _value("means", ["batch", bands]))] if features else []),
        ]
    )
    return _int(1, 8) + _bytes(7, graph) + _bytes(8, _bytes(1, "") + _int(2, 13))
