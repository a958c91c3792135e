"""Images: the several images of one TIFF."""

from __future__ import annotations

import re
from typing import Any

_NAME = re.compile(r"GTIFF_DIR:(\d{1,9}):")


def images_of(dataset: Any) -> list[int]:
    """Directory (from 1) of each image of an open rasterio dataset, in the file's order; empty where it holds one.

    From GDAL's own list: rasterio's sorts the tenth before the second. What any tag may claim beside it is no image.
    """
    listed: dict[int, int] = {}
    for key, name in dataset.tags(ns="SUBDATASETS").items():
        number, found = re.fullmatch(r"SUBDATASET_(\d+)_NAME", key), _NAME.match(name)
        if number and found:
            listed[int(number[1])] = int(found[1])
    return [listed[number] for number in sorted(listed)]
