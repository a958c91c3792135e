"""Every format in every precision: equal to torch where it must be, refused where it is not."""

from __future__ import annotations

import builtins
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeslim.errors import InputError, MissingExtra, PackError, ParityError
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import Exported, export
from edgeslim.ground.exporting.quantisation import layers_by_harm, layers_to_try
from edgeslim.ground.flight import FlightModel, flight_model, profile_checkpoint
from edgeslim.ground.formats import Written, format_called
from edgeslim.ground.golden import GoldenTiles, hostile_tiles, synthetic_tiles
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.ground.vit import Vit, fold_layer_scale, init_weights
from edgeslim.manifest import read_manifest
from edgeslim.onboard.check import check_artifact
from edgeslim.onboard.open_runtime import open_runtime
from edgeslim.profile import ClassLabel, Profile
from edgeslim.target import take_target
from edgeslim.units import ARITHMETIC

FORMATS = ("onnx", "openvino", "tflite")
HOSTILE = 8
EVERY = [(name, precision) for name in FORMATS for precision in take_target(name).precisions]


def real_tiles(tiny: Profile, count: int = 300, labels: bool = False) -> GoldenTiles:
    """Textures that are said to be real, of which torch is sure: int8 may not turn what is a matter of rounding."""
    tiles = synthetic_tiles(tiny, count, seed=7).tiles
    model = model_of(tiny)
    with torch.inference_mode():
        logits = model(torch.from_numpy(tiles))[0]
    top = logits.topk(2).values
    sure = (top[:, 0] - top[:, 1] > 0.05 * (logits.max() - logits.min())).numpy()
    known = logits.argmax(1).numpy()[sure] if labels else None
    return GoldenTiles(tiles[sure], False, f"{int(sure.sum())} textures", known)


def model_of(tiny: Profile, width: float = 0.5) -> FlightModel:
    return flight_model(tiny, slimmed_checkpoint(profile_checkpoint(tiny)[0], width))


def made(tiny: Profile, out: Path, *requests: Request, **proving: Any) -> list[Exported]:
    checkpoint, digest = profile_checkpoint(tiny)
    tiles = proving.pop("tiles", None)
    given = Proving(
        synthetic_tiles(tiny, 5), tiles, None if tiles is None else tiles.tiles[:32], batches=(1, 4), **proving
    )
    return export(Source(tiny, checkpoint, digest, 0.5), requests, given, out)


@pytest.fixture(scope="module")
def every(tiny: Profile, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], Exported]:
    """All formats in all precisions, of one export."""
    out = tmp_path_factory.mktemp("every") / "artifacts"
    requests = [Request(take_target(name), precision) for name, precision in EVERY]
    done = made(tiny, out, *requests, tiles=real_tiles(tiny, labels=True))
    assert sorted(p.name for p in out.iterdir()) == sorted(request.name for request in requests)
    return dict(zip(EVERY, done, strict=True))


@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_what_was_written_answers_as_torch_does(
    every: dict[tuple[str, str], Exported], tiny: Profile, name: str, precision: str
) -> None:
    done = every[name, precision]
    manifest = read_manifest(done.folder)
    assert manifest == done.manifest
    assert (manifest.format, manifest.precision) == (name, precision)
    runtime = open_runtime(done.folder, manifest, threads=1, callers=2)
    model = model_of(tiny)
    allowed = {"fp32": 2e-5, "fp16": 1e-2, "int8-dynamic": 0.3, "int8-static": 0.3}[precision]
    for batch in (1, 3, 4, 9):
        tiles = np.random.default_rng(batch).uniform(0, 3000, (batch, 3, 16, 16)).astype(np.float32)
        with torch.inference_mode():
            logits, features = (t.numpy() for t in model(torch.from_numpy(tiles)))
        found = runtime.outputs(tiles)
        assert found[0].shape == logits.shape
        assert found[1].shape == features.shape
        span = max(np.ptp(logits), 1.0)
        np.testing.assert_allclose(found[0], logits, rtol=0, atol=allowed * span)
        assert np.array_equal(runtime.run(tiles), found[0])


@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_the_certificate_says_what_was_proven(
    every: dict[tuple[str, str], Exported], name: str, precision: str
) -> None:
    certificate = every[name, precision].manifest.certificate
    assert certificate is not None
    assert certificate.verdict.startswith("proven on ")
    assert certificate.verdict.endswith("real tiles, fewer than 1000")
    assert {"1", "4"} <= set(certificate.batches)
    for parity in certificate.batches.values():
        assert parity.missed(certificate.ceiling) is None
        assert parity.feature_cosine is not None
        assert parity.feature_cosine > (0.9 if "int8" in precision else 0.9999)
    assert certificate.hostile.tiles == HOSTILE
    assert certificate.score is not None
    assert certificate.score[0] == 1.0
    assert certificate.score[1] >= 0.99
    if precision != "fp32":  # the numbers are another network's: had nothing been quantised, they would be the same
        plain = every[name, "fp32"].manifest.certificate
        assert plain is not None
        assert certificate.batches["1"].max_abs > 3 * plain.batches["1"].max_abs


@pytest.mark.parametrize(("name", "precision"), EVERY)
def test_the_device_proves_it_again(every: dict[tuple[str, str], Exported], name: str, precision: str) -> None:
    report = check_artifact(every[name, precision].folder, threads=1)
    assert report.batches[1].max_abs <= report.tolerance


@pytest.mark.parametrize("name", FORMATS)
def test_other_precisions_take_less_room(every: dict[tuple[str, str], Exported], name: str) -> None:
    def size(precision: str) -> int:
        file = {"onnx": "weights.bin", "openvino": "model.bin", "tflite": "model.b1.tflite"}[name]
        return (every[name, precision].folder / file).stat().st_size

    # Of so small a network most of a TFLite file is the graph, which in fp16 has more operators.
    assert size("fp16") < (1.0 if name == "tflite" else 0.6) * size("fp32")
    assert size("int8-dynamic") < size("fp32")


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("bias", [0.0, 0.25])
def test_fp16_leaves_the_head_in_fp32(tiny: Profile, tmp_path: Path, name: str, bias: float) -> None:
    """Classes that differ by little in large weights: in float16, which is a sixteenth apart at 100, they are lost."""
    checkpoint, digest = profile_checkpoint(tiny)
    classes = tuple(ClassLabel(f"c{number}", f"c{number}", "808080") for number in range(16))
    head = 100 + torch.randn(len(classes), 24, generator=torch.Generator().manual_seed(0)), torch.full((16,), bias)
    # Features of mean 0: what all weights share is nothing in the logits.
    encoder = checkpoint.encoder | {"norm.weight": torch.ones(24), "norm.bias": torch.zeros(24)}
    wide = replace(checkpoint, encoder=encoder, heads=dict.fromkeys(checkpoint.heads, head))
    source = Source(replace(tiny, classes=classes), wide, digest, 0.5)
    given = Proving(synthetic_tiles(tiny, 5), None, None, batches=(1,))
    (done,) = export(source, (Request(take_target(name), "fp16"),), given, tmp_path / "artifact")
    assert done.manifest.certificate is not None
    assert done.manifest.certificate.batches["1"].relative < 2e-3


@pytest.mark.parametrize("name", FORMATS)
def test_the_graph_is_clean(every: dict[tuple[str, str], Exported], name: str) -> None:
    operators = every[name, "fp32"].manifest.graph["operators"]
    gelu = {"onnx": "Gelu", "openvino": "Gelu", "tflite": "GELU"}[name]
    assert operators[gelu] == 2 + 2  # one a convolution of the stem and one a block
    for training in ("Dropout", "BatchNormalization", "BatchNormInference"):
        assert training not in operators
    if name != "tflite":
        assert operators.get("LayerNormalization", operators.get("MVN")) == 5


def test_layer_scale_is_folded_into_the_product_before_it(tiny: Profile) -> None:
    arch = replace(tiny.architecture, layer_scale=True)
    encoder = Vit(arch).eval()
    random = torch.Generator().manual_seed(3)
    init_weights(encoder, random)
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "ls" in name or name.endswith("bias"):
                parameter.copy_(torch.randn(parameter.shape, generator=random))
    tiles = torch.randn(4, arch.bands, arch.tile_px, arch.tile_px, generator=random)
    folded = fold_layer_scale(encoder)
    assert not [name for name, _ in folded.named_parameters() if ".ls" in name]
    with torch.inference_mode():
        torch.testing.assert_close(folded(tiles), encoder(tiles), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_weights_that_were_published_in_fp16_lose_nothing_in_fp16(tiny: Profile, tmp_path: Path, name: str) -> None:
    """A LayerScale or LayerNorm times a weight is of neither's precision: folded, it would be rounded a second time."""
    profile = replace(tiny, architecture=replace(tiny.architecture, layer_scale=True, class_token=True))
    encoder = Vit(profile.architecture).eval()
    random = torch.Generator().manual_seed(3)
    init_weights(encoder, random)
    with torch.no_grad():
        for parameter_name, parameter in encoder.named_parameters():
            if ".ls" in parameter_name or ".norm" in parameter_name:
                parameter.copy_(torch.randn(parameter.shape, generator=random))
            parameter.copy_(parameter.half())
    checkpoint, digest = profile_checkpoint(tiny)
    published = replace(checkpoint, architecture=profile.architecture, encoder=encoder.state_dict())
    requests = [Request(take_target(name), precision) for precision in ("fp32", "fp16")]
    given = Proving(synthetic_tiles(profile, 5), None, None, batches=(1, 4))
    full, half = (one.manifest for one in export(Source(profile, published, digest, 0.5), requests, given, tmp_path))
    assert half.certificate is not None
    assert max(proof.relative for proof in half.certificate.batches.values()) < 1e-5
    products, more = {"onnx": ("Mul", 4), "openvino": ("Multiply", 4), "tflite": ("MUL", 8)}[name]
    assert full.graph["operators"][products] + more == half.graph["operators"][products], "fp32 stays folded"


@pytest.mark.parametrize("precision", take_target("onnx").precisions)
def test_every_level_of_optimisation_gives_the_same_answers(
    every: dict[tuple[str, str], Exported], tiny: Profile, precision: str
) -> None:
    import onnxruntime
    import openvino

    folder, manifest = every["onnx", precision].folder, every["onnx", precision].manifest
    path = folder / manifest.models["any"]
    tiles = real_tiles(tiny, 40).tiles
    expected = open_runtime(folder, manifest, 1).run(tiles)
    # Int8 is summed in whole numbers, but what it is scaled by is not: where a kernel rounds a value to another step,
    # one step of one activation is the difference.
    allowed = 1e-5 * float(np.ptp(expected)) if precision in ("fp32", "fp16") else manifest.golden.tolerance
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_BASIC, levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_ALL):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        (found,) = session.run([manifest.output_name], {manifest.input_name: tiles})
        assert np.abs(found - expected).max() <= allowed, level
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    found = compiled(tiles)[manifest.output_name]
    assert np.abs(found - expected).max() <= allowed


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_export_twice_gives_the_same_bytes(tiny: Profile, tmp_path: Path, name: str) -> None:
    target = take_target(name)
    tiles = real_tiles(tiny, 60)
    for folder in ("a", "b"):
        made(tiny, tmp_path / folder, *(Request(target, p) for p in target.precisions), tiles=tiles)
    for path in sorted((tmp_path / "a").rglob("*")):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes(), path.name


class Sabotage:
    """A conversion that goes wrong on the way."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def __call__(self, model: FlightModel) -> None:
        with torch.no_grad():
            if self._kind == "one weight by 1 %":
                model.encoder.blocks[0].norm1.weight.mul_(1.01)
            elif self._kind == "two classes swapped":
                for tensor in (model.head.weight, model.head.bias):
                    tensor.copy_(tensor[[1, 0, 2]])
            else:
                model.encoder.blocks[1].mlp.forward = lambda x, _=None: model.encoder.blocks[1].mlp.fc2(  # type: ignore
                    torch.nn.functional.silu(model.encoder.blocks[1].mlp.fc1(x))
                )


@pytest.mark.parametrize("kind", ["one weight by 1 %", "two classes swapped", "an operator replaced"])
@pytest.mark.parametrize("name", FORMATS)
def test_a_sabotaged_conversion_is_caught_and_leaves_nothing(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    module = format_called(name)
    convert = module.convert

    def wrong(model: FlightModel, *rest: Any) -> Written:
        other = model_of(tiny)
        Sabotage(kind)(other)
        return convert(other, *rest)

    monkeypatch.setattr(module, "convert", wrong)
    with pytest.raises(
        ParityError, match=rf"stage 3, prove: {name}-fp32 against torch (on hostile tiles|at batch 1): logits differ"
    ):
        made(tiny, tmp_path / "artifact", Request(take_target(name)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_int8_that_costs_too_much_is_refused_with_the_figures(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = format_called(name)
    quantise = module.quantise
    tried: list[int] = []

    def wrong(base: Written, precision: str, calibration: Any, kept: Any, folder: Path) -> Written:
        tried.append(len(kept))
        written = quantise(base, precision, calibration, kept, folder)
        spoil = module.convert
        other = model_of(tiny)
        Sabotage("two classes swapped")(other)
        return spoil(other, torch.zeros(2, 3, 16, 16), take_target(name), (1, 4), written.folder)

    monkeypatch.setattr(module, "quantise", wrong)
    with pytest.raises(ParityError, match=r"is refused, even with half of its layers left in fp32 .* another class"):
        made(tiny, tmp_path / "artifact", Request(take_target(name), "int8-dynamic"), tiles=real_tiles(tiny, 60))
    assert tried == [0, 1, 2, 4]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", FORMATS)
def test_layers_that_are_kept_stay_in_fp32(tiny: Profile, tmp_path: Path, name: str) -> None:
    """With every layer kept, int8 is fp32; with one kept, it is nearer than with none."""
    module, target = format_called(name), take_target(name)
    model = model_of(tiny)
    tiles = real_tiles(tiny, 60).tiles
    example = torch.from_numpy(tiles[:2])
    (tmp_path / "base").mkdir()
    base = module.convert(model, example, target, (1,), tmp_path / "base")
    layers = layers_by_harm(model, tiles[:8])
    with torch.inference_mode():
        expected = model(torch.from_numpy(tiles[:16]))[0].numpy()
    apart = {}
    for kept in ((), tuple(layers[:2]), tuple(layers)):
        folder = tmp_path / str(len(kept))
        folder.mkdir()
        written = module.quantise(base, "int8-dynamic", tiles[:16], kept, folder)
        apart[len(kept)] = float(np.abs(answers_of(written, tiny, name)(tiles[:16]) - expected).mean())
    assert apart[len(layers)] < 1e-4
    assert apart[len(layers)] < apart[2] < apart[0]


def answers_of(written: Written, tiny: Profile, name: str) -> Callable[[np.ndarray], np.ndarray]:
    from edgeslim.onboard.runtimes.litert import LiteRt
    from edgeslim.onboard.runtimes.onnx import OnnxRuntime
    from edgeslim.onboard.runtimes.openvino import OpenVino

    if name == "tflite":
        return LiteRt({1: written.folder / written.models["1"]}, written.names, 1).run
    kind = OnnxRuntime if name == "onnx" else OpenVino
    return kind(written.folder / written.models["any"], written.names, 1).run


def test_layers_are_ranked_by_what_they_cost(tiny: Profile) -> None:
    model = model_of(tiny)
    tiles = real_tiles(tiny, 60).tiles[:8]
    with torch.no_grad():  # one row a thousand times larger than the rest leaves them no steps
        model.encoder.blocks[1].mlp.fc1.weight[:, 0].mul_(300)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    ranked = layers_by_harm(model, tiles)
    assert ranked[0] == "encoder.blocks.1.mlp.fc1"
    assert len(ranked) == 2 * 4 + 1
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert [len(kept) for kept in layers_to_try(ranked)] == [1, 2, 4]


def test_static_int8_needs_real_tiles(tiny: Profile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"int8-static: found no --tiles"):
        made(tiny, tmp_path / "artifact", Request(take_target("onnx"), "int8-static"))
    assert list(tmp_path.iterdir()) == []


def test_a_precision_that_a_target_has_not(tiny: Profile) -> None:
    with pytest.raises(InputError, match="--precision fp8: onnx is exported in fp32, fp16"):
        Request(take_target("onnx"), "fp8")


def test_without_real_tiles_the_verdict_is_numerics_only(tiny: Profile, tmp_path: Path) -> None:
    (done,) = made(tiny, tmp_path / "artifact", Request(take_target("onnx")))
    assert done.manifest.certificate is not None
    assert done.manifest.certificate.verdict == "numerics only"


def test_a_lost_score_is_refused(tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Agreement is high, but the few tiles that turned were right before."""
    tiles = real_tiles(tiny, 300, labels=True)
    request = Request(take_target("onnx"), "int8-dynamic")
    from edgeslim.ground.exporting import proof

    def lower(logits: np.ndarray, labels: np.ndarray, seen: list[int] = []) -> float:  # noqa: B006
        seen.append(1)
        return 0.9 if len(seen) % 2 else 0.88

    monkeypatch.setattr(proof, "_accuracy", lower)
    with pytest.raises(ParityError, match=r"accuracy falls from 90.00% to 88.00%, expected at most 1.00% less"):
        made(tiny, tmp_path / "artifact", request, tiles=tiles)


@pytest.mark.parametrize(("name", "extra"), [("openvino", "ground-openvino"), ("tflite", "ground-tflite")])
def test_a_missing_extra_names_the_pip_line(monkeypatch: pytest.MonkeyPatch, name: str, extra: str) -> None:
    import sys

    real = builtins.__import__

    def without(module: str, *rest: Any, **more: Any) -> Any:
        if module.split(".")[0] in ("openvino", "litert_torch"):
            raise ImportError(name=module)
        return real(module, *rest, **more)

    monkeypatch.delitem(sys.modules, f"edgeslim.ground.formats.{name}", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=rf"pip install 'edgeslim\[{extra}\]'"):
        format_called(name)


@pytest.mark.parametrize("name", FORMATS)
def test_a_full_disk_leaves_no_artifact(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module = format_called(name)

    def full(*_: Any) -> Written:
        raise OSError(28, "No space left on device")

    for stage in ("convert", "quantise"):
        with monkeypatch.context() as patch:
            patch.setattr(module, stage, full)
            with pytest.raises(PackError, match="No space left on device"):
                made(tiny, tmp_path / "artifact", Request(take_target(name), "fp16"))
        assert list(tmp_path.iterdir()) == []


def test_several_artifacts_go_beside_each_other_or_not_at_all(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = take_target("onnx")
    out = tmp_path / "artifacts"
    both = (Request(target), Request(target, "fp16"))
    made(tiny, out, *both)
    assert sorted(p.name for p in out.iterdir()) == ["onnx-fp16", "onnx-fp32"]
    made(tiny, out, *both)  # replaced
    with pytest.raises(InputError, match="the same target and precision twice"):
        made(tiny, out, both[0], both[0])
    (out / "notes").mkdir()
    with pytest.raises(InputError, match="holds notes, which is no artifact"):
        made(tiny, out, *both)
    other = tmp_path / "other"
    monkeypatch.setattr(format_called("onnx"), "quantise", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(PackError):
        made(tiny, other, *both)
    assert not other.exists()


def test_every_precision_has_its_arithmetic() -> None:
    assert {precision for _, precision in EVERY} == set(ARITHMETIC)


def test_a_card_may_only_tighten() -> None:
    card = take_target("onnx")
    with pytest.raises(InputError, match=r"fp32: relative: found 0.001, expected at most 0.0001"):
        replace(card, tolerance={**card.tolerance, "fp32": 1e-3})
    with pytest.raises(InputError, match=r"int8-static: agreement: found 0.9, expected at least 0.99"):
        replace(card, agreement={"int8-static": 0.9})
    assert replace(card, agreement={"int8-static": 0.995}).ceiling("int8-static").agreement == 0.995


def test_hostile_tiles_are_what_they_say(tiny: Profile) -> None:
    tiles = hostile_tiles(tiny).tiles
    assert len(tiles) == HOSTILE
    assert sum(np.ptp(tile) == 0 for tile in tiles) == 5
    assert tiles.max() == 65535


def test_converters_are_loaded_in_silence_and_report_nothing_home(tmp_path: Path) -> None:
    """A process of its own: pytest tells their telemetry to be still."""
    code = """
import sys
from edgeslim.ground.formats import format_called
format_called("tflite"), format_called("openvino")
import nncf
print(sys.modules["openvino_telemetry"])
"""
    environment = {key: value for key, value in os.environ.items() if key != "CI"} | {"HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("None\n", "")
    assert not list(tmp_path.iterdir())
