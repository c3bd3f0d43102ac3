"""PyTorch models on disk: safetensors with the model's spec inside; foreign state dicts by `weights_only` alone."""

import hashlib
import importlib
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from edgemask.errors import DependencyMissing, ModelFileError, UsageError
from edgemask.files import creating
from edgemask.models import BUILDERS, build
from edgemask.spec import SPEC_KEY, ModelSpec, class_names_without_background

TRAINING_KEY = "edgemask.training"
_FOREIGN_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")


def spec_of(
    model: GeneralizedRCNN,
    *,
    class_names: Sequence[str] | None = None,
    category_ids: Sequence[int] | None = None,
    builder: str | None = None,
    builder_arguments: dict[str, Any] | None = None,
) -> ModelSpec:
    """Reads off a torchvision R-CNN everything that must travel with its weights.

    Args:
        model: the model; its transform, thresholds and heads are read, nothing is changed.
        class_names: names of labels 1 … C-1; a leading `__background__` is dropped; None gives `class_1 …`.
        category_ids: COCO ids of the labels; None means the labels themselves.
        builder: name in `edgemask.models.BUILDERS` that makes this architecture, if one does.
        builder_arguments: what the builder was called with besides the number of classes.

    Raises:
        UsageError: the number of names or ids is not the number of classes.
    """
    transform, heads = model.transform, model.roi_heads
    classes = class_count(model)
    names = class_names_without_background(class_names or [f"class_{label}" for label in range(1, classes)])
    if len(names) != classes - 1:
        raise UsageError(
            f"{len(names)} class names for a model of {classes - 1} classes", "give one name per class, in label order"
        )
    min_size = transform.min_size if isinstance(transform.min_size, int) else transform.min_size[-1]
    fixed = getattr(transform, "fixed_size", None)
    mask_size = _mask_size(model)
    return ModelSpec(
        tasks=("boxes",) if mask_size is None else ("boxes", "masks"),
        class_names=names,
        category_ids=tuple(category_ids) if category_ids else tuple(range(1, classes)),
        min_size=int(min_size),
        max_size=int(transform.max_size),
        fixed_size=None if fixed is None else (int(fixed[1]), int(fixed[0])),
        image_mean=tuple(float(value) for value in transform.image_mean),
        image_std=tuple(float(value) for value in transform.image_std),
        size_divisible=int(transform.size_divisible),
        score_threshold=float(heads.score_thresh),
        nms_threshold=float(heads.nms_thresh),
        max_detections=int(heads.detections_per_img),
        mask_size=mask_size,
        builder=builder,
        builder_arguments=builder_arguments or {},
        versions={"torch": torch.__version__, "torchvision": torchvision.__version__},
        source_sha256=weights_digest(model),
    )


def class_count(model: GeneralizedRCNN) -> int:
    """Number of classes with the background, read off the box predictor.

    Raises:
        UsageError: the predictor has no `cls_score` layer to read it from.
    """
    score = getattr(model.roi_heads.box_predictor, "cls_score", None)
    features = getattr(score, "out_features", None)
    if not isinstance(features, int):
        raise UsageError(
            f"cannot tell the number of classes of {type(model.roi_heads.box_predictor).__name__}",
            "its box predictor needs a linear layer named cls_score",
        )
    return features


@torch.inference_mode()
def _mask_size(model: GeneralizedRCNN) -> int | None:
    """Side of the mask that the model's mask head makes from one roi; None without a mask head."""
    heads = model.roi_heads
    if heads.mask_predictor is None:
        return None
    parameter = next(heads.mask_head.parameters())
    roi = parameter.new_zeros((1, model.backbone.out_channels, *heads.mask_roi_pool.output_size))
    training = heads.training
    logits = heads.eval().mask_predictor(heads.mask_head(roi))
    heads.train(training)
    if logits.ndim != 4 or logits.shape[2] != logits.shape[3]:
        raise UsageError(
            f"the mask head gives the shape {tuple(logits.shape)} for one roi", "expected square masks [1, C, S, S]"
        )
    return int(logits.shape[2])


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all parameters and buffers, in hexadecimal."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: str | Path,
    model: GeneralizedRCNN,
    spec: ModelSpec,
    *,
    half: bool = False,
    training: dict[str, Any] | None = None,
) -> None:
    """Writes weights and spec as one safetensors file, whole or not at all.

    Args:
        path: where to.
        model: its weights are stored.
        spec: stored as metadata; its `source_sha256` is replaced by that of the stored weights.
        half: store floating-point weights as float16: half the size; loading gives float32 again.
        training: how the weights came to be, kept as metadata.

    Raises:
        OutputError: the file cannot be written.
    """
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    if half:
        state = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    metadata = {SPEC_KEY: spec.to_json()}
    if training is not None:
        metadata[TRAINING_KEY] = json.dumps(training, sort_keys=True)
    with creating(path) as temporary:
        temporary.write_bytes(safetensors.torch.save(state, metadata))


def load_checkpoint(path: str | Path) -> tuple[GeneralizedRCNN, ModelSpec]:
    """Reads a checkpoint that `save_checkpoint` wrote.

    Returns:
        The model in evaluation mode with float32 weights, and its spec.

    Raises:
        ModelFileError: no such file, no safetensors, no spec inside, or weights for another architecture.
    """
    state, metadata = _read_safetensors(Path(path))
    if SPEC_KEY not in metadata:
        raise ModelFileError(
            f"{path} holds weights but no edgemask spec", "name the architecture: edgemask export BUILDER --weights FILE"
        )
    spec = ModelSpec.from_json(metadata[SPEC_KEY])
    if spec.builder is None:
        raise ModelFileError(f"{path} does not say which builder made it", "load its weights into your own model")
    model = build(spec.builder, len(spec.class_names) + 1, **spec.builder_arguments)
    load_state(model, state, path)
    return model, spec.replace(source_sha256=weights_digest(model))


def read_state(path: str | Path) -> dict[str, torch.Tensor]:
    """Reads the weights of a safetensors file or of a foreign state dict; nothing in the file is executed.

    Raises:
        ModelFileError: no such file, or anything but a state dict of tensors.
    """
    path = Path(path)
    if path.suffix not in _FOREIGN_SUFFIXES:
        return _read_safetensors(path)[0]
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ModelFileError(
            f"{path} is no plain state dict: {str(error).splitlines()[0]}",
            "save it again with torch.save(model.state_dict(), …): pickled modules are never executed here",
        ) from error
    for key in ("model", "state_dict"):
        if isinstance(loaded, dict) and isinstance(loaded.get(key), dict):
            loaded = loaded[key]
    if not isinstance(loaded, dict) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise ModelFileError(f"{path} is no state dict of tensors", "save it with torch.save(model.state_dict(), …)")
    return loaded


def load_state(model: GeneralizedRCNN, state: dict[str, torch.Tensor], path: str | Path) -> None:
    """Loads weights that must fit the model exactly; float16 weights become float32.

    Raises:
        ModelFileError: names or shapes differ; says how many and shows one.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    received = {name: tuple(tensor.shape) for name, tensor in state.items()}
    wrong = [name for name in expected if expected[name] != received.get(name)]
    wrong += [name for name in received if name not in expected]
    if wrong:
        first = wrong[0]
        raise ModelFileError(
            f"the weights in {path} are for another architecture: {len(wrong)} of {len(expected)} tensors differ, "
            f"for example {first}: expected {expected.get(first, 'none')}, got {received.get(first, 'none')}",
            "check the builder, the number of classes and the builder's arguments",
        )
    model.load_state_dict(state)


def load_model(
    source: str,
    *,
    weights: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    num_classes: int | None = None,
) -> tuple[GeneralizedRCNN, ModelSpec]:
    """Gets a trained model by the way a user names one.

    Args:
        source: a checkpoint of ours, a builder name, or `package.module:function` (called without arguments).
        weights: for the latter two, a file, or a name from torchvision's weights enum such as `COCO_V1`.
        class_names: names of labels 1 … C-1.
        num_classes: classes with the background, for a builder; taken from `class_names` where those are given.

    Raises:
        UsageError: nothing of that name, or no weights for a builder.
        ModelFileError: a file that does not fit.
    """
    if source in BUILDERS:
        return _load_builder(source, weights, class_names, num_classes)
    if Path(source).exists() or source.endswith(".safetensors"):
        model, spec = load_checkpoint(source)
        return model, spec if class_names is None else spec.replace(
            class_names=class_names_without_background(class_names)
        )
    if ":" in source:
        model = _call(source)
        if weights is not None:
            load_state(model, read_state(weights), weights)
        return model.eval(), spec_of(model, class_names=class_names)
    raise UsageError(
        f"{source!r} is no file and no builder",
        f"give a checkpoint, package.module:function, or one of: {', '.join(sorted(BUILDERS))}",
    )


def _load_builder(
    name: str, weights: str | Path | None, class_names: Sequence[str] | None, num_classes: int | None
) -> tuple[GeneralizedRCNN, ModelSpec]:
    if weights is None:
        raise UsageError(
            f"builder {name} without weights would export random numbers",
            "add --weights FILE, or --weights COCO_V1 where torchvision has such weights",
        )
    if not Path(weights).exists() and str(weights).isidentifier():
        return _load_torchvision(name, str(weights), class_names)
    if num_classes is None:
        if class_names is None:
            raise UsageError(f"builder {name} needs the number of classes", "add --classes FILE or --num-classes N")
        num_classes = len(class_names_without_background(class_names)) + 1
    model = build(name, num_classes)
    load_state(model, read_state(weights), weights)
    return model, spec_of(model, class_names=class_names, builder=name)


def _load_torchvision(
    name: str, weights: str, class_names: Sequence[str] | None
) -> tuple[GeneralizedRCNN, ModelSpec]:
    try:
        entry = torchvision.models.get_model_weights(name)[weights]
    except (ValueError, KeyError) as error:
        raise UsageError(
            f"{weights!r} is neither a file nor weights that torchvision has for {name}", "check the name or the path"
        ) from error
    try:
        model = torchvision.models.get_model(name, weights=entry).eval()
    except OSError as error:
        raise DependencyMissing(
            f"cannot fetch {weights} of {name}: {error}",
            f"download {Path(entry.url).name} elsewhere and give it as --weights FILE --num-classes 91",
        ) from error
    categories = entry.meta["categories"]
    used = [index for index, category in enumerate(categories) if category != "__background__"]
    names = class_names or [categories[index] for index in used]
    return model, spec_of(model, class_names=names, builder=name)


def _call(source: str) -> GeneralizedRCNN:
    module_name, _, function_name = source.partition(":")
    try:
        model = getattr(importlib.import_module(module_name), function_name)()
    except (ImportError, AttributeError) as error:
        raise UsageError(f"cannot call {source}: {error}", "expected package.module:function") from error
    if not isinstance(model, GeneralizedRCNN):
        raise UsageError(
            f"{source} returned a {type(model).__name__}", "expected an instance of a torchvision R-CNN"
        )
    return model


def _read_safetensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise ModelFileError(
            f"{path} is no safetensors file: {error}", "expected a checkpoint written by edgemask train"
        ) from error
    except OSError as error:
        raise ModelFileError(f"cannot read {path}: {error.strerror or error}", "check the path") from error
