"""Bridge: calls `classify_scene` with events and a stop, also while it still has neither."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeslim.onboard.progress import Event, Observer, resident_mib

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgeslim.onboard.classify import ClassifyOptions


def classify_scene(
    scene: Path,
    artifact: Path,
    out: Path,
    options: ClassifyOptions,
    observe: Observer,
    stop: Callable[[], str | None],
) -> Any:
    """A Summary, or an Unfinished where `stop` gave a reason."""
    import time

    from edgeslim.onboard import classify

    call: Any = classify.classify_scene
    if "observe" in inspect.signature(call).parameters:
        return call(scene, artifact, out, options, observe=observe, stop=stop)
    began = time.monotonic()
    tiles = 0

    def progress(done: int, total: int) -> None:
        nonlocal tiles
        if not tiles:
            tiles = total
            observe(
                Event(
                    "start",
                    {
                        "scene": str(scene),
                        "out": str(out),
                        "tiles": total,
                        "bands": total,
                        "resumed_bands": 0,
                        "memory_mib": None,
                    },
                )
            )
        seconds = max(1e-6, time.monotonic() - began)
        data = {
            "band": done,
            "bands": total,
            "tiles_done": done,
            "tiles_total": total,
            "tiles_per_s": done / seconds,
            "eta_s": (total - done) * seconds / max(1, done),
            "memory_mib": resident_mib(),
        }
        observe(Event("band", dict(data)))
        if stop() is not None:
            raise KeyboardInterrupt

    summary = call(scene, artifact, out, options, progress)
    observe(Event("done", {"seconds": round(time.monotonic() - began, 3), "tiles": tiles}))
    return summary
