"""Units: the few conversions that every figure goes through, so that no factor is written twice."""

from __future__ import annotations

FLOP_PER_MAC = 2
"""A multiplication and an addition. Everything that edgeslim prints is FLOP."""

GIGA = 1e9
"""GFLOP, GB/s: decimal."""

KILO = 1e3
"""kB: decimal, as links are rated."""

MOST_BATCH = 1024
"""Tiles a call: no network gains from more, and each is held in memory."""

MEGA = 1e6
"""MB, MB/s: decimal, as storage is sold and measured."""

MIB = 2**20
"""Bytes of a MiB: memory is binary."""

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of one value at each precision that a card may name."""

ARITHMETIC = {"fp32": "fp32", "fp16": "fp16", "int8-dynamic": "int8", "int8-static": "int8"}
"""Precision that an artifact is exported in -> precision of the products, as device cards name it.

fp16: weights are stored as float16; whether products are, too, is the runtime's choice. int8-dynamic: weights are
int8, activations are quantised as they come; int8-static: by ranges found beforehand on calibration tiles.
"""

OP_CLASSES = ("gemm", "attention", "conv")
"""Classes of matrix products: each reaches another share of a device's peak."""


def mib(count_bytes: float) -> float:
    """Bytes as MiB."""
    return count_bytes / MIB


def gflop(flop: float) -> float:
    """FLOP as GFLOP."""
    return flop / GIGA
