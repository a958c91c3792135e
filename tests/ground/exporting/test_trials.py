"""What several exports of one width share, and what the trials of int8 do not do again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from edgeslim.errors import ConvertError, ParityError
from edgeslim.ground.exporting import capture as capturing
from edgeslim.ground.exporting import quantisation
from edgeslim.ground.exporting.capture import Proving, Request, Source, capture
from edgeslim.ground.exporting.export import export_captured
from edgeslim.ground.exporting.quantisation import layers_by_harm
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.formats import Written, format_called
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.manifest import read_manifest
from edgeslim.profile import Profile
from edgeslim.target import take_target
from tests.ground.exporting.test_formats import Sabotage, made, model_of, real_tiles


def test_torch_and_the_converter_are_asked_once_for_several_exports(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, target = format_called("onnx"), take_target("onnx")
    counted = {"answers": 0, "convert": 0}

    def counting(name: str, call: Any) -> Any:
        def counted_call(*arguments: Any) -> Any:
            counted[name] += 1
            return call(*arguments)

        return counted_call

    monkeypatch.setattr(capturing, "answers", counting("answers", capturing.answers))
    monkeypatch.setattr(module, "convert", counting("convert", module.convert))
    checkpoint, digest = profile_checkpoint(tiny)
    proving = Proving(synthetic_tiles(tiny, 5), real_tiles(tiny, 40))
    captured = capture(Source(tiny, checkpoint, digest, 0.5), proving, lambda _: None)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for precision in ("fp32", "fp16"):
        export_captured(captured, [Request(target, precision)], tmp_path / precision, scratch=scratch)
        assert read_manifest(tmp_path / precision).precision == precision
    assert counted == {"answers": 3, "convert": 1}  # of golden, hostile and proof tiles
    # Without a folder to keep it in, what was converted goes with the call; so the next one does not trust in it.
    captured.converted.clear()
    for out in ("a", "b"):
        export_captured(captured, [Request(target)], tmp_path / out)
        assert captured.converted == {}
    assert counted == {"answers": 3, "convert": 3}
    assert read_manifest(tmp_path / "a").files == read_manifest(tmp_path / "fp32").files


def test_a_conversion_that_failed_can_be_tried_again(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, target = format_called("onnx"), take_target("onnx")
    checkpoint, digest = profile_checkpoint(tiny)
    captured = capture(Source(tiny, checkpoint, digest, 0.5), Proving(synthetic_tiles(tiny, 5)), lambda _: None)
    with monkeypatch.context() as broken:
        broken.setattr(module, "convert", lambda *_: (_ for _ in ()).throw(RuntimeError("no such operator")))
        with pytest.raises(ConvertError, match="no such operator"):
            export_captured(captured, [Request(target)], tmp_path / "out", scratch=tmp_path)
    export_captured(captured, [Request(target)], tmp_path / "out", scratch=tmp_path)
    assert read_manifest(tmp_path / "out").format == "onnx"


def test_ranges_are_taken_once_for_every_trial(tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TFLite's static int8 with a layer left out, after one without: the same bytes as calibrated for itself."""
    module = format_called("tflite")
    tiles = real_tiles(tiny, 60).tiles[:8].astype("float32")
    calibrated: list[int] = []
    inputs = module._calibration  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "_calibration", lambda *a: calibrated.append(a[1]) or inputs(*a))
    kept = ("encoder.blocks.1.mlp.fc1",)
    found = {}
    for name, trials in (("after another", ((), kept)), ("alone", (kept,))):
        folder = tmp_path / name
        (folder / "base").mkdir(parents=True)
        model, example = model_of(tiny), torch.from_numpy(tiles[:2])
        base: Written = module.convert(model, example, take_target("tflite"), (1, 4), folder / "base")
        for number, left_out in enumerate(trials):
            (folder / str(number)).mkdir()
            written = module.quantise(base, "int8-static", tiles, left_out, folder / str(number))
        found[name] = [(written.folder / file).read_bytes() for file in written.models.values()]
    assert calibrated == [1, 4, 1, 4]
    assert found["after another"] == found["alone"]
    # Nor does it matter whether the files of several batch sizes are written at once.
    (tmp_path / "larger").mkdir()
    larger = replace(base, models={"4": base.models["4"]})
    module.quantise(larger, "int8-static", tiles, kept, tmp_path / "larger")
    assert (tmp_path / "larger" / base.models["4"]).read_bytes() == found["alone"][1]


def test_the_last_class_of_a_folder_does_not_say_what_the_ranges_are(tiny: Profile, tmp_path: Path) -> None:
    """Half the tiles dark, half bright: a batch of each half's own would be the last one's for most of an average."""
    module = format_called("tflite")
    dark = real_tiles(tiny, 60).tiles[:32].astype("float32")
    tiles = np.concatenate([dark, dark + 1000])
    base: Written = module.convert(model_of(tiny), torch.from_numpy(tiles[:8]), take_target("tflite"), (8,), tmp_path)
    ((_, batches),) = module._calibration(tmp_path / base.models["8"], 8, tiles).items()  # type: ignore[attr-defined]
    given = np.concatenate([part for batch in batches for part in batch.values()])
    assert sorted(tile.tobytes() for tile in given) == sorted(tile.tobytes() for tile in tiles)
    bright = [np.isin([tile.tobytes() for tile in part], [tile.tobytes() for tile in tiles[32:]]).sum()
              for batch in batches for part in batch.values()]  # fmt: skip
    assert all(0 < count < 8 for count in bright)


def test_what_comes_before_a_layer_is_not_computed_again(tiny: Profile) -> None:
    """The order is that of whole forward passes, of which a layer's own block and those after it are made."""
    model, tiles = model_of(tiny), real_tiles(tiny, 60).tiles[:8].astype("float32")
    given, harm = torch.from_numpy(tiles), {}
    with torch.inference_mode():
        expected = model(given)[0]
        for name, layer in [(n, m) for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)]:
            other = model_of(tiny)
            harmed = other.get_submodule(name)
            harmed.weight.data = quantisation._int8_rows(layer.weight)
            harmed.register_forward_pre_hook(quantisation._quantised_input)
            harm[name] = float((other(given)[0] - expected).abs().mean())
    computed = [0] * len(model.encoder.blocks)

    def count(number: int) -> Any:
        return lambda *_: computed.__setitem__(number, computed[number] + 1)

    for number, block in enumerate(model.encoder.blocks):
        block.norm1.register_forward_hook(count(number))
    assert layers_by_harm(model, tiles) == sorted(harm, key=lambda name: -harm[name])
    assert computed == [1 + 4, 1 + 4 + 4]  # once as it is, and for the layers of this block and those before
    with torch.inference_mode():
        assert torch.equal(model(given)[0], expected)


@pytest.mark.parametrize("name", ["onnx", "tflite"])
def test_a_trial_that_fails_writes_no_other_batch_size(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, target = format_called(name), take_target(name)
    asked: list[list[str]] = []

    def wrong(base: Written, precision: str, calibration: Any, kept: Any, folder: Path) -> Written:
        asked.append(list(base.models))
        other = model_of(tiny)
        Sabotage("two classes swapped")(other)
        return module.convert(other, torch.zeros(2, 3, 16, 16), target, (1,), folder)

    monkeypatch.setattr(module, "quantise", wrong)
    tiles = real_tiles(tiny, 60)
    with pytest.raises(ParityError) as refused:
        made(tiny, tmp_path / "artifact", Request(target, "int8-dynamic"), tiles=tiles)
    assert [layers for layers, _ in refused.value.trials] == [0, 1, 2, 4]
    assert all(f"at most 0 of {len(tiles)} may" in why for _, why in refused.value.trials)
    assert asked == 4 * [["1"] if name == "tflite" else ["any"]]
