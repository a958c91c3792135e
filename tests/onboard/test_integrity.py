"""A network that goes wrong in flight is noticed, what it may have spoilt is marked, and made again."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeslim.errors import InputError, UntrustedResult
from edgeslim.onboard.classify import ClassifyOptions, classify_scene
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.journal import Journal, Kind, read_records
from edgeslim.onboard.progress import Event
from edgeslim.onboard.runtimes.onnx import OnnxRuntime
from tests.onboard.artifacts import make_scene, smooth

Logits = Callable[[np.ndarray], np.ndarray]


class Spoilt:
    """Gives true logits until `after` calls were made."""

    def __init__(self, spoil: Logits, after: int) -> None:
        self._spoil, self._after, self.calls = spoil, after, 0
        self._true = OnnxRuntime.run

    def __call__(self, runtime: OnnxRuntime, tiles: np.ndarray) -> np.ndarray:
        self.calls += 1
        logits = self._true(runtime, tiles)
        return logits if self.calls <= self._after else self._spoil(logits)


def one(value: float) -> Logits:
    def spoil(logits: np.ndarray) -> np.ndarray:
        logits = logits.copy()
        logits[0, 1] = value
        return logits

    return spoil


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "scene.tif", smooth(160, 40), blockysize=8)


@pytest.mark.parametrize(
    ("spoil", "found"),
    [(one(np.nan), "not finite"), (one(np.inf), "not finite"), (one(1e9), r"a logit of 1e\+09")],
)
def test_impossible_logits_end_the_run(
    artifact: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Logits, found: str
) -> None:
    spoilt = Spoilt(spoil, 12)
    monkeypatch.setattr(OnnxRuntime, "run", lambda self, tiles: spoilt(self, tiles))
    with pytest.raises(UntrustedResult, match=found) as raised:
        classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1, batch=8))
    assert re.search(r"row bands 1 to \d+ since the last good check are marked", str(raised.value))
    assert str(raised.value).count("--resume") == 1
    assert raised.value.exit_code == 5


def test_a_slow_rot_is_found_by_the_golden_tiles_and_made_again(
    artifact: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits that look right but are not: only the golden tiles tell. What came after the last good one is redone."""
    options = ClassifyOptions(threads=1, batch=8, check_every_s=1e-9)  # after every chunk
    whole = classify_scene(scene, artifact, tmp_path / "whole", options)
    spoilt = Spoilt(lambda logits: logits + np.float32(0.01), 60)
    events: list[Event] = []
    with monkeypatch.context() as patch:
        patch.setattr(OnnxRuntime, "run", lambda self, tiles: spoilt(self, tiles))
        with pytest.raises(UntrustedResult, match="golden tiles"):
            classify_scene(scene, artifact, tmp_path / "out", options, events.append)
    checks = [e.data["ok"] for e in events if e.kind == "check"]
    assert checks[-1] is False
    assert all(checks[:-1])
    assert checks.count(True) > 1
    kinds = [r.kind for r in read_records(tmp_path / "out" / "unfinished")]
    assert kinds[-1] is Kind.SUSPECT
    trusted = sum(k is Kind.CHUNK for k in kinds[: len(kinds) - kinds[::-1].index(Kind.CHECK)])
    starts: list[Event] = []
    resumed = ClassifyOptions(threads=1, batch=8, check_every_s=1e-9, resume=True)
    classify_scene(scene, artifact, tmp_path / "out", resumed, starts.append)
    assert starts[0].data["resumed_bands"] == trusted  # one chunk a band
    assert trusted < sum(k is Kind.CHUNK for k in kinds)
    for name in whole.files:
        if name != "run.json":
            assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_network_that_is_wrong_from_the_start_does_not_fly(
    artifact: Path, scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoilt = Spoilt(lambda logits: logits + np.float32(0.01), 0)
    monkeypatch.setattr(OnnxRuntime, "run", lambda self, tiles: spoilt(self, tiles))
    with pytest.raises(UntrustedResult, match="golden tiles"):
        classify_scene(scene, artifact, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_two_runs_do_not_share_a_folder(artifact: Path, scene: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out" / "unfinished"
    folder.mkdir(parents=True)
    journal = Journal.start(folder, Disk(), {})
    for options in (ClassifyOptions(overwrite=True),):
        with pytest.raises(InputError, match="another edgeslim is at work"):
            classify_scene(scene, artifact, tmp_path / "out", options)
    journal.close()
    classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(overwrite=True))


@pytest.mark.parametrize("event", ["vanished", "changed"])
def test_a_scene_that_changes_half_way_ends_the_run_and_keeps_what_was_done(
    artifact: Path, scene: Path, tmp_path: Path, event: str
) -> None:
    original = scene.read_bytes()

    def meddle(seen: Event) -> None:
        if seen.kind == "band" and seen.data["band"] == 4:
            if event == "vanished":
                scene.unlink()
            else:
                scene.write_bytes(original + b"\0")

    with pytest.raises(InputError, match=f"{event}.*kept, go on with --resume"):
        classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1), meddle)
    assert [p.name for p in (tmp_path / "out" / "unfinished").iterdir()] == ["journal"]
    scene.write_bytes(original)
    starts: list[Event] = []
    classify_scene(scene, artifact, tmp_path / "out", ClassifyOptions(threads=1, resume=True), starts.append)
    assert int(str(starts[0].data["resumed_bands"])) >= 4
