"""Which tiles there are and what they show: folders, zips, a CSV, and one line for each thing that is wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.labels import labelled_tiles
from tests.tiles import image_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return image_folder(tmp_path / "tiles", count=3)


def test_a_folder_a_class_and_the_same_in_a_zip(folder: Path, tmp_path: Path) -> None:
    found = labelled_tiles(folder)
    assert found.classes == ("Forest", "Highway", "River")
    assert [file.name for file in found.files][:2] == ["Forest/Forest_0.png", "Forest/Forest_1.png"]
    assert not found.multi_label
    with zipfile.ZipFile(tmp_path / "tiles.zip", "w") as archive:
        for path in sorted(folder.rglob("*.png")):
            archive.write(path, Path("somewhere") / path.relative_to(folder))
    zipped = labelled_tiles(tmp_path / "tiles.zip")
    assert [(f.name, f.classes, f.read()) for f in zipped.files] == [(f.name, f.classes, f.read()) for f in found.files]


def test_a_csv_says_more_than_folders(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(
        "class,file,by\nwater,River/River_0.png,me\nroad,Highway_1.png,me\nwater,Highway_1.png,me\n"
    )
    found = labelled_tiles(folder, tmp_path / "labels.csv")
    assert {file.name: file.classes for file in found.files} == {
        "River/River_0.png": ("water",),
        "Highway/Highway_1.png": ("road", "water"),
    }
    assert found.multi_label


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\nx.png,a\n", "found columns file, label, expected file and class"),
        ("", "found columns nothing, expected file and class"),
        ("file;class\nForest_0.png;a\n", "found columns file;class, expected file and class, with a comma between"),
        ("file,class,class\nForest_0.png,a,b\n", "found columns file, class, class, expected"),
        ("file,class\n", "found no line"),
        ('file,class\nForest_0.png,"a\nb"\n', "class: found 'a.*b', expected 1 to 200 printable"),
        ("file,class\n\n\nForest_0.png,\n", "line 4: found no class"),
        ("file,class\nForest_0.png,\n", "line 2: found no class"),
        ("file,class\nForest_0.png,a\ngone.png,a\nlost.png,b\n", "names 2 files that are not in"),
    ],
)
def test_a_csv_that_cannot_be_used(folder: Path, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError, match=said):
        labelled_tiles(folder, tmp_path / "labels.csv")


def test_a_name_that_two_tiles_have(folder: Path, tmp_path: Path) -> None:
    (folder / "River" / "same.png").write_bytes(b"")
    (folder / "Forest" / "same.png").write_bytes(b"")
    (tmp_path / "labels.csv").write_text("file,class\nsame.png,a\n")
    with pytest.raises(InputError, match="is the name of 2 tiles; give its path"):
        labelled_tiles(folder, tmp_path / "labels.csv")


def test_what_is_no_folder_of_tiles(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"\xff\xfe\x00")
    for source, labels, said in (
        (tmp_path / "gone", None, "found neither a folder nor a zip"),
        (folder / "Forest", None, "lies in no folder, expected one folder a class"),
        (tmp_path, tmp_path / "gone.csv", "cannot be read"),
        (tmp_path, tmp_path / "bytes.csv", "no CSV"),
    ):
        with pytest.raises(InputError, match=said):
            labelled_tiles(source, labels)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no tile"):
        labelled_tiles(tmp_path / "empty")
