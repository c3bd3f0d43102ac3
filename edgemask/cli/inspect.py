"""`edgemask inspect`."""

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgemask.cli import completion
from edgemask.cli.answers import answer, facts, working
from edgemask.cli.options import DEVICES, AsJson, Fallback, LibraryOptions, ModelFile
from edgemask.report import table

if TYPE_CHECKING:
    from rich.console import Console

    from edgemask.inspection import Inspection, TargetCheck, TensorInfo
    from edgemask.runtimes.placement import DevicePlacement

EXAMPLE = """\b
Example: edgemask inspect model.onnx --target tensorrt
Example: edgemask inspect model.onnx --device cuda"""

Target = Annotated[
    str | None,
    typer.Option(
        help="Also hold each node against what the documents of this engine say.",
        metavar="tensorrt",
        autocompletion=completion.targets,
    ),
]


Place = Annotated[
    str | None,
    typer.Option(
        help=f"Run it there and show what ran where: {DEVICES}.", metavar="D", autocompletion=completion.devices
    ),
]


def inspect(
    model: ModelFile,
    target: Target = None,
    device: Place = None,
    fallback: Fallback = False,
    options: LibraryOptions = None,
    as_json: AsJson = False,
) -> None:
    """Show what is in a model file, and where it runs."""
    with working("inspect", "cpu"):
        from edgemask.inspection import inspect_model
        from edgemask.runtimes.options import parse_options

        chosen = parse_options(options or [])
        found = inspect_model(model, target, device=device, options=chosen, fallback=fallback)
    answer(
        found,
        as_json=as_json,
        show=lambda console: _show(console, found),
        following=[["edgemask", "predict", model, "IMAGE", "-o", "DIR"]] if found.sound else [],
        passed=found.sound
        and not (found.target and found.target.refused)
        and (found.placement is None or found.placement.ok),
    )


def _show(console: "Console", found: "Inspection") -> None:
    spec = found.spec
    names = ", ".join(spec.class_names[:8]) + (" …" if len(spec.class_names) > 8 else "")
    facts(
        console,
        file=found.path,
        state="sound: as it was written" if found.sound else found.problem,
        size=f"{found.bytes / 1e6:.1f} MB, {found.parameters / 1e6:.2f} million stored numbers",
        format=f"IR {found.ir_version}, " + ", ".join(f"{name} {number}" for name, number in found.opsets.items()),
        producer=found.producer or None,
        tasks=", ".join(spec.tasks),
        classes=f"{len(spec.class_names)}: {names}",
        precision=spec.precision,
        quantized=_quantized(spec.quantization),
        accuracy=_listed((spec.quantization or {}).get("accuracy")),
        canvas="dynamic" if spec.canvas is None else "{} x {} (H x W)".format(*spec.canvas),
        batch=spec.batch or "dynamic",
        resize=_resize(found),
        thresholds=None
        if "semantic" in spec.tasks
        else f"score {spec.score_threshold:g}, NMS {spec.nms_threshold:g}, {spec.max_detections} per image",
        proposals="given by the caller" if spec.proposals == "input" else None,
        builder=spec.builder,
        inputs="; ".join(_signature(tensor) for tensor in found.inputs),
        outputs="; ".join(_signature(tensor) for tensor in found.outputs),
        parity=_listed(spec.parity),
    )
    console.print()
    for title, column, counts in (
        (f"{found.nodes} nodes by stage", "stage", found.stages),
        (f"{found.nodes} nodes by operator", "operator", {} if found.target or found.placement else found.operators),
        ("Nodes inside functions", "function", found.functions),
    ):
        if counts:
            console.print(table(title, [{column: name, "nodes": count} for name, count in counts.items()]))
            console.print()
    if found.target is not None:
        _show_target(console, found.target)
    if found.placement is not None:
        _show_placement(console, found.placement)


def _show_placement(console: "Console", placement: "DevicePlacement") -> None:
    rows = [
        {
            "work": share.operator,
            "ran on": share.provider,
            "in": share.arithmetic or None,
            "nodes": share.nodes,
            "ms": share.milliseconds,
            "share": f"{share.share:.0%}",
            "MB copied": share.bytes / 1e6 or None,
        }
        for share in placement.operators
    ]
    used = {name: value for name, value in rows[0].items() if any(row[name] is not None for row in rows)}
    total = sum(share.milliseconds for share in placement.providers)
    console.print(
        table(
            f"On {placement.device}, {placement.image}, {total:.0f} ms",
            [{name: row[name] for name in used} for row in rows],
        )
    )
    console.print()
    nodes = ", ".join(f"{share.nodes} on {share.provider} ({share.share:.0%})" for share in placement.providers)
    facts(console, nodes=nodes, verdict="as promised" if placement.ok else None)
    for problem in placement.problems:
        facts(console, problem=problem)
    for note in placement.notes:
        facts(console, note=note)
    console.print()


def _show_target(console: "Console", check: "TargetCheck") -> None:
    operators = [{"operator": name, **counts} for name, counts in check.operators.items()]
    refused = [{"node": node.node, "operator": node.operator, "why": node.reason} for node in check.refused]
    restricted = Counter((node.operator, node.reason) for node in check.nodes if node.verdict == "restricted")
    conditions = [{"operator": name, "nodes": count, "on condition": why} for (name, why), count in restricted.items()]
    for title, rows in (
        (f"On {check.target}, by operator ({check.source})", operators),
        ("Refused", refused),
        ("Restricted", conditions),
    ):
        if rows:
            console.print(table(title, rows))
            console.print()
    if not refused:
        console.print(f"No node is known to be refused by {check.target}.\n")
    for text in check.notes:
        console.print(f"- {text}", soft_wrap=True)
    console.print()


def _resize(found: "Inspection") -> str:
    spec = found.spec
    if spec.fixed_size is not None:
        return "to {} x {} (H x W)".format(*spec.fixed_size)
    return f"short side {spec.min_size}, long side at most {spec.max_size}"


def _quantized(record: dict[str, Any] | None) -> str | None:
    if record is None:
        return None
    left_out = f", {len(record['left_out'])} left in FP32" if record["left_out"] else ""
    images = record["calibration"]["images"]
    layers = f"{record['layers']} layers by recipe {record['recipe'].get('name')}{left_out}"
    return f"{layers}; calibrated on {images} images"


def _listed(record: dict[str, Any] | None) -> str | None:
    return None if record is None else ", ".join(f"{key} {value}" for key, value in record.items())


def _signature(tensor: "TensorInfo") -> str:
    return f"{tensor.name} {tensor.dtype} [{', '.join(map(str, tensor.shape))}]"
