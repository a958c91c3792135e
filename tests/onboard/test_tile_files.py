"""Which files under a folder or in a zip are tiles, and what of them is refused in one line."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.labels import labelled_tiles
from edgeslim.onboard.tile_files import tile_files


def _write(path: Path, data: bytes = b"tile") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_what_is_hidden_is_no_tile(tmp_path: Path) -> None:
    folder = tmp_path / ".cache" / "tiles"
    for name in (
        "Forest/a.png",
        "Forest/._a.png",
        ".ipynb_checkpoints/a.png",
        "__MACOSX/Forest/._a.png",
        "Forest/.b.tif",
    ):
        _write(folder / name)
    assert list(tile_files(folder)) == ["Forest/a.png"]
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    assert list(tile_files(tmp_path / "t.zip")) == ["Forest/a.png"]
    assert labelled_tiles(folder).classes == ("Forest",)


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    _write(tmp_path / "archive" / "River" / "r.png")
    _write(tmp_path / "tiles" / "Forest" / "f.png")
    (tmp_path / "tiles" / "River").symlink_to(tmp_path / "archive" / "River")
    (tmp_path / "tiles" / "Forest" / "up").symlink_to(tmp_path / "tiles")
    (tmp_path / "tiles" / "gone.png").symlink_to(tmp_path / "nowhere")
    assert list(tile_files(tmp_path / "tiles")) == ["Forest/f.png", "River/r.png"]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_damaged_entry_is_an_error_of_reading(tmp_path: Path, method: int) -> None:
    path = tmp_path / "t.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("Forest/a.png", bytes(range(256)) * 64)
    data = bytearray(path.read_bytes())
    start = 30 + len("Forest/a.png")
    data[start + 20 : start + 120] = bytes(0xA5 ^ index for index in range(100))
    path.write_bytes(data)
    with pytest.raises(OSError, match=r"cannot be unpacked|Invalid data"):
        tile_files(path)["Forest/a.png"]()


def _with_fields(path: Path, flags: int, method: int) -> Path:
    """A zip whose entry claims flags and a method of compression."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Forest/a.png", b"tile")
    data = bytearray(path.read_bytes())
    for signature, at in ((b"PK\1\2", 8), (b"PK\3\4", 6)):
        where = data.find(signature) + at
        data[where : where + 4] = flags.to_bytes(2, "little") + method.to_bytes(2, "little")
    path.write_bytes(data)
    return path


def test_zips_that_cannot_be_unpacked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found an encrypted zip, expected one without a password"):
        tile_files(_with_fields(tmp_path / "e.zip", 1, 0))
    with pytest.raises(OSError, match="compression method is not supported"):
        tile_files(_with_fields(tmp_path / "m.zip", 0, 99))["Forest/a.png"]()


def test_names_that_are_no_text(tmp_path: Path) -> None:
    _write(tmp_path / "one" / "For\udceat" / "a.png")
    with pytest.raises(InputError, match=r"'For\\udceat/a.png' is no printable text in UTF-8; rename it"):
        tile_files(tmp_path / "one")
    _write(tmp_path / "two" / "Fo\nrest" / "a.png")
    with pytest.raises(InputError, match=r"'Fo\\nrest/a.png' is no printable"):
        tile_files(tmp_path / "two")
