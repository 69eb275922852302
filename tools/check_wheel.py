"""Build the wheel and try it as a user would: in a clean environment, beside nothing but opentelemetry-distro.

Each check says in a sentence what must hold. All of them run; the exit status is 1 if one of them did not hold.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
DIST: Final = ROOT / "dist"
PIP: Final = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input")
SECONDS: Final = 120

_WHAT_IMPORTING_DOES: Final = """
import signal, sys, threading
before = signal.getsignal(signal.SIGALRM), sys.getprofile(), sys.gettrace()
import otel_introspect
assert otel_introspect.__version__, "no version"
for name in otel_introspect.__all__:
    getattr(otel_introspect, name)
loaded = {"django", "rich", "pyinstrument", "opentelemetry.sdk"} & set(sys.modules)
assert not loaded, f"imported {loaded}"
assert threading.active_count() == 1, f"started {threading.enumerate()}"
assert (signal.getsignal(signal.SIGALRM), sys.getprofile(), sys.gettrace()) == before, "left a hook behind"
"""


class Environment:
    """A virtual environment with the wheel and opentelemetry-distro in it, and nothing else.

    Args:
        folder: Where to make it.
        wheel: What to install.
    """

    def __init__(self, folder: Path, wheel: Path) -> None:
        self._bin = folder / "bin"
        # No user site, no variable of whoever runs this: what is found is what was installed.
        kept = ("HOME", "LANG", "LC_ALL", "TMPDIR")
        self._environ = {name: os.environ[name] for name in kept if name in os.environ}
        self._environ |= {"PATH": os.pathsep.join([str(self._bin), os.defpath]), "PYTHONNOUSERSITE": "1"}
        self._empty = folder / "nowhere"
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
        self._empty.mkdir()
        subprocess.run(
            [*PIP, "--python", str(self._bin / "python"), "install", "-qq", str(wheel), "opentelemetry-distro"],
            check=True,
        )

    def run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, from a folder that has no source of ours."""
        return subprocess.run(
            [str(self._bin / command[0]), *command[1:]],
            capture_output=True,
            check=False,
            cwd=self._empty,
            env=self._environ | environ,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
        )


def build() -> tuple[Path, Path]:
    """Build the source distribution, and the wheel from it; return both."""
    shutil.rmtree(DIST, ignore_errors=True)
    answer = subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(DIST), str(ROOT)], capture_output=True, text=True, check=False
    )
    if answer.returncode != 0:
        sys.exit(f"{answer.stdout}{answer.stderr}The wheel could not be built.")
    (sdist,) = DIST.glob("*.tar.gz")
    (wheel,) = DIST.glob("*.whl")
    return sdist, wheel


def metadata_is_fit_for_publishing(sdist: Path, wheel: Path) -> None:
    """The metadata is complete, and the README renders."""
    answer = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", str(sdist), str(wheel)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
        timeout=SECONDS,
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr


def wheel_is_complete(wheel: Path) -> None:
    """Every file of the package is in the wheel, py.typed and the demo among them, and nothing else."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
        licences = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
    on_disk = {
        each.relative_to(ROOT).as_posix()
        for each in (ROOT / "otel_introspect").rglob("*")
        if each.is_file() and "__pycache__" not in each.parts
    }
    assert packed == on_disk, f"differs from the source: {sorted(packed ^ on_disk)}"
    assert "otel_introspect/py.typed" in packed, "no py.typed"
    assert any(name.startswith("otel_introspect/demo/") for name in packed), "no demo"
    assert licences, "no licence"


def install_brings_little(environment: Environment) -> None:
    """Neither Django nor rich comes along, nor what only the rendering of graphs and object stores need."""
    for package in ("django", "rich", "gprof2dot", "fsspec"):
        answer = environment.run("python", "-c", f"import {package}")
        assert answer.returncode != 0, f"{package} was installed"


def importing_does_nothing(environment: Environment) -> None:
    """Importing the package loads no framework, starts no thread and hooks into nothing."""
    quiet(environment.run("python", "-W", "error", "-c", _WHAT_IMPORTING_DOES))


def flags_are_listed(environment: Environment) -> None:
    """Each of our variables is a flag of opentelemetry-instrument."""
    ours = environment.run(
        "python",
        "-c",
        "import otel_introspect.environment_variables as e; print(*(n for n in dir(e) if n.startswith('OTEL_')))",
    ).stdout.split()
    assert "OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD" in ours, f"found only {ours}"
    answer = environment.run("opentelemetry-instrument", "--help")
    assert answer.returncode == 0, answer.stderr
    missing = [name for name in ours if f"--{name.removeprefix('OTEL_PYTHON_').lower()} " not in answer.stdout]
    assert not missing, f"no flag for {missing}"


def launcher_is_silent(environment: Environment) -> None:
    """A program under opentelemetry-instrument ends as it would without us, and nothing of ours says a word."""
    none = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "none", "OTEL_LOGS_EXPORTER": "none"}
    quiet(environment.run("opentelemetry-instrument", "python", "-c", "pass", **none))


def launcher_watches(environment: Environment) -> None:
    """A slow span of a program under opentelemetry-instrument carries snapshot and profile, without Django."""
    program = (
        "import time\n"
        "from opentelemetry import trace\n"
        "def the_slow_part():\n"
        "    time.sleep(1.5)\n"
        "with trace.get_tracer('wheel').start_as_current_span('job'):\n"
        "    the_slow_part()\n"
    )
    answer = environment.run(
        "opentelemetry-instrument",
        "python",
        "-c",
        program,
        OTEL_TRACES_EXPORTER="console",
        OTEL_METRICS_EXPORTER="none",
        OTEL_LOGS_EXPORTER="none",
        OTEL_PYTHON_INTROSPECT_WATCHDOG_THRESHOLD="500",
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == "", answer.stderr
    assert "otel_introspect.stack_snapshot" in answer.stdout, answer.stdout
    assert "the_slow_part" in answer.stdout, answer.stdout
    assert "otel_introspect.profile.text" in answer.stdout, answer.stdout


def doctor_answers(environment: Environment) -> None:
    """The doctor has something to say, and ends with 0 or 1."""
    answer = environment.run("otel-introspect", "doctor", OTEL_TRACES_EXPORTER="none")
    assert answer.returncode in (0, 1), f"exit status {answer.returncode}: {answer.stdout}{answer.stderr}"
    assert answer.stdout.strip(), "said nothing"
    assert "Traceback" not in answer.stdout + answer.stderr, answer.stdout + answer.stderr


def quiet(answer: subprocess.CompletedProcess[str]) -> None:
    """Assert that a program ended well and said nothing."""
    assert answer.returncode == 0, f"exit status {answer.returncode}: {answer.stdout}{answer.stderr}"
    assert answer.stdout == "", answer.stdout
    assert answer.stderr == "", answer.stderr


def main() -> int:
    """Build, install, try; say how each check went."""
    print("==> building the wheel", flush=True)
    sdist, wheel = build()
    with tempfile.TemporaryDirectory(prefix="otel-introspect-wheel-") as folder:
        print(f"==> installing {wheel.name} and opentelemetry-distro into a clean environment", flush=True)
        environment = Environment(Path(folder), wheel)
        checks: Mapping[Callable[..., None], tuple[object, ...]] = {
            metadata_is_fit_for_publishing: (sdist, wheel),
            wheel_is_complete: (wheel,),
            install_brings_little: (environment,),
            importing_does_nothing: (environment,),
            flags_are_listed: (environment,),
            launcher_is_silent: (environment,),
            launcher_watches: (environment,),
            doctor_answers: (environment,),
        }
        failures = 0
        for check, arguments in checks.items():
            try:
                check(*arguments)
            except (AssertionError, subprocess.SubprocessError) as error:
                failures += 1
                print(f"FAILED  {check.__doc__}\n        {error}", flush=True)
            else:
                print(f"ok      {check.__doc__}", flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
