"""CHANGELOG.md keeps to Keep a Changelog and speaks of the version that is here."""

import re
from datetime import date
from pathlib import Path

import pytest

import edgemask

KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
RELEASE = re.compile(r"^## \[(\d+)\.(\d+)\.(\d+)\] - (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def changelog(repository: Path) -> str:
    return (repository / "CHANGELOG.md").read_text(encoding="utf-8")


def test_top_version_is_the_package_version(changelog: str) -> None:
    assert ".".join(RELEASE.findall(changelog)[0][:3]) == edgemask.__version__


def test_releases_are_dated_and_newest_first(changelog: str) -> None:
    releases = [(tuple(map(int, version)), date.fromisoformat(day)) for *version, day in RELEASE.findall(changelog)]
    assert releases == sorted(releases, reverse=True)
    headings = re.findall(r"^## (.+)$", changelog, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert len(headings) == 1 + len(releases), "a heading of level 2 is no release with a date"


def test_sections_are_of_the_known_kinds(changelog: str) -> None:
    sections = re.findall(r"^### (.+)$", changelog, re.MULTILINE)
    assert sections
    assert set(sections) <= KINDS
