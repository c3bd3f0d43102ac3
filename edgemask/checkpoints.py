"""PyTorch models on disk: safetensors with the model's spec inside, or a builder with weights of its own."""

import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.segmentation._utils import _SimpleSegmentationModel

from edgemask.checks import did_you_mean
from edgemask.description import spec_of, state_digest, weights_digest
from edgemask.errors import ModelFileError, UsageError
from edgemask.files import creating
from edgemask.models import BUILDERS, Model, arguments_in, build, class_count_in, fetch, weight_names
from edgemask.spec import SPEC_KEY, ModelSpec, class_names_without_background
from edgemask.weight_files import NAME_ARCHITECTURE, read_safetensors, read_state

TRAINING_KEY = "edgemask.training"
_COUNTER = ".num_batches_tracked"  # of batch normalisation, for training alone; frozen layers have none
_AUXILIARY = "aux_classifier."  # of semantic models, for training alone; predictions do without


def save_checkpoint(
    path: str | Path,
    model: Model,
    spec: ModelSpec,
    *,
    half: bool = False,
    training: dict[str, Any] | None = None,
) -> None:
    """Writes weights and spec as one safetensors file, whole or not at all.

    Args:
        path: where to.
        model: its weights are stored.
        spec: stored as metadata; its `source_sha256` is replaced by that of the weights as they will be loaded.
        half: store floating-point weights as float16: half the size; loading gives float32 again.
        training: how the weights came to be, kept as metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    # Copies, since safetensors takes no tensor twice, and a layer that two parts share has two names.
    state = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in model.state_dict().items()}
    loaded = state
    if half:
        loaded = {name: _rounded(tensor) for name, tensor in state.items()}
        state = {name: _halved(tensor) for name, tensor in state.items()}
    metadata = {SPEC_KEY: spec.replace(source_sha256=state_digest(loaded)).to_json()}
    if training is not None:
        metadata[TRAINING_KEY] = json.dumps(training, sort_keys=True)
    with creating(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, metadata))


def _halved(tensor: torch.Tensor) -> torch.Tensor:
    """A float16 copy; the tensor itself where it holds integers, or numbers beyond float16's range."""
    half = tensor.half()
    return half if tensor.is_floating_point() and bool(half.isfinite().all()) else tensor


def _rounded(tensor: torch.Tensor) -> torch.Tensor:
    """What is loaded again of a tensor stored as `_halved` makes it."""
    return _halved(tensor).to(tensor.dtype)


def load_checkpoint(path: str | Path) -> tuple[Model, ModelSpec]:
    """Reads a checkpoint that `save_checkpoint` wrote.

    Returns:
        The model in evaluation mode with float32 weights, and its spec.

    Raises:
        ModelFileError: no such file, no safetensors, no spec inside, or weights for another architecture.
    """
    state, metadata = read_safetensors(Path(path))
    if SPEC_KEY not in metadata:
        raise ModelFileError(
            f"{path} holds weights but no edgemask spec",
            NAME_ARCHITECTURE,
        )
    try:
        spec = ModelSpec.from_json(metadata[SPEC_KEY])
        if spec.builder is None:
            raise ModelFileError("it does not say which builder made it", "load its weights into your own model")
        model = build(spec.builder, len(spec.class_names) + 1, **spec.builder_arguments)
    except (ModelFileError, UsageError) as error:
        raise ModelFileError(f"{path}: {error.problem}", error.remedy) from error
    load_state(model, state, path)
    return model, spec.replace(source_sha256=weights_digest(model))


def load_state(model: Model, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Loads weights that must fit the model exactly; float16 weights become float32.

    Args:
        model: gets the weights. Frozen and trainable batch normalisation take each other's weights; the second
            classifier of a semantic model may be missing on either side.
        state: the weights by name.
        path: where they come from, for the message.

    Raises:
        ModelFileError: names or shapes differ; says how many and shows one. Or a layer that two parts of the model
            share has two values.
    """
    expected = _shapes(model.state_dict())
    received = _shapes(state)
    if not all(any(str(name).startswith(_AUXILIARY) for name in names) for names in (expected, received)):
        expected, received = _without_auxiliary(expected), _without_auxiliary(received)
    wrong = [name for name in expected if expected[name] != received.get(name)]
    wrong += [name for name in received if name not in expected]
    if wrong:
        first = wrong[0]
        raise ModelFileError(
            f"the weights in {path} are for another architecture: {len(wrong)} tensors differ, "
            f"for example {first}: expected {expected.get(first, 'none')}, got {received.get(first, 'none')}",
            "check the builder, the number of classes and the builder's arguments",
        )
    _check_shared(model, state, path)
    model.load_state_dict(state, strict=False)


def _check_shared(model: Model, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Refuses a second value for the same weights: the model would keep one of them."""
    first_names: dict[torch.Tensor, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        first = first_names.setdefault(parameter, name)
        if first != name and not torch.equal(state[first], state[name]):
            raise ModelFileError(
                f"the weights in {path} are for another architecture: {first} and {name} differ, here they are one",
                "load them into the model that they were taken from: package.module:function",
            )


def _without_auxiliary(shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: shape for name, shape in shapes.items() if not str(name).startswith(_AUXILIARY)}


def _shapes(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items() if not str(name).endswith(_COUNTER)}


def load_model(
    source: str,
    *,
    weights: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> tuple[Model, ModelSpec]:
    """Gets a trained model by the way a user names one.

    Args:
        source: a checkpoint of ours, a builder name, or `package.module:function` (called without arguments).
        weights: for the latter two, a file, or for a builder one of `weight_names`, such as `COCO_V1`.
        class_names: names of labels 1 … C-1.
        num_classes: classes with the background, for a builder; left out, as many as there are names, else as the
            weights are for.

    Raises:
        UsageError: nothing of that name, no weights for a builder, or another number of classes than the model has.
        ModelFileError: a file that does not fit.
        DependencyMissing: torchvision's weights are neither in its cache nor to be had from the network.
    """
    if source in BUILDERS:
        model, spec = _load_builder(source, weights, class_names, num_classes)
    elif Path(source).exists() or source.endswith(".safetensors"):
        if weights is not None:
            raise UsageError(f"{source} has weights of its own", "leave out --weights")
        model, spec = load_checkpoint(source)
        if class_names is not None:
            spec = _renamed(spec, class_names)
    elif ":" in source:
        model = _call(source)
        if weights is not None:
            load_state(model, read_state(weights), weights)
        spec = spec_of(model, class_names=class_names)
    else:
        builders = ", ".join(sorted(BUILDERS))
        raise UsageError(
            f"{source!r} is no file and no builder",
            did_you_mean(source, BUILDERS, f"give a checkpoint, package.module:function, or one of: {builders}"),
        )
    found = len(spec.class_names) + 1
    if num_classes not in (None, found):
        raise UsageError(
            f"{source} has {found} classes with the background, not {num_classes}",
            "name the checkpoint that has so many",
        )
    return model.eval(), spec


def _load_builder(
    name: str, weights: str | Path | None, class_names: Sequence[str] | None, num_classes: int | None
) -> tuple[Model, ModelSpec]:
    if weights is None:
        raise UsageError(
            f"builder {name} without weights would export random numbers",
            "add " + " or ".join(f"--weights {choice}" for choice in ("FILE", *weight_names(name))),
        )
    if not Path(weights).exists() and str(weights).isidentifier():
        model, categories = fetch(name, str(weights))
        return model, spec_of(model, class_names=class_names or categories, builder=name)
    state = read_state(weights)
    if num_classes is None and class_names is not None:
        num_classes = len(class_names_without_background(class_names)) + 1
    if num_classes is None:
        num_classes = class_count_in(state)
    if num_classes is None:
        raise UsageError(f"{weights} does not tell the number of classes", "add --classes FILE or --num-classes N")
    arguments = arguments_in(state, name)
    model = build(name, num_classes, **arguments)
    load_state(model, state, weights)
    return model, spec_of(model, class_names=class_names, builder=name, builder_arguments=arguments)


def _call(source: str) -> Model:
    module_name, _, function_name = source.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), function_name)()
    except Exception as error:  # it is the user's code
        raise UsageError(
            f"cannot call {source}: {type(error).__name__}: {error}", "expected package.module:function"
        ) from error
    if not isinstance(model, GeneralizedRCNN | _SimpleSegmentationModel):
        raise UsageError(
            f"{source} returned a {type(model).__name__}",
            "expected an instance of a torchvision R-CNN, or of its FCN or DeepLabV3",
        )
    return model


def _renamed(spec: ModelSpec, class_names: Sequence[str]) -> ModelSpec:
    names = class_names_without_background(class_names)
    if len(names) != len(spec.class_names):
        raise UsageError(
            f"{len(names)} class names for a model of {len(spec.class_names)} classes",
            "give one name per class, in label order",
        )
    return spec.replace(class_names=names)
