"""What is copied and what is new make the new file again, and little is new where little changed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import InputError
from edgeslim.onboard.uplink import matching
from edgeslim.onboard.uplink.matching import SHORTEST, Copy, copies, mapped


def bytes_of(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def fresh(old: bytes, new: bytes) -> int:
    """Bytes that no copy explains; the copies are held against both files on the way."""
    at = explained = 0
    for copy in copies(bytes_of(old), bytes_of(new)):
        assert copy.new >= at
        assert copy.length >= SHORTEST
        assert new[copy.new : copy.new + copy.length] == old[copy.old : copy.old + copy.length]
        assert copy.old + copy.length <= len(old)
        at = copy.new + copy.length
        explained += copy.length
    assert at <= len(new)
    return len(new) - explained


noise = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).bytes(3000))
edits = st.lists(
    st.tuples(st.sampled_from(["insert", "change", "remove"]), st.integers(0, 2999), st.integers(1, 90)), max_size=6
)


def edited(data: bytes, steps: list[tuple[str, int, int]]) -> bytes:
    out = bytearray(data)
    for kind, at, count in steps:
        new = np.random.default_rng(at + count).bytes(count)
        out[at : at if kind == "insert" else at + count] = b"" if kind == "remove" else new
    return bytes(out)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.binary(max_size=400))
def test_copies_are_true_of_any_two_files(old: bytes, new: bytes) -> None:
    assert 0 <= fresh(old, new) <= len(new)


@settings(max_examples=200, deadline=None)
@given(noise, edits)
def test_an_edit_costs_about_its_own_bytes(old: bytes, steps: list[tuple[str, int, int]]) -> None:
    # Beside each edit what is left between two of them may be too short to be found again.
    assert fresh(old, edited(old, steps)) <= sum(count + 2 * SHORTEST for _, _, count in steps)


@settings(max_examples=50, deadline=None)
@given(noise, noise, st.permutations(range(6)))
def test_parts_in_another_order_are_found(old: bytes, other: bytes, order: list[int]) -> None:
    parts = [old[500 * i : 500 * (i + 1)] for i in order]
    assert fresh(old, other[:77] + b"".join(parts)) <= 77 + 6 * 2 * SHORTEST


@pytest.mark.parametrize(
    ("old", "new", "most"),
    [
        (b"", b"", 0),
        (b"", b"x" * 100, 100),
        (b"x" * 100, b"", 0),
        (bytes(5000), bytes(5000), 0),
        (bytes(5000), bytes(9000), 31),
        (b"ab" * 4000, b"ba" * 4000, 1),
    ],
)
def test_edges(old: bytes, new: bytes, most: int) -> None:
    assert fresh(old, new) <= most


def test_many_windows_and_large_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "_MOST", 8 << 10)
    monkeypatch.setattr(matching, "_MOST_BLOCKS", 1000)
    rng = np.random.default_rng(1)
    old = rng.bytes(200_000)
    new = rng.bytes(60_001) + old[50_000:150_000] + rng.bytes(33_333) + old[:49_999]
    # Blocks are of 256 bytes here: their edges are found from both sides.
    assert fresh(old, new) <= 60_001 + 33_333 + 64


def test_a_file_is_mapped(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "file").write_bytes(b"abc")
    assert mapped(tmp_path / "empty").tolist() == []
    assert mapped(tmp_path / "file").tobytes() == b"abc"
    assert copies(mapped(tmp_path / "empty"), mapped(tmp_path / "file")) == []
    with pytest.raises(InputError, match="cannot be read"):
        mapped(tmp_path / "none")
    assert Copy(0, 1, 2).length == 2
