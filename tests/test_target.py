from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.shelf import shelf_folder
from edgeslim.target import load_target, take_target


def test_onnx_loads_in_the_runtime_of_python_3_10() -> None:
    target = take_target("onnx")
    assert target.opset <= 20
    assert target.ir_version <= 10
    assert target.tolerance == {"fp32": 2e-5, "fp16": 1e-2}
    assert target.batch == "dynamic"
    assert target.runtimes == ("onnxruntime-cpu",)
    assert target.model_file == "model.onnx"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fp32 = 2e-5", "fp32 = -2e-5", "tolerance.fp32: found -2e-05, expected more than 0"),
        ("fp32 = 2e-5", "", "tolerance: missing key 'fp32'"),
        ("fp32 = 2e-5", "fp32 = 2e-4", "fp32: relative: found 0.0002, expected at most 0.0001"),
        ("fp32 = 2e-5", "fp32 = 2e-5\nint8-static = 1", "tolerance.int8-static: found 1, expected no such key"),
        ('"onnxruntime"\nmodel', '"tensorrt"\nmodel', "runtime: found 'tensorrt', expected one of 'onnxruntime'"),
        ('"model.onnx"', '"model.b{batch}.onnx"', "model_file: found 'model.b{batch}.onnx'"),
        ('batch = "dynamic"', 'batch = "any"', "batch: found 'any', expected one of 'dynamic', 'static'"),
        ("opset = 20", 'opset = "20"', "opset: found '20', expected a whole number"),
        ("opset = 20", "opset = 20\nopsets = 2", "unknown key 'opsets'"),
        ("[sources]\nopset = ", "[sources]\nopsets = ", "sources: missing key 'opset'"),
        ('precisions = ["fp32"', 'precisions = ["fp12"', "precisions: found 'fp12'"),
        ("schema = 2", "schema = 1", "schema: found 1, expected 2"),
    ],
)
def test_wrong_cards_name_file_key_found_and_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (shelf_folder("export") / "onnx.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "onnx.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_target(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_an_unknown_target_lists_what_there_is() -> None:
    with pytest.raises(UnknownName, match="onnx"):
        take_target("onx")
