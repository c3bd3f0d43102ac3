"""The README's tables of support say what the stored results say, and these cover every family and network."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from families import FAMILIES

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.test_families_masks.TestMaskFamilies" name="test_alone[mask_a-cpu]"/>
<testcase classname="tests.test_families_masks.TestMaskFamilies" name="test_alone[mask_a-openvino:CPU]"/>
<testcase classname="tests.test_families_masks.TestMaskFamilies" name="test_without_objects[mask_a-cpu]"/>
<testcase classname="tests.test_families_masks.TestMaskFamilies" name="test_without_objects[mask_a-openvino:CPU]">
  <skipped/></testcase>
<testcase classname="tests.test_families_masks.TestMaskFamilies" name="test_three_sizes_in_a_batch[mask_a-cpu]">
  <failure/></testcase>
<testcase classname="tests.soak.test_builders" name="test_every_stage[net-cpu]"><properties>
  <property name="worst_error" value="3e-06"/>
  <property name="megabytes" value="176.5"/></properties></testcase>
<testcase classname="tests.soak.test_builders" name="test_every_stage[net-openvino:CPU]"><error/></testcase>
<testcase classname="tests.reliability.test_nms" name="test_same[10000-cpu]"><properties>
  <property name="found" value="10,000 of 10,000 identical"/><property name="where" value="ONNX Runtime"/></properties>
</testcase>
<testcase classname="tests.reliability.test_nms" name="test_same[200-cpu]"/>
<testcase classname="tests.test_other" name="test_alone[elsewhere-cpu]"/>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    return loaded(repository / "scripts" / "readme_tables.py")


def loaded(path: Path) -> ModuleType:
    place = importlib.util.spec_from_file_location(path.stem, path)
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["support", "reliability"])
def test_readme_shows_the_stored_results(script: ModuleType, name: str) -> None:
    readme, results = script.README.read_text(), json.loads(script.STORE.read_text())
    assert script.with_table(readme, name, script.TABLES[name](results)) == readme
    assert script.with_table(readme, name, "other\n") != readme


def test_every_family_and_form_was_run_and_held(script: ModuleType, repository: Path) -> None:
    results = json.loads(script.STORE.read_text())["families"]["results"]
    forms = loaded(repository / "tests" / "test_families_forms.py").VARIANTS
    assert set(results) == FAMILIES.keys() | forms.keys()
    for subject, tests in results.items():
        for names in script.COLUMNS.values():
            assert script._runtimes(tests, names) == "both", subject


def test_every_network_was_run_and_held(script: ModuleType, repository: Path) -> None:
    results = json.loads(script.STORE.read_text())["networks"]["results"]
    soak = loaded(repository / "tests" / "soak" / "test_builders.py")
    assert set(results) == {*soak.BUILDERS, *soak.SEMANTIC_BUILDERS}
    assert all(entry["passed"] for devices in results.values() for entry in devices.values())


def test_what_failed_or_was_skipped_is_not_supported(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    results = script.collected(tmp_path / "junit.xml")
    assert list(results["families"]["results"]) == ["mask_a"]
    text = script.support(results)
    assert "| form of a file | mask_a | both | no | ONNX Runtime |\n" in text
    assert "| `net` | 176 | 3.0e-06 | no |\n" in text


def test_every_check_has_its_row(script: ModuleType, repository: Path) -> None:
    """All were run in their long form."""
    checks = {path.stem for path in (repository / "tests" / "reliability").glob("test_*.py")}
    assert checks == script.ROWS.keys()
    assert json.loads(script.STORE.read_text())["reliability"]["results"].keys() == checks


def test_what_a_check_found_stands_in_its_row(script: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "junit.xml").write_text(JUNIT)
    text = script.reliability(script.collected(tmp_path / "junit.xml"))
    tried, asked = script.ROWS["test_nms"]
    assert f"| 2 | {tried} | {asked} | ONNX Runtime: 10,000 of 10,000 identical |\n" in text
    assert text.count("| not run |") == len(script.ROWS) - 1


def test_results_of_what_was_not_run_stay(script: ModuleType) -> None:
    kept = {"test_nms": {"cpu": "old", "openvino": "old"}, "test_bombs": {"": "old"}}
    joined = script._joined(kept, {"test_nms": {"cpu": "new"}})
    assert joined == {"test_nms": {"cpu": "new", "openvino": "old"}, "test_bombs": {"": "old"}}


@pytest.mark.parametrize("tag", ["failure", "error"])
def test_a_failed_check_makes_no_table(script: ModuleType, tmp_path: Path, tag: str) -> None:
    case = f'<testcase classname="tests.reliability.test_nms" name="test_same[10000]"><{tag}/></testcase>'
    (tmp_path / "junit.xml").write_text(f"<testsuite>{case}</testsuite>")
    with pytest.raises(SystemExit, match="test_nms: test_same"):
        script.collected(tmp_path / "junit.xml")
