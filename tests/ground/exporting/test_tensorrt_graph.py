"""The network as TensorRT's parser meets it: opset, operators, types, batch. No GPU is needed for that."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeslim.ground.exporting.capture import Proving, Request, Source
from edgeslim.ground.exporting.export import export
from edgeslim.ground.flight import profile_checkpoint
from edgeslim.ground.formats.opset import lower_opset
from edgeslim.ground.golden import synthetic_tiles
from edgeslim.manifest import read_manifest
from edgeslim.onboard.runtimes.providers import CUDA, TENSORRT
from edgeslim.profile import Profile, take_profile
from edgeslim.target import take_target

TARGET = take_target("tensorrt")
PARSED = frozenset(
    {
        "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "AveragePool",
        "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv",
        "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div", "Dropout", "Einsum",
        "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten", "Floor", "Gather", "GatherElements",
        "GatherND", "Gemm", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "Greater", "GreaterOrEqual",
        "GridSample", "GroupNormalization", "GRU", "HardSwish", "HardSigmoid", "Identity", "If", "ImageScaler",
        "InstanceNormalization", "IsInf", "IsNaN", "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log",
        "LogSoftmax", "Loop", "LRN", "LSTM", "LpNormalization", "LpPool", "MatMul", "Max", "MaxPool", "Mean",
        "MeanVarianceNormalization", "Min", "Mod", "Mul", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot",
        "Or", "Pad", "ParametricSoftplus", "Pow", "PRelu", "QuantizeLinear", "RandomNormal", "RandomNormalLike",
        "RandomUniform", "RandomUniformLike", "Range", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum",
        "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
        "Relu", "Reshape", "Resize", "ReverseSequence", "RNN", "RoiAlign", "Round", "ScaledTanh", "Scan", "Scatter",
        "ScatterElements", "ScatterND", "Selu", "Shape", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Size",
        "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Sum", "Tan",
        "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze", "Upsample", "Where", "Xor",
    }
)  # fmt: skip
"""All with a Y in https://github.com/onnx/onnx-tensorrt/blob/release/8.6-GA/docs/operators.md: JetPack 6.0's parser."""
SHAPE_INPUTS = {
    ("Reshape", 1), ("Expand", 1), ("Squeeze", 1), ("Unsqueeze", 1), ("Split", 1), ("Tile", 1), ("ConstantOfShape", 0),
    ("Slice", 1), ("Slice", 2), ("Slice", 3), ("Slice", 4), ("Gather", 1), ("ReduceSum", 1),
}  # fmt: skip
"""Inputs that say how tensors are cut and laid out, by operator and position."""
SHAPE_OPERATORS = {"Shape", "Gather", "Concat", "Cast", "Slice", "Squeeze", "Unsqueeze", "Add", "Mul", "Sub", "Div"}
"""Operators that compute such inputs from other whole numbers."""


@pytest.fixture(scope="module", params=["fp32", "fp16"])
def written(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded encoder, as it is exported for Jetsons."""
    profile = take_profile("eurosat-rgb")
    checkpoint, digest = profile_checkpoint(profile)
    out = tmp_path_factory.mktemp("tensorrt") / request.param
    source = Source(profile, checkpoint, digest, 0.25)
    export(source, [Request(TARGET, request.param)], Proving(synthetic_tiles(profile, 4)), out)
    return out


def test_the_manifest_says_where_it_is_to_fly(written: Path) -> None:
    manifest = read_manifest(written)
    assert manifest.providers == (TENSORRT, CUDA)
    assert manifest.cpu_operators == TARGET.cpu_operators
    assert manifest.graph["opset"] == 17
    assert manifest.certificate is not None
    assert CUDA not in manifest.certificate.runtime, "it was proven on this machine's processor, and says so"


def test_opset_ir_and_one_operator_for_each_layer_normalization(written: Path) -> None:
    proto = onnx.load(written / "model.onnx")
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 17)]
    assert proto.ir_version <= 8
    operators = Counter(node.op_type for node in proto.graph.node)
    blocks = take_profile("eurosat-rgb").architecture.depth
    assert operators["LayerNormalization"] == 2 * blocks + 1
    # A normalisation taken apart would leave a mean and a root for each; the one mean is that over the tokens.
    assert operators["ReduceMean"] <= 1
    assert operators["Sqrt"] == operators["Pow"] == 0


def test_no_operator_that_the_parser_does_not_take(written: Path) -> None:
    proto = onnx.load(written / "model.onnx")
    found = {node.op_type for node in proto.graph.node}
    assert found <= PARSED
    assert found <= set(TARGET.operators) <= PARSED
    assert {node.domain for node in proto.graph.node} == {""}
    assert not proto.functions


def test_one_file_for_every_batch(written: Path) -> None:
    proto = onnx.load(written / "model.onnx")
    for value in (*proto.graph.input, *proto.graph.output):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param
        assert all(dim.dim_value > 0 for dim in rest)
    session = onnxruntime.InferenceSession(str(written / "model.onnx"), providers=["CPUExecutionProvider"])
    tiles = np.random.default_rng(1).uniform(0, 2750, (5, 3, 64, 64)).astype(np.float32)
    all_at_once = session.run(["logits"], {"tiles": tiles})[0]
    for batch in (1, 2, 5):
        np.testing.assert_allclose(session.run(["logits"], {"tiles": tiles[:batch]})[0], all_at_once[:batch], atol=1e-4)


def test_whole_numbers_only_where_shapes_are(written: Path) -> None:
    """TensorRT 8 narrows int64 to int32: harmless in shapes, which are small."""
    proto = onnx.shape_inference.infer_shapes(onnx.load(written / "model.onnx"), strict_mode=True)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*proto.graph.value_info, *proto.graph.input)}
    kinds |= {t.name: t.data_type for t in proto.graph.initializer}
    whole = {name for name, kind in kinds.items() if kind in (TensorProto.INT64, TensorProto.INT32)}
    assert whole, "a network without a single shape is no longer what this test looks at"
    for node in proto.graph.node:
        for position, name in enumerate(node.input):
            if name in whole:
                inner = node.op_type in SHAPE_OPERATORS and set(node.output) <= whole
                assert (node.op_type, position) in SHAPE_INPUTS or inner, (node.op_type, position, name)
    for tensor in proto.graph.initializer:
        if tensor.name in whole:
            assert np.abs(numpy_helper.to_array(tensor).clip(-(2**62), 2**31)).max(initial=0) <= 2**31


def test_the_older_spelling_computes_the_same(tmp_path: Path) -> None:
    """Axes of a mean as an input (18) and as an attribute (17), and Split without a number of parts."""
    graph = helper.make_graph(
        [
            helper.make_node("Constant", [], ["axes"], value=numpy_helper.from_array(np.array([2, 3]))),
            helper.make_node("ReduceMean", ["x", "axes"], ["mean"], keepdims=0),
            helper.make_node("Split", ["mean"], ["a", "b"], axis=1, num_outputs=2),
            helper.make_node("Sub", ["a", "b"], ["y"]),
        ],
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4, 3, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    x = np.random.default_rng(0).normal(size=(2, 4, 3, 3)).astype(np.float32)
    before = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    lower_opset(proto, 17)
    onnx.checker.check_model(proto, full_check=True)
    assert [node.op_type for node in proto.graph.node] == ["ReduceMean", "Split", "Sub"]
    after = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )
    np.testing.assert_array_equal(before[0], after[0])


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (helper.make_node("Gelu", ["x"], ["y"]), "Gelu of opset 20 cannot be written in opset 17"),
        (helper.make_node("ReduceMean", ["x", "where"], ["y"]), "its axes are no constants"),
        (helper.make_node("ReduceMax", ["x"], ["y"], noop_with_empty_axes=1), "opset 17 cannot say"),
    ],
)
def test_what_the_older_set_cannot_say_is_refused(node: onnx.NodeProto, message: str) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy"]
    proto = helper.make_model(
        helper.make_graph([node], "small", values[:1], values[1:]), opset_imports=[helper.make_opsetid("", 20)]
    )
    with pytest.raises(RuntimeError, match=message):
        lower_opset(proto, 17)


def test_a_network_of_that_opset_is_left_as_it_is(tiny: Profile, tmp_path: Path) -> None:
    """The target for the CPU keeps opset 20, and Gelu as one operator."""
    checkpoint, digest = profile_checkpoint(tiny)
    source = Source(tiny, checkpoint, digest, 0.5)
    export(source, [Request(take_target("onnx"))], Proving(synthetic_tiles(tiny, 3)), tmp_path / "artifact")
    proto = onnx.load(tmp_path / "artifact" / "model.onnx")
    assert proto.opset_import[0].version == 20
    assert any(node.op_type == "Gelu" for node in proto.graph.node)
    content = proto.SerializeToString()
    lower_opset(proto, 20)
    assert hashlib.sha256(proto.SerializeToString()).digest() == hashlib.sha256(content).digest()
