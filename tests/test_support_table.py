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
<testcase classname="tests.test_other" name="test_alone[elsewhere-cpu]"/>
</testsuite></testsuites>"""


@pytest.fixture(scope="module")
def script(repository: Path) -> ModuleType:
    return loaded(repository / "scripts" / "support_table.py")


def loaded(path: Path) -> ModuleType:
    place = importlib.util.spec_from_file_location(path.stem, path)
    assert place is not None
    assert place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def test_readme_shows_the_stored_results(script: ModuleType) -> None:
    readme = script.README.read_text()
    shown = readme.partition(script.BEGIN)[2].partition(script.END)[0]
    assert shown == script.tables(json.loads(script.STORE.read_text()))


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
    text = script.tables(results)
    assert "| form of a file | mask_a | both | no | ONNX Runtime |\n" in text
    assert "| `net` | 176 | 3.0e-06 | no |\n" in text
