"""Run: one scene from its first chunk, or from the one after the last that is kept, to results that lie in OUT."""

from __future__ import annotations

import errno
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeslim.errors import EdgeslimError, InputError, UntrustedResult
from edgeslim.grid import Axis
from edgeslim.manifest import Manifest
from edgeslim.onboard.describe import inputs_of, inputs_sha256, summarise
from edgeslim.onboard.disk import Disk
from edgeslim.onboard.hashes import Unchanged, hashes_of
from edgeslim.onboard.integrity import Guard
from edgeslim.onboard.journal import Kind, as_json
from edgeslim.onboard.machine import this_host
from edgeslim.onboard.memory import Fit, batch_within, fit, late_bytes
from edgeslim.onboard.progress import Event, Observer, resident_mib
from edgeslim.onboard.reading.scene import Scene
from edgeslim.onboard.recorder import Recorder
from edgeslim.onboard.resident import give_back, highest_bytes
from edgeslim.onboard.run_facts import RUN_SCHEMA, RunFacts
from edgeslim.onboard.stream import Stream
from edgeslim.onboard.unfinished import Past, RunFolder, Unfinished, differences, read_json
from edgeslim.onboard.writing.maps import MapPlan
from edgeslim.onboard.writing.results import SUMMARY_NAME, appending_bytes, every_result_name, finishing_bytes
from edgeslim.onboard.writing.summary import Summary
from edgeslim.run_memory import SLACK_BYTES
from edgeslim.units import MIB, mib

if TYPE_CHECKING:
    from edgeslim.onboard.classify_options import ClassifyOptions

_WAITING = 2
"""Results of chunks that may wait for the writer."""


class Run:
    """One scene, one artifact, one OUT."""

    def __init__(
        self,
        scene: Scene,
        artifact: Path,
        manifest: Manifest,
        axes: tuple[Axis, Axis],
        out: Path,
        options: ClassifyOptions,
        observe: Observer | None,
        stop: Callable[[], str | None] | None,
        disk: Disk,
    ) -> None:
        """Raises InputError where OUT holds something that was not to be touched."""
        self._began = time.monotonic()
        self._scene, self._artifact, self._manifest, self._options = scene, artifact, manifest, options
        self._rows, self._columns = axes
        self._observe = observe or (lambda event: None)
        self._stop = stop or (lambda: None)
        self._folder = RunFolder(out, disk)
        self._unchanged = Unchanged(scene.files)
        self._maps = MapPlan(
            width=axes[1].cells if options.cells else scene.width,
            height=axes[0].cells if options.cells else scene.height,
            step=axes[0].stride_px if options.cells else 1,
            georeference=scene.georeference,
            classes=manifest.answers,
            artifact=manifest.name,
            cell_px=axes[0].stride_px,
            scene_height=scene.height,
            scene_width=scene.width,
        )
        self._held = self._look_at_out()
        self._past: Past | None = None
        self._hashes: dict[str, str] | None = None

    def _look_at_out(self) -> list[str]:
        """Results that stand in OUT. Raises InputError unless the options say what to do with what is there."""
        out, options = self._folder.out, self._options
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: found a file, expected a folder to write results into; choose another -o")
        held = [name for name in every_result_name() if os.path.lexists(out / name)]
        if blocked := [name for name in held if (out / name).is_dir()]:
            raise InputError(f"{out / blocked[0]}: found a folder where a result goes; choose another -o")
        if eaten := [name for name in held if (out / name).resolve() in self._scene.files]:
            raise InputError(f"{out / eaten[0]}: found the scene itself where a result goes; choose another -o")
        if not (options.resume or options.overwrite):
            if held:
                raise InputError(
                    f"{out}: found results there ({', '.join(held)}), expected none; choose another -o, or replace "
                    "them with --overwrite"
                )
            if self._folder.begun:
                raise InputError(
                    f"{out}: found an unfinished run there; go on with --resume, or start anew with --overwrite"
                )
        return held

    def look_back(self, guard: Guard) -> Summary | None:
        """Take up what an earlier run left, where that was asked. The summary of a finished one is returned.

        Raises InputError where it was of another scene, artifact, version or option.
        """
        self._guard = guard
        self._inputs = inputs_of(self._scene, self._artifact, self._manifest, self._rows, self._options, guard.runtime)
        if not self._options.resume:
            return None
        past = self._folder.past()
        if past is None:
            return self._finished_before()
        if found := differences(past.run.get("inputs", {}), self._inputs):
            raise InputError(
                f"{self._folder.out}: found an unfinished run of something else ({'; '.join(found[:3])}"
                f"{'; …' if len(found) > 3 else ''}); undo that, or start anew with --overwrite"
            )
        if past.scene is None:
            return None  # cut off before the scene was known for sure: nothing of it counts
        self._hashes = hashes_of(self._scene.files)
        if past.scene["files"] != self._hashes:
            raise InputError(
                f"{self._scene.path}: changed since the run in {self._folder.out} began (SHA-256); put it back, or "
                "start anew with --overwrite"
            )
        self._past = past
        return None

    def _finished_before(self) -> Summary | None:
        """The summary in OUT where it is of the same inputs. Raises InputError where it is of others."""
        if not self._held:
            return None
        found = read_json(self._folder.out / SUMMARY_NAME)
        self._hashes = hashes_of(self._scene.files)
        if found is None or found.get("inputs_sha256") != inputs_sha256(self._inputs, self._hashes):
            raise InputError(
                f"{self._folder.out}: found results of something else there, and no unfinished run; choose another -o, "
                "or replace them with --overwrite"
            )
        summary = Summary.from_dict(found)
        if lost := [name for name in summary.files if not (self._folder.out / name).is_file()]:
            raise InputError(
                f"{self._folder.out}: found finished results without {', '.join(lost)}; make them anew with --overwrite"
            )
        self._folder.undo()
        return summary

    def choose_batch(self, workers: int) -> int:
        """Tiles a batch: as an earlier run had it, as asked, or what is fast and fits."""
        limit = self._options.max_ram_mib
        self._batch = (
            int(self._past.run["batch"])
            if self._past is not None
            else batch_within(
                self._manifest.architecture,
                len(self._manifest.classes),
                self._options.batch,
                workers,
                2**62 if limit is None else int(limit * MIB),
            )
        )
        return self._batch

    def classify(self, workers: int) -> Summary | Unfinished:
        """Go through the scene. See `classify_scene`."""
        past, options = self._past, self._options
        fitted = fit(
            self._scene,
            self._rows,
            self._columns,
            classes=len(self._manifest.answers),
            batch=self._batch,
            workers=workers,
            starting_bytes=highest_bytes(),
            process_bytes=int((resident_mib() or 0) * MIB)
            + late_bytes(self._manifest.runtime, self._manifest.architecture, self._batch, workers),
            writing_bytes=appending_bytes(self._maps, options.output),
            finishing_bytes=finishing_bytes(self._maps, options.output),
            probabilities=options.probabilities,
            max_ram_mib=options.max_ram_mib,
            cut=None if past is None else (past.run["cut"][0], past.run["cut"][1]),
        )
        self._foretold_mib = mib(fitted.memory.total)
        if past is None:
            cut = [fitted.plan.height_px, fitted.plan.width_px]
            journal = self._folder.begin({"inputs": self._inputs, "batch": self._batch, "cut": cut})
        else:
            journal = self._folder.resume(past)
        recorder: Recorder | None = None
        try:
            recorder = Recorder(
                self._folder.path,
                journal,
                fitted.plan,
                self._maps,
                self._manifest.bands,
                options.output,
                options.training_prior,
                self._manifest.known is not None,
            )
            return self._fly(recorder, fitted, workers)
        except BaseException as error:
            if recorder is not None:
                if isinstance(error, UntrustedResult):
                    recorder.suspect(str(error))
                recorder.results.abandon()
                recorder.close()
            journal.close()
            raise self._with_what_is_kept(error, recorder) from None

    def _with_what_is_kept(self, error: BaseException, recorder: Recorder | None) -> BaseException:
        """The error as it is told. A run of which nothing is kept leaves nothing behind."""
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
            error = InputError(
                f"{self._scene.path}: needs {self._foretold_mib:.0f} MiB, found less that this process may take; free "
                "some, give it fewer threads, or cut the scene into narrower parts"
            )
        if recorder is None or not recorder.chunks_done:
            if self._past is None:
                self._folder.undo()
            return error
        self._folder.clear()
        if not isinstance(error, EdgeslimError) or "--resume" in str(error):
            return error
        done, bands = recorder.bands_synced, recorder.plan.bands
        if isinstance(error, UntrustedResult):
            trusted = recorder.bands_trusted
            marked = f"row bands {trusted + 1} to {done}" if done > trusted else "tiles"
            return UntrustedResult(f"{error}; {marked} since the last good check are marked, --resume makes them again")
        kept = f"row bands 1 to {done} of {bands} are kept" if done else "what was finished is kept"
        return type(error)(f"{error}; {kept}, go on with --resume")

    def _fly(self, recorder: Recorder, fitted: Fit, workers: int) -> Summary | Unfinished:
        plan = fitted.plan
        if self._past is not None:
            for payload in self._folder.chunks(self._past):
                recorder.replay(payload)
        self._tell(
            "start",
            scene=str(self._scene.path),
            out=str(self._folder.out),
            tiles=plan.tiles,
            bands=plan.bands,
            resumed_bands=recorder.bands_done,
            memory_mib=round(self._foretold_mib, 1),
        )
        reason = self._stream(recorder, workers)
        if recorder.chunks_done < plan.count:
            recorder.results.abandon()
            recorder.close()
            self._folder.clear()
            self._tell("stopped", band=recorder.bands_done, bands=plan.bands, reason=reason or "")
            return Unfinished(recorder.bands_done, plan.bands, reason or "", self._folder.out)
        self._check(recorder)
        self._unchanged.require()
        self._tell("finishing")
        assert self._hashes is not None
        summary = summarise(
            self._scene, self._artifact, self._manifest, self._rows, recorder, self._inputs, self._hashes
        )
        summary = recorder.results.finish(summary, recorder.thumbnail, self._run_facts(recorder, workers))
        recorder.close()
        self._folder.commit(summary.files, SUMMARY_NAME, every_result_name())
        self._tell("done", seconds=round(time.monotonic() - self._began, 3), tiles=plan.tiles)
        return summary

    def _stream(self, recorder: Recorder, workers: int) -> str | None:
        """Classify what is left and record it. Returns the reason why it was asked to stop early."""
        plan = recorder.plan
        stream = Stream(
            self._scene, plan, self._guard, recorder.thumbnail, len(self._manifest.answers), self._batch, workers
        )
        self._resumed_tiles, self._streaming = sum(recorder.tiles.values()), time.monotonic()
        checked, reason = time.monotonic(), None
        waiting: deque[Future[None]] = deque()
        with ThreadPoolExecutor(1, "hasher") as hasher, ThreadPoolExecutor(1, "writer") as writer:
            hashing = None if self._hashes else hasher.submit(hashes_of, self._scene.files)
            results = stream.results(recorder.chunks_done)
            try:
                for result in results:
                    waiting.append(writer.submit(self._record, recorder, result))
                    while len(waiting) > _WAITING:
                        waiting.popleft().result()
                    if hashing is not None and hashing.done():
                        self._hashes = hashing.result()
                        waiting.append(writer.submit(recorder.note, Kind.SCENE, as_json({"files": self._hashes})))
                        hashing = None
                    self._unchanged.require()
                    if time.monotonic() - checked > self._options.check_every_s:
                        waiting.append(writer.submit(recorder.note, Kind.CHECK, as_json(self._replay())))
                        checked = time.monotonic()
                    if reason is None and (reason := self._stop()) is not None:
                        stream.stop()
                if hashing is not None:
                    self._hashes = hashing.result()
                    waiting.append(writer.submit(recorder.note, Kind.SCENE, as_json({"files": self._hashes})))
            finally:
                results.close()
                errors = [future.exception() for future in waiting]
        for error in errors:
            if error is not None:
                raise error
        return reason

    def _record(self, recorder: Recorder, result: Any) -> None:
        """In the writer's thread."""
        before = recorder.bands_done
        recorder.add(result)
        if recorder.bands_done == before:
            return
        resident = resident_mib()
        if resident is not None and resident > self._foretold_mib - mib(SLACK_BYTES):
            give_back()  # heaps grow for hours by what fits nowhere between what stays
        done, total = sum(recorder.tiles.values()), recorder.plan.tiles
        seconds = time.monotonic() - self._streaming
        rate = (done - self._resumed_tiles) / seconds if seconds > 0 else None
        self._tell(
            "band",
            band=recorder.bands_done,
            bands=recorder.plan.bands,
            tiles_done=done,
            tiles_total=total,
            tiles_per_s=rate,
            eta_s=(total - done) / rate if rate else None,
            memory_mib=resident,
        )

    def _replay(self) -> dict[str, float]:
        """Replay the golden tiles. Raises UntrustedResult where they are not."""
        try:
            difference = self._guard.check()
        except UntrustedResult:
            self._tell("check", ok=False, difference=None)
            raise
        self._tell("check", ok=True, difference=difference)
        return {"difference": difference}

    def _check(self, recorder: Recorder) -> None:
        recorder.note(Kind.CHECK, as_json(self._replay()))

    def _run_facts(self, recorder: Recorder, workers: int) -> RunFacts:
        """What may differ from run to run."""
        seconds = time.monotonic() - self._streaming
        done = sum(recorder.tiles.values()) - self._resumed_tiles
        return {
            "schema": RUN_SCHEMA,
            "seconds": {"until_stream": self._streaming - self._began, "stream": seconds},
            "tiles_per_s": done / seconds if seconds > 0 else None,
            "resumed_tiles": self._resumed_tiles,
            "memory_mib": {"foretold": self._foretold_mib, "peak": mib(highest_bytes())},
            "workers": workers,
            "batch": self._batch,
            "chunk_px": [recorder.plan.height_px, recorder.plan.width_px],
            "scene": str(self._scene.path.absolute()),
            "artifact": str(self._artifact.absolute()),
            "machine": asdict(this_host()),
        }

    def _tell(self, kind: str, **data: Any) -> None:
        self._observe(Event(kind, data))
