"""Export: capture -> convert -> prove -> pack. Nothing is left behind by a stage that fails.

The proof runs the written files in the runtime that flies, with the code that flies. One artifact goes to OUT itself;
several go to OUT/FORMAT-PRECISION each, all of them or none.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeslim import __version__, cost
from edgeslim.errors import (
    CaptureError,
    ConvertError,
    EdgeslimError,
    InputError,
    PackError,
    ParityError,
)
from edgeslim.ground.checkpoint import Checkpoint
from edgeslim.ground.flight import FlightModel, flight_model, radiometry_of, slimmed_checkpoint
from edgeslim.ground.formats import Format, Written, format_called
from edgeslim.ground.golden import GoldenTiles, hostile_tiles
from edgeslim.ground.mlm import write_item
from edgeslim.ground.proof import Reference, answers, prove, run_all
from edgeslim.ground.quantisation import layers_by_harm, layers_to_try
from edgeslim.ground.slim import METHOD
from edgeslim.manifest import GOLDEN_NAME, MANIFEST_NAME, Golden, Manifest, read_manifest, sha256_of
from edgeslim.onboard.bench import ms_per_tile
from edgeslim.onboard.runtime import load_runtime
from edgeslim.parity import Certificate
from edgeslim.profile import Profile, licence_obstacle
from edgeslim.shelf import shown
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC

MAX_DROP = 0.01
"""Share of agreement, and of score, that int8 may cost."""
_RANKED_ON = 16
"""Tiles that layers are ranked on."""


@dataclass(frozen=True, slots=True)
class Request:
    """One artifact to make."""

    target: Target
    """Format."""
    precision: str = "fp32"
    """One of the target's."""

    def __post_init__(self) -> None:
        if self.precision not in self.target.precisions:
            raise InputError(
                f"--precision {self.precision}: {self.target.id} is exported in {', '.join(self.target.precisions)}"
            )

    @property
    def name(self) -> str:
        """Folder beside others."""
        return f"{self.target.id}-{self.precision}"


@dataclass(frozen=True, slots=True)
class Source:
    """What is exported."""

    profile: Profile
    """Encoder card."""
    checkpoint: Checkpoint
    """At full width."""
    checkpoint_sha256: str
    """Of its file."""
    width_multiplier: float
    """To slim it to."""
    plan: dict[str, Any] = field(default_factory=dict)
    """Noted in the manifest."""
    accept_licence: bool = False
    """Bundle the weights whatever their licence says."""


@dataclass(frozen=True, slots=True)
class Proving:
    """What an export is proven with."""

    golden: GoldenTiles
    """Tiles that fly with it."""
    tiles: GoldenTiles | None = None
    """Real tiles to prove it on; None: the golden ones."""
    calibration: NDArray[np.float32] | None = None
    """Real tiles (n, bands, H, W) that static int8 takes its ranges from."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes to prove it at, and that a static format writes files for."""
    max_drop: float = MAX_DROP
    """Share of agreement, and of score, that int8 may cost; above 0, at most 0.01 counts."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    folder: Path
    """The artifact."""
    manifest: Manifest
    """Its manifest."""


@dataclass(slots=True)
class _Captured:
    """One width, ready to be converted."""

    source: Source
    slimmed: Checkpoint
    model: FlightModel
    reference: Reference
    proving: Proving
    converted: dict[str, Written] = field(default_factory=dict)
    """Target -> its files in fp32."""
    ranked: list[str] | None = None
    """Layers, the one that int8 harms most first."""


def export(
    source: Source,
    requests: Sequence[Request],
    proving: Proving,
    out: Path,
    say: Callable[[str], None] = lambda _: None,
) -> list[Exported]:
    """Slim a checkpoint and write an artifact for each request.

    An artifact that stands where one goes is replaced whole; anything else there is refused.
    Raises CaptureError, ConvertError, ParityError, PackError or MissingExtra, after which `out` is as before, and
    InputError before any work where the licence of the weights has an obstacle that nobody accepted.
    """
    _check_licence(source)
    places = {request.name: out if len(requests) == 1 else out / request.name for request in requests}
    if len(places) < len(requests):
        raise InputError("found the same target and precision twice, expected each once")
    for place in places.values():
        _check_place(place)
    if len(requests) > 1:
        _check_parent(out, {place.name for place in places.values()})
    formats = {request.target.format: format_called(request.target.format) for request in requests}
    captured = _capture(source, proving, say)
    try:
        (out.parent if len(requests) == 1 else out).mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise PackError(f"stage 4, pack: {out.parent}: cannot be written ({error.strerror})") from None
    done: list[tuple[Path, Exported]] = []
    try:
        for request in requests:
            made = work / request.name
            manifest = _make(captured, request, formats[request.target.format], work, made, say)
            done.append((made, Exported(places[request.name], manifest)))
        for made, exported in done:
            _swap(made, exported.folder)
    except OSError as error:
        raise PackError(f"stage 4, pack: {out}: cannot be written ({error.strerror})") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if len(requests) > 1 and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    return [exported for _, exported in done]


def _check_licence(source: Source) -> None:
    profile = source.profile
    obstacle = licence_obstacle(profile.licence)
    if obstacle is not None and not source.accept_licence:
        raise InputError(
            f"encoder {profile.id!r}: licence of the weights: found {shown(profile.licence)}, {obstacle}; expected an "
            f"open one; --accept-licence bundles them all the same, if its terms allow what you plan"
        )


def _capture(source: Source, proving: Proving, say: Callable[[str], None]) -> _Captured:
    profile, width = source.profile, source.width_multiplier
    say(f"1/4 capture: {profile.id} at width {width:.4g}")
    # It says which widths have a head, before any work.
    source.checkpoint.head(profile.architecture.at(width).head_dim)
    try:
        slimmed = slimmed_checkpoint(source.checkpoint, width)
        model = flight_model(profile, slimmed)
        golden = answers(model, proving.golden)
        hostile = answers(model, hostile_tiles(profile))
        if golden.logits.shape[1] != profile.num_classes:
            raise InputError(
                f"encoder {profile.id!r}: head has {golden.logits.shape[1]} classes, its card {profile.num_classes}"
            )
        proof = golden if proving.tiles is None else answers(model, proving.tiles)
    except InputError:
        raise
    except RuntimeError as error:
        raise CaptureError(f"stage 1, capture: {_line(error)}; does the card fit the weights?") from None
    return _Captured(source, slimmed, model, Reference(proof, golden, hostile), proving)


def _make(
    captured: _Captured, request: Request, module: Format, work: Path, made: Path, say: Callable[[str], None]
) -> Manifest:
    """Convert, prove and pack one artifact into the folder `made`."""
    target, precision = request.target, request.precision
    base = captured.converted.get(target.id)
    if base is None:
        say(f"2/4 convert: {target.id}, {_shape_of(target, captured.proving.batches)}")
        base = captured.converted[target.id] = _convert(captured, target, module, work / f"{target.id}-base")
    made.mkdir()
    if precision == "fp32":
        for path in base.folder.iterdir():
            shutil.copyfile(path, made / path.name)
        written = Written(made, base.models, base.names, base.graph)
        certificate = _prove(captured, request, written, (), say)
    else:
        written, certificate = _quantise(captured, request, module, base, made, say)
    say(f"4/4 pack: {request.name}")
    return _pack(captured, request, written, certificate)


def _shape_of(target: Target, batches: tuple[int, ...]) -> str:
    opset = "" if target.opset is None else f"opset {target.opset}, "
    return f"{opset}dynamic batch" if target.batch == "dynamic" else f"{opset}batch {' and '.join(map(str, batches))}"


def _convert(captured: _Captured, target: Target, module: Format, folder: Path) -> Written:
    import torch

    proving = captured.proving
    example = torch.from_numpy(
        np.ascontiguousarray(np.resize(proving.golden.tiles, (2, *proving.golden.tiles.shape[1:])), np.float32)
    )
    try:
        folder.mkdir()
        written = module.convert(captured.model, example, target, proving.batches, folder)
        try:
            target.require_graph(written.graph)
        except InputError as error:
            raise ConvertError(f"stage 2, convert: {error}; report it with this plan") from None
        return written
    except EdgeslimError:
        raise
    except OSError as error:
        raise PackError(f"stage 2, convert: {target.model_file} cannot be written ({error.strerror})") from None
    except Exception as error:  # the converters raise many kinds; each ends the export
        raise ConvertError(f"stage 2, convert: {_line(error)}; report it with this plan") from error


def _quantise(
    captured: _Captured,
    request: Request,
    module: Format,
    base: Written,
    made: Path,
    say: Callable[[str], None],
) -> tuple[Written, Certificate]:
    """In the precision asked for; int8 that costs too much leaves the most harmed layers in fp32, or is refused."""
    precision, proving = request.precision, captured.proving
    if precision == "int8-static" and proving.calibration is None:
        raise InputError("--precision int8-static: found no --tiles, expected real tiles to take its ranges from")
    calibration = np.empty(0, np.float32) if proving.calibration is None else proving.calibration
    tries: list[tuple[str, ...]] = [()]
    refused: list[str] = []
    while tries:
        kept = tries.pop(0)
        for path in made.iterdir():
            path.unlink()
        say(f"2/4 convert: {request.name}" + (f", {len(kept)} layers left in fp32" if kept else ""))
        try:
            written = module.quantise(base, precision, calibration, kept, made)
            return written, _prove(captured, request, written, kept, say)
        except ParityError as error:
            if ARITHMETIC[precision] != "int8":
                raise
            refused.append(f"{len(kept)} layers in fp32: {error}")
            if not kept:
                say(f"{error}: looking for the layers that cost most")
                tiles = captured.reference.proof.tiles.tiles
                some = tiles[np.linspace(0, len(tiles) - 1, min(_RANKED_ON, len(tiles))).astype(int)]
                captured.ranked = captured.ranked or layers_by_harm(captured.model, some)
                tries = list(layers_to_try(captured.ranked))
        except EdgeslimError:
            raise
        except OSError as error:
            raise PackError(f"stage 2, convert: {made.name} cannot be written ({error.strerror})") from None
        except Exception as error:  # as in _convert
            raise ConvertError(f"stage 2, convert: {request.name}: {_line(error)}; report it with this plan") from error
    raise ParityError(
        f"stage 3, prove: {request.name} is refused, even with half of its layers left in fp32 ({refused[-1]}; all of "
        f"them in int8: {refused[0]}); fly fp32 or fp16"
    )


def _prove(
    captured: _Captured, request: Request, written: Written, kept: tuple[str, ...], say: Callable[[str], None]
) -> Certificate:
    proof, proving = captured.reference.proof.tiles, captured.proving
    say(f"3/4 prove: {request.name} on {len(proof)} {'synthetic' if proof.synthetic else 'real'} tiles")
    if request.target.providers:
        say(
            f"{request.name}: proven on the processor here; `edgeslim build` proves it on the board's "
            f"{', '.join(request.target.providers)}"
        )
    draft = _manifest(captured, request, written, None, 1.0, dict.fromkeys(written.models.values(), ""))
    runtime = load_runtime(written.folder, draft, threads=1)
    batches = {*proving.batches} if request.target.batch == "static" else {*proving.batches, 3}
    certificate = prove(
        runtime,
        captured.reference,
        batches,
        request.target.ceiling(request.precision),
        f"stage 3, prove: {request.name} against torch",
        max_drop=proving.max_drop if ARITHMETIC[request.precision] == "int8" else None,
        kept=kept,
    )
    if ARITHMETIC[request.precision] == "int8":
        _tell_speed(captured, request, runtime, say)
    return certificate


def _tell_speed(captured: _Captured, request: Request, runtime: Any, say: Callable[[str], None]) -> None:
    """Whether int8 pays here: it is no promise, and only a measurement can say so."""
    base = captured.converted[request.target.id]
    draft = _manifest(captured, request, base, None, 1.0, dict.fromkeys(base.models.values(), ""))
    tile = np.ascontiguousarray(captured.proving.golden.tiles[:1], np.float32)
    before, after = (ms_per_tile(r, tile) for r in (load_runtime(base.folder, draft, threads=1), runtime))
    verdict = "SLOWER than" if after > before else "faster than" if after < 0.95 * before else "as fast as"
    say(
        f"{request.name}: {after:.2f} ms a tile, {verdict} fp32's {before:.2f} ms on this machine (batch 1, one thread)"
    )


def _manifest(
    captured: _Captured,
    request: Request,
    written: Written,
    certificate: Certificate | None,
    tolerance: float,
    files: dict[str, str],
) -> Manifest:
    source, golden, target = captured.source, captured.proving.golden, request.target
    profile, arch = source.profile, captured.slimmed.architecture
    return Manifest(
        name=f"{profile.id}-w{source.width_multiplier:.4g}",
        edgeslim_version=__version__,
        encoder=profile.id,
        licence=profile.licence,
        checkpoint_sha256=source.checkpoint_sha256,
        method=METHOD,
        width_multiplier=source.width_multiplier,
        architecture=arch,
        total_parameters=cost.parameters(arch, classes=profile.num_classes),
        gflop_per_tile=cost.flop(arch, classes=profile.num_classes) / 1e9,
        format=target.id,
        precision=request.precision,
        runtime=target.runtime,
        # What is not certified yet is being proven here, on the processor: the ground has no board's GPU.
        providers=() if certificate is None else target.providers,
        models=written.models,
        input_name=written.names[0],
        output_name=written.names[1],
        features_name=written.names[2],
        graph=written.graph,
        bands=profile.bands,
        gsd_m=profile.gsd_m,
        radiometry=radiometry_of(profile),
        classes=profile.classes,
        golden=Golden(tiles=len(golden), synthetic=golden.synthetic, source=golden.source, tolerance=tolerance),
        certificate=certificate,
        files=files,
        plan=source.plan,
        cpu_operators=() if certificate is None else target.cpu_operators,
        source=profile.source,
        licence_accepted=source.accept_licence and licence_obstacle(profile.licence) is not None,
    )


def _pack(captured: _Captured, request: Request, written: Written, certificate: Certificate) -> Manifest:
    made, golden = written.folder, captured.reference.golden
    draft = _manifest(captured, request, written, None, 1.0, dict.fromkeys(written.models.values(), ""))
    tolerance = _tolerance(captured, request, draft, certificate, made)
    np.savez_compressed(made / GOLDEN_NAME, tiles=golden.tiles.tiles.astype(np.float32), logits=golden.logits)
    files = {found.name: sha256_of(found) for found in sorted(made.iterdir())}
    manifest = _manifest(captured, request, written, certificate, tolerance, files)
    item = write_item(manifest, made)
    manifest = replace(manifest, files=files | {item.name: sha256_of(item)})
    manifest.write(made)
    made.chmod(0o755)
    return manifest


def _tolerance(captured: _Captured, request: Request, draft: Manifest, certificate: Certificate, made: Path) -> float:
    """Largest difference of a golden logit that the device may show.

    Of int8, whose logits are apart from torch's by design: twice what it was here, as other processors round otherwise.
    """
    golden, limit = captured.reference.golden, certificate.ceiling.relative
    if limit is not None:
        return limit * max(captured.reference.logits_range, float(np.ptp(golden.logits)))
    found = run_all(load_runtime(made, draft, threads=1), golden.tiles.tiles, 1)[0]
    apart = [float(np.abs(found - golden.logits).max()), *(p.max_abs for p in certificate.batches.values())]
    return 2 * max(apart)


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _check_place(out: Path) -> None:
    """An artifact may be replaced and an empty folder filled; a user's own files are never touched."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifact")
    ours = {MANIFEST_NAME, *read_manifest(out).files} if (out / MANIFEST_NAME).is_file() else set()
    if strangers := sorted(p.name for p in out.iterdir() if p.name not in ours):
        raise InputError(f"-o {out}: holds {strangers[0]}, which is no part of an artifact; choose another folder")


def _check_parent(out: Path, names: set[str]) -> None:
    """A folder of several artifacts holds nothing but artifacts."""
    if not out.exists():
        return
    if not out.is_dir():
        raise InputError(f"-o {out}: is a file, expected a folder for the artifacts")
    for path in sorted(out.iterdir()):
        if path.name not in names and not (path / MANIFEST_NAME).is_file():
            raise InputError(f"-o {out}: holds {path.name}, which is no artifact; choose another folder")


def _swap(work: Path, out: Path) -> None:
    """Put `work` in the place of `out`; the old artifact stands until the new one is complete."""
    if not out.exists():
        os.replace(work, out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent)) / out.name
    os.replace(out, aside)
    try:
        os.replace(work, out)
    except OSError:
        os.replace(aside, out)
        raise
    finally:
        shutil.rmtree(aside.parent, ignore_errors=True)
