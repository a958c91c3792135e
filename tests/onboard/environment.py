"""Is this the environment of a device? Run as a script, so that the installed wheel is looked at, not the checkout."""

from __future__ import annotations

import importlib.util
import platform
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path


def main() -> None:
    ground = ("torch", "onnx", "onnxscript", "safetensors", "sklearn", "PIL", "tomli_w")
    present = [name for name in ground if importlib.util.find_spec(name)]
    if present:
        raise SystemExit(f"found {', '.join(present)}, expected an environment without the ground's libraries")

    from edgeslim.profile import DEFAULT_ENCODER, take_profile
    from edgeslim.shelf import shelf_folder

    for shelf in ("devices", "profiles", "families", "hubs", "export", "jetpacks"):
        folder = shelf_folder(shelf)
        if "site-packages" not in folder.parts or not list(folder.glob("*.toml")):
            raise SystemExit(f"{folder}: expected the cards inside the installed wheel")
    if "site-packages" not in shelf_folder("schemas").parts or not list(shelf_folder("schemas").glob("*.json")):
        raise SystemExit("the wheel lacks the schemas of what --json prints")
    checkpoint = take_profile(DEFAULT_ENCODER).checkpoint
    if checkpoint is None or not checkpoint.is_file():
        raise SystemExit("the wheel lacks the embedded encoder's weights")
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("edgeslim")), "plan", "--device", "jetson-orin"]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    found = ", ".join(f"{name} {version(name)}" for name in ("numpy", "rasterio", "onnxruntime", "typer", "rich"))
    print(f"on board: Python {platform.python_version()}, {found}; no torch, no onnx")


if __name__ == "__main__":
    main()
