"""What pyproject.toml says is in the package is what lies in the folders, and what a user gets."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_string
from email.message import Message
from pathlib import Path
from typing import Any

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement

REPOSITORY = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
SETUPTOOLS = PROJECT["tool"]["setuptools"]
LINKS = {"edgemask/export": "../export", "edgemask/runtimes": "../runtimes"}
DATA_SUFFIXES = {".json", ".safetensors", ".jinja", ".css", ".js"}
LONGEST_FILE = 300  # lines; reference/style.md: files of its anchors grew past 5,000


def package_files() -> dict[str, Path]:
    """Every file that belongs into the wheel, by its path there."""
    files = {}
    for package in ("edgemask", "edgemask.export", "edgemask.runtimes"):
        root = REPOSITORY / SETUPTOOLS["package-dir"][package]
        for path in root.rglob("*"):
            inside = path.relative_to(root)
            through_link = package == "edgemask" and inside.parts[0] in {"export", "runtimes"}
            if not through_link and (path.suffix in {".py", *DATA_SUFFIXES} or path.name == "py.typed"):
                files[f"{package.replace('.', '/')}/{inside.as_posix()}"] = path
    return files


def test_packages_are_the_folders() -> None:
    files = package_files()
    folders = {name.rpartition("/")[0] for name in files if name.endswith(".py")}
    packages = {folder.replace("/", ".") for folder in folders}
    assert packages == set(SETUPTOOLS["packages"]), "list the new folder in [tool.setuptools]"
    assert [folder for folder in folders if f"{folder}/__init__.py" not in files] == []


@pytest.mark.parametrize(("link", "target"), LINKS.items())
def test_links_for_tools(link: str, target: str) -> None:
    if not (REPOSITORY / link).is_symlink():
        pytest.skip("a checkout without symbolic links (git config core.symlinks)")
    assert os.readlink(REPOSITORY / link) == target


def test_no_file_grows_without_end() -> None:
    lengths = {
        name: len(path.read_text(encoding="utf-8").splitlines())
        for name, path in package_files().items()
        if name.endswith(".py")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE} == {}


def pins() -> list[Requirement]:
    lines = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]


def test_requirements_are_pinned_and_name_no_index() -> None:
    for pin in pins():
        assert re.fullmatch(r"==[^,*]+", str(pin.specifier)), pin
        assert pin.url is None, pin
    text = (REPOSITORY / "requirements.txt").read_text(encoding="utf-8")
    assert re.findall(r"://|--(?:extra-)?index-url|--find-links|(?<!\w)/\w+/", text) == []


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
def test_pins_answer_every_extra(machine: str, python: str) -> None:
    """What the extras ask for is pinned on each platform, once, at a version that they allow."""
    environment = {
        **default_environment(),
        "platform_machine": machine,
        "platform_system": "Linux",
        "sys_platform": "linux",
        "os_name": "posix",
        "python_version": python,
        "python_full_version": f"{python}.0",
    }
    pinned: dict[str, str] = {}
    for pin in pins():
        if pin.marker is None or pin.marker.evaluate(environment):
            assert pin.name not in pinned, f"{pin.name} is pinned twice"
            pinned[pin.name] = str(pin.specifier).removeprefix("==")
    runtime, other = ("cuda", "cpu") if machine == "x86_64" else ("cpu", "cuda")
    extras = PROJECT["project"]["optional-dependencies"]
    asked = [*PROJECT["project"]["dependencies"]]
    asked += [text for extra in extras.keys() - {"all", other} for text in extras[extra]]
    for requirement in map(Requirement, asked):
        if requirement.marker is not None and not requirement.marker.evaluate(environment):
            continue
        assert requirement.name in pinned, requirement
        assert requirement.specifier.contains(pinned[requirement.name]), requirement
    assert runtime in extras


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two wheels, built without network: `direct` from the tree, `sdist` from the source package."""
    root = tmp_path_factory.mktemp("build")
    tree = root / "tree"
    junk = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("edgemask", "export", "runtimes", "samples", "tests"):
        shutil.copytree(REPOSITORY / name, tree / name, symlinks=True, ignore=junk)
    for name in ("pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "MANIFEST.in"):
        shutil.copy(REPOSITORY / name, tree / name)
    build = [sys.executable, "-m", "build", "--no-isolation"]
    for arguments in (["--wheel", "--outdir", str(root / "direct")], ["--outdir", str(root / "sdist")]):
        result = subprocess.run([*build, *arguments], cwd=tree, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    return root


@pytest.fixture(params=["direct", "sdist"])
def wheel(built: Path, request: pytest.FixtureRequest) -> Path:
    (path,) = (built / request.param).glob("*.whl")
    return path


def wheel_metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_wheel_has_each_file_once_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
        assert sorted(names) == sorted(package_files())
        assert all(archive.read(name) == path.read_bytes() for name, path in package_files().items())


def test_wheel_metadata(wheel: Path) -> None:
    import edgemask

    metadata = wheel_metadata(wheel)
    assert metadata["Version"] == edgemask.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["License-File"] == "LICENSE"
    bare = [text for text in metadata.get_all("Requires-Dist", []) if "extra ==" not in text]
    assert {Requirement(text).name for text in bare} == {"numpy", "pillow", "rich", "typer"}


def test_unpacked_wheel_is_found_as_one_package(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); from importlib.util import find_spec as f; "
        "print(*(f(n).origin for n in ('edgemask', 'edgemask.export', 'edgemask.runtimes')), sep='\\n')"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code, str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    found = [Path(line).relative_to(tmp_path).parent.as_posix() for line in result.stdout.splitlines()]
    assert found == ["edgemask", "edgemask/export", "edgemask/runtimes"]


def test_source_package_has_what_a_build_needs(built: Path) -> None:
    (archive,) = (built / "sdist").glob("*.tar.gz")
    listing = subprocess.run(["tar", "tzf", str(archive)], capture_output=True, text=True, check=True)
    names = {name.partition("/")[2] for name in listing.stdout.splitlines()}
    assert {"LICENSE", "README.md", "pyproject.toml", "export/__init__.py", "runtimes/__init__.py"} <= names
    assert {"CHANGELOG.md", "CITATION.cff"} <= names
    assert {name.partition("/")[0] for name in names if "/" in name} == {
        "edgemask",
        "edgemask.egg-info",
        "export",
        "runtimes",
    }
    assert not any(name.startswith(tuple(LINKS)) for name in names), "the links went into the source package"
