"""Which heavy nodes ONNX Runtime put elsewhere than promised."""

from types import SimpleNamespace
from typing import Any

import pytest
from toy_model import write_toy

from edgemask.errors import DeviceUnavailable
from edgemask.runtimes import read_model
from edgemask.runtimes.assignment import HEAVY, heavy_operator, strays
from edgemask.runtimes.ort import OrtCpu


def session(**nodes: list[str]) -> Any:
    """A session that put nodes of these types on these providers, each in a part of its own."""
    parts = [
        SimpleNamespace(ep_name=provider, get_nodes=lambda kind=kind: [SimpleNamespace(name=kind, op_type=kind)])
        for provider, kinds in nodes.items()
        for kind in kinds
    ]
    return SimpleNamespace(get_provider_graph_assignment_info=lambda: parts)


@pytest.mark.parametrize(
    ("operator", "meant"),
    [
        *((name, name) for name in HEAVY),
        ("FusedConv", "Conv"),
        ("QLinearConv", "Conv"),
        ("NhwcFusedConv", "Conv"),
        ("ConvInteger", "Conv"),
        ("QGemm", "Gemm"),
        ("FusedMatMul", "Gemm"),
        ("MatMulNBits", "Gemm"),
        ("Reshape", None),
        ("Unsqueeze", None),
    ],
)
def test_names_of_the_same_work(operator: str, meant: str | None) -> None:
    assert heavy_operator(operator) == meant


def test_heavy_nodes_elsewhere_are_counted() -> None:
    found = session(Cuda=["Conv", "TopK"], Cpu=["Shape", "RoiAlign", "RoiAlign", "FusedConv", "Gather"])
    assert strays(found, ("Cuda",)) == ("2 RoiAlign on Cpu", "1 Conv on Cpu")
    assert strays(found, ("Cuda", "Cpu")) == ()


@pytest.mark.parametrize("operator", HEAVY)
def test_a_provider_that_leaves_a_heavy_node_out_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch, operator: str
) -> None:
    class Shy(OrtCpu):
        """The CPU provider, which promises to be another one for what the model does not have."""

        def _open(self, *arguments: Any, **options: Any) -> Any:
            opened = super()._open(*arguments, **options)
            parts = session(CPUExecutionProvider=["Relu"], Other=[operator, "Shape"])
            opened.get_provider_graph_assignment_info = parts.get_provider_graph_assignment_info
            return opened

    model = read_model(write_toy(tmp_path / "m.onnx"))
    with pytest.raises(DeviceUnavailable, match=rf"not all of .*m\.onnx would run on cpu: 1 {operator} on Other"):
        Shy(model, "")
    allowed = Shy(model, "", fallback=True)
    assert allowed.strays == (f"1 {operator} on Other",)
    assert OrtCpu(model, "").strays == ()
