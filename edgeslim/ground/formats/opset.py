"""Opset: an ONNX network rewritten for an older operator set, where only the spelling differs.

torch exports opset 18 and later. The converters of onnx and onnxscript do not bring ReduceMean from 18 to 17, and leave
the network as it was when they fail.
"""

from __future__ import annotations

from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

OLDEST_OF_TORCH = 18
"""Opset that torch's exporter writes at least."""
_REDUCTIONS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")


def lower_opset(proto: onnx.ModelProto, opset: int) -> None:
    """Rewrite a network in place for `opset`, 17 or later. One that is not newer is left as it is.

    Raises RuntimeError where an operator cannot be spelled in the older set.
    """
    entry = next(entry for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    if entry.version <= opset:
        return
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                constants[node.output[0]] = numpy_helper.to_array(attribute.t)
    for node in proto.graph.node:
        if node.domain not in ("", "ai.onnx"):
            continue
        if onnx.defs.get_schema(node.op_type, entry.version, "").since_version <= opset:
            continue
        if opset < OLDEST_OF_TORCH and node.op_type in [f"Reduce{kind}" for kind in _REDUCTIONS]:
            _axes_as_attribute(node, constants)
        elif opset < OLDEST_OF_TORCH and node.op_type == "Split":
            _count_from_outputs(node)
        elif not _same_but_for_types(node.op_type, entry.version, opset):
            raise RuntimeError(f"{node.op_type} of opset {entry.version} cannot be written in opset {opset}")
    entry.version = opset
    _drop_unused(proto)


def _axes_as_attribute(node: onnx.NodeProto, constants: dict[str, NDArray[Any]]) -> None:
    """Axes of a reduction are an input since 18; before, they were an attribute, and none stood for all of them."""
    flags = {a.name: a.i for a in node.attribute}
    if len(node.input) > 1 and node.input[1]:
        axes = constants.get(node.input[1])
        if axes is None:
            raise RuntimeError(f"{node.op_type}: its axes are no constants, which opset 17 asks for")
        node.attribute.append(helper.make_attribute("axes", [int(axis) for axis in axes]))
    elif flags.get("noop_with_empty_axes"):
        raise RuntimeError(f"{node.op_type}: without axes it is no operation, which opset 17 cannot say")
    for attribute in [a for a in node.attribute if a.name == "noop_with_empty_axes"]:
        node.attribute.remove(attribute)
    del node.input[1:]


def _count_from_outputs(node: onnx.NodeProto) -> None:
    """Without sizes, Split made equal parts, one an output; uneven ones came with 18."""
    for attribute in [a for a in node.attribute if a.name == "num_outputs"]:
        node.attribute.remove(attribute)


def _same_but_for_types(operator: str, newer: int, older: int) -> bool:
    """Whether two versions of an operator have the same inputs, outputs and attributes: types alone were added."""
    try:
        schemas = [onnx.defs.get_schema(operator, version, "") for version in (newer, older)]
    except onnx.defs.SchemaError:  # the older set has no such operator
        return False
    forms = [
        (
            [(p.name, p.option) for p in (*schema.inputs, *schema.outputs)],
            {name: (a.type, a.required, a.default_value.SerializeToString()) for name, a in schema.attributes.items()},
        )
        for schema in schemas
    ]
    return forms[0] == forms[1]


def _drop_unused(proto: onnx.ModelProto) -> None:
    """Constants that have become attributes."""
    used = {name for node in proto.graph.node for name in node.input} | {value.name for value in proto.graph.output}
    for node in [n for n in proto.graph.node if n.op_type == "Constant" and n.output[0] not in used]:
        proto.graph.node.remove(node)
    for tensor in [t for t in proto.graph.initializer if t.name not in used]:
        proto.graph.initializer.remove(tensor)
