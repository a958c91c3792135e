"""Units: the few conversions that every figure goes through, so that no factor is written twice."""

from __future__ import annotations

FLOP_PER_MAC = 2
"""A multiplication and an addition. Everything that edgeslim prints is FLOP."""

GIGA = 1e9
"""GFLOP, GB/s: decimal."""

MEGA = 1e6
"""MB, MB/s: decimal, as storage is sold and measured."""

MIB = 2**20
"""Bytes of a MiB: memory is binary."""

VALUE_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
"""Bytes of one value at each precision that a card may name."""

OP_CLASSES = ("gemm", "attention", "conv")
"""Classes of matrix products: each reaches another share of a device's peak."""


def mib(count_bytes: float) -> float:
    """Bytes as MiB."""
    return count_bytes / MIB


def gflop(flop: float) -> float:
    """FLOP as GFLOP."""
    return flop / GIGA
