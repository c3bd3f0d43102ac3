"""The README's tables of what is supported and of what was withstood, made of what the tests ran.

    make test ARGS=--junitxml=out/tests.xml
    make soak ARGS=--junitxml=out/soak.xml
    python scripts/readme_tables.py out/tests.xml out/soak.xml

reads the results, stores them as `tests/results.json` and writes each table between its two marks in README.md. Results
of what was not run stay as they are stored. Without an argument the tables are written anew from the store.
"""

import argparse
import json
import re
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from families import FAMILIES  # noqa: E402
from reliability_rows import ROWS  # noqa: E402

STORE, README = ROOT / "tests" / "results.json", ROOT / "README.md"
RUNTIMES = {"cpu": "ONNX Runtime", "openvino:CPU": "OpenVINO"}
# Tests of `tests/family_proof.py` and `tests/test_families_semantic.py`, by the column that they fill.
COLUMNS = {
    "alone": ("test_alone",),
    "three sizes in a batch": ("test_three_sizes_in_a_batch",),
    "no object": ("test_without_objects", "test_an_empty_image_poisons_nothing"),
}
PACKAGES = ("torch", "torchvision", "onnxruntime-gpu", "openvino")
_NAME = re.compile(r"(test_\w+)\[(?:(.+)-)?(cpu|openvino:CPU)\]")
Results = dict[str, Any]


def main() -> None:
    """Reads results, stores them, writes the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("results", nargs="*", type=Path, metavar="JUNIT.xml")
    results: Results = json.loads(STORE.read_text()) if STORE.exists() else {}
    for path in parser.parse_args().results:
        for part, found in collected(path).items():
            kept = results.get(part, {}).get("results", {})
            results[part] = found | {"results": _joined(kept, found["results"])}
    STORE.write_text(json.dumps(results, indent=1) + "\n")
    text = README.read_text()
    for name, table in TABLES.items():
        text = with_table(text, name, table(results))
    README.write_text(text)


def with_table(text: str, name: str, table: str) -> str:
    """A text whose part between the two marks of a table is that table."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        sys.exit(f"{README} has no {begin.strip()} and {end.strip()}")
    return before + begin + table + end + after


def collected(path: Path) -> Results:
    """What a run says about families, networks, sizes and reliability; parts that it did not hold are left out."""
    families: dict[str, Any] = defaultdict(lambda: defaultdict(dict))
    networks: dict[str, Any] = defaultdict(dict)
    sizes: dict[str, Any] = {}
    withstood: dict[str, Any] = defaultdict(dict)
    for case in ET.parse(path).iter("testcase"):
        if ".reliability." in case.get("classname", ""):
            _add_finding(withstood, case)
            continue
        found = _NAME.fullmatch(case.get("name", ""))
        if found is None:
            continue
        test, subject, device = found.groups()
        passed = all(case.find(tag) is None for tag in ("failure", "error", "skipped"))
        outcome = {"passed": passed} | {name: float(value) for name, value in _properties(case).items()}
        place = case.get("classname", "")
        if "test_families" in place:
            families[subject][test][device] = passed
        elif "test_builders" in place:
            networks[subject][device] = outcome
        elif "test_sizes" in place:
            sizes[device] = outcome
    stamp = {"date": datetime.now(UTC).date().isoformat(), "versions": {name: version(name) for name in PACKAGES}}
    parts = {"families": families, "networks": networks, "sizes": sizes, "reliability": withstood}
    return {name: {"results": part, **stamp} for name, part in parts.items() if part}


def _joined(kept: Results, found: Results) -> Results:
    return kept | {name: kept.get(name, {}) | part for name, part in found.items()}


def _properties(case: ET.Element) -> dict[str, str]:
    return {str(entry.get("name")): str(entry.get("value")) for entry in case.iter("property")}


def _add_finding(withstood: dict[str, Any], case: ET.Element) -> None:
    """Files what a check has found under its row; a run in which one failed makes no table."""
    module = case.get("classname", "").partition(".reliability.")[2].partition(".")[0]
    if any(case.find(tag) is not None for tag in ("failure", "error")):
        sys.exit(f"{module}: {case.get('name')} has failed")
    properties = _properties(case)
    if "found" in properties:
        withstood[module][properties["where"]] = properties["found"]


def reliability(results: Results) -> str:
    """What was tried and withstood, as Markdown."""
    if "reliability" not in results:
        return ""
    found = results["reliability"]["results"]
    rows = [
        [str(number), tried, asked, _findings(found.get(module, {}))]
        for number, (module, (tried, asked)) in enumerate(ROWS.items(), 1)
    ]
    text = _table(["", "what is tried", "what must come out", "found"], rows)
    return f"{text}\n`make soak` and `make test`, {_stamp(results['reliability'])}\n"


def _findings(found: Mapping[str, str]) -> str:
    return "<br>".join(f"{where}: {words}" if where else words for where, words in sorted(found.items())) or "not run"


def support(results: Results) -> str:
    """What is supported, as Markdown."""
    text = ""
    if "families" in results:
        rows = [
            [*_described(subject), *(_runtimes(tests, names) for names in COLUMNS.values())]
            for subject, tests in results["families"]["results"].items()
        ]
        text += _table(["what", "narrow model of", *COLUMNS], rows)
        text += f"\n`make test` and `make soak`, {_stamp(results['families'])}\n\n"
    if "networks" in results:
        rows = [[f"`{name}`", *_network(devices)] for name, devices in results["networks"]["results"].items()]
        text += _table(["network", "MB", *(f"worst stage, {name}" for name in RUNTIMES.values())], rows)
        text += f"\n`make soak`, {_stamp(results['networks'])}\n"
    return text


def _described(subject: str) -> list[str]:
    """Tasks of a family and the networks that it stands for; a form is its own description."""
    family = FAMILIES.get(subject)
    if family is None:
        return ["form of a file", subject]
    return [", ".join(family.tasks), ", ".join(f"`{name}`" for name in family.stands_for)]


def _runtimes(tests: Mapping[str, Mapping[str, bool]], names: Iterable[str]) -> str:
    """The runtimes on which all of these tests passed that were run."""
    run = [tests[name] for name in names if name in tests]
    held = [title for device, title in RUNTIMES.items() if run and all(test.get(device) for test in run)]
    return "both" if len(held) == len(RUNTIMES) else ", ".join(held) or "no"


def _network(devices: Mapping[str, Mapping[str, float]]) -> list[str]:
    any_device = next(iter(devices.values()))
    if "megabytes" not in any_device:
        return ["-", *("no" for _ in RUNTIMES)]
    errors = [f"{devices[d]['worst_error']:.1e}" if devices.get(d, {}).get("passed") else "no" for d in RUNTIMES]
    return [f"{any_device['megabytes']:.0f}", *errors]


def _stamp(part: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {number.partition('+')[0]}" for name, number in part["versions"].items())
    return f"{part['date']}, {versions}."


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


TABLES = {"support": support, "reliability": reliability}

if __name__ == "__main__":
    main()
