"""The loop that a good engineer writes in an afternoon: rasterio, onnxruntime, no more. Grid of stride = tile.

    python benchmarks/onboard_plain_loop.py SCENE MODEL.onnx OUT TILE THREADS [UNIT]

A row of windows is read at once, tiles go to the network sixteen at a time, class and confidence are written as they
come. No COG, no journal, no nodata, no check of anything; GDAL as it is set unasked. Edge tiles are pulled back.
"""

import sys
import time

START = time.perf_counter(), time.process_time()

import numpy as np  # noqa: E402
import onnxruntime  # noqa: E402
import rasterio  # noqa: E402
from rasterio.windows import Window  # noqa: E402

scene, model, out = sys.argv[1:4]
tile, threads, unit = int(sys.argv[4]), int(sys.argv[5]), float((sys.argv[6:] or ["1"])[0])
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = threads
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
name = session.get_inputs()[0].name
with rasterio.open(scene) as source:
    profile = {"driver": "GTiff", "count": 1, "dtype": "uint8", "nodata": 255, "compress": "deflate", "tiled": True}
    profile |= {key: source.profile[key] for key in ("width", "height", "crs", "transform")}
    columns = [*range(0, source.width - tile + 1, tile), *([source.width - tile] if source.width % tile else [])]
    rows = [*range(0, source.height - tile + 1, tile), *([source.height - tile] if source.height % tile else [])]
    with rasterio.open(f"{out}/classes.tif", "w", **profile) as classes, \
         rasterio.open(f"{out}/confidence.tif", "w", **profile) as confidence:  # fmt: skip
        filled = 0
        for row in rows:
            band = source.read((1, 2, 3), window=Window(0, row, source.width, tile))
            best, sure = np.empty((2, source.width), np.uint8)
            for i in range(0, len(columns), 16):
                tiles = np.stack([band[:, :, c : c + tile] for c in columns[i : i + 16]]).astype(np.float32)
                logits = session.run(None, {name: tiles * unit if unit != 1 else tiles})[0]
                chances = np.exp(logits - logits.max(1, keepdims=True))
                chances /= chances.sum(1, keepdims=True)
                for c, p in zip(columns[i : i + 16], chances, strict=True):
                    first = c if c % tile == 0 else c - c % tile + tile  # the last one fills what was left
                    best[first : c + tile], sure[first : c + tile] = p.argmax(), round(100 * p.max())
            window = Window(0, filled, source.width, row + tile - filled)
            for dataset, line in ((classes, best), (confidence, sure)):
                dataset.write(np.broadcast_to(line, (window.height, source.width)), 1, window=window)
            filled = row + tile
wall, cpu = time.perf_counter() - START[0], time.process_time() - START[1]
print(f'{{"loop_s": {wall:.4f}, "loop_cpu_s": {cpu:.4f}}}')
