"""On board: numpy, rasterio and one runtime. No torch, no onnx."""
