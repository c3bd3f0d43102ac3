"""The tables of docs/results.md, made of what commands of edgemask have measured.

    edgemask validate … --json > validate.json
    edgemask quantize … --json > quantize.json
    edgemask bench … --reference … --against eager --json > bench.json
    python scripts/docs_tables.py sample=validate.json sample=quantize.json sample=bench.json

stores what the tables need of each report in `docs/results.json` under the name of a subject, and writes each table
between its two marks. Figures of training come from the files beside the weights; the tables of what the tests ran are
the README's, which `scripts/readme_tables.py` writes. Without an argument the tables are written anew.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PAGE, STORE = ROOT / "docs" / "results.md", ROOT / "docs" / "results.json"
TRAINED = {"sample": ROOT / "edgemask" / "assets" / "sample.json", "nuclei": ROOT / "samples" / "nuclei.json"}
OF_THE_README = ("support", "reliability")
RUNTIMES = {"cpu": "ONNX Runtime", "openvino:CPU": "OpenVINO", "torch": "PyTorch eager"}
VERSIONS = ("torch", "torchvision", "onnxruntime-gpu", "openvino")
Store = dict[str, Any]


def main() -> None:
    """Stores the reports that are named, and writes the tables."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("reports", nargs="*", metavar="SUBJECT=REPORT.json")
    store: Store = json.loads(STORE.read_text("utf-8")) if STORE.exists() else {}
    for argument in parser.parse_args().reports:
        subject, _, path = argument.partition("=")
        part, facts = facts_of(json.loads(Path(path).read_text("utf-8")))
        store.setdefault(part, {})[subject] = facts
    STORE.write_text(json.dumps(store, indent=1) + "\n", "utf-8")
    PAGE.write_text(page_with_tables(PAGE.read_text("utf-8"), store), "utf-8")


def page_with_tables(page: str, store: Store) -> str:
    """The text of the page with every table as the stored figures have it."""
    readme = (ROOT / "README.md").read_text("utf-8")
    texts = {name: table(store) for name, table in TABLES.items() if name in store or table is trained}
    texts |= {name: _cut(readme, name)[1] for name in OF_THE_README}
    for name, text in texts.items():
        before, _, after = _cut(page, name)
        page = before + text + after
    return page


def _cut(text: str, name: str) -> tuple[str, str, str]:
    """What is before a table, the table, and what is behind it, the marks left where they are."""
    begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"
    before, first, rest = text.partition(begin)
    table, last, after = rest.partition(end)
    if not first or not last:
        sys.exit(f"there is no {begin.strip()} and {end.strip()}")
    return before + first, table, last + after


def facts_of(report: Mapping[str, Any]) -> tuple[str, Store]:
    """The table that a report belongs to, and what is needed of it."""
    if "contestants" in report:
        return "speed", _speed_facts(report)
    if "recipe" in report:
        return "int8", _int8_facts(report)
    if "reports" in report:
        return "parity", _parity_facts(report)
    sys.exit("expected the JSON of edgemask validate, quantize or bench")


def _stamp(environment: Mapping[str, Any]) -> Store:
    versions = {name: environment["versions"][name].partition("+")[0] for name in VERSIONS}
    return {"date": environment["date"][:10], "processor": environment["processor"], "versions": versions}


def _parity_facts(report: Mapping[str, Any]) -> Store:
    rows = {}
    for one in report["reports"]:
        parity, tasks = one["parity"], (one["coco"] or {"tasks": {}})["tasks"]
        names = ("reference", "matched", "box_iou_min", "score_difference_max", "mask_iou_mean")
        rows[one["model"]["device"]] = {name: parity[name] for name in names} | {
            "images": parity["images"],
            "ap": {task: [sides["reference"]["ap"], sides["candidate"]["ap"]] for task, sides in tasks.items()},
        }
    return {"rows": rows} | _stamp(report["reports"][0]["environment"])


def _int8_facts(report: Mapping[str, Any]) -> Store:
    found = report["search"]
    return {
        "size": found["bytes"],
        "source_size": found["fp32_bytes"],
        "images": report["calibration"]["images"],
        "kept": [[one[name] for name in ("device", "what", "reference", "own")] for one in found["accuracy"]["kept"]],
        "speed": {one["device"]: one["milliseconds"][0] / one["milliseconds"][1] for one in found["latency"]},
    } | _stamp(report["environment"])


def _speed_facts(report: Mapping[str, Any]) -> Store:
    rows = [[one["name"], one["device"], one["stages"]["total"]["median"]] for one in report["contestants"]]
    load = max(report[when]["load"] or 0.0 for when in ("before", "after"))
    return {"image": report["image"], "size": report["image_size"], "rows": rows, "load": load} | _stamp(
        report["environment"]
    )


def parity(store: Store) -> str:
    """What validation found: the file against PyTorch."""
    head = ["model, images", "runtime", "matched", "lowest box IoU", "largest score difference", "mean mask IoU"]
    rows = []
    for subject, facts in store["parity"].items():
        for device, row in facts["rows"].items():
            aps = [" -> ".join(f"{side:.4f}" for side in row["ap"].get(task, ())) for task in ("boxes", "masks")]
            mask_iou = "-" if row["mask_iou_mean"] is None else f"{row['mask_iou_mean']:.6f}"
            matched = f"{row['matched']:,} of {row['reference']:,}"
            figures = [f"{row['box_iou_min']:.6f}", f"{row['score_difference_max']:.1e}", mask_iou]
            rows.append([f"{subject}, {row['images']}", RUNTIMES[device], matched, *figures, *aps])
    return _table([*head, "box AP, PyTorch -> file", "mask AP"], rows) + _said(store["parity"])


def int8(store: Store) -> str:
    """What quantization kept, and what it gained."""
    rows = []
    for subject, facts in store["int8"].items():
        share = f"{facts['size'] / facts['source_size']:.3f}x, {facts['size'] / 1e6:.1f} MB"
        for device, speed in facts["speed"].items():
            kept = {what: (before, now) for on, what, before, now in facts["kept"] if on == device}
            cells = ["-" if what not in kept else "{:.4f} -> {:.4f}".format(*kept[what]) for what in _AP]
            rows.append([subject, f"{facts['images']}", share, RUNTIMES[device], *cells, f"{speed:.2f}x"])
    return _table(["model", "calibrated on", "size", "runtime", *_AP, "graph over FP32"], rows) + _said(store["int8"])


_AP = ("box AP", "mask AP")


def speed(store: Store) -> str:
    """What an image in memory takes, by everyone who took turns."""
    rows = []
    for subject, facts in store["speed"].items():
        eager = next(time for _, device, time in facts["rows"] if device.startswith("torch"))
        for name, device, time in facts["rows"]:
            where = RUNTIMES[device.partition(":")[0] if device.startswith("torch") else device]
            rows.append([subject, name, where, f"{time:.1f}", f"{eager / time:.2f}x"])
    loads = ", ".join(f"{facts['load']:.1f}" for facts in store["speed"].values())
    return _table(["model", "file", "runtime", "ms", "over eager"], rows) + _said(
        store["speed"], f" The load of the machine was up to {loads}, of which two are ours."
    )


def trained(_: Store) -> str:
    """What the models of this repository were trained to."""
    rows = []
    for subject, path in TRAINED.items():
        facts = json.loads(path.read_text("utf-8"))
        aps = [f"{facts[task]['AP']:.3f} / {facts[task]['AP50']:.3f}" for task in ("box", "mask")]
        rows.append([subject, facts["model"], facts["evaluated"], *aps])
    return _table(["name", "model", "evaluated", "box AP / AP50", "mask AP / AP50"], rows)


def _said(part: Mapping[str, Any], more: str = "") -> str:
    return f"\n{'; '.join(sorted(set(_stamps(part))))}.{more}\n"


def _stamps(part: Mapping[str, Any]) -> Iterator[str]:
    for facts in part.values():
        versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
        yield f"{facts['date']}, 2 cores of an {facts['processor']}, {versions}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (head, ["---"] * len(head), *rows))


TABLES: dict[str, Callable[[Store], str]] = {"parity": parity, "int8": int8, "speed": speed, "trained": trained}

if __name__ == "__main__":
    main()
