"""The confusion matrix as a picture: well-formed, escaped, and its numbers where they belong."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edgeslim.errors import InputError
from edgeslim.report.confusion import confusion_svg, write_picture

NAMES = ("Forêt & <bois>", "b" * 40)


def test_the_picture_is_well_formed_and_escaped() -> None:
    text = confusion_svg(NAMES, (*NAMES, "unknown"), np.array([[7, 1, 0], [0, 0, 0]]), 'a "title"', "<note>")
    root = ElementTree.fromstring(text)
    assert root.tag.endswith("svg")
    assert "<bois>" not in text
    assert "b" * 40 not in text
    counts = [e.text for e in root.iter() if e.get("class", "").startswith("count")]
    assert counts == ["7", "1", "0", "0", "0", "0"]
    shades = [float(found) for found in re.findall(r'fill-opacity="([0-9.]+)"', text)]
    assert shades == [0.875, 0.125, 0, 0, 0, 0]
    boxes = [(float(e.get("x", 0)), float(e.get("y", 0))) for e in root.iter() if e.get("fill-opacity")]
    assert len(set(boxes)) == 6
    assert max(x for x, _ in boxes) + 46 <= float(root.get("width", 0))
    assert max(y for _, y in boxes) + 46 <= float(root.get("height", 0))


def test_only_such_a_picture_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "it.svg"
    for counts in (np.eye(2, dtype=np.int64), 2 * np.eye(2, dtype=np.int64)):
        write_picture(path, NAMES, NAMES, counts, "t", "n")
    assert ">2<" in path.read_text(encoding="utf-8")
    path.write_text("<svg/>", encoding="utf-8")
    with pytest.raises(InputError, match="is no confusion matrix, kept it"):
        write_picture(path, NAMES, NAMES, counts, "t", "n")
    write_picture(path, NAMES, NAMES, counts, "t", "n", overwrite=True)
