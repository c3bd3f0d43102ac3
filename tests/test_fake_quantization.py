"""Fine-tuning for INT8: what layers compute with is what a QDQ file would, and nothing of it stays in the model."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from families import FAMILIES
from narrow import narrow_model
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemask.description import spec_of
from edgemask.export.graph_module import GraphModule
from edgemask.fake_quantization import (
    FREEZE,
    MOMENTUM,
    SETTLE,
    FakeQuantization,
    quantized_layers,
    round_activations,
    round_weights,
)
from edgemask.quantization.layers import Layer, chosen
from edgemask.quantization.recipes import recipe_named
from edgemask.scenes import draw_scene

TOTAL = 40
SETTLED, FROZEN = round(SETTLE * TOTAL), round(FREEZE * TOTAL)


class Layers(nn.Module):
    """A convolution with its normalisation, called like a detector; its loss is what the layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, images: list[Tensor], _targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"loss": self.norm(self.conv(torch.stack(images)))}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def qdq(values: Tensor, scale: NDArray[Any], zero: Any, low: int, high: int) -> NDArray[np.float32]:
    """QuantizeLinear, DequantizeLinear, as ONNX defines them."""
    steps = np.clip(np.rint(values.detach().numpy() / scale) + zero, low, high)
    result: NDArray[np.float32] = ((steps - zero) * scale).astype(np.float32)
    return result


def qdq_weights(weights: Tensor) -> Tensor:
    scale = weights.detach().abs().reshape(len(weights), -1).max(1).values.numpy() / 127
    return torch.from_numpy(qdq(weights, scale.reshape(-1, *[1] * (weights.ndim - 1)), 0, -127, 127))


def qdq_activations(values: Tensor, low: float, high: float) -> Tensor:
    scale = np.float32((high - low) / 255)
    return torch.from_numpy(qdq(values, scale, np.rint(-low / scale), 0, 255))


@pytest.mark.parametrize("shape", [(6, 4, 3, 3), (8, 1, 5, 5), (7, 30)], ids=["conv", "depthwise", "linear"])
def test_weights_are_rounded_as_in_the_file(shape: tuple[int, ...]) -> None:
    weights = random(*shape) * torch.logspace(-3, 3, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    found = round_weights(weights)
    torch.testing.assert_close(found, qdq_weights(weights), rtol=1e-6, atol=0)
    assert not torch.equal(found, weights)
    torch.testing.assert_close(found.flatten(1).abs().amax(1), weights.flatten(1).abs().amax(1))  # nothing is clipped


def test_weights_of_zero_stay_zero() -> None:
    weights = random(3, 4)
    weights[1] = 0
    found = round_weights(weights)
    assert not found[1].any()
    assert found.isfinite().all()


def test_rounding_before_folding_equals_rounding_after_it() -> None:
    weights, factors = random(16, 8, 3, 3), random(16, 1, 1, 1, seed=1)
    assert factors.min() < 0 < factors.max()
    torch.testing.assert_close(round_weights(weights) * factors, round_weights(weights * factors), rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    ("ends", "range_"),
    [((-0.7, 1.9), (-0.7, 1.9)), ((0.4, 1.2), (0.0, 1.2)), ((-1.5, -0.2), (-1.5, 0.0))],
    ids=["both signs", "above 0", "below 0"],
)
def test_activations_are_rounded_as_in_the_file(ends: tuple[float, float], range_: tuple[float, float]) -> None:
    values = random(2, 5, 9, 9)
    found = round_activations(values, torch.tensor(ends))
    torch.testing.assert_close(found, qdq_activations(values, *range_), rtol=1e-6, atol=1e-7)
    assert len(found.unique()) <= 256
    step = (range_[1] - range_[0]) / 255
    inside = (values > range_[0]) & (values < range_[1])
    assert (found - values)[inside].abs().max() <= 0.51 * step
    assert range_[0] - step <= found.min() < found.max() <= range_[1] + step


def test_activations_that_were_always_zero() -> None:
    assert not round_activations(torch.zeros(3), torch.zeros(2)).any()


def test_gradients_pass_the_rounding() -> None:
    weights, slopes = random(4, 3).requires_grad_(), random(4, 3, seed=1)
    (round_weights(weights) * slopes).sum().backward()  # type: ignore[no-untyped-call]
    assert weights.grad is not None
    assert torch.equal(weights.grad, slopes)
    values = torch.tensor([-2.0, -0.5, 0.3, 2.0], requires_grad=True)
    round_activations(values, torch.tensor([-1.0, 1.0])).sum().backward()  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 0]


def test_a_layer_computes_what_the_file_will() -> None:
    """Ranges settle, follow a moving average, and stay."""
    model = Layers().train()
    with torch.no_grad():
        model.norm.running_mean.add_(random(4))  # type: ignore[union-attr]
        model.norm.running_var.mul_(3)  # type: ignore[union-attr]
    quantization = FakeQuantization(model, TOTAL)
    low: float | None = None
    high: float | None = None
    for step in range(TOTAL):
        image = random(3, 8, 8, seed=step) * (1 + step / 10)
        found = quantization([image], [{}])["loss"]
        seen = image[None]
        if step >= SETTLED:
            assert low is not None
            assert high is not None
            seen = qdq_activations(seen, low, high)
        expected = model.norm(nn.functional.conv2d(seen, qdq_weights(model.conv.weight), model.conv.bias))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5, msg=f"step {step}")
        if step < FROZEN:
            least, greatest = image.min().item(), image.max().item()
            low = least if low is None else low + MOMENTUM * (least - low)
            high = greatest if high is None else high + MOMENTUM * (greatest - high)


@pytest.mark.parametrize(
    ("activation", "rounded"), [(nn.Hardswish(inplace=True), True), (nn.ReLU(inplace=True), False)]
)
def test_what_a_layer_gives_is_rounded_before_any_activation_but_relu(activation: nn.Module, *, rounded: bool) -> None:
    """A file clips to 0 and rounds what is left in one step; the next layer's input is that."""

    class Activated(Layers):
        def __init__(self) -> None:
            super().__init__()
            self.activation = activation

        def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            given = super().forward(images, targets)["loss"]
            return {"given": given.detach().clone(), "loss": self.activation(given)}

    quantization = FakeQuantization(Activated().train(), TOTAL)
    for step in range(SETTLED):
        quantization([random(3, 8, 8, seed=step)], [{}])
    ends = quantization.state_dict()["ranges"].get("activation")
    assert (ends is not None) == rounded
    found = quantization([random(3, 8, 8)], [{}])
    taken = found["given"] if ends is None else round_activations(found["given"], ends)
    assert torch.equal(found["loss"], type(activation)()(taken))
    found["loss"].sum().backward()  # type: ignore[no-untyped-call]


def test_a_range_holds_all_calls_of_a_step_and_outlives_steps_without_one() -> None:
    layer = nn.Linear(2, 2)

    class Levels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = layer

        def forward(self, images: list[Tensor], _targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
            return {str(index): self.layer(image) for index, image in enumerate(images)}

    quantization = FakeQuantization(Levels().train(), TOTAL)
    quantization([torch.tensor([[-1.0, 2.0]]), torch.tensor([[3.0, 0.5]]), torch.empty(0, 2)], [])
    ranges = quantization.state_dict()["ranges"]
    assert ranges["layer"].tolist() == [-1, 3]
    losses = quantization([torch.empty(0, 2)], [])
    assert losses["0"].shape == (0, 2)
    assert quantization.state_dict()["ranges"]["layer"].tolist() == [-1, 3]


def test_a_state_goes_on_where_it_was_taken() -> None:
    images = [[random(3, 8, 8, seed=step)] for step in range(6)]
    torch.manual_seed(0)
    model = Layers()
    whole, halved = FakeQuantization(model, 6), FakeQuantization(Layers(), 6)
    halved._model.load_state_dict(model.state_dict())
    for step in range(3):
        whole(images[step], [{}])
    halved.load_state_dict(whole.state_dict())
    for step in range(3, 6):
        assert torch.equal(halved(images[step], [{}])["loss"], whole(images[step], [{}])["loss"])
    assert halved.state_dict()["step"] == 6


class Pair(nn.Module):
    """Two convolutions; the loss is how far they are from maps that are given."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)

    def maps(self, images: list[Tensor]) -> Tensor:
        return self.second(self.first(torch.stack(images)).relu())  # type: ignore[no-any-return]

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {"loss": (self.maps(images) - torch.stack([target["maps"] for target in targets])).square().mean()}


@torch.no_grad()
def rounded_loss(model: Pair, teacher: Pair) -> float:
    """On fresh images, with ranges as calibration would find them."""
    quantization = FakeQuantization(copy.deepcopy(model), TOTAL)
    for seed in range(1000, 1000 + SETTLED + 1):
        images = list(random(4, 3, 12, 12, seed=seed))
        loss = quantization(images, [{"maps": maps} for maps in teacher.maps(images)])["loss"]
    return loss.item()


def test_training_wins_back_what_rounding_costs() -> None:
    """One channel is 256 times as large as the others, which drown in its range; in float32 that changes nothing."""
    torch.manual_seed(0)
    teacher = Pair().requires_grad_(False)
    model = copy.deepcopy(teacher)
    assert model.first.bias is not None
    model.first.weight[0] *= 256
    model.first.bias[0] *= 256
    model.second.weight[:, 0] /= 256
    before = rounded_loss(model, teacher)
    trained = copy.deepcopy(model).requires_grad_()
    steps = 400
    quantization, optimizer = FakeQuantization(trained, steps), torch.optim.Adam(trained.parameters(), lr=1e-3)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, steps)
    for step in range(steps):
        images = list(random(4, 3, 12, 12, seed=step))
        loss = quantization(images, [{"maps": maps} for maps in teacher.maps(images)])["loss"]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        scheduler.step()
    model.load_state_dict(trained.state_dict())
    assert rounded_loss(model, teacher) < before / 2


def batch_of() -> tuple[list[Tensor], list[dict[str, Tensor]]]:
    """A scene, and something for a Mask R-CNN to find in it."""
    scene = draw_scene(0, seed=1, size=96)
    boxes = torch.tensor([[10.0, 10, 50, 40]])
    masks = torch.zeros(1, 96, 96, dtype=torch.uint8)
    masks[0, 10:40, 10:50] = 1
    image = torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255
    return [image], [{"boxes": boxes, "labels": torch.tensor([1]), "masks": masks}]


def test_only_batch_normalisation_stands_still() -> None:
    """Its statistics, that is; every parameter gets a gradient, under the name and in the order that it had."""
    model = narrow_model().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    parameters = list(model.parameters())
    quantization = FakeQuantization(model, 4)
    for _ in range(3):
        losses = quantization(*batch_of())
    torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert model.roi_heads.training
    assert set(quantization.state_dict()["ranges"]) == set(quantized_layers(model))


def test_predictors_compute_as_they_did() -> None:
    model = narrow_model().train()
    maps, rois = random(1, 16, 5, 5), random(4, 16)
    parts = (model.rpn.head.cls_logits, model.rpn.head.bbox_pred, model.roi_heads.mask_predictor)
    before = [part(maps) for part in parts] + list(model.roi_heads.box_predictor(rois))
    quantization = FakeQuantization(model, 4)
    for _ in range(2):
        quantization(*batch_of())
    after = [part(maps) for part in parts] + list(model.roi_heads.box_predictor(rois))
    assert all(torch.equal(one, other) for one, other in zip(after, before, strict=True))


@pytest.mark.parametrize("name", ["compact", "mask_v2", "mask_c4", "mask_keypoint", "faster_mobilenet_320"])
def test_the_layers_are_those_of_the_default_recipe(name: str) -> None:
    """Nodes are named by where modules lie in the graph's own module, which shares them with the model."""
    model: Any = narrow_model(6).eval() if name == "compact" else FAMILIES[name].build()
    kinds = {nn.Conv2d: "Conv", nn.ConvTranspose2d: "ConvTranspose", nn.Linear: "Gemm"}
    modules, layers = {}, []
    for path, module in GraphModule(model, spec_of(model)).named_modules():
        # The last layer of masks becomes a product with the weights of the detected classes, which is none to quantize.
        # The transposed convolution of masks becomes another layer, and is left exact in training.
        if type(module) in kinds and not path.startswith(("mask_head.last", "mask_head.upsampling")):
            node = f"{path.replace('.', '/')}/{kinds[type(module)]}"
            modules[node] = module
            layers.append(
                Layer(name=node, stage=path.partition(".")[0], operator="", weight=path, weights=1, depthwise=False)
            )
    rounded = {id(modules[layer.name]) for layer in chosen(layers, recipe_named("default"))}
    assert rounded == {id(layer) for layer in quantized_layers(model).values()}
    assert 0 < len(rounded) < len(modules)
