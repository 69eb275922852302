"""A whole profile, written piece by piece."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
import threading
import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pyinstrument import processors
from pyinstrument.frame import SELF_TIME_FRAME_IDENTIFIER
from pyinstrument.renderers.html import HTMLRenderer, JSONForHTMLRenderer
from pyinstrument.session import Session

from otel_introspect.profiling import html
from otel_introspect.profiling.html import write_html, write_session_json

HOSTILE = "</script><script>alert(1)</script><!--<img src=x onerror=alert(2)>"
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
TICK = 1 / 64


def session_of(records, start=None):
    return Session(
        frame_records=list(records),
        start_time=1_700_000_000.5,
        duration=sum(seconds for _, seconds in records),
        min_interval=0.01,
        max_interval=0.01,
        sample_count=len(records),
        start_call_stack=start
        if start is not None
        else [*records[0][0][:2], "elsewhere"]
        if records
        else ["elsewhere"],
        target_description="GET /report",
        cpu_time=0.25,
        sys_path=["/srv/app"],
        sys_prefixes=["/usr"],
    )


def written(write, session):
    file = io.BytesIO()
    write(session, file.write)
    return file.getvalue()


def page_data(page):
    """The profile in a page, as JavaScript would read it."""
    return json.loads(re.search(r"const sessionData = (.*);\n", page)[1])


def shape(frame):
    """A frame of the page's tree, comparable: one child for self time that is shown without a break."""
    children = []
    for child in map(shape, frame["children"]):
        if children and child[0] == SELF_TIME_FRAME_IDENTIFIER == children[-1][0]:
            children[-1] = (child[0], children[-1][1] + child[1], {}, [])
        else:
            children.append(child)
    return frame["identifier"], frame["time"], frame["attributes"], children


infos = st.builds(
    "{}\0/srv/app/{}.py\0{}{}".format,
    st.sampled_from(["f", "g", "h", "<lambda>", "ü"]),
    st.sampled_from("ab"),
    st.integers(1, 2),
    st.sampled_from(["", "\1l5", "\1l6", "\1cView\1l7", "\1", "\1h1"]),
)
records = st.lists(
    st.tuples(st.lists(infos, max_size=7), st.integers(0, 200).map(lambda ticks: ticks * TICK)), max_size=20
)


@settings(max_examples=150, deadline=None)
@given(records)
def test_the_page_has_the_data_of_pyinstrument_s_own(records):
    """
    Session and tree in our page are what pyinstrument writes, but for consecutive self times, which are one.
    """
    assume(any(stack for stack, _ in records) or not records)
    session = session_of(records)

    ours = page_data(written(write_html, session).decode("utf-8"))
    theirs = json.loads(JSONForHTMLRenderer().render(session))

    assert ours["session"] == theirs["session"]
    if theirs["frame_tree"] is None:
        assert ours["frame_tree"] is None
    else:
        assert shape(ours["frame_tree"]) == shape(theirs["frame_tree"])


@settings(max_examples=50, deadline=None)
@given(records)
def test_the_session_is_the_one_that_pyinstrument_saves(records):
    """
    The JSON of a session is, byte by byte, what pyinstrument saves.
    """
    session = session_of(records)

    assert written(write_session_json, session) == json.dumps(session.to_json()).encode()


def test_the_page_around_the_data_is_pyinstrument_s():
    """
    Without samples our page and pyinstrument's are the same, but for the fonts that its own fetches.
    """
    session = session_of([])

    ours, theirs = written(write_html, session).decode(), HTMLRenderer().render(session)

    assert ours == re.sub(r'https://fonts\.[^"]*', "data:text/css,", theirs)
    assert "fonts.g" not in ours


def test_the_session_can_be_loaded(tmp_path):
    """
    pyinstrument loads the JSON and shows the same tree.
    """
    session = session_of([(["f\0a.py\0001", "g\0b.py\0002\1l3"], 0.5), (["f\0a.py\0001"], 0.25)])
    file = tmp_path / "profile.pyisession.json"

    file.write_bytes(written(write_session_json, session))
    loaded = Session.load(str(file)).root_frame()

    expected = session.root_frame()
    assert processors.merge_consecutive_self_time(loaded, {}).to_json_str() == expected.to_json_str()


def test_a_session_that_does_not_say_where_it_began_is_written():
    """
    Without a stack at its start nothing is left out of the tree.
    """
    session = session_of([(["f\0a.py\0001", "g\0a.py\0002"], 0.5)], start=[])

    assert page_data(written(write_html, session).decode())["frame_tree"]["identifier"] == "f\0a.py\0001"


def test_a_session_with_too_many_samples_is_resampled():
    """
    A page gets no more than a hundred thousand samples, the session all of them.
    """
    session = session_of([([f"f{n}\0a.py\0001"], 0.001) for n in range(5)] * 24_000)

    tree = page_data(written(write_html, session).decode())["frame_tree"]

    assert 100 < len(tree["children"]) <= 10_001
    assert tree["time"] == pytest.approx(120, rel=0.01)


def test_names_can_t_end_the_script():
    """
    Markup in a name is data: the page has not one tag more than without it.
    """
    hostile = session_of([([f"{HOSTILE}\0{HOSTILE}.py\0001\1c{HOSTILE}", "\ud800\u2028\0\ud800\0002"], 0.5)])
    hostile.target_description = HOSTILE

    page = written(write_html, hostile).decode("utf-8")

    assert page.count("<script>") == HTMLRenderer().render(session_of([])).count("<script>")
    assert "<!--" not in page
    assert page_data(page)["session"]["target_description"] == HOSTILE


def test_another_kind_of_page_is_refused(monkeypatch):
    """
    A pyinstrument whose page is made in another way is said to be, rather than written to wrongly.
    """
    html._page.cache_clear()
    monkeypatch.setattr(HTMLRenderer, "render", lambda self, session: "<html></html>")

    with pytest.raises(RuntimeError, match="another way"):
        written(write_html, session_of([]))
    html._page.cache_clear()


def dump(page, tmp_path):
    """What a browser makes of a page, and what it says about errors."""
    file = tmp_path / "page.html"
    file.write_bytes(page)
    options = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
    more = "--disable-component-update --disable-sync --enable-logging=stderr --v=0 --virtual-time-budget=3000"
    done = subprocess.run(
        [BROWSER, *options.split(), *more.split(), f"--user-data-dir={tmp_path}/user", "--dump-dom", file.as_uri()],
        capture_output=True,
        timeout=60,
        check=False,
    )
    return done.stdout.decode(), [line for line in done.stderr.decode().splitlines() if "CONSOLE" in line]


@pytest.mark.realtime
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_a_browser_shows_it(tmp_path):
    """
    A browser shows the names of the functions, and has nothing to complain about.
    """
    stacks = [
        ["view\0/srv/app/v.py\0001\1l2", "slow_report\0/srv/app/r.py\0007\1l9", f"part_{n}\0/srv/app/p.py\0003"]
        for n in "ab"
    ]
    page = written(write_html, session_of([(stack, 0.5) for stack in stacks], start=["elsewhere"]))

    dom, complaints = dump(page, tmp_path)

    assert complaints == []
    shown = re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)
    assert all(name in shown for name in ("slow_report", "part_a", "part_b"))


@pytest.mark.realtime
@pytest.mark.skipif(BROWSER is None, reason="needs Chromium")
def test_no_name_is_executed(tmp_path):
    """
    What looks like a script in the name of a function is shown, not run.
    """
    name = "</script><script>document.title='taken'</script><img src=x onerror=\"document.title='taken'\">"
    page = written(
        write_html, session_of([([f"{name}\0{name}\0001", f"slow\0{name}.py\0007"], 0.5)], start=["elsewhere"])
    )

    dom, _ = dump(page, tmp_path)

    assert "<title>taken" not in dom
    assert "slow" in re.sub(r"<script.*?</script>", "", dom, flags=re.DOTALL)


def distinct(samples):
    return [
        (
            [
                f"f{depth}_{(sample >> (depth % 13)) & 1}\0/srv/app/m{depth}.py\0{depth}\1l{depth}"
                for depth in range(60)
            ],
            0.01,
        )
        for sample in range(samples)
    ]


@pytest.mark.realtime
@pytest.mark.parametrize("write", [write_html, write_session_json])
def test_others_run_while_it_is_written(write):
    """
    A thread that wants to run every millisecond is never kept waiting for as long as one call of the C encoder takes.
    """
    session = session_of(distinct(3000))
    over = threading.Event()
    late = []

    def probe():
        while not over.is_set():
            began = time.perf_counter()
            time.sleep(0.001)
            late.append(time.perf_counter() - began - 0.001)

    prober = threading.Thread(target=probe)
    prober.start()
    write(session, lambda piece: None)
    over.set()
    prober.join()

    # The machine itself may be late now and then; a call that keeps the GIL is late at the end of each.
    assert sorted(late)[-3] < 0.02
