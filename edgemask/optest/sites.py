"""Where the custom ops lie in a graph: written down at the export, and found again whatever form their bodies have."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgemask.errors import ModelFileError
from edgemask.ops import DOMAIN

if TYPE_CHECKING:
    import onnx

    from edgemask.runtimes import ModelFile

Sides = tuple[int | None, ...]  # of a tensor; None: may change


@dataclass(frozen=True, slots=True)
class OpSite:
    """One custom op of a file.

    Attributes:
        name: of its node.
        op: its type.
        attributes: of its node; those recorded, where its body is inlined.
        recorded: what the exporter recorded; None in files before format 1.2.
        inputs: names of the tensors that it takes.
        output: name of the tensor that it gives.
    """

    name: str
    op: str
    attributes: Mapping[str, Any]
    recorded: Mapping[str, Any] | None
    inputs: tuple[str, ...]
    output: str

    @property
    def stage(self) -> str:
        """The first part of its name."""
        return self.name.partition("/")[0]


@dataclass(frozen=True, slots=True)
class OpPart:
    """The part of a graph between the inputs and the output of an op, as a model of its own.

    Attributes:
        model: the part.
        sides: of each input, by its name in the whole graph.
        gives: sides of the output, as the whole graph says; None where it does not.
    """

    model: "ModelFile"
    sides: Mapping[str, Sides]
    gives: Sides | None


def op_records(proto: "onnx.ModelProto") -> tuple[dict[str, Any], ...]:
    """Returns what `ModelSpec.ops` holds of a graph with the custom ops as nodes.

    Args:
        proto: its nodes named. A tensor between two nodes keeps its name when the nodes are inlined.
    """
    return tuple(
        {
            "name": node.name,
            "op": node.op_type,
            "attributes": {entry.name: _plain(entry) for entry in node.attribute},
            "inputs": list(node.input),
            "output": node.output[0],
        }
        for node in proto.graph.node
        if node.domain == DOMAIN
    )


def _plain(attribute: "onnx.AttributeProto") -> Any:
    """The value of an attribute as JSON has it; a float32 is the same number as a Python float."""
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    return value.decode() if isinstance(value, bytes) else value


def sites_of(file: "ModelFile") -> tuple[OpSite, ...]:
    """The custom ops of a file, in the graph's order: its nodes, and what was recorded and is a node no more."""
    recorded = {record["output"]: record for record in file.spec.ops or ()}
    present = {record["output"]: record for record in op_records(file.proto)}
    found = {name: present.get(name, record) for name, record in recorded.items()} | present
    return tuple(
        OpSite(
            name=record["name"],
            op=record["op"],
            attributes=record["attributes"],
            recorded=recorded[output]["attributes"] if output in recorded else None,
            inputs=tuple(record["inputs"]),
            output=output,
        )
        for output, record in found.items()
    )


def why_untested(file: "ModelFile") -> str | None:
    """Why the custom ops of a file cannot be tested alone, in a sentence; None where they can, or where it has none."""
    if "semantic" in file.spec.tasks or sites_of(file):
        return None
    return (
        f"the custom ops were not tested alone: {file.path} holds them inlined, and files before format 1.2 do not "
        "record where; export it again"
    )


def part_of(file: "ModelFile", site: OpSite) -> OpPart:
    """Cuts an op out of its graph.

    Raises:
        ModelFileError: the graph does not compute the op's output from the op's inputs.
    """
    from edgemask.runtimes.cuts import PREFIX, cut

    part = cut(file, [site.output], site.inputs)
    names = {value.name: value.name.removeprefix(PREFIX) for value in part.proto.graph.input}
    if foreign := sorted(set(names.values()) - set(site.inputs)):
        raise ModelFileError(f"{site.output} depends on {', '.join(foreign)} too", "export the model again")
    (output,) = part.proto.graph.output
    gives = _sides(output)
    # What the whole graph says of the output holds for the whole graph's input.
    output.type.tensor_type.ClearField("shape")
    model = dataclasses.replace(part, data=part.proto.SerializeToString())
    return OpPart(model, {names[value.name]: _sides(value) or () for value in part.proto.graph.input}, gives)


def _sides(value: "onnx.ValueInfoProto") -> Sides | None:
    kind = value.type.tensor_type
    if not kind.HasField("shape"):
        return None
    return tuple(side.dim_value if side.HasField("dim_value") else None for side in kind.shape.dim)
