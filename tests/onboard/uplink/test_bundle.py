"""A bundle is the artifact and nothing else; whatever else an archive may hold is refused in one line."""

from __future__ import annotations

import lzma
import os
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import EdgeslimError, InputError, UntrustedResult
from edgeslim.manifest import MANIFEST_NAME, read_manifest
from edgeslim.onboard.uplink import bundle as bundle_module
from edgeslim.onboard.uplink.apply import apply
from edgeslim.onboard.uplink.bundle import opened, write_bundle
from tests.onboard.uplink.conftest import Updates
from tests.onboard.uplink.updates import everything, held, seal


def test_the_same_artifact_gives_the_same_bytes(updates: Updates, tmp_path: Path) -> None:
    copy = shutil.copytree(updates.two, tmp_path / "copy")
    for path in copy.iterdir():
        os.utime(path, (1, 2))
        path.chmod(0o600)
    size = write_bundle(copy, tmp_path / "a" / "bundle")
    assert (tmp_path / "a" / "bundle").read_bytes() == updates.bundle.read_bytes()
    assert size == updates.bundle.stat().st_size
    apply(updates.delta, shutil.copytree(updates.one, tmp_path / "place"))
    write_bundle(tmp_path / "place", tmp_path / "b")  # put in place by a delta, it lies elsewhere
    assert (tmp_path / "b").read_bytes() == updates.bundle.read_bytes()


def test_any_tar_unpacks_it(updates: Updates) -> None:
    with tarfile.open(updates.bundle, "r:xz") as archive:
        members = archive.getmembers()
        names = ["manifest.json", "golden.npz", "model.onnx", "weights.bin"]
        assert [member.name for member in members] == names
        assert {(m.mode, m.uid, m.gid, m.mtime, m.type) for m in members} == {(0o644, 0, 0, 0, tarfile.REGTYPE)}
        found = {member.name: archive.extractfile(member).read() for member in members}  # type: ignore[union-attr]
    assert found == everything(updates.two)
    with opened(updates.bundle) as (home, manifest):
        assert everything(home) == found
        assert manifest == read_manifest(updates.two)


def test_a_users_file_is_kept(updates: Updates, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        write_bundle(updates.two, tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    write_bundle(updates.two, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine").read_bytes() == updates.bundle.read_bytes()
    with pytest.raises(InputError, match="is a folder"):
        write_bundle(updates.two, tmp_path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def test_a_damaged_artifact_is_not_bundled(updates: Updates, tmp_path: Path) -> None:
    copy = shutil.copytree(updates.two, tmp_path / "copy")
    (copy / "model.onnx").write_bytes(b"x")
    with pytest.raises(UntrustedResult, match="damaged"):
        write_bundle(copy, tmp_path / "bundle")
    with pytest.raises(InputError, match="edgeslim export"):
        write_bundle(tmp_path, tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


END = bytes(1024)


def member(name: str, data: bytes, at: int = 0, field: bytes = b"", size: int | None = None) -> bytes:
    """A file as `write_bundle` writes it, with some bytes of its header changed and summed up anew."""
    header = bytearray(bundle_module._header(name, len(data) if size is None else size))
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + bytes(-len(data) % 512)


def ordered(artifact: Path) -> dict[str, bytes]:
    found = everything(artifact)
    return {MANIFEST_NAME: found.pop(MANIFEST_NAME), **found}


def hostile(artifact: Path) -> dict[str, bytes]:
    """Archives that differ in one thing from what `write_bundle` writes, by what it is; before they are packed."""
    files = ordered(artifact)
    members = {name: member(name, data) for name, data in files.items()}
    plain = b"".join(members.values()) + END
    model = members["model.onnx"]

    def instead(other: bytes) -> bytes:
        assert other != model
        return plain.replace(model, other)

    def named(name: str) -> bytes:
        return instead(member(name, files["model.onnx"]))

    def of_type(letter: bytes, target: bytes) -> bytes:
        return instead(member("model.onnx", b"", 156, letter + target))

    wrong = files["model.onnx"][:-1] + bytes([files["model.onnx"][-1] ^ 1])
    found = {
        "absolute path": named("/etc/passwd"),
        "path that climbs": named("../model.onnx"),
        "folder inside": named("a/model.onnx"),
        "link": of_type(b"2", b"/etc/passwd"),
        "hard link": of_type(b"1", b"golden.npz"),
        "device": of_type(b"3", b""),
        "folder": of_type(b"5", b""),
        "extended header": of_type(b"x", b""),
        "set-user-id": instead(member("model.onnx", files["model.onnx"], 100, b"0004755")),
        "owner": instead(member("model.onnx", files["model.onnx"], 108, b"0000001")),
        "time": instead(member("model.onnx", files["model.onnx"], 136, b"00000000001")),
        "prefix": instead(member("model.onnx", files["model.onnx"], 345, b"/etc")),
        "size that is no number": instead(member("model.onnx", files["model.onnx"], 124, b"-0000000001")),
        "extra file": plain.removesuffix(END) + member("zz", b"more") + END,
        "missing file": plain.replace(members["weights.bin"], b""),
        "file twice": plain.replace(model, model * 2),
        "other order": b"".join(members[n] for n in (MANIFEST_NAME, "model.onnx", "golden.npz", "weights.bin")) + END,
        "no manifest": plain.removeprefix(members[MANIFEST_NAME]),
        "a manifest of 8 GiB": member(MANIFEST_NAME, b"{", size=8**11 - 1),
        "a file of 8 GiB": plain.replace(members["weights.bin"], member("weights.bin", b"x", size=8**11 - 1)),
        "wrong content": instead(member("model.onnx", wrong)),
        "shorter content": instead(member("model.onnx", files["model.onnx"][:-1])),
        "no end": plain.removesuffix(END),
        "more behind": plain + b"more",
        "padding": plain.replace(files[MANIFEST_NAME] + b"\0", files[MANIFEST_NAME] + b"\1", 1),
        "empty": b"",
        "zeros": bytes(1 << 20),
    }
    assert plain not in found.values()
    return found


CASES = (
    *("absolute path", "path that climbs", "folder inside", "link", "hard link", "device", "folder"),
    *("extended header", "set-user-id", "owner", "time", "prefix", "size that is no number", "extra file"),
    *("missing file", "file twice", "other order", "no manifest", "a manifest of 8 GiB", "a file of 8 GiB"),
    *("wrong content", "shorter content", "no end", "more behind", "padding", "empty", "zeros"),
)


def refuse(path: Path, tmp_path: Path, one: Path, where: str) -> EdgeslimError:
    """Apply a file that must be refused, to a place where an artifact stands or none, and find nothing changed."""
    if where == "standing":
        shutil.copytree(one, tmp_path / "place")
    before = everything(tmp_path)
    with pytest.raises(EdgeslimError) as caught:
        apply(path, tmp_path / "place", threads=1)
    assert "\n" not in str(caught.value)
    assert everything(tmp_path) == before
    assert (tmp_path / "place").exists() == (where == "standing")
    return caught.value


@pytest.mark.parametrize("where", ["standing", "nothing"])
@pytest.mark.parametrize("case", CASES)
def test_hostile_archives_are_refused_and_leave_nothing(
    updates: Updates, tmp_path: Path, case: str, where: str
) -> None:
    found = hostile(updates.two)
    assert tuple(found) == CASES
    (tmp_path / "update").write_bytes(lzma.compress(found[case]))
    assert isinstance(refuse(tmp_path / "update", tmp_path, updates.one, where), InputError)
    with pytest.raises(EdgeslimError), opened(tmp_path / "update"):
        pytest.fail("it was opened")


def test_the_same_archive_without_its_fault_is_taken(updates: Updates, tmp_path: Path) -> None:
    packed = b"".join(member(name, data) for name, data in ordered(updates.two).items())
    (tmp_path / "update").write_bytes(lzma.compress(packed + END))
    apply(tmp_path / "update", tmp_path / "place", threads=1)
    assert held(tmp_path / "place") == everything(updates.two)


@pytest.mark.parametrize("where", ["standing", "nothing"])
def test_every_cut_and_many_damaged_bytes_are_refused(updates: Updates, tmp_path: Path, where: str) -> None:
    whole = updates.bundle.read_bytes()
    rng = np.random.default_rng(0)
    for number, at in enumerate([0, 1, 5, 6, 30, *rng.integers(40, len(whole), 12).tolist(), len(whole) - 1]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "update").write_bytes(whole[:at])
        refuse(folder / "update", folder, updates.one, where)
        (folder / "update").write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        shutil.rmtree(folder / "place", ignore_errors=True)
        refuse(folder / "update", folder, updates.one, where)


def test_a_stream_that_wants_much_memory_is_refused(updates: Updates, tmp_path: Path) -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": 512 << 20}]
    (tmp_path / "update").write_bytes(lzma.compress(bytes(10_000), filters=filters))
    with pytest.raises(InputError, match="Memory usage limit"):
        apply(tmp_path / "update", tmp_path / "place")


def test_a_stream_that_grows_too_much_is_refused_before_it_does(updates: Updates, tmp_path: Path) -> None:
    """Zeros shrink to a seven-thousandth: what is written must not be for the archive to choose."""
    files = ordered(updates.two)
    head = b"".join(member(name, data) for name, data in files.items() if name != "weights.bin")
    bomb = head + member("weights.bin", b"", size=200 << 20) + bytes(200 << 20)
    (tmp_path / "update").write_bytes(lzma.compress(bomb, preset=0))
    assert "more than 64 times its size" in str(refuse(tmp_path / "update", tmp_path, updates.one, "standing"))


@pytest.mark.parametrize("name", ["previous.json", "manifest.json", "weights.bin.part", "x" * 101])
def test_names_that_a_place_needs_itself_are_refused(updates: Updates, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(updates.two, tmp_path / "copy")
    if name != "manifest.json":
        (folder / "weights.bin").rename(folder / name)
        seal(folder)
        with pytest.raises(InputError, match="expected another name"):
            write_bundle(folder, tmp_path / "bundle")
    else:
        manifest = read_manifest(folder)
        manifest.files[name] = "0" * 64
        with pytest.raises(InputError, match="expected another name"):
            bundle_module.require_plain(manifest, "bundle")
