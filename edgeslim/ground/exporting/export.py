"""Export: capture -> convert -> prove -> pack. Nothing is left behind by a stage that fails.

The proof runs the written files in the runtime that flies, with the code that flies. One artifact goes to OUT itself;
several go to OUT/FORMAT-PRECISION each, once all of them are proven.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from edgeslim.errors import ConvertError, EdgeslimError, InputError, PackError, ParityError
from edgeslim.ground.exporting.capture import Captured, Proving, Request, Source, capture, check_licence, first_line
from edgeslim.ground.exporting.pack import manifest_of, pack
from edgeslim.ground.exporting.place import check_parent, check_place, export_folder, swap
from edgeslim.ground.exporting.proof import prove, run_all
from edgeslim.ground.exporting.quantisation import layers_by_harm, layers_to_try
from edgeslim.ground.flight import FlightModel, folded_model, radiometry_of
from edgeslim.ground.formats import Format, Written, format_called
from edgeslim.manifest import Manifest
from edgeslim.onboard.bench import ms_per_tile
from edgeslim.onboard.known import LIMIT, Distances
from edgeslim.onboard.open_runtime import load_runtime
from edgeslim.onboard.runtimes.runtime import Runtime
from edgeslim.parity import Certificate
from edgeslim.target import Target
from edgeslim.units import ARITHMETIC

_RANKED_ON = 16
"""Tiles that layers are ranked on."""
_KNOWN_ON = 256
"""Tiles on which it is proven which are unknown."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export made."""

    folder: Path
    """The artifact."""
    manifest: Manifest
    """Its manifest."""


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
    check_licence(source)
    _checked(requests, out)
    return export_captured(capture(source, proving, say), requests, out, say)


def export_captured(
    captured: Captured,
    requests: Sequence[Request],
    out: Path,
    say: Callable[[str], None] = lambda _: None,
    scratch: Path | None = None,
) -> list[Exported]:
    """Stages 2 to 4 of `export`, of a width that is captured already: torch is not asked again.

    `scratch` is a folder in which what was converted stays for the next call with the same `captured` (None: it goes
    with this one). Raises as `export` does.
    """
    places, formats = _checked(requests, out)
    home = Path(os.path.realpath(out))  # a link stays one, and what it names is replaced
    parent = home.parent if len(requests) == 1 else home
    done: list[tuple[Path, Path]] = []
    exported: list[Exported] = []
    try:
        with export_folder(parent, home.name) as work:
            for request in requests:
                made = work / request.name
                manifest = _make(captured, request, formats[request.target.format], scratch or work, made, say)
                exported.append(Exported(places[request.name], manifest))
                done.append((made, home if len(requests) == 1 else home / request.name))
            for made, place in done:
                swap(made, place, work)
    except OSError as error:
        raise PackError(f"stage 4, pack: {out}: cannot be written ({error.strerror})") from None
    finally:
        if scratch is None:
            captured.converted.clear()
        if len(requests) > 1 and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    return exported


def _checked(requests: Sequence[Request], out: Path) -> tuple[dict[str, Path], dict[str, Format]]:
    """Where each request's artifact goes, by its name, and what writes each format. Raises InputError, MissingExtra."""
    places = {request.name: out if len(requests) == 1 else out / request.name for request in requests}
    if len(places) < len(requests):
        raise InputError("found the same target and precision twice, expected each once")
    for place in places.values():
        check_place(place)
    if len(requests) > 1:
        check_parent(out, {place.name for place in places.values()})
    return places, {request.target.format: format_called(request.target.format) for request in requests}


def _make(
    captured: Captured, request: Request, module: Format, scratch: Path, made: Path, say: Callable[[str], None]
) -> Manifest:
    """Convert, prove and pack one artifact into the folder `made`; `scratch` holds what is converted once a target."""
    target, precision = request.target, request.precision
    # fp16 rounds what a fold makes of two tensors, but not the weights alone where they were published in fp16.
    apart = module.unfolded(captured.model) if precision == "fp16" else None
    if apart is not None and apart is folded_model(captured.model):
        apart = None  # nothing to fold: what fp32 is made of serves
    base_name = target.id if apart is None else f"{target.id}-unfolded"
    base = captured.converted.get(base_name)
    if base is None:
        say(f"2/4 convert: {target.id}, {_shape_of(target, captured.proving.batches)}")
        model = folded_model(captured.model) if apart is None else apart
        base = _convert(captured, model, target, module, scratch / f"{base_name}-base")
        captured.converted[base_name] = base
    made.mkdir()
    if precision == "fp32":
        for path in base.folder.iterdir():
            shutil.copyfile(path, made / path.name)
        written = Written(made, base.models, base.names, base.graph)
        certificate = _prove(captured, request, written, (), say)
    else:
        written, certificate = _quantise(captured, request, module, base, made, say)
        if ARITHMETIC[precision] == "int8":
            _tell_speed(captured, request, written, say)
    say(f"4/4 pack: {request.name}")
    return pack(captured, request, written, certificate)


def _shape_of(target: Target, batches: tuple[int, ...]) -> str:
    opset = "" if target.opset is None else f"opset {target.opset}, "
    return f"{opset}dynamic batch" if target.batch == "dynamic" else f"{opset}batch {' and '.join(map(str, batches))}"


def _convert(captured: Captured, model: FlightModel, target: Target, module: Format, folder: Path) -> Written:
    proving = captured.proving
    example = torch.from_numpy(
        np.ascontiguousarray(np.resize(proving.golden.tiles, (2, *proving.golden.tiles.shape[1:])), np.float32)
    )
    try:
        # An earlier call may have failed here, or ranges lie beside it that were taken of another network.
        shutil.rmtree(folder, ignore_errors=True)
        for ranges in folder.parent.glob(f"{folder.name}-ranges*"):
            ranges.unlink()
        folder.mkdir()
        written = module.convert(model, example, target, proving.batches, folder)
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
        raise ConvertError(f"stage 2, convert: {first_line(error)}; report it with this plan") from error


def _quantise(
    captured: Captured,
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
    tries: list[tuple[str, ...]] = [()]
    refused: list[tuple[int, str]] = []
    while tries:
        kept = tries.pop(0)
        for path in made.iterdir():
            path.unlink()
        say(f"2/4 convert: {request.name}" + (f", {len(kept)} layers left in fp32" if kept else ""))
        try:
            return _tried(captured, request, module, base, kept, made, say)
        except ParityError as error:
            if ARITHMETIC[precision] != "int8":
                raise
            refused.append((len(kept), str(error)))
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
            raise ConvertError(
                f"stage 2, convert: {request.name}: {first_line(error)}; report it with this plan"
            ) from error
    last, first = (f"{layers} layers in fp32: {why}" for layers, why in (refused[-1], refused[0]))
    raise ParityError(
        f"stage 3, prove: {request.name} is refused, even with half of its layers left in fp32 ({last}; all of them in "
        f"int8: {first}); fly fp32 or fp16",
        refused,
    )


def _tried(
    captured: Captured,
    request: Request,
    module: Format,
    base: Written,
    kept: tuple[str, ...],
    made: Path,
    say: Callable[[str], None],
) -> tuple[Written, Certificate]:
    """One trial: quantised but for the layers `kept`, and proven.

    Where each batch size has a file of its own, the smallest is proven before the others are written.
    """
    given = captured.proving.calibration
    calibration = np.empty(0, np.float32) if given is None else given
    first, *rest = sorted(base.models.items(), key=lambda item: (len(item[0]), item[0]))
    written = module.quantise(replace(base, models=dict([first])), request.precision, calibration, kept, made)
    certificate = _prove(captured, request, written, kept, say)
    if rest:
        others = module.quantise(replace(base, models=dict(rest)), request.precision, calibration, kept, made)
        written = replace(written, models=written.models | others.models)
        certificate = _prove(captured, request, written, kept, say, certificate)
    return written, certificate


def _prove(
    captured: Captured,
    request: Request,
    written: Written,
    kept: tuple[str, ...],
    say: Callable[[str], None],
    before: Certificate | None = None,
) -> Certificate:
    """Of what was written, at each batch size; `before` proves some of them already."""
    proof, proving = captured.reference.proof.tiles, captured.proving
    say(f"3/4 prove: {request.name} on {len(proof)} {'synthetic' if proof.synthetic else 'real'} tiles")
    if request.target.providers:
        say(
            f"{request.name}: proven on the processor here; `edgeslim build` proves it on the board's "
            f"{', '.join(request.target.providers)}"
        )
    runtime = _runtime(captured, request, written)
    batches = {*map(int, written.models)} if request.target.batch == "static" else {*proving.batches, 3}
    return prove(
        runtime,
        captured.reference,
        batches,
        request.target.ceiling(request.precision),
        f"stage 3, prove: {request.name} against torch",
        max_drop=proving.max_drop if ARITHMETIC[request.precision] == "int8" else None,
        kept=kept,
        after_first=lambda: _prove_known(captured, request, runtime),
        before=before,
    )


def _prove_known(captured: Captured, request: Request, runtime: Runtime) -> None:
    """Where the head tells unknown tiles: raise ParityError if the written network's features make others unknown.

    Whitening widens small differences: features whose cosine is 0.999 may all lie beyond a limit.
    """
    if captured.source.known is None:
        return
    distances = Distances.of(captured.source.known[1], radiometry_of(captured.source.profile).clip)
    proof = captured.reference.proof
    chosen = np.linspace(0, len(proof.tiles) - 1, min(_KNOWN_ON, len(proof.tiles))).round().astype(np.intp)
    tiles = proof.tiles.tiles[chosen]
    _, features = run_all(runtime, tiles, captured.proving.batches[0])
    expected, found = distances(tiles, proof.features[chosen]) > LIMIT, distances(tiles, features) > LIMIT
    if (apart := float((expected != found).mean())) > captured.proving.max_drop:
        raise ParityError(
            f"stage 3, prove: {request.name} calls {found.mean():.1%} of {len(tiles)} tiles unknown where torch calls "
            f"{expected.mean():.1%}, {apart:.1%} of them otherwise, expected at most {captured.proving.max_drop:.1%}; "
            "fly fp32 or fp16, or fit the head with --unknown-share 0"
        )


def _tell_speed(captured: Captured, request: Request, written: Written, say: Callable[[str], None]) -> None:
    """Whether int8 pays here: it is no promise, and only a measurement can say so."""
    tile = np.ascontiguousarray(captured.proving.golden.tiles[:1], np.float32)
    before, after = (
        ms_per_tile(_runtime(captured, request, files), tile)
        for files in (captured.converted[request.target.id], written)
    )
    verdict = "SLOWER than" if after > before else "faster than" if after < 0.95 * before else "as fast as"
    say(
        f"{request.name}: {after:.2f} ms a tile, {verdict} fp32's {before:.2f} ms on this machine (batch 1, one thread)"
    )


def _runtime(captured: Captured, request: Request, written: Written) -> Runtime:
    draft = manifest_of(captured, request, written, None, 1.0, dict.fromkeys(written.models.values(), ""))
    return load_runtime(written.folder, draft, threads=1)
