"""A delta makes the new artifact out of the old one, to the byte, and is refused for anything else."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeslim.errors import EdgeslimError, InputError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, parse_manifest
from edgeslim.onboard.uplink.apply import apply
from edgeslim.onboard.uplink.bundle import write_bundle
from edgeslim.onboard.uplink.delta import DELTA_MAGIC, Delta, write_delta
from tests.onboard.artifacts import make_artifact
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything, held, seal, with_head

HEAD_BYTES = 100_000
"""Most that a new head may take."""


def made(delta: Path, old: Path) -> dict[str, bytes]:
    """The files that a delta makes out of an artifact that stands flat."""
    with delta.open("rb") as file:
        source = Delta(file, "delta")
        data = source.manifest_bytes((old / MANIFEST_NAME).read_bytes())
        manifest, _ = parse_manifest(data, delta)
        found = {MANIFEST_NAME: data}
        for name, size, pieces in source.files(manifest, old):
            found[name] = b"".join(pieces)
            assert len(found[name]) == size
    return found


blobs = st.one_of(st.binary(max_size=200), st.integers(0, 9).map(lambda n: np.random.default_rng(n).bytes(700 * n)))
contents = st.dictionaries(st.sampled_from(["a", "b", "weights.bin", "é"]), blobs, max_size=4)


@settings(max_examples=60, deadline=None)
@given(contents, contents)
def test_the_delta_of_any_two_makes_the_second_of_the_first(old: dict[str, bytes], new: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, files in (("old", old), ("new", new)):
            make_artifact(folder / side)
            for path, data in files.items():
                (folder / side / path).write_bytes(data)
            seal(folder / side)
        if old == new:
            with pytest.raises(InputError, match="found the same artifact"):
                write_delta(folder / "old", folder / "new", folder / "delta")
            assert not (folder / "delta").exists()
            return
        difference = write_delta(folder / "old", folder / "new", folder / "delta")
        assert made(folder / "delta", folder / "old") == everything(folder / "new")
        assert difference.size == (folder / "delta").stat().st_size
        assert set(difference.removed) == set(old) - set(new)
        assert [change.name for change in difference.header.files if change.same and change.fresh] == []


def test_the_same_two_give_the_same_bytes_as_folders_or_bundles(updates: Updates, tmp_path: Path) -> None:
    write_bundle(updates.one, tmp_path / "one.tar.xz")
    apply(updates.bundle, tmp_path / "two", threads=1)
    for number, (old, new) in enumerate(
        [(updates.one, updates.two), (tmp_path / "one.tar.xz", updates.bundle), (updates.one, tmp_path / "two")]
    ):
        write_delta(old, new, tmp_path / str(number))
        assert (tmp_path / str(number)).read_bytes() == updates.delta.read_bytes()


def test_a_new_head_takes_little(tmp_path: Path) -> None:
    """Of 3 MB of weights 60 bytes are changed and some are put in; the network and the golden logits are new."""
    old, new = with_head(tmp_path / "old", 1), with_head(tmp_path / "new", 2)
    difference = write_delta(old, new, tmp_path / "delta")
    weights = next(change for change in difference.header.files if change.name == "weights.bin")
    assert 60 < weights.fresh < 300
    assert difference.size < HEAD_BYTES // 10  # the network is tiny; a real head is tests/ground's
    assert made(tmp_path / "delta", old) == everything(new)


def test_what_it_says_is_what_it_makes(updates: Updates, tmp_path: Path) -> None:
    record = write_delta(updates.one, updates.two, tmp_path / "delta").to_dict()
    files = record["files"]
    assert isinstance(files, list)
    assert {f["name"]: f["sha256"] for f in files} == {
        name: hashlib.sha256(data).hexdigest() for name, data in everything(updates.two).items()
    }
    old = {name: hashlib.sha256(data).hexdigest() for name, data in everything(updates.one).items()}
    assert {f["name"]: f["old_sha256"] for f in files} == old
    assert record["bytes"] == (tmp_path / "delta").stat().st_size


def test_a_users_file_is_kept(updates: Updates, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_delta(updates.one, updates.two, tmp_path / "mine")
    assert everything(tmp_path) == {"mine": b"mine"}


def test_what_is_no_artifact_or_damaged_is_refused(updates: Updates, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(InputError, match="expected an artifact's folder or a bundle"):
        write_delta(updates.one, tmp_path / "text", tmp_path / "delta")
    with pytest.raises(InputError, match="edgeslim export"):
        write_delta(tmp_path / "none", updates.one, tmp_path / "delta")
    copy = shutil.copytree(updates.two, tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(UntrustedResult, match="damaged"):
        write_delta(updates.one, copy, tmp_path / "delta")
    assert not (tmp_path / "delta").exists()


def test_every_damaged_byte_and_every_cut_is_refused(updates: Updates, tmp_path: Path) -> None:
    shutil.copytree(updates.one, tmp_path / "place")
    whole = updates.delta.read_bytes()
    rng = np.random.default_rng(0)
    for at in [*range(60), *rng.integers(60, len(whole), 40).tolist(), len(whole) - 1]:
        for data in (whole[:at], whole[:at] + bytes([whole[at] ^ 0x20]) + whole[at + 1 :]):
            (tmp_path / "delta").write_bytes(data)
            before = everything(tmp_path)
            with pytest.raises(InputError) as caught:
                apply(tmp_path / "delta", tmp_path / "place", threads=1)
            assert "\n" not in str(caught.value)
            assert everything(tmp_path) == before


def packed(header: bytes, rest: bytes = b"") -> bytes:
    """A delta with its sums right, whatever it says."""
    stream = lzma.compress(len(header).to_bytes(4, "little") + header + rest)
    return DELTA_MAGIC + hashlib.sha256(stream).digest() + stream


def unpacked(delta: Path) -> tuple[bytes, bytes]:
    stream = lzma.decompress(delta.read_bytes()[len(DELTA_MAGIC) + 32 :])
    length = int.from_bytes(stream[:4], "little")
    return stream[4 : 4 + length], stream[4 + length :]


def test_what_is_taken_apart_and_packed_again_is_taken(updates: Updates, tmp_path: Path) -> None:
    (tmp_path / "delta").write_bytes(packed(*unpacked(updates.delta)))
    assert made(tmp_path / "delta", updates.one) == everything(updates.two)


def hostile(updates: Updates) -> dict[str, bytes]:
    """Deltas whose sums are right and whose content is not."""
    header, rest = unpacked(updates.delta)

    def header_with(old: bytes, new: bytes) -> bytes:
        assert header.count(old) >= 1
        return packed(header.replace(old, new), rest)

    size = str((updates.two / "weights.bin").stat().st_size).encode()
    return {
        "no JSON": packed(b"{", rest),
        "deep JSON": packed(b"[" * 100_000, rest),
        "no object": packed(b"[]", rest),
        "other schema": header_with(b'"schema":1', b'"schema":2'),
        "unknown key": header_with(b'"schema":1', b'"schema":1,"more":1'),
        "other name": header_with(b'"model.onnx"', b'"../model.onnx"'),
        "negative size": header_with(b'"size":' + size, b'"size":-1'),
        "larger size": header_with(b'"size":' + size, b'"size":' + size + b"0"),
        "huge size": header_with(b'"size":' + size, b'"size":8589934591'),
        "size of text": header_with(b'"size":' + size, b'"size":"1"'),
        "missing file": packed(header, rest[:-1]),
        "more behind": packed(header, rest + b"x"),
        "header too long": packed(b" " * (2 << 20), rest),
        "no header": DELTA_MAGIC + hashlib.sha256(lzma.compress(b"")).digest() + lzma.compress(b""),
        "other steps": packed(header, bytes([rest[0] ^ 1]) + rest[1:]),
        "endless steps": packed(header, b"\xff" * len(rest)),
        "steps out of the old file": packed(header, b"\x00\xff\x7f\xff\x7f" + rest[5:]),
        "other content": packed(header, rest[:-1] + bytes([rest[-1] ^ 1])),
    }


CASES = (
    *("no JSON", "deep JSON", "no object", "other schema", "unknown key", "other name", "negative size"),
    *("larger size", "huge size", "size of text", "missing file", "more behind", "header too long", "no header"),
    *("other steps", "endless steps", "steps out of the old file", "other content"),
)


@pytest.mark.parametrize("case", CASES)
def test_hostile_deltas_are_refused_and_leave_nothing(updates: Updates, tmp_path: Path, case: str) -> None:
    found = hostile(updates)
    assert tuple(found) == CASES
    shutil.copytree(updates.one, tmp_path / "place")
    (tmp_path / "delta").write_bytes(found[case])
    before = everything(tmp_path)
    with pytest.raises(EdgeslimError) as caught:
        apply(tmp_path / "delta", tmp_path / "place", threads=1)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before
    assert held(tmp_path / "place") == everything(updates.one)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_any_changed_content_is_refused(updates: Updates, data: st.DataObject) -> None:
    """Steps and new bytes of a delta changed at random, with its sums right: never another artifact."""
    header, rest = unpacked(updates.delta)
    changed = bytearray(rest)
    for _ in range(data.draw(st.integers(1, 3))):
        changed[data.draw(st.integers(0, min(len(rest), 3000) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "delta").write_bytes(packed(header, bytes(changed)))
        place = shutil.copytree(updates.one, Path(name) / "place")
        if bytes(changed) == rest:
            return
        try:
            apply(Path(name) / "delta", place, threads=1)
        except EdgeslimError:
            assert everything(place) == everything(updates.one)
        else:  # another way to say the same
            assert held(place) == everything(updates.two)
