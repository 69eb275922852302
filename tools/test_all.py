"""Run the tests on every Python that is here, with the oldest and the newest packages that we support.

Needs nothing but the standard library and the pip of the environment that runs it: each combination gets a virtual
environment of its own (``.venv-all/NAME``), kept for the next run while ``pyproject.toml`` stays the same.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENTS: Final = ROOT / ".venv-all"
SUPPORTED: Final = ((3, 10), (3, 11), (3, 12), (3, 13))
NEWEST_FOR_DJANGO_4_2: Final = (3, 12)

_ASK: Final = "import sys, venv; print(*sys.version_info[:2], sys.executable)"


@dataclass(frozen=True, kw_only=True)
class Combination:
    """One Python with one set of packages.

    Args:
        version: The Python, as ``(3, 12)``.
        executable: Where it is.
        group: The dependency group of ``pyproject.toml``.
    """

    version: tuple[int, int]
    executable: str
    group: str

    @property
    def name(self) -> str:
        """What to call it on the command line and on the screen."""
        return f"{self.version[0]}.{self.version[1]}-{self.group}"


def candidates(version: tuple[int, int]) -> Iterator[str]:
    """Wherever a Python of that version may be: on the PATH, then where pyenv keeps those that it does not show."""
    dotted = f"{version[0]}.{version[1]}"
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        for name in (f"python{dotted}", "python3"):
            if found := shutil.which(name, path=folder):
                yield found
    for root in pyenv_roots():
        # The newest patch release first; a free-threaded build (3.13.0t) is not what is meant.
        folders = [each for each in (root / "versions").glob(f"{dotted}.*") if each.name.split(".")[-1].isdigit()]
        for each in sorted(folders, key=lambda folder: int(folder.name.split(".")[-1]), reverse=True):
            yield str(each / "bin" / "python")


def pyenv_roots() -> Iterator[Path]:
    """Where pyenv may keep its Pythons."""
    if root := os.environ.get("PYENV_ROOT"):
        yield Path(root)
    if pyenv := shutil.which("pyenv"):
        answer = subprocess.run([pyenv, "root"], capture_output=True, text=True, check=False, timeout=60)
        if answer.returncode == 0:
            yield Path(answer.stdout.strip())
    if home := os.environ.get("HOME"):
        yield Path(home) / ".pyenv"


def find(version: tuple[int, int]) -> str | None:
    """Return the first candidate that really runs and really is that version; a shim of pyenv's may be neither."""
    for executable in candidates(version):
        try:
            answer = subprocess.run([executable, "-c", _ASK], capture_output=True, text=True, check=False, timeout=60)
        except OSError:
            continue
        major, minor, real = [*answer.stdout.split(maxsplit=2), "", "", ""][:3]
        if answer.returncode == 0 and (major, minor) == (str(version[0]), str(version[1])):
            return real.strip()
    return None


def combinations(pythons: dict[tuple[int, int], str]) -> list[Combination]:
    """Say what to run: the newest packages everywhere, the older ones once each."""
    found = sorted(pythons)
    wanted = [(found[0], "test-oldest")]
    wanted += [(version, "test-django-4-2") for version in found if version <= NEWEST_FOR_DJANGO_4_2][-1:]
    wanted += [(version, "test") for version in found]
    return [Combination(version=version, executable=pythons[version], group=group) for version, group in wanted]


def prepare(combination: Combination) -> Path:
    """Make the combination's environment unless it is there already, and return its Python."""
    folder = ENVIRONMENTS / combination.name
    python = folder / "bin" / "python"
    stamp = folder / "installed"
    wanted = hashlib.sha256(
        b"\0".join([(ROOT / "pyproject.toml").read_bytes(), combination.executable.encode(), str(folder).encode()])
    ).hexdigest()
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    run([combination.executable, "-m", "venv", "--clear", "--without-pip", str(folder)])
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--python", str(python)]
    run([*pip, "install", "-qq", "-e", ".", "--group", combination.group])
    stamp.write_text(wanted, encoding="utf-8")
    return python


def versions(python: Path) -> str:
    """Say in a line what the tests will meet."""
    script = (
        "import platform, importlib.metadata as m;"
        "print('Python ' + platform.python_version(), *(f'{n} {m.version(n)}' for n in"
        " ('opentelemetry-sdk', 'opentelemetry-instrumentation', 'Django')), sep=', ')"
    )
    return subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=True).stdout.strip()


def run(command: Sequence[str]) -> None:
    """Run a step that must succeed."""
    subprocess.run(command, cwd=ROOT, check=True, stdin=subprocess.DEVNULL)


def main() -> int:
    """Run it all, carry on after a failure, and say at the end how each combination went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    parser.add_argument(
        "--after-test",
        action="store_true",
        help="leave out what `make test` has run: this Python with the newest packages",
    )
    parser.usage = "%(prog)s [-h] [--list] [--after-test] [COMBINATION ...] [pytest's arguments ...]"
    arguments, others = parser.parse_known_args()
    # By their looks, not by their place: in `-m "not realtime"` argparse would take the second word for a combination.
    names = [each for each in others if re.fullmatch(r"\d+\.\d+-test[\w-]*", each)]
    pytest_arguments = [each for each in others if each not in names]

    pythons = {version: found for version in SUPPORTED if (found := find(version))}
    for version in SUPPORTED:
        print(f"Python {version[0]}.{version[1]}: {pythons.get(version, 'not here')}")
    if not pythons:
        print("None of the Pythons that we support is here.", file=sys.stderr)
        return 1
    chosen = [each for each in combinations(pythons) if not names or each.name in names]
    if arguments.after_test:
        chosen = [each for each in chosen if (each.version, each.group) != (sys.version_info[:2], "test")]
    if unknown := set(names) - {each.name for each in chosen}:
        parser.error(f"no such combination: {', '.join(sorted(unknown))}")
    if arguments.list:
        print(*(each.name for each in chosen), sep="\n")
        return 0

    outcomes: list[tuple[str, str, float]] = []
    for combination in chosen:
        print(f"\n==> {combination.name}", flush=True)
        started = time.monotonic()
        try:
            python = prepare(combination)
            print(f"    {versions(python)}", flush=True)
            run([str(python), "-m", "pytest", "-p", "no:cacheprovider", *pytest_arguments])
        except subprocess.CalledProcessError as error:
            # The program has said why; its name is enough here.
            outcomes.append((combination.name, f"FAILED (exit status {error.returncode})", time.monotonic() - started))
        else:
            outcomes.append((combination.name, "ok", time.monotonic() - started))

    print("\n==> all combinations")
    for name, outcome, seconds in outcomes:
        print(f"    {name:<22} {outcome:<26} {seconds:5.0f} s")
    return 0 if all(outcome == "ok" for _, outcome, _ in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
