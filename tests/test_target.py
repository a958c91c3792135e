from pathlib import Path

import pytest

from edgeslim.errors import InputError, UnknownName
from edgeslim.shelf import shelf_folder
from edgeslim.target import load_target, take_target


def test_onnx_loads_in_the_runtime_of_python_3_10() -> None:
    target = take_target("onnx")
    assert target.opset <= 20
    assert target.ir_version <= 10
    assert target.tolerance == {"fp32": 1e-4}
    assert target.batch == "dynamic"
    assert target.runtimes == ("onnxruntime-cpu",)
    assert target.model_file == "model.onnx"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fp32 = 1e-4", "fp32 = -1e-4", "tolerance.fp32: found -0.0001, expected more than 0"),
        ("fp32 = 1e-4", "fp16 = 1e-4", "tolerance: missing key 'fp32'"),
        ('batch = "dynamic"', 'batch = "any"', "batch: found 'any', expected 'dynamic' or 'static'"),
        ("opset = 18", 'opset = "18"', "opset: found '18', expected a whole number"),
        ("opset = 18", "opset = 18\nopsets = 2", "unknown key 'opsets'"),
        ("[sources]\nopset = ", "[sources]\nopsets = ", "sources: missing key 'opset'"),
        ('precisions = ["fp32"]', 'precisions = ["fp12"]', "precisions: found 'fp12'"),
        ("schema = 1", "schema = 2", "schema: found 2, expected 1"),
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
