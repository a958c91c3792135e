from __future__ import annotations

from xml.etree import ElementTree

import pytest

from edgeslim.errors import UsageError
from edgeslim.onboard.writing.style import cell_style, class_style, ramp_style, rgb_of
from edgeslim.profile import ClassLabel

LABELS = (ClassLabel("Forest", 'Forest & "wood" <1>', "1B7837"), ClassLabel("SeaLake", "See ü", "#2166ac"))


def test_classes_are_a_palette_with_names() -> None:
    root = ElementTree.fromstring(class_style(LABELS))
    assert root.tag == "qgis"
    renderer = root.find("pipe/rasterrenderer")
    assert renderer is not None
    assert renderer.attrib == {"type": "paletted", "band": "1", "opacity": "1", "alphaBand": "-1", "nodataColor": ""}
    assert [e.attrib for e in renderer.findall("colorPalette/paletteEntry")] == [
        {"value": "0", "color": "#1b7837", "label": 'Forest & "wood" <1>', "alpha": "255"},
        {"value": "1", "color": "#2166ac", "label": "See ü", "alpha": "255"},
    ]


@pytest.mark.parametrize(
    ("highest", "values"), [(100, ["0", "25", "50", "75", "100"]), (1, ["0", "0.25", "0.5", "0.75", "1"])]
)
def test_a_quantity_is_a_ramp(highest: float, values: list[str]) -> None:
    root = ElementTree.fromstring(ramp_style(highest))
    shader = root.find("pipe/rasterrenderer/rastershader/colorrampshader")
    assert shader is not None
    assert shader.attrib["colorRampType"] == "INTERPOLATED"
    assert [i.attrib["value"] for i in shader.findall("item")] == values
    assert [i.attrib["label"] for i in shader.findall("item")] == ["0 %", "25 %", "50 %", "75 %", "100 %"]
    options = {o.attrib["name"]: o.attrib["value"] for o in shader.findall("colorramp/Option/Option")}
    assert options["color1"] == "68,1,84,255"
    assert options["stops"].startswith("0.25;59,82,139,255:0.5;")


def test_cells_have_one_fill_a_class() -> None:
    root = ElementTree.fromstring(cell_style(LABELS))
    renderer = root.find("renderer-v2")
    assert renderer is not None
    assert renderer.attrib["type"] == "categorizedSymbol"
    assert renderer.attrib["attr"] == "class"
    categories = renderer.findall("categories/category")
    symbols = {s.attrib["name"]: s for s in renderer.findall("symbols/symbol")}
    assert [c.attrib["value"] for c in categories] == ["0", "1"]
    assert [c.attrib["label"] for c in categories] == [label.title for label in LABELS]
    colours = [
        {o.attrib["name"]: o.attrib["value"] for o in symbols[c.attrib["symbol"]].findall("layer/Option/Option")}
        for c in categories
    ]
    assert [c["color"] for c in colours] == ["27,120,55,255", "33,102,172,255"]


def test_elements_are_those_that_qgis_itself_writes() -> None:
    """Order and names as in .qml files saved by QGIS 3.16, 3.22 and 3.40."""
    pipe = ElementTree.fromstring(class_style(LABELS)).find("pipe")
    assert pipe is not None
    assert [e.tag for e in pipe] == [
        "provider",
        "rasterrenderer",
        "brightnesscontrast",
        "huesaturation",
        "rasterresampler",
        "resamplingStage",
    ]
    assert [e.tag for e in pipe[1]] == ["rasterTransparency", "minMaxOrigin", "colorPalette"]


def test_a_colour_that_is_none_is_refused() -> None:
    assert rgb_of("#102030") == (16, 32, 48)
    with pytest.raises(UsageError, match="expected RRGGBB"):
        rgb_of("red")
