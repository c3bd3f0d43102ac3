"""Which node runs where, as ONNX Runtime assigned them when a model was opened."""

from collections import Counter
from collections.abc import Collection
from typing import Any

import onnx

# The work of a detector. Shapes and indices beside it may be anywhere.
HEAVY = ("Conv", "ConvTranspose", "Gemm", "RoiAlign", "NonMaxSuppression", "TopK")
# Words in the names that optimisation and quantization give the same work; ConvTranspose before Conv, which it holds.
_FORMS = (("ConvTranspose", "ConvTranspose"), ("Conv", "Conv"), ("Gemm", "Gemm"), ("MatMul", "Gemm"))


def heavy_operator(operator: str) -> str | None:
    """The operator of `HEAVY` whose work a node does; None of any other.

    Args:
        operator: its type, of the standard or as a library fused it: FusedConv, QLinearConv, QGemm.
    """
    if operator in HEAVY:
        return operator
    return next((meant for form, meant in _FORMS if form in operator), None)


def has_heavy(proto: onnx.ModelProto) -> bool:
    """Whether a graph, or a function of it, does any of the work of `HEAVY`."""
    return any(heavy_operator(node.op_type) for part in (proto.graph, *proto.functions) for node in part.node)


def strays(session: Any, promised: Collection[str]) -> tuple[str, ...]:
    """The heavy nodes that were not assigned to a promised provider, one line for each operator and provider.

    Args:
        session: an open ONNX Runtime session that records its assignment.
        promised: names of providers.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for part in session.get_provider_graph_assignment_info():
        if part.ep_name not in promised:
            counts.update((meant, part.ep_name) for node in part.get_nodes() if (meant := heavy_operator(node.op_type)))
    return tuple(f"{count} {meant} on {provider}" for (meant, provider), count in counts.items())
