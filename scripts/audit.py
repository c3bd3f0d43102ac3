"""Asks the vulnerability database of the Python Package Index about everything that requirements.txt pins.

    make audit

runs pip-audit. Exit code 1 where a hole is known; 0 where none is, or where the database cannot be reached, as it then
says: what is left are the floors of `edgemask.dependencies`, which the tests hold `pyproject.toml` to.
"""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
UV = ROOT / ".tools" / "uv" / "bin" / "uv"
COMMAND = ("tool", "run", "--quiet", "pip-audit==2.10.1", "--no-deps", "--disable-pip", "--progress-spinner=off")
SECONDS = 300


def main() -> None:
    """Audits, prints what was found, exits."""
    requirements = ROOT / "requirements.txt"
    command = [UV, *COMMAND, "--format=json", f"--requirement={requirements}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
        dependencies = json.loads(done.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError) as error:
        print(f"no audit: pip-audit gave no answer ({type(error).__name__}); only the floors hold")
        return
    print(summary(dependencies))
    sys.exit(int(any(package.get("vulns") for package in dependencies)))


def summary(dependencies: Sequence[Mapping[str, Any]]) -> str:
    """What pip-audit found, as text; a package that it could not look up is not counted as sound."""
    lines = [
        f"{package['name']} {package['version']}: {hole['id']}, mended in {', '.join(hole['fix_versions']) or 'none'}"
        for package in dependencies
        for hole in package.get("vulns", ())
    ]
    audited = sum("skip_reason" not in package for package in dependencies)
    if not audited:
        return "no audit: the vulnerability database cannot be reached; only the floors hold"
    lines.append(f"{audited} of {len(dependencies)} packages audited, {len(lines)} known holes")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
