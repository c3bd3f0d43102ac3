#!/usr/bin/env python
"""Fuzzes what reads files of strangers, guided by coverage.

    python scripts/fuzz.py model --seconds 300
    python scripts/fuzz.py spec --runs 10000
    python scripts/fuzz.py image --seconds 300 --keep

takes a target `tests/fuzz_*.py`, and begins with its corpus in `tests/reliability/corpus/` and the sound files that the
target makes. A finding is what raises anything but an EdgemaskError, takes more than 5 s or more than 512 MiB. It ends
the run with another exit code than 0 and is put beside the corpus, where every `make test` replays it. `--keep` adds to
the corpus what reaches further into the code than all that is there.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
# What guides the fuzzer: the packages of which it sees the lines that an input reaches.
TARGETS = {
    "model": (
        "edgemask.runtimes.modelfile",
        "edgemask.spec",
        "edgemask.checks",
        "edgemask.inspection",
        "edgemask.tensorrt",
    ),
    "spec": ("edgemask.spec", "edgemask.checks"),
    "image": ("edgemask.images", "PIL"),
    "planted": (),
}
# To the process that fuzzes, all of whose words are for the fuzzer: the target, and a folder for the seeds.
_TARGET, _SEEDS = "EDGEMASK_FUZZ_TARGET", "EDGEMASK_FUZZ_SEEDS"
_LIMITS = ("-timeout=5", "-rss_limit_mb=512")


def main() -> None:
    """Fuzzes, exits as the fuzzer does."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("target", choices=TARGETS)
    limit = parser.add_mutually_exclusive_group()
    limit.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    limit.add_argument("--runs", type=int, help="how many inputs, the same ones every time")
    parser.add_argument(
        "--corpus", type=Path, default=TESTS / "reliability" / "corpus", help="a folder of each target's"
    )
    parser.add_argument("--keep", action="store_true", help="add what reaches further to the corpus")
    arguments = parser.parse_args()
    sys.exit(fuzz(arguments.target, arguments.seconds, arguments.runs, arguments.corpus, keep=arguments.keep))


def fuzz(name: str, seconds: int, runs: int | None, corpus: Path, *, keep: bool) -> int:
    """Runs the fuzzer in a process of its own; gives its exit code, 0 where nothing was found."""
    kept = corpus / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="edgemask-fuzz-") as folder:
        found, seeds = Path(folder) / "found", Path(folder) / "seeds"
        found.mkdir()
        seeds.mkdir()
        limit = [f"-max_total_time={seconds}"] if runs is None else [f"-runs={runs}", "-seed=1"]
        code = _fuzzer(name, seeds, [*limit, f"-artifact_prefix={kept}/finding-", str(found), str(seeds), str(kept)])
        if keep and code == 0:
            # By lines alone: with how often each is passed, it would be five times as large.
            code = _fuzzer(name, seeds, ["-set_cover_merge=1", "-use_counters=0", str(kept), str(seeds), str(found)])
    return code


def _fuzzer(name: str, seeds: Path, words: Sequence[str]) -> int:
    # To merge, the fuzzer starts this file anew by its first line.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {**os.environ, _TARGET: name, _SEEDS: str(seeds), "PATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run([__file__, *_LIMITS, *words], env=environment, check=False).returncode


def work(name: str, seeds: Path) -> None:
    """What the fuzzer's own process does: fuzzes until it ends the process."""
    import atheris

    sys.path.insert(0, str(TESTS))
    module = f"fuzz_{name}"
    with atheris.instrument_imports(include=[*TARGETS[name], module]):
        target = importlib.import_module(module)
    from odd_values import own_mutation

    for number, seed in enumerate(target.seeds()):
        (seeds / str(number)).write_bytes(seed)
    tokens = seeds.with_name("tokens")
    tokens.write_text("# tokens\n" + "".join(f'"{_escaped(token)}"\n' for token in target.TOKENS))

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        return own_mutation(target.MUTATIONS, data, longest, seed) or bytes(atheris.Mutate(data, longest))

    atheris.Setup([*sys.argv, f"-max_len={target.LONGEST}", f"-dict={tokens}"], target.run, custom_mutator=mutated)
    atheris.Fuzz()


def _escaped(token: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token.encode())


if __name__ == "__main__":
    work(os.environ[_TARGET], Path(os.environ[_SEEDS])) if _TARGET in os.environ else main()
