"""Models that compute the same as before with weights that eight bits and one scale cannot hold."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemask.runtimes import read_model, write_model

Weights = NDArray[np.float64]
Factors = Callable[[Weights, Weights, Weights], Weights]


def rescaled(path: Path, output: Path, pairs: Sequence[tuple[str, str]], factors: Factors) -> Path:
    """Writes a model that computes the same with other weights: a factor passes through a Relu.

    Args:
        path: the model.
        output: the file to write.
        pairs: names of a layer, and of the only one behind its Relu.
        factors: gives float64 [C] of the first one's weights, its biases and the second one's weights: by which the C
            outputs of the first are multiplied, and what the second does with them is divided.
    """
    model = read_model(path)
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    nodes = {node.name: node for node in proto.graph.node}
    held = {tensor.name: tensor for tensor in proto.graph.initializer}
    for names in pairs:
        first, second = (nodes[name] for name in names)
        own = [*first.input[1:3], second.input[1]]
        weights, bias, behind = (numpy_helper.to_array(held[name]).astype(np.float64) for name in own)
        times = factors(weights, bias, behind)
        by_input = second.op_type == "Conv" and behind.shape[1] > 1  # else the input's channels come first
        undone = times[None, :, None, None] if by_input else times[:, None, None, None]
        for name, value in zip(own, (weights * times[:, None, None, None], bias * times, behind / undone), strict=True):
            held[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    write_model(proto, model.spec, output)
    return output


def outlier(weights: Weights, bias: Weights, behind: Weights) -> Weights:
    """Makes the quietest channel small, so that its weights behind grow to a hundred times the largest of all others.

    So do the weights of a channel that a normalisation folded into them found next to silent. The activations keep
    their range, and the little that the channel says is all that a scale for each channel loses.
    """
    factors = np.ones(len(bias))
    quiet = int(np.argmin(bias / np.abs(weights).sum((1, 2, 3))))
    factors[quiet] = np.abs(behind[quiet]).max() / np.abs(behind).max() / 100
    return factors


def two_powers_of_ten(weights: Weights, bias: Weights, behind: Weights) -> Weights:
    """Factors of 0.01 to 1, in no order."""
    return np.random.default_rng(0).permutation(np.logspace(-2, 0, len(bias)))
