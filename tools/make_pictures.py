"""Make the pictures of the documentation, from what the programs really print: ``make pictures``.

The demo and ``ps`` run in a pseudo-terminal and become SVG; a profile of the demo is photographed in a headless
browser, one of a job becomes a call graph. What names a place on this machine is replaced. Look at each before you
commit it.

Needs rich, gprof2dot, Graphviz's ``dot`` and Chromium; without one of these its pictures are left as they were.
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs" / "pictures"
BIN: Final = Path(sys.executable).parent
COLUMNS: Final = 112
WIDE: Final = 200  # while paths are still those of this machine
MOST_BYTES: Final = 200_000
WINDOW: Final = "1200,420"
# rich's frame without its fonts from the web: a page of the documentation fetches nothing.
SVG_FORMAT: Final = re.sub(r"@font-face \{\{.*?\n    \}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
_TERMINAL: Final = {"COLUMNS": str(COLUMNS), "LINES": "60", "TERM": "xterm-256color", "LANG": "C.UTF-8"}
_NOT_OURS: Final = re.compile(r"^(OTEL_|NO_COLOR$|COLUMNS$|DJANGO_)")

ORDERS: Final = """

def total(): return sum(range(10**11))
"""
REPORT: Final = """
import time
def fetch(): time.sleep(60)
"""
RATES: Final = """
import asyncio
async def rates(): await asyncio.sleep(60)
"""
# A job whose call graph has more than one branch.
NIGHTLY: Final = """
import json
from otel_introspect import profile
from otel_introspect.demo.shop.pricing import best_bundle
def read_orders(): return [json.loads(json.dumps({"id": n, "prices": list(range(199, 900, 37))})) for n in range(8000)]
def discount(order): return best_bundle(order["prices"][:8])
def discounts(orders): return [discount(order) for order in orders[:300]]
def report(orders, found): return sorted(json.dumps(order, sort_keys=True) for order in orders)
@profile
def nightly():
    orders = read_orders()
    report(orders, discounts(orders))
nightly()
"""
_STUCK: Final = """
import asyncio, inspect, sys
sys.path.insert(0, {folder!r})
from {module} import {function} as work
from opentelemetry import trace
async def main():
    with trace.get_tracer("pictures").start_as_current_span({name!r}, kind=trace.SpanKind.SERVER):
        answer = work()
        if inspect.isawaitable(answer): await answer
asyncio.run(main()) if inspect.iscoroutinefunction(work) else main().send(None)
"""


def environment(**more: str) -> dict[str, str]:
    """This process's environment without what would show in a picture, and with *more*."""
    kept = {name: value for name, value in os.environ.items() if not _NOT_OURS.match(name)}
    return kept | _TERMINAL | {"PATH": os.pathsep.join([str(BIN), kept.get("PATH", os.defpath)])} | more


def in_terminal(command: Sequence[str | Path], environ: dict[str, str], columns: int = COLUMNS) -> str:
    """What *command* prints to a terminal, colours included."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 60, columns, 0, 0))
    process = subprocess.Popen(
        command, env=environ | {"COLUMNS": str(columns)}, stdin=subprocess.DEVNULL, stdout=follower, stderr=follower
    )
    os.close(follower)
    printed = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the last who had it open has gone
            break
        if not piece:
            break
        printed += piece
    os.close(leader)
    process.wait()
    return printed.decode().replace("\r\n", "\n")


def as_svg(ansi: str, title: str, name: str) -> None:
    """Draw what a terminal showed."""
    text = Text.from_ansi(ansi.strip("\n"))
    width = max(len(line) for line in text.plain.splitlines())
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(record=True, width=width + 1, file=nowhere, force_terminal=True, color_system="truecolor")
        console.print(text, soft_wrap=True)
    keep(name, console.export_svg(title=title, code_format=SVG_FORMAT, unique_id=name.partition(".")[0]).encode())


def keep(name: str, picture: bytes) -> None:
    """Write a picture, if it is small enough to be committed."""
    if len(picture) > MOST_BYTES:
        why = f"{name} would have {len(picture)} bytes, {MOST_BYTES} at most may be committed"
        raise SystemExit(why)
    (PICTURES / name).write_bytes(picture)
    print(f"{name}: {len(picture)} bytes", flush=True)


def anonymous(text: str) -> str:
    """*text* without what is so on this machine only."""
    text = text.replace("&#45;", "-")
    text = re.sub(r"/[\w./-]*/otel-introspect-(demo|pictures)-\w+/", "/srv/", text)
    text = re.sub(r"/[\w./-]*/site-packages/", "/usr/lib/python3/site-packages/", text)
    return re.sub(r"/[\w./-]*/lib/(python3\.\d+)/", r"/usr/lib/\1/", text)


def demo_pictures(folder: Path) -> None:
    """The demo's output, a span of it, and one of its profiles."""
    traces, store = folder / "traces.jsonl", folder / "demo-profiles"
    environ = environment(OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(store))
    printed = anonymous(in_terminal([BIN / "otel-introspect", "demo", "--output", traces], environ))
    # What comes and goes while one waits is no part of it.
    printed = re.sub(r"(?m)^… \d+ of .*\n?", "", re.sub(r"\r[^\n]*\r", "", printed))
    parts = re.split(r"(?m)^(?=[^\n]*=== )", printed)
    waits = next(part for part in parts if "GET checkout/reserve/" in part)
    lines = waits.strip("\n").split("\n")
    end = next((index for index, line in enumerate(lines) if "stack after 1.0" in line), len(lines))
    as_svg("\n".join(lines[: end + 1]), "otel-introspect demo", "demo.svg")
    span, profile = chosen(traces)
    keep("span.json", anonymous(short_json(span)).encode())
    profile_pictures(store, profile)


def short_json(span: dict[str, Any]) -> str:
    """*span* with an attribute a line."""
    text = json.dumps(span, indent=1, ensure_ascii=False)
    return re.sub(r'\{\s+"key": (.*),\s+"value": \{\s+(.*)\s+\}\s+\}', r'{"key": \1, "value": {\2}}', text) + "\n"


def chosen(traces: Path) -> tuple[dict[str, Any], str]:
    """The span of the request that waits for a lock, and the id of the profile of the one that computes."""
    spans = [
        span
        for line in traces.read_text(encoding="utf-8").splitlines()
        for resource in json.loads(line)["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    by_name = {span["name"]: span for span in spans}
    waits = next(span for name, span in by_name.items() if name.startswith("GET") and "reserve" in name)
    computes = next(span for name, span in by_name.items() if name.startswith("GET") and "discounts" in name)
    names = {each["key"]: each["value"] for each in computes["attributes"]}
    return waits, names["otel_introspect.profile.id"]["stringValue"]


def profile_pictures(store: Path, profile: str) -> None:
    """A stored profile's page in a browser."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser:
        photograph(browser, next(store.rglob(f"{profile}*.html")), PICTURES / "profile.png")


def graph_picture(folder: Path) -> None:
    """The call graph of a job."""
    if not shutil.which("dot"):
        return
    store, drawn, job = folder / "profiles", folder / "graph.svg", folder / "shop" / "nightly.py"
    job.write_text(NIGHTLY, encoding="utf-8")
    exporters = {f"OTEL_{each}_EXPORTER": "none" for each in ("TRACES", "METRICS", "LOGS")}
    environ = environment(OTEL_PYTHON_INTROSPECT_PROFILER_STORE=str(store), **exporters)
    subprocess.run([BIN / "opentelemetry-instrument", sys.executable, job], check=True, env=environ, timeout=60)
    session = next(store.rglob("*.pyisession.json*"))
    render: list[str | Path] = [BIN / "otel-introspect", "render", session, "--format", "svg", "--output", drawn]
    subprocess.run(render, check=True, env=environment(), stdout=subprocess.DEVNULL)
    keep("callgraph.svg", anonymous(drawn.read_text(encoding="utf-8")).encode())


def photograph(browser: str, page: Path, picture: Path) -> None:
    """What a browser shows of a page."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=4000"]
    subprocess.run(
        [browser, *flags, f"--window-size={WINDOW}", f"--screenshot={picture}", page.as_uri()],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        timeout=60,
    )
    keep(picture.name, picture.read_bytes())


@contextmanager
def stuck(folder: Path, recorders: Path) -> Iterator[None]:
    """Three processes: one keeps the GIL, one sleeps, one awaits."""
    shop = folder / "shop"
    shop.mkdir()
    works = {
        "orders": (ORDERS, "total", "GET /orders/<id>"),
        "report": (REPORT, "fetch", "GET /report"),
        "rates": (RATES, "rates", "GET /rates"),
    }
    processes: list[subprocess.Popen[bytes]] = []
    exporters = {f"OTEL_{each}_EXPORTER": "none" for each in ("TRACES", "METRICS", "LOGS")}
    # Only faulthandler sees where a sum is; it is safe while that keeps the GIL.
    exporters["OTEL_PYTHON_INTROSPECT_WATCHDOG_OBSERVERS"] = "thread,signal,faulthandler"
    environ = environment(OTEL_PYTHON_INTROSPECT_RECORDER_DIR=str(recorders), **exporters)
    try:
        for module, (source, function, name) in works.items():
            (shop / f"{module}.py").write_text(source, encoding="utf-8")
            program = _STUCK.format(folder=str(shop), module=module, function=function, name=name)
            processes.append(
                subprocess.Popen([BIN / "opentelemetry-instrument", sys.executable, "-c", program], env=environ)
            )
            time.sleep(1.5)  # so that they are of different ages
        time.sleep(3)
        yield
    finally:
        for each in processes:
            each.kill()
            each.wait()


def ps_picture(folder: Path) -> None:
    """What ``ps`` shows of the three."""
    recorders = folder / "flight"
    with stuck(folder, recorders):
        environ = environment(OTEL_PYTHON_INTROSPECT_RECORDER_DIR=str(recorders))
        printed = in_terminal([BIN / "otel-introspect", "ps"], environ, WIDE)
    as_svg(anonymous(printed), "otel-introspect ps", "ps.svg")


def main() -> int:
    """Make them all."""
    with tempfile.TemporaryDirectory(prefix="otel-introspect-pictures-") as name:
        ps_picture(Path(name))
        graph_picture(Path(name))
        demo_pictures(Path(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
