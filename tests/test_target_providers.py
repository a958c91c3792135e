"""Export cards that name execution providers."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeslim.errors import InputError
from edgeslim.onboard.runtimes.providers import CUDA, TENSORRT
from edgeslim.shelf import shelf_folder
from edgeslim.target import PRODUCTS, PROVIDERS, load_target, take_target, targets_on


def test_the_card_of_jetsons() -> None:
    target = take_target("tensorrt")
    assert take_target("jetson") == target
    assert (target.format, target.runtime, target.batch) == ("onnx", "onnxruntime", "dynamic")
    assert target.providers == PROVIDERS == (TENSORRT, CUDA)
    assert "LayerNormalization" in target.operators
    assert "Gelu" not in target.operators, "TensorRT 8.6 has none"
    assert not set(target.cpu_operators) & set(PRODUCTS)
    assert target in targets_on(["tensorrt"])


def test_other_cards_stay_on_the_cpu() -> None:
    for name in ("onnx", "openvino", "tflite"):
        assert (take_target(name).providers, take_target(name).cpu_operators) == ((), ())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"CUDAExecutionProvider"]', '"CPUExecutionProvider"]', "providers: found 'TensorrtExecutionProvider', 'CPUE"),
        ('"CUDAExecutionProvider"]', '"TensorrtExecutionProvider"]', "expected each once of"),
        ('runtime = "onnxruntime"', 'runtime = "litert"', "providers: found some for litert, expected them for onnxr"),
        ('providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider"]', "", "cpu_operators: found some without"),
        ('"Cast", "Concat", "ConstantOfShape"', '"Cast", "MatMul"', "cpu_operators: found MatMul, expected operators"),
        ('\nproviders = "what', '\nprovider = "what', "sources: missing key 'providers'"),
        ('\noperators = "of', '\noperator = "of', "sources: missing key 'operators'"),
    ],
)
def test_wrong_cards_name_file_key_found_and_expected(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (shelf_folder("export") / "tensorrt.toml").read_text(encoding="utf-8")
    assert old in text
    path = tmp_path / "tensorrt.toml"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_target(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_a_graph_is_held_against_its_card() -> None:
    target = take_target("tensorrt")
    target.require_graph({"opset": 17, "operators": {"MatMul": 3, "LayerNormalization": 2}})
    target.require_graph({"opset": 16, "operators": {}})
    with pytest.raises(InputError, match="of opset 18, expected at most 17"):
        target.require_graph({"opset": 18, "operators": {}})
    with pytest.raises(InputError, match=r"the network has Gelu, com\.microsoft\.FusedMatMul, expected none but"):
        target.require_graph({"opset": 17, "operators": {"Gelu": 1, "com.microsoft.FusedMatMul": 1, "Add": 1}})
    take_target("onnx").require_graph({"opset": 20, "operators": {"Gelu": 1}})
