"""What the on-board runner is held against, each in a process of its own. `onboard_speed.py` runs them.

    python benchmarks/onboard_contenders.py bare MODEL.onnx TILES TILE_PX BANDS BATCH THREADS
    python benchmarks/onboard_contenders.py decode SCENE
    python benchmarks/onboard_contenders.py geodeep SCENE MODEL.onnx OUT THREADS
    python benchmarks/onboard_contenders.py torchgeo SCENE MODEL.onnx OUT TILE_PX UNIT THREADS
    python benchmarks/onboard_contenders.py agree MAP OTHER_MAP

Each prints one JSON line: seconds of wall and CPU of its work alone, imports and loading left out.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any


def bare(model: str, tiles: str, tile_px: str, bands: str, batch: str, threads: str) -> dict[str, Any]:
    """The runtime alone: the same number of tiles, already in memory as float32."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, size, count = session.get_inputs()[0].name, int(batch), int(tiles)
    random = np.random.default_rng(0)
    shape = (size, int(bands), int(tile_px), int(tile_px))
    pool = [random.uniform(0, 2750, shape).astype(np.float32) for _ in range(4)]
    start = _now()
    for index, first in enumerate(range(0, count, size)):
        session.run(None, {name: pool[index % 4][: count - first]})
    return _since(start)


def decode(scene: str) -> dict[str, Any]:
    """Every block decoded once, by rows of blocks with a small cache: the least that reading can cost."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    start = _now()
    with rasterio.Env(GDAL_CACHEMAX=8 << 20), rasterio.open(scene) as dataset:
        block = max(dataset.block_shapes[0][0], 64)
        buffer = np.empty((dataset.count, block, dataset.width), dataset.dtypes[0])
        for row in range(0, dataset.height, block):
            count = min(block, dataset.height - row)
            dataset.read(window=Window(0, row, dataset.width, count), out=buffer[:, :count])
    return _since(start)


def geodeep(scene: str, model: str, out: str, threads: str) -> dict[str, Any]:
    """GeoDeep as its command line runs it with `-t mask`, stride = tile."""
    import geodeep as package
    from geodeep.segmentation import save_mask_to_raster

    start = _now()
    mask = package.run(scene, model, output_type="raw", max_threads=int(threads))
    save_mask_to_raster(scene, mask, f"{out}/classes.tif")
    return _since(start)


def torchgeo(scene: str, model: str, out: str, tile_px: str, unit: str, threads: str) -> dict[str, Any]:
    """torchgeo's RasterDataset and GridGeoSampler in a DataLoader; the network through onnxruntime, sixteen tiles."""
    import torch

    binary = next(Path(getattr(importlib.util.find_spec("torchvision"), "origin", "")).parent.glob("_C*"), None)
    try:
        torch.ops.load_library(str(binary))
    except OSError:  # built for CUDA, beside a CPU torch: it would miss its own operators
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import numpy as np
    import onnxruntime
    import rasterio
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GridGeoSampler

    class Scene(RasterDataset):
        filename_glob = Path(scene).name

    torch.set_num_threads(int(threads))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(threads)
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feed, tile, scale = session.get_inputs()[0].name, int(tile_px), float(unit)
    start = _now()
    dataset = Scene(paths=str(Path(scene).parent))
    sampler = GridGeoSampler(dataset, size=tile, stride=tile)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=16, sampler=sampler, collate_fn=stack_samples)
    with rasterio.open(scene) as source:
        inverse, profile, height, width = ~source.transform, source.profile, source.height, source.width
    best, sure = np.full((2, height, width), 255, np.uint8)
    for sample in loader:
        tiles = sample["image"].numpy().astype(np.float32, copy=False)
        logits = session.run(None, {feed: tiles * np.float32(scale) if scale != 1 else tiles})[0]
        chances = np.exp(logits - logits.max(1, keepdims=True))
        chances /= chances.sum(1, keepdims=True)
        for p, (x, y, _) in zip(chances, sample["bounds"], strict=True):
            column, row = (round(v) for v in inverse * (x.start, y.stop))
            here = np.s_[max(0, row) : row + tile, max(0, column) : column + tile]
            best[here], sure[here] = p.argmax(), round(100 * p.max())
    options = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate", "tiled": True}
    options |= {key: profile[key] for key in ("width", "height", "crs", "transform")}
    for name, values in (("classes", best), ("confidence", sure)):
        with rasterio.open(f"{out}/{name}.tif", "w", **options) as target:
            target.write(values, 1)
    return _since(start)


def agree(path: str, other: str) -> dict[str, Any]:
    """Share of pixels with the same class."""
    import numpy as np
    import rasterio
    from rasterio.windows import Window

    same = total = 0
    with rasterio.open(path) as a, rasterio.open(other) as b:
        for row in range(0, a.height, 512):
            window = Window(0, row, a.width, min(512, a.height - row))
            x, y = a.read(1, window=window), b.read(1, window=window)
            same, total = same + int(np.count_nonzero(x == y)), total + x.size
    return {"agree": round(same / total, 6)}


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(start: tuple[float, float]) -> dict[str, Any]:
    wall, cpu = _now()
    return {"loop_s": round(wall - start[0], 4), "loop_cpu_s": round(cpu - start[1], 4)}


CONTENDERS: dict[str, Callable[..., dict[str, Any]]] = {
    "bare": bare,
    "decode": decode,
    "geodeep": geodeep,
    "torchgeo": torchgeo,
    "agree": agree,
}

if __name__ == "__main__":
    print(json.dumps(CONTENDERS[sys.argv[1]](*sys.argv[2:])))
