"""One run: from images and annotations to a checkpoint with its metrics."""

import contextlib
import copy
import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.checkpoints import load_checkpoint, save_checkpoint
from edgemask.datasets import CocoAnnotations, CocoDataset, read_annotations
from edgemask.description import spec_of
from edgemask.errors import DatasetError, OutputError, UsageError
from edgemask.evaluation import CocoMetrics, coco_metrics
from edgemask.fake_quantization import quantized_layers
from edgemask.models import argument_names, build, parameter_count, prediction_device
from edgemask.progress import progress
from edgemask.reference import ReferenceDetector
from edgemask.spec import ModelSpec
from edgemask.training.curve import Curve, Log
from edgemask.training.fitting import fit
from edgemask.training.plan import TrainingPlan
from edgemask.training.starting import start_from
from edgemask.training.team import Processes, processes


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """What came of training.

    Attributes:
        checkpoint: of the last step, in FP32 or as float16.
        parameters: how many the model has.
        quantized_layers: how many were trained for INT8.
        steps: of the whole run.
        seconds: of this call.
        loss: at the end, smoothed.
        metrics: COCO metrics by task, of the checkpoint on the validation images.
        anew: tensors that did not take their values from the weights given, since the classes are others.
        best: the checkpoint of the epoch with the best mask AP; of models without masks keypoint AP, else box AP.
        best_epoch: that epoch, from 1.
    """

    checkpoint: str
    parameters: int
    quantized_layers: int
    steps: int
    seconds: float
    loss: float
    metrics: dict[str, CocoMetrics] | None
    anew: tuple[str, ...] = ()
    best: str | None = None
    best_epoch: int | None = None


def train(
    images: str | Path,
    annotations: str | Path,
    output: str | Path,
    plan: TrainingPlan,
    *,
    weights: str | Path | None = None,
    val_images: str | Path | None = None,
    val_annotations: str | Path | None = None,
    curve: str | Path | None = None,
    workers: int = 1,
) -> TrainingReport:
    """Trains a model and writes its checkpoint; after a kill the same call goes on where it was.

    Under `torchrun`, as many processes train one model, each with batches of its own.

    Args:
        images: folder of the training images.
        annotations: their COCO-format annotations; classes are taken from them.
        output: checkpoint to write (safetensors); `OUTPUT.state` beside it holds the state of an unfinished run.
        plan: how to train.
        weights: a checkpoint or state dict of the same architecture to start from, or torchvision's, such as `COCO_V1`;
            where its classes are others, the layers with an output for each class begin anew. `IMAGENET1K_V1` and its
            like are weights of the backbone alone.
        val_images: folder of validation images.
        val_annotations: their annotations; with them COCO metrics are measured after each epoch, `output` is written
            then, and the best one is kept beside it as `NAME.best.safetensors`.
        curve: folder for the curve of the run and a picture of detections after each epoch, see `Log`.
        workers: processes that load images; with any, a script must call this under `if __name__ == "__main__":`.

    Raises:
        DatasetError: the data do not fit together.
        UsageError: the plan cannot be meant, an unfinished run had another one, or the loss is no longer a number.
        ModelFileError: `weights` or the state of the unfinished run cannot be used.
        DependencyMissing: torchvision's weights are not to be had here, or a package that `curve` needs.
        OutputError: the checkpoint, the state or the log cannot be written.
    """
    output = Path(output)
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {output}: there is no folder {output.parent}", "make it first")
    if plan.quantize and weights is None:
        remedy = "train without it first, then give that checkpoint as --weights"
        raise UsageError("--quantize fine-tunes a trained model, and there are no weights to start from", remedy)
    if (val_images is None) != (val_annotations is None):
        raise UsageError("validation needs both images and annotations", "give --val-images and --val-annotations")
    found = read_annotations(annotations)
    plan = _with_keypoints(plan, found)
    torch.manual_seed(plan.seed)
    model = _trainable(build(plan.model, len(found.categories) + 1, **plan.arguments), plan.model)
    spec = _spec_of(model, found, plan)
    dataset = _data(images, found, spec)
    validation = None
    if val_images is not None and val_annotations is not None:
        validation = _evaluation_data(val_images, val_annotations, spec)  # not after hours of training
    anew = () if weights is None else start_from(model, plan.model, weights)
    started = time.monotonic()
    state_path = output.with_name(output.name + ".state")
    with contextlib.ExitStack() as stack:
        team = stack.enter_context(processes())
        if plan.quantize and team.count > 1:
            raise UsageError("--quantize with several processes: ranges are found by one", "start it without torchrun")
        log = None if curve is None else Log(curve, validation or dataset, spec.class_names)
        if log is not None:
            stack.callback(log.close)
        epochs = _Epochs(output, plan, spec, team, validation, log)
        watched = validation is not None or log is not None
        fitted = fit(model, dataset, plan, team, state_path, workers=workers, epoch_end=epochs.end if watched else None)
        record = {"images": len(dataset), "steps": fitted.steps, "loss": fitted.loss}
        if team.first:
            _write(output, fitted.model, spec, plan, record)
            state_path.unlink(missing_ok=True)
        team.wait()
    metrics = epochs.metrics
    if validation is not None and metrics is None and team.first:  # killed after the last epoch
        metrics = evaluate(output, validation.folder, validation.annotations.path)
    rounded = len(quantized_layers(fitted.model)) if plan.quantize else 0
    return TrainingReport(
        str(output),
        parameter_count(fitted.model),
        rounded,
        fitted.steps,
        time.monotonic() - started,
        fitted.loss,
        metrics,
        anew,
        *epochs.best,
    )


_JUDGED = ("masks_ap", "keypoints_ap", "boxes_ap")  # by the first of them that a model has, epochs are compared


class _Epochs:
    """What follows each epoch: the checkpoint so far, its metrics, the best one, the log."""

    def __init__(
        self,
        output: Path,
        plan: TrainingPlan,
        spec: ModelSpec,
        team: Processes,
        validation: CocoDataset | None,
        log: Log | None,
    ) -> None:
        self._output, self._plan, self._spec, self._team = output, plan, spec, team
        self._validation, self._log = validation, log
        self.metrics: dict[str, CocoMetrics] | None = None
        self.best: tuple[str | None, int | None] = None, None

    def end(self, model: GeneralizedRCNN, curve: Curve, facts: dict[str, float]) -> None:
        """See `fitting.EpochEnd`. Random numbers stay as they are."""
        with torch.random.fork_rng(devices=[]):
            if self._validation is not None and self._team.first:
                _write(self._output, model, self._spec, self._plan, {"steps": int(facts["step"])})
                self.metrics = evaluate(self._output, self._validation.folder, self._validation.annotations.path)
                facts |= {f"{task}_ap": metrics.ap for task, metrics in self.metrics.items()}
            row = curve.end_epoch(**facts)
            if self.metrics is not None:
                self._keep_best(model, curve)
            if self._log is not None and self._team.first:
                self._log.write(curve.rows, ReferenceDetector(_evaluated(model), self._spec))
        self._team.wait()
        progress.note(f"loss {row['loss']:.3f}")

    def _keep_best(self, model: GeneralizedRCNN, curve: Curve) -> None:
        name = next(name for name in _JUDGED if name in curve.rows[-1])
        best = max(curve.rows, key=lambda row: row.get(name, -1.0))  # of equals, the first
        path = self._output.with_suffix(f".best{self._output.suffix}")
        if best is curve.rows[-1]:
            _write(path, model, self._spec, self._plan, {name: best[name], "epoch": int(best["epoch"])})
        self.best = str(path), int(best["epoch"])


def _write(path: Path, model: GeneralizedRCNN, spec: ModelSpec, plan: TrainingPlan, record: dict[str, Any]) -> None:
    save_checkpoint(path, model, spec, half=plan.half, training={"plan": dataclasses.asdict(plan)} | record)


def _evaluated(model: GeneralizedRCNN) -> GeneralizedRCNN:
    """A copy in evaluation mode: that of the run goes on."""
    return copy.deepcopy(model).eval().to(prediction_device())


def _spec_of(model: GeneralizedRCNN, found: CocoAnnotations, plan: TrainingPlan) -> ModelSpec:
    return spec_of(
        model,
        class_names=found.class_names,
        category_ids=found.category_ids,
        builder=plan.model,
        builder_arguments=plan.arguments,
    )


def evaluate(checkpoint: str | Path, images: str | Path, annotations: str | Path) -> dict[str, CocoMetrics]:
    """COCO metrics of a stored checkpoint, run by PyTorch on the images of an annotation file.

    Raises:
        ModelFileError: no sound checkpoint.
        DatasetError: the data do not fit together, or have other classes than the model.
    """
    model, spec = load_checkpoint(checkpoint)
    dataset = _evaluation_data(images, annotations, spec)
    category_ids = dataset.annotations.category_ids
    detector = ReferenceDetector(_trainable(model, str(checkpoint)).to(prediction_device()), spec)
    results: list[dict[str, Any]] = []
    for identity, entry in progress(dataset.annotations.images.items(), "evaluate"):
        results += detector.predict(dataset.path(entry)).to_coco(identity, category_ids=category_ids)
    return coco_metrics(annotations, results, tasks=spec.tasks, max_detections=spec.max_detections)


def _trainable(model: torch.nn.Module, name: str) -> GeneralizedRCNN:
    if isinstance(model, GeneralizedRCNN):
        return model
    raise UsageError(f"{name} is semantic, which is not trained here", "train it elsewhere; it exports")


def _with_keypoints(plan: TrainingPlan, found: CocoAnnotations) -> TrainingPlan:
    """The plan of a model with as many keypoints as the data have, if it has any and is not told how many."""
    if not found.keypoint_names or "num_keypoints" not in argument_names(plan.model):
        return plan
    return dataclasses.replace(plan, arguments={"num_keypoints": len(found.keypoint_names)} | plan.arguments)


def _evaluation_data(images: str | Path, annotations: str | Path, spec: ModelSpec) -> CocoDataset:
    found = read_annotations(annotations)
    if found.class_names != spec.class_names:
        problem = f"{annotations} has the classes {found.class_names}, the model {spec.class_names}"
        raise DatasetError(problem, "evaluate on data with the classes that the model was trained on")
    return _data(images, found, spec)


def _data(images: str | Path, found: CocoAnnotations, spec: ModelSpec) -> CocoDataset:
    count = len(found.keypoint_names)
    if spec.num_keypoints is not None and count not in (0, spec.num_keypoints):
        problem = f"{found.path} has {count} keypoints an object, the model {spec.num_keypoints}"
        raise DatasetError(problem, "leave num_keypoints out of the arguments, or take the model's data")
    return CocoDataset(images, found, spec.tasks)
