"""Style: how QGIS shows a result, as the .qml file that it reads beside it. Written as QGIS 3.28 writes them."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape  # xml.sax.saxutils would load an HTTP client with it

from edgeslim.errors import UsageError
from edgeslim.profile import ClassLabel

_OPENING = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"
_QGIS = '<qgis version="3.28.0-Firenze" styleCategories="Symbology">\n'
_RAMP = ((0, "440154"), (25, "3b528b"), (50, "21918c"), (75, "5ec962"), (100, "fde725"))
"""Percent -> colour: viridis (CC0), dark where the network is unsure; read in grey and by the colour-blind alike."""
_RASTER_HEAD = """\
  <pipe>
    <provider>
      <resampling enabled="false" maxOversampling="2" zoomedInResamplingMethod="nearestNeighbour" \
zoomedOutResamplingMethod="nearestNeighbour"/>
    </provider>
"""
_RANGE = """\
      <rasterTransparency/>
      <minMaxOrigin>
        <limits>None</limits>
        <extent>WholeRaster</extent>
        <statAccuracy>Estimated</statAccuracy>
        <cumulativeCutLower>0.02</cumulativeCutLower>
        <cumulativeCutUpper>0.98</cumulativeCutUpper>
        <stdDevFactor>2</stdDevFactor>
      </minMaxOrigin>
"""
_RASTER_TAIL = """\
    </rasterrenderer>
    <brightnesscontrast brightness="0" contrast="0" gamma="1"/>
    <huesaturation colorizeOn="0" colorizeRed="255" colorizeGreen="128" colorizeBlue="128" colorizeStrength="100" \
grayscaleMode="0" invertColors="0" saturation="0"/>
    <rasterresampler maxOversampling="2"/>
    <resamplingStage>resamplingFilter</resamplingStage>
  </pipe>
  <blendMode>0</blendMode>
</qgis>
"""


def rgb_of(color: str) -> tuple[int, int, int]:
    """(red, green, blue) of "RRGGBB". Raises UsageError for anything else."""
    text = color.lstrip("#")
    try:
        red, green, blue = bytes.fromhex(text)
    except ValueError:
        raise UsageError(f"class color: found {color!r}, expected RRGGBB") from None
    return red, green, blue


def class_style(classes: Sequence[ClassLabel]) -> str:
    """Of the class map: a palette with names. Nodata stays clear."""
    entries = "".join(
        f'        <paletteEntry value="{index}" color="{_hex(label.color)}" label="{escape(label.title)}" '
        'alpha="255"/>\n'
        for index, label in enumerate(classes)
    )
    return (
        f"{_OPENING}{_QGIS}{_RASTER_HEAD}"
        '    <rasterrenderer type="paletted" band="1" opacity="1" alphaBand="-1" nodataColor="">\n'
        f"{_RANGE}      <colorPalette>\n{entries}      </colorPalette>\n{_RASTER_TAIL}"
    )


def ramp_style(highest: float) -> str:
    """Of a raster of one quantity, band 1: a ramp from 0 to `highest`, labelled in percent."""
    stops = ":".join(f"{at / 100:g};{_numbers(color)}" for at, color in _RAMP[1:-1])
    items = "".join(
        f'          <item value="{at / 100 * highest:g}" color="#{color}" label="{at} %" alpha="255"/>\n'
        for at, color in _RAMP
    )
    return (
        f"{_OPENING}{_QGIS}{_RASTER_HEAD}"
        '    <rasterrenderer type="singlebandpseudocolor" band="1" opacity="1" alphaBand="-1" nodataColor="" '
        f'classificationMin="0" classificationMax="{highest:g}">\n{_RANGE}'
        "      <rastershader>\n"
        '        <colorrampshader colorRampType="INTERPOLATED" classificationMode="2" clip="0" minimumValue="0" '
        f'maximumValue="{highest:g}" labelPrecision="0">\n'
        '          <colorramp type="gradient" name="[source]">\n            <Option type="Map">\n'
        f'              <Option type="QString" name="color1" value="{_numbers(_RAMP[0][1])}"/>\n'
        f'              <Option type="QString" name="color2" value="{_numbers(_RAMP[-1][1])}"/>\n'
        '              <Option type="QString" name="discrete" value="0"/>\n'
        '              <Option type="QString" name="rampType" value="gradient"/>\n'
        f'              <Option type="QString" name="stops" value="{stops}"/>\n'
        f"            </Option>\n          </colorramp>\n{items}"
        f"        </colorrampshader>\n      </rastershader>\n{_RASTER_TAIL}"
    )


def cell_style(classes: Sequence[ClassLabel]) -> str:
    """Of the cells: one fill a class, by the field "class"."""
    categories = "".join(
        f'      <category type="long" value="{index}" symbol="{index}" label="{escape(label.title)}" render="true"/>\n'
        for index, label in enumerate(classes)
    )
    symbols = "".join(
        f'      <symbol type="fill" name="{index}" alpha="0.7" clip_to_extent="1" force_rhr="0">\n'
        '        <layer class="SimpleFill" enabled="1" locked="0" pass="0">\n          <Option type="Map">\n'
        f'            <Option type="QString" name="color" value="{_numbers(label.color)}"/>\n'
        '            <Option type="QString" name="outline_style" value="no"/>\n'
        '            <Option type="QString" name="style" value="solid"/>\n'
        "          </Option>\n        </layer>\n      </symbol>\n"
        for index, label in enumerate(classes)
    )
    return (
        f"{_OPENING}{_QGIS}"
        '  <renderer-v2 type="categorizedSymbol" attr="class" symbollevels="0" forceraster="0" enableorderby="0" '
        'referencescale="-1">\n'
        f"    <categories>\n{categories}    </categories>\n    <symbols>\n{symbols}    </symbols>\n"
        "  </renderer-v2>\n  <blendMode>0</blendMode>\n</qgis>\n"
    )


def _hex(color: str) -> str:
    return f"#{bytes(rgb_of(color)).hex()}"


def _numbers(color: str) -> str:
    return ",".join(str(v) for v in (*rgb_of(color), 255))
