"""The documentation names only what exists: pages, commands, options, Python names, errors of ours, stored figures."""

import ast
import json
import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from script_files import script_module
from typer.main import get_command

import edgemask
from edgemask.cli.app import app

REPOSITORY = Path(__file__).resolve().parents[1]
DOCS = REPOSITORY / "docs"
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))
HOW_TO = [page for page in PAGES if page.startswith("howto/") and page != "howto/index.md"]
COMMANDS: dict[str, Any] = dict(get_command(app).commands)  # type: ignore[attr-defined]
# Rows of the doctor's table whose words are a library's or the system's.
OF_LIBRARIES = {"No module named 'onnx'"}
_BLOCK = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_LEAST_LITERAL = 12  # characters of a message of ours that are the same in all its forms, and ...
_LEAST_SHARE = 0.25  # ... their share of a line that is said to be this message


def blocks(page: str, language: str, title: str = "") -> list[str]:
    """The fenced blocks of a page that are of a language, and of a title if one is given."""
    found = _BLOCK.finditer((DOCS / page).read_text(encoding="utf-8"))
    return [one[4] for one in found if one[2] == language and (not title or f'title="{title}"' in one[3])]


def nav_pages(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for entry in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from nav_pages(entry)


def test_nav_has_every_page_once() -> None:
    nav = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    assert sorted(nav_pages(nav)) == PAGES
    assert sorted(nav_pages([*nav, {"Twice": "index.md"}])) != PAGES


def test_nothing_is_fetched_by_the_pages() -> None:
    config = yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    assert config["theme"]["font"] is False
    assert not config.keys() & {"extra_javascript", "extra_css"}
    plugins = {next(iter(one)) if isinstance(one, dict) else one for one in config["plugins"]}
    assert plugins == {"search", "mkdocstrings"}


def paths_in(text: str) -> set[str]:
    """Files and folders of the repository that a text names between backticks."""
    return set(re.findall(r"`((?:edgemask|export|runtimes|samples|scripts|tests|docs|\.github)/[\w/.-]*)`", text))


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page: str) -> None:
    named = paths_in((DOCS / page).read_text(encoding="utf-8"))
    assert [path for path in named if not (REPOSITORY / path).exists()] == []


def test_a_file_that_is_gone_is_noticed() -> None:
    named = paths_in("`export/stages.py` and `export/rules.py`")
    assert {path for path in named if not (REPOSITORY / path).exists()} == {"export/rules.py"}


def edgemask_lines(text: str) -> list[str]:
    """The commands of a shell block that are edgemask's, continued lines joined."""
    lines = (line.strip() for line in text.replace("\\\n", " ").splitlines())
    parts = (part.strip() for line in lines for part in re.split(r"&&|\|\|", line))
    return [part for part in parts if re.match(r"(python -m )?edgemask\b", part) or "-m edgemask " in part]


def problem_of(line: str) -> str | None:
    """What is wrong with an edgemask command, by the command line's own parser; nothing is run."""
    words = shlex.split(line.partition("edgemask")[2], comments=True)
    if not words or words[0] not in COMMANDS:
        return f"there is no such command: {line}"
    command = COMMANDS[words[0]]
    try:
        command.make_parser(click.Context(command)).parse_args(words[1:])
    except Exception as error:  # of click's, or of the copy that typer brings
        return f"{line}: {type(error).__name__} {error}"
    return None


@pytest.mark.parametrize("page", PAGES)
def test_commands_use_options_that_exist(page: str) -> None:
    lines = [line for block in blocks(page, "sh") for line in edgemask_lines(block)]
    assert [problem for line in lines if (problem := problem_of(line))] == []


@pytest.mark.parametrize(
    "line",
    [
        "edgemask exprt m.safetensors -o m.onnx",
        "edgemask export m.safetensors -o m.onnx --shap 8x8",
        "edgemask predict m.onnx a.jpg --device",
        "edgemask",
    ],
)
def test_a_wrong_command_is_noticed(line: str) -> None:
    assert problem_of(line) is not None


def test_many_commands_are_looked_at() -> None:
    lines = [line for page in PAGES for block in blocks(page, "sh") for line in edgemask_lines(block)]
    assert len(lines) >= 80
    assert {line.split()[1] for line in lines} >= COMMANDS.keys() - {"package", "scenes"}
    assert edgemask_lines("cd x && edgemask inspect \\\n    m.onnx\npip install edgemask") == [
        "edgemask inspect      m.onnx"
    ]


@cache
def names_of(module: str) -> frozenset[str]:
    """What a module of ours binds at its top, read and not imported: some load PyTorch."""
    path = REPOSITORY.joinpath(*module.split("."))
    source = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    names = set()
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return frozenset(names)


def missing_names(code: str) -> list[str]:
    """Names that a piece of Python takes from edgemask, and that it does not have."""
    missing = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgemask":
            known = names_of(str(node.module))
            missing += [alias.name for alias in node.names if alias.name not in known]
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "edgemask":
            missing += [] if node.attr in names_of("edgemask") else [node.attr]
    return missing


@pytest.mark.parametrize("page", PAGES)
def test_python_of_the_pages_names_what_exists(page: str) -> None:
    assert [name for block in blocks(page, "python") for name in missing_names(block)] == []


def test_a_wrong_name_is_noticed() -> None:
    assert missing_names("from edgemask.export import export_onxx\nimport edgemask\nedgemask.laod('m')") == [
        "export_onxx",
        "laod",
    ]


@cache
def messages() -> frozenset[tuple[str, ...]]:
    """The texts of the package, each cut where a value is put in."""
    found = set()
    for folder in ("edgemask", "export", "runtimes"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                pieces = node.values if isinstance(node, ast.JoinedStr) else [node]
                texts = [piece.value if isinstance(piece, ast.Constant) else "" for piece in pieces]
                if all(isinstance(text, str) for text in texts) and sum(map(len, texts)) >= _LEAST_LITERAL:
                    found.add(tuple(texts))
    return frozenset(found)


def is_ours(line: str) -> bool:
    """Whether the package has a text that reads like this with some values, or most of it as it is."""
    line = line.removeprefix("error: ")
    for texts in messages():
        if all(text in line for text in texts) and sum(map(len, texts)) >= _LEAST_SHARE * len(line):
            pattern = "".join(re.escape(text) or ".+?" for text in texts)
            if re.fullmatch(pattern, line) or len(texts) == 1:
                return True
    return False


@pytest.mark.parametrize("page", PAGES)
def test_errors_said_to_be_ours_are(page: str) -> None:
    lines = [line for block in blocks(page, "text", "edgemask") for line in block.strip().splitlines()]
    assert [line for line in lines if not is_ours(line)] == []


def test_a_changed_error_is_noticed() -> None:
    assert is_ours("error: there is no NVIDIA driver here (libcuda.so.1: no such file)")
    assert not is_ours("error: there is no driver of NVIDIA here (libcuda.so.1: no such file)")
    assert not is_ours("error: this machine has no GPU")


@pytest.mark.parametrize("page", HOW_TO)
def test_a_how_to_is_short_and_ends_in_a_command(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    assert 20 <= len(text.splitlines()) <= 60
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ["Why", "What to do"]
    assert re.search(r"Seen in\s", text)
    assert blocks(page, "sh")
    assert blocks(page, "text") or "Nothing is raised" in text


def test_every_pain_has_a_page() -> None:
    assert len(HOW_TO) == 20


def is_part_of_ours(part: str) -> bool:
    """Whether a text of the package has this, or this is a text of the package with a value in it."""
    return is_ours(part) or any(part in text for texts in messages() for text in texts)


def parts_of(row: str) -> list[str]:
    return [part for part in re.split(r"[ (]*…\)? *", row) if part]


def test_messages_of_the_doctor_are_in_the_table() -> None:
    """What stands between two ellipses in the first column of the table is part of one text."""
    table = (DOCS / "devices.md").read_text(encoding="utf-8").partition("## Its messages")[2].partition("\n## ")[0]
    rows = [row for row in re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE) if row not in OF_LIBRARIES]
    assert len(rows) > 20
    assert [row for row in rows if not is_ours(row) and not all(map(is_part_of_ours, parts_of(row)))] == []
    assert not is_part_of_ours("no driver of NVIDIA is here")


def test_tables_of_figures_are_those_of_the_stored_results() -> None:
    with script_module("scripts/docs_tables.py") as script:
        page, store = script.PAGE.read_text("utf-8"), json.loads(script.STORE.read_text("utf-8"))
        assert script.page_with_tables(page, store) == page
        changed = json.loads(json.dumps(store))
        changed["int8"]["sample"]["size"] *= 2
        assert script.page_with_tables(page, changed) != page


def test_citation_has_what_is_needed_and_this_version() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors", "version", "license"}
    assert citation["version"] == edgemask.__version__
    assert citation["authors"]


def test_release_publishes_what_was_checked_without_secrets() -> None:
    text = (REPOSITORY / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow[True] == {"push": {"tags": ["v*"]}}  # YAML reads the key `on` as true
    assert "secrets." not in text
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert re.findall(r"uses: (\S+)", text)
    assert [
        use for use in re.findall(r"uses: (\S+)", text) if not re.fullmatch(r"[\w/-]+@(v\d+|release/v\d+)", use)
    ] == []
    assert "twine check --strict dist/*" in text


def test_makefile_checks_what_it_builds() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    build, docs = (makefile.partition(f"\n{name}:")[2].partition("\n\n")[0] for name in ("build", "docs"))
    assert "twine check --strict dist/*" in build
    assert "mkdocs build --strict" in docs
    assert "--quiet" not in docs, "a warning that is not shown is not counted either, and the build passes"
