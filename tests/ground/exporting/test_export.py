"""Export: proven equal at every width, and nothing left behind by what fails."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from edgeslim import cost
from edgeslim.errors import ConvertError, InputError, PackError, ParityError
from edgeslim.ground.checkpoints.checkpoint import Checkpoint
from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import Exported, export
from edgeslim.ground.flight import flight_model, profile_checkpoint
from edgeslim.ground.formats import Written
from edgeslim.ground.formats import onnx as onnx_format
from edgeslim.ground.golden import GoldenTiles, golden_tiles, synthetic_tiles
from edgeslim.ground.slimming.slimmed_checkpoint import slimmed_checkpoint
from edgeslim.manifest import read_manifest, verify_files
from edgeslim.onboard.check import check_artifact
from edgeslim.onboard.runtimes.onnx import OnnxRuntime
from edgeslim.profile import Profile
from edgeslim.target import take_target
from tests.ground.exporting.test_mlm import require_valid

TARGET = take_target("onnx")


def _export(tiny: Profile, out: Path, width: float = 0.5, golden: GoldenTiles | None = None) -> Exported:
    checkpoint, digest = profile_checkpoint(tiny)
    proving = Proving(golden or synthetic_tiles(tiny, 5))
    return export(Source(tiny, checkpoint, digest, width), [Request(TARGET)], proving, out)[0]


@pytest.mark.parametrize("width", [1.0, 0.5, 0.25, 1 / 8])
def test_the_file_equals_torch_on_tiles_it_was_not_proven_on(tiny: Profile, tmp_path: Path, width: float) -> None:
    done = _export(tiny, tmp_path / "artifact", width)
    checkpoint, _ = profile_checkpoint(tiny)
    model = flight_model(tiny, slimmed_checkpoint(checkpoint, width))
    runtime = OnnxRuntime(tmp_path / "artifact" / "model.onnx", ("tiles", "logits", "features"), threads=1)
    for batch in (1, 2, 7):
        tiles = np.random.default_rng(batch).uniform(-500, 6000, (batch, 3, 16, 16)).astype(np.float32)
        with torch.inference_mode():
            expected = model(torch.from_numpy(tiles))[0].numpy()
        np.testing.assert_allclose(runtime.run(tiles), expected, rtol=0, atol=1e-4)
    graph = onnx.load(tmp_path / "artifact" / "model.onnx")
    weights = sum(int(np.prod(t.dims)) for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT)
    # The normalisation's constants and folded scalars are all that the file holds beside the closed form's parameters.
    assert 0 <= weights - cost.parameters(tiny.architecture.at(width), classes=3) < 64
    assert done.manifest.total_parameters == cost.parameters(tiny.architecture.at(width), classes=3)


def test_the_artifact_says_what_it_is(tiny: Profile, tmp_path: Path) -> None:
    done = _export(tiny, tmp_path / "artifact")
    read = read_manifest(tmp_path / "artifact")
    assert read == done.manifest
    verify_files(tmp_path / "artifact", read)
    files = ["golden.npz", "manifest.json", "model.onnx", "stac-item.json", "weights.bin"]
    assert sorted(p.name for p in (tmp_path / "artifact").iterdir()) == files
    modes = {(tmp_path / "artifact" / name).stat().st_mode & 0o777 for name in files}
    assert modes == {(tmp_path / "artifact" / "manifest.json").stat().st_mode & 0o777}  # readable by those who fly it
    assert read.golden.synthetic
    assert read.radiometry == tiny.radiometry
    assert read.source == tiny.source
    # The manifest vouches for the item, the item for the files of the network.
    assert set(read.files) == {*files} - {"manifest.json"}
    item = json.loads((tmp_path / "artifact" / "stac-item.json").read_text(encoding="utf-8"))
    require_valid(item)
    assert item["assets"]["weights.bin"]["file:checksum"] == "1220" + read.files["weights.bin"]
    assert item["properties"]["mlm:framework_version"] == "1.15.0"  # opset 20
    report = check_artifact(tmp_path / "artifact", threads=1)
    assert report is not None
    raw = onnx.load(tmp_path / "artifact" / "model.onnx")
    assert raw.ir_version <= 10
    assert [o.version for o in raw.opset_import if o.domain == ""] == [20]
    assert raw.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {"LayerNormalization"} <= {node.op_type for node in raw.graph.node}
    text = (tmp_path / "artifact" / "model.onnx").read_bytes()
    assert b"site-packages" not in text
    assert b"edgeslim/ground" not in text


def test_the_same_export_twice_gives_the_same_bytes(tiny: Profile, tmp_path: Path) -> None:
    _export(tiny, tmp_path / "a")
    _export(tiny, tmp_path / "b")
    assert read_manifest(tmp_path / "a").files == read_manifest(tmp_path / "b").files


@pytest.mark.parametrize("sabotage", ["one weight by 1 %", "two classes swapped"])
def test_a_wrong_conversion_is_caught_and_leaves_nothing(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sabotage: str
) -> None:
    convert = onnx_format.convert

    def wrong(*arguments: Any) -> Written:
        written = convert(*arguments)
        path = written.folder / written.models["any"]
        proto = onnx.load(path)
        if sabotage == "two classes swapped":
            tensor = next(t for t in proto.graph.initializer if t.name.endswith("head.bias"))
            values = onnx.numpy_helper.to_array(tensor)[[1, 0, 2]]
        else:
            tensor = next(t for t in proto.graph.initializer if "norm1.weight" in t.name)
            values = onnx.numpy_helper.to_array(tensor) * 1.01
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.ascontiguousarray(values, np.float32), tensor.name))
        onnx.save(proto, path)
        return written

    _export(tiny, tmp_path / "artifact", 1.0)
    before = read_manifest(tmp_path / "artifact")
    monkeypatch.setattr(onnx_format, "convert", wrong)
    with pytest.raises(
        ParityError, match=r"stage 3, prove: onnx-fp32 against torch (on hostile tiles|at batch 1): logits differ"
    ):
        _export(tiny, tmp_path / "artifact", 0.5)
    assert read_manifest(tmp_path / "artifact") == before
    assert [p.name for p in tmp_path.iterdir()] == ["artifact"]


def test_failures_of_a_stage_name_it_and_leave_nothing(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("Unsupported operator\nand a page of trace")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx_format, "convert", broken)
    with pytest.raises(ConvertError, match=r"^stage 2, convert: Unsupported operator; report it with this plan$"):
        _export(tiny, tmp_path / "artifact")
    monkeypatch.setattr(onnx_format, "convert", full)
    with pytest.raises(PackError, match="No space left on device"):
        _export(tiny, tmp_path / "artifact")
    assert list(tmp_path.iterdir()) == []


def test_a_users_own_files_are_never_touched(tiny: Profile, tmp_path: Path) -> None:
    _export(tiny, tmp_path / "artifact", 0.25)
    _export(tiny, tmp_path / "artifact", 0.5)
    assert read_manifest(tmp_path / "artifact").width_multiplier == 0.5
    (tmp_path / "artifact" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds notes.txt, which is no part of an artifact"):
        _export(tiny, tmp_path / "artifact", 1.0)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file, expected a folder"):
        _export(tiny, tmp_path / "file")


def test_a_link_stays_one_and_what_it_names_is_replaced(tiny: Profile, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "artifact")
    for width in (0.25, 0.5):  # made, then replaced
        _export(tiny, tmp_path / "link", width)
        assert (tmp_path / "link").is_symlink()
        assert read_manifest(tmp_path / "disk" / "artifact").width_multiplier == width
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_dir()) == ["artifact", "disk", "link"]


def test_a_width_without_a_head_is_refused(tiny: Profile, tmp_path: Path) -> None:
    checkpoint, digest = profile_checkpoint(tiny)
    bare = Checkpoint(checkpoint.architecture, checkpoint.encoder, {8: checkpoint.heads[8]})
    with pytest.raises(InputError, match=r"no head for 4 dimensions a head \(has: 8\)"):
        export(
            Source(tiny, bare, digest, 0.5), [Request(TARGET)], Proving(synthetic_tiles(tiny, 2)), tmp_path / "artifact"
        )
    assert list(tmp_path.iterdir()) == []
    wrong = replace(tiny, classes=tiny.classes[:2])
    with pytest.raises(InputError, match="head has 3 classes, its card 2"):
        export(
            Source(wrong, checkpoint, digest, 0.5),
            [Request(TARGET)],
            Proving(synthetic_tiles(tiny, 2)),
            tmp_path / "artifact",
        )


def test_golden_tiles_are_real_ones_where_given(tiny: Profile, tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "tiles"
    (folder / "Forest").mkdir(parents=True)
    for i in range(30):
        Image.new("RGB", (16, 16), (i, 2 * i, 3 * i)).save(folder / "Forest" / f"{i:02d}.png")
    golden = golden_tiles(tiny, folder)
    assert golden.tiles.shape == (16, 3, 16, 16)
    assert not golden.synthetic
    assert golden.source == "16 tiles of tiles"
    # A grey level is 2750 / 255 DN.
    assert golden.tiles[-1, :, 0, 0].tolist() == [313.0, 625.0, 938.0]
    with pytest.raises(InputError, match="found no such file or folder"):
        golden_tiles(tiny, tmp_path / "none")
    synthetic = golden_tiles(tiny, None)
    assert synthetic.synthetic
    assert np.array_equal(synthetic.tiles, golden_tiles(tiny, None).tiles)
    assert json.dumps(synthetic.source)


@pytest.mark.parametrize(("licence", "why"), [("CC-BY-NC-4.0", "research-only"), ("unknown", "not known to be open")])
def test_weights_under_other_licences_need_a_persons_word(
    tiny: Profile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, licence: str, why: str
) -> None:
    checkpoint, digest = profile_checkpoint(tiny)
    source = Source(replace(tiny, licence=licence), checkpoint, digest, 0.5)
    arguments = [Request(TARGET)], Proving(synthetic_tiles(tiny, 2)), tmp_path / "artifact"
    with monkeypatch.context() as early:
        early.setattr(onnx_format, "convert", lambda *_: pytest.fail("worked before it refused"))
        with pytest.raises(InputError, match=rf"found '{licence}', {why}; .*--accept-licence") as refused:
            export(source, *arguments)
    assert len(str(refused.value).splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
    export(replace(source, accept_licence=True), *arguments)
    manifest = read_manifest(tmp_path / "artifact")
    assert (manifest.licence, manifest.licence_accepted) == (licence, True)
    item = json.loads((tmp_path / "artifact" / "stac-item.json").read_text(encoding="utf-8"))
    assert item["properties"]["license"] == (licence if licence.startswith("CC") else "other")
    assert item["properties"]["edgeslim:encoder"]["licence_accepted"] is True


def test_accepting_an_open_licence_changes_nothing(tiny: Profile, tmp_path: Path) -> None:
    checkpoint, digest = profile_checkpoint(tiny)
    for name, accepted in (("a", False), ("b", True)):
        source = Source(tiny, checkpoint, digest, 0.5, accept_licence=accepted)
        export(source, [Request(TARGET)], Proving(synthetic_tiles(tiny, 2)), tmp_path / name)
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "b" / "manifest.json").read_bytes()


def test_a_damaged_checkpoint_is_noticed(tiny: Profile, tmp_path: Path) -> None:
    assert tiny.checkpoint is not None
    copy = tmp_path / "tiny.safetensors"
    data = bytearray(tiny.checkpoint.read_bytes())
    data[-5] ^= 1
    copy.write_bytes(bytes(data))
    with pytest.raises(InputError, match="its SHA-256 is not the card's"):
        profile_checkpoint(replace(tiny, checkpoint=copy))


def test_tiles_of_a_scene_that_prove_an_export_do_not_overlap(tiny: Profile, tmp_path: Path) -> None:
    from edgeslim.ground.golden import proof_tiles
    from tests.onboard.artifacts import make_scene

    values = np.broadcast_to(np.arange(1, 100 * 100 + 1, dtype=np.uint16).reshape(100, 100), (3, 100, 100))
    scene = make_scene(tmp_path / "scene.tif", values)
    tiles, _ = proof_tiles(tiny, scene)
    assert len(tiles) == (100 // 16) ** 2
    assert len(np.unique(tiles.tiles[:, 0])) == tiles.tiles[:, 0].size  # no pixel stands in two of them
    assert len(golden_tiles(tiny, scene)) == 16
