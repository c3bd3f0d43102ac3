"""The self-test of the custom ops of a file, on a device."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from edgemask.errors import EdgemaskError, ModelFileError, UsageError
from edgemask.optest.attributes import NMS, differences, op_of
from edgemask.optest.outcomes import Outcome, Run
from edgemask.optest.pooling import Pool
from edgemask.optest.records import OpTest
from edgemask.optest.sites import OpPart, OpSite, part_of, sites_of
from edgemask.optest.suppression import Suppression
from edgemask.spec import SIDE_LIMIT, ModelSpec

if TYPE_CHECKING:
    from edgemask.runtimes import ModelFile
    from edgemask.runtimes.runtime import Runtime

# Measured on features of unit normal distribution: ONNX Runtime 5e-7, OpenVINO 5.3e-6 (9 samples a bin).
ROI_ALIGN_TOLERANCE = 1e-5
# Not measured, for lack of the hardware: a GPU contracts a product and a sum, which moves a sample by a rounding.
GPU_TOLERANCE = 1e-4
_CPUS = ("cpu", "openvino:CPU")


def run_op_tests(file: "ModelFile", device: str) -> tuple[OpTest, ...]:
    """Runs about 70 adversarial vectors through each custom op of a file and compares them with `edgemask.ops`.

    The ops are those of the file: its attributes, its function bodies or inlined nodes, at the sizes that it fixes.

    Args:
        file: what `read_model` gave.
        device: as `edgemask.load` takes it.

    Returns:
        A record for each, in the graph's order; none for a semantic model, and for a file of which
        `edgemask.optest.why_untested` tells the reason.

    Raises:
        UsageError: no such device.
        DeviceUnavailable: the device cannot run an op here.
        UnsupportedModel: the device is known to answer an op wrongly.
        OutOfMemory: too large for it.
    """
    return tuple(_tested(file, site, device) for site in sites_of(file))


def _tested(file: "ModelFile", site: OpSite, device: str) -> OpTest:
    outcome = Outcome(tolerance=0.0)
    try:
        part = part_of(file, site)
        vectors = _vectors(site, part, file.spec)
    except (ModelFileError, TypeError, ValueError) as error:  # attributes of a stranger's record may be anything
        outcome.fail(error.problem if isinstance(error, EdgemaskError) else f"attributes: {error}")
        return _record(site, outcome)
    for sentence in differences(site, part, file.spec):
        outcome.fail(sentence)
    from edgemask.runtimes.devices import open_runtime

    runtime, _ = open_runtime(part.model, device)
    try:
        if isinstance(vectors, Pool):
            outcome.tolerance = ROI_ALIGN_TOLERANCE if runtime.device in _CPUS else GPU_TOLERANCE
        vectors.judge(_runner(runtime, part, site), outcome)
    finally:
        runtime.close()
    return _record(site, outcome)


def _vectors(site: OpSite, part: OpPart, spec: ModelSpec) -> Pool | Suppression:
    op = op_of(site)
    if op is None:
        names = ", ".join(sorted(site.attributes))
        raise UsageError(f"no op {site.op} of {len(site.inputs)} inputs and the attributes {names} is defined")
    sides = tuple(part.sides.get(name, ()) for name in site.inputs)
    return (Suppression if op == NMS else Pool)(site.attributes, sides, _largest_canvas(spec))


def _largest_canvas(spec: ModelSpec) -> tuple[int, int]:
    """(H, W) in pixels."""
    if size := spec.canvas or spec.fixed_size:
        return size
    # A limit of the resize rule may be huge, to leave the other in charge.
    side = min(spec.max_size, SIDE_LIMIT)
    return side, side


def _runner(runtime: "Runtime", part: OpPart, site: OpSite) -> Run:
    from edgemask.runtimes.cuts import inputs_of

    def run(inputs: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return runtime.run(inputs_of(part.model, dict(zip(site.inputs, inputs, strict=True))))[site.output]

    return run


def _record(site: OpSite, outcome: Outcome) -> OpTest:
    return OpTest(
        name=site.name,
        stage=site.stage,
        op=site.op,
        attributes=site.attributes,
        vectors=outcome.vectors,
        failed=outcome.failed,
        error=outcome.error,
        tolerance=outcome.tolerance,
        example=outcome.example,
    )
