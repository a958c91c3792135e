"""Execution providers of ONNX Runtime: a session on those that were asked for, and the proof that it runs there.

ONNX Runtime falls back without failing in four ways: a provider that it was not built with is left out with a warning;
one whose libraries do not load is left out of the session; one that fails is replaced by CUDA or the CPU, with a few
printed lines (1.20 does so even where `enable_fallback=0` forbids it); and a node that no provider takes is computed on
the CPU. `get_available_providers` says only what it was built with. Here each of the four is an error.

The proof is the profile of one run of the session that will fly: every version since 1.8 notes each node that ran,
with its provider and the types that it gave. Versions from 1.24 on also say what they assigned
(`get_provider_graph_assignment_info`): a second witness, asked where there is one. `session.disable_cpu_ep_fallback`
is of no use: it also refuses the shape arithmetic that belongs on the CPU.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgeslim.errors import InputError, one_line, shown
from edgeslim.target import PRODUCTS

CPU = "CPUExecutionProvider"
CUDA = "CUDAExecutionProvider"
TENSORRT = "TensorrtExecutionProvider"
_RECORD_ASSIGNMENT = "session.record_ep_graph_assignment_info"
_WHOLE = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) | {"bool"}
"""Types of shapes, as a profile names them."""


@dataclass(frozen=True, slots=True)
class Providers:
    """Where a network is to run."""

    names: tuple[str, ...]
    """Best first; the CPU's is not among them."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Provider -> its options, all that matter."""
    cpu_operators: tuple[str, ...] = ()
    """Operators that the CPU may run, on whole numbers: they compute shapes."""
    largest_batch: int | None = None
    """Tiles at once that it is made for; larger batches are run in parts. None: any."""


@dataclass(frozen=True, slots=True)
class Placed:
    """One node and where it is."""

    operator: str
    """Its type; of a part of the network that a provider compiled, that provider's name for it."""
    provider: str
    """What runs it."""
    whole_numbers: bool | None
    """Whether all that it gives are whole numbers; None: not stated."""


def open_proven(
    onnxruntime: Any, path: Path, options: Any, input_name: str, providers: Providers
) -> tuple[Any, dict[str, int]]:
    """A session of the network at `path` on `providers` and nothing else, and how many nodes run on each.

    `options` are the session's, without profiling. One tile of zeros is run.
    Raises InputError where a provider is missing, left out, fails, or does not get the nodes.
    """
    require_available(onnxruntime, path, providers.names)
    wanted = [(name, providers.options.get(name, {})) for name in providers.names]
    options.add_session_config_entry(_RECORD_ASSIGNMENT, "1")
    options.enable_profiling = True
    try:
        folder = tempfile.TemporaryDirectory(prefix="edgeslim-")
    except OSError as error:
        raise InputError(f"{path}: found no folder for temporary files ({one_line(error)}); set TMPDIR") from None
    with folder as name:
        options.profile_file_prefix = str(Path(name) / "nodes")
        onnxruntime.set_default_logger_severity(4)  # what it would log of providers is no one line; asked for below
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                session = onnxruntime.InferenceSession(str(path), options, providers=wanted, enable_fallback=0)
        except Exception as error:  # its exceptions share no base class below Exception
            raise InputError(
                f"{path}: ONNX Runtime cannot load it on {_listed(providers.names)} ({one_line(error)}); "
                "is the driver there, and JetPack whole?"
            ) from None
        session.disable_fallback()
        _require_registered(onnxruntime, session, path, providers.names, printed.getvalue())
        try:
            session.run(None, {input_name: _zeros(session, path)})
            profile = Path(session.end_profiling())
        except InputError:
            raise
        except Exception as error:  # see above
            raise InputError(
                f"{path}: {_listed(providers.names)} failed on one tile ({one_line(error)}); was this ONNX Runtime "
                "built for this GPU?"
            ) from None
        ran = read_profile(profile)
    require_placement(path, ran, providers, "ran")
    if (assigned := assigned_nodes(session)) is not None:
        require_placement(path, assigned, providers, "are assigned")
    return session, dict(Counter(node.provider for node in ran))


def require_available(onnxruntime: Any, path: Path, names: Iterable[str]) -> None:
    """Raise InputError unless this ONNX Runtime was built with every one of the providers."""
    known = list(onnxruntime.get_available_providers())
    if missing := [name for name in names if name not in known]:
        raise InputError(
            f"{path}: found onnxruntime {onnxruntime.__version__} with {_listed(known)}, expected {_listed(missing)}; "
            "install a build for this GPU (`jetpacks/` says where), or export with --target onnx for the CPU"
        )


def _require_registered(onnxruntime: Any, session: Any, path: Path, names: tuple[str, ...], printed: str) -> None:
    """The session adds the CPU's provider by itself, last; anything else is not what was asked for."""
    found = [name for name in session.get_providers() if name != CPU]
    if found == list(names):
        return
    reasons = [reason for name in names if name not in found and (reason := _why_left_out(onnxruntime, name))]
    reasons += [line for line in printed.splitlines() if line.startswith("EP Error")]
    why = one_line(reasons[0]) if reasons else "it gives no reason"
    raise InputError(
        f"{path}: found a session on {_listed(found or [CPU])}, expected {_listed(names)}: ONNX Runtime left one "
        f"out ({why}); install the CUDA, cuDNN and TensorRT that this build was made for (`jetpacks/`)"
    )


def _why_left_out(onnxruntime: Any, name: str) -> str:
    """What the system says of a provider's library; empty where that is not the reason."""
    short = {CUDA: "cuda", TENSORRT: "tensorrt"}.get(name)
    library = Path(onnxruntime.__file__).parent / "capi" / f"libonnxruntime_providers_{short}.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error) if short and "cannot open shared object file" in str(error) else ""
    return ""


def _zeros(session: Any, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """One tile (1, bands, height, width) of zeros, as large as the network's input."""
    shape = session.get_inputs()[0].shape[1:]
    if not shape or not all(isinstance(side, int) and side > 0 for side in shape):
        raise InputError(f"{path}: found an input of (batch, {shown(shape)}), expected fixed bands, height and width")
    return np.zeros((1, *shape), np.float32)


def read_profile(path: Path) -> list[Placed]:
    """Every node that ran, from a profile that ONNX Runtime wrote. Raises InputError for a file that is none."""
    try:
        events = json.loads(path.read_bytes())
        nodes = [event for event in events if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")]
        return [_placed(node["args"]) for node in nodes]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: no profile of ONNX Runtime ({one_line(error)}), expected one as proof of where nodes run; use "
            "onnxruntime 1.17 or later"
        ) from None


def _placed(args: dict[str, Any]) -> Placed:
    types = [kind for output in args.get("output_type_shape", ()) for kind in output]
    return Placed(str(args["op_name"]), str(args["provider"]), set(types) <= _WHOLE if types else None)


def assigned_nodes(session: Any) -> list[Placed] | None:
    """Every node of the network, and the provider that it is assigned to; None: this version does not say."""
    ask = getattr(session, "get_provider_graph_assignment_info", None)
    if ask is None:
        return None
    return [Placed(str(node.op_type), str(part.ep_name), None) for part in ask() for node in part.get_nodes()]


def require_placement(path: Path, nodes: list[Placed], providers: Providers, verb: str) -> None:
    """Raise InputError unless the nodes are where they should be.

    At least one on the best provider; none on the CPU but what computes shapes; none anywhere else.
    """
    expected = _listed(providers.names)
    if not nodes:
        raise InputError(
            f"{path}: found no word on which nodes {verb} where, expected proof that they do on {expected}"
        )
    astray = Counter(
        (node.operator, node.provider)
        for node in nodes
        if node.provider not in providers.names
        and not (node.provider == CPU and node.operator in providers.cpu_operators and node.whole_numbers is not False)
    )
    if astray:
        heavy_first = sorted(astray.items(), key=lambda item: (item[0][0] not in PRODUCTS, -item[1]))
        listed = ", ".join(f"{count} {operator}" for (operator, _), count in heavy_first[:6])
        listed += " and more" if len(heavy_first) > 6 else ""
        places = _listed(dict.fromkeys(provider for _, provider in astray))
        raise InputError(
            f"{path}: {listed} {verb} on {places}, expected all of them on {expected}: ONNX Runtime fell back; "
            "update JetPack, or export with --target onnx and fly on the CPU"
        )
    if not any(node.provider == providers.names[0] for node in nodes):
        raise InputError(
            f"{path}: none of {len(nodes)} nodes {verb} on {providers.names[0]}, expected it to take the network; "
            "update JetPack, or export for the provider that does"
        )


def _listed(names: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(shown(name) for name in names) or "none"
