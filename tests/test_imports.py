"""Imports run one way, and `import edgemask` stays light: promises to a device with little memory."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDERS = {"edgemask": "edgemask", "export": "edgemask.export", "runtimes": "edgemask.runtimes"}

# A module may import from its own row and from the rows above it. A new module is put into its row here.
LAYERS = [
    "errors dependencies checks files offspring processors progress environment spec detections semantic images canvas "
    "masks keypoints proposals ops video parity runs stage_record scenes",
    "drawing map_drawing",
    "evaluation models description augmentation datasets loading weight_files checkpoints reference semantic_reference "
    "reference_stages fake_quantization mixed_precision training",
    "runtimes",
    "divergence optest cluster",
    "export validation quantization benchmark doctor inspection tensorrt report triton",
    "demo cli __main__",
]
LAYER = {name: number for number, names in enumerate(LAYERS) for name in names.split()}

# What a part may import at the top of its modules besides the standard library and edgemask.
LIGHT = {"numpy", "PIL"}
COMMAND_LINE = LIGHT | {"rich", "typer"}
PYTORCH = LIGHT | {"safetensors", "torch", "torchvision"}
AT_TOP = {
    **dict.fromkeys(["cli", "demo", "report"], COMMAND_LINE),
    **dict.fromkeys(["models", "description", "weight_files", "checkpoints", "reference"], PYTORCH),
    **dict.fromkeys(
        ["semantic_reference", "reference_stages", "augmentation", "datasets", "loading", "training"], PYTORCH
    ),
    **dict.fromkeys(["fake_quantization", "mixed_precision"], PYTORCH),
    "runtimes": LIGHT | {"onnx", "google"},  # its protobuf, which onnx brings along
    "quantization": LIGHT | {"onnx"},
    "export": PYTORCH | {"onnx", "onnxscript"},
}
LOADED_BY_LIGHT = {"defusedxml"}  # Pillow tries to import it


def modules() -> dict[str, Path]:
    """Every module by its dotted name; the links are left out, their targets are not."""
    found = {}
    for folder, package in FOLDERS.items():
        root = REPOSITORY / folder
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if folder == "edgemask" and inside.parts[0] in FOLDERS:
                continue
            parts = inside.with_suffix("").parts
            found[".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])] = path
    return found


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names that the statements under a node import; `from edgemask import x` counts as edgemask.x."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in MODULES else node.module


def imports_at_top(path: Path) -> Iterator[str]:
    """As `imports`, without what functions and `if TYPE_CHECKING:` import."""
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        for_checkers = isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test)
        if not for_checkers and not isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield from imports(statement)


def part(module: str) -> str:
    """edgemask.runtimes.ort -> runtimes; edgemask -> the empty string."""
    return module.removeprefix("edgemask").lstrip(".").split(".")[0]


def internal_imports(module: str) -> set[str]:
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    return {name for name in imports(tree) if name.split(".")[0] == "edgemask"}


def test_every_module_has_its_layer() -> None:
    parts = {part(module) for module in MODULES} - {""}
    assert parts <= LAYER.keys(), "name the new part in LAYERS of this file"


@pytest.mark.parametrize("module", [name for name in MODULES if name != "edgemask"])
def test_imports_run_one_way(module: str) -> None:
    own = LAYER[part(module)]
    upward = [name for name in internal_imports(module) if part(name) and LAYER.get(part(name), len(LAYERS)) > own]
    assert upward == [], f"{part(module)} lies below what it imports"


def test_no_module_imports_itself_in_a_circle() -> None:
    # The package's own __init__ only re-exports, and imports lazily what is heavy.
    graph = {module: internal_imports(module) - {"edgemask", module} for module in MODULES if module != "edgemask"}
    order = list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle
    assert set(order) >= graph.keys()


@pytest.mark.parametrize("module", list(MODULES))
def test_third_party_imports_at_top(module: str) -> None:
    outside = {name.split(".")[0] for name in imports_at_top(MODULES[module])}
    outside -= {"edgemask", *sys.stdlib_module_names}
    assert outside <= AT_TOP.get(part(module), LIGHT)


PROBE = """
import json, sys

sockets = []
sys.addaudithook(lambda event, _: sockets.append(event) if event.startswith("socket.") else None)
before = set(sys.modules)
for name in sys.argv[1:]:
    __import__(name)
new = set(sys.modules) - before
loaded = {name.split(".")[0] for name in new if getattr(sys.modules[name], "__file__", None)}
print(json.dumps({"packages": sorted(loaded - set(sys.stdlib_module_names)), "sockets": sockets}))
"""


@pytest.mark.parametrize(
    "names",
    [
        pytest.param(["edgemask"], id="edgemask"),
        pytest.param([m for m in MODULES if AT_TOP.get(part(m), LIGHT) == LIGHT], id="light"),
    ],
)
def test_import_is_light_and_opens_no_socket(names: list[str]) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROBE, *names], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    report = json.loads(result.stdout)
    assert set(report["packages"]) <= {"edgemask", *LIGHT, *LOADED_BY_LIGHT}
    assert report["sockets"] == []
