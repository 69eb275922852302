"""Each format that needs no other program: what is in it, and that its readers read it."""

import html.parser
import json
import pstats
import re
import shutil
import subprocess

import jsonschema
import pytest
from handmade import frame, make_session, profiled_session, recursive, report_session
from pyinstrument.session import Session

from otel_introspect.profiling import html as html_page
from otel_introspect.profiling.formats import FORMATS, KINDS, RenderError, render
from otel_introspect.profiling.renderable import HIDDEN_FRAMES

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# What https://www.speedscope.app/file-format-schema.json asks for, in our words.
NUMBER = {"type": "number"}
SPEEDSCOPE_SCHEMA = {
    "type": "object",
    "required": ["$schema", "shared", "profiles"],
    "properties": {
        "$schema": {"const": "https://www.speedscope.app/file-format-schema.json"},
        "name": {"type": "string"},
        "exporter": {"type": "string"},
        "activeProfileIndex": NUMBER,
        "shared": {
            "type": "object",
            "required": ["frames"],
            "properties": {
                "frames": {
                    "type": "array",
                    "items": {
                        "type": "object",
                        "required": ["name"],
                        "properties": {
                            "name": {"type": "string"},
                            "file": {"type": "string"},
                            "line": NUMBER,
                            "col": NUMBER,
                        },
                    },
                }
            },
        },
        "profiles": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["type", "name", "unit", "startValue", "endValue", "events"],
                "properties": {
                    "type": {"const": "evented"},
                    "name": {"type": "string"},
                    "unit": {"enum": ["bytes", "microseconds", "milliseconds", "nanoseconds", "none", "seconds"]},
                    "startValue": NUMBER,
                    "endValue": NUMBER,
                    "events": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "at", "frame"],
                            "properties": {"type": {"enum": ["O", "C"]}, "at": NUMBER, "frame": {"type": "integer"}},
                        },
                    },
                },
            },
        },
    },
}
HOSTILE = "</script><script>document.title='owned'</script><!--"
ODD = {
    "empty": make_session(),
    "one sample": make_session(([frame("only")], 0.01)),
    "no frame": make_session(([], 0.01)),
    "no time": make_session(([frame("only")], 0.0)),
    "only waiting": make_session((["[await]"], 0.01)),
    "waiting beside working": make_session((["[await]"], 0.01), ([frame("work")], 0.02)),
    "something called by waiting": make_session(([frame("a"), "[await]", frame("b")], 0.01)),
    "no start": make_session(([frame("a")], 0.01), start_call_stack=[]),
    "lines that are none": make_session((["a\0b\0x", "a\0\0", "\0\0", "\0", ""], 0.5)),
    "other scripts": make_session(([frame("größe_数える_😀")], 0.5)),
    "no characters": make_session(([frame("\ud800\udfff")], 0.5), target_description="\ud800"),
    "what markup means something to": make_session(([frame(HOSTILE)], 0.5), target_description=HOSTILE),
    "what terminals act upon": make_session(([frame("a\n\x1b[31mb\u202e")], 0.5)),
    "very long names": make_session(([frame("long" * 30_000)], 0.5)),
    "very deep": recursive(20_000),
    "as deep as Python allows": recursive(950),
    "recursion": make_session(([frame("again")] * 3_000, 0.5)),
    "absurd intervals": make_session(([frame("a")], 0.5), min_interval=0.0, max_interval=0.0),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("format_", [each for each in FORMATS if each not in ("dot", "svg", "pdf")])
def test_every_session_can_be_had(format_, name):
    """
    No session is too odd for a format: not an empty one, no name, no depth.
    """
    before = json.dumps(ODD[name].to_json())

    contents = render(ODD[name], format_)

    assert contents
    assert json.dumps(ODD[name].to_json()) == before


def test_an_unknown_format_is_refused():
    """
    Who asks for a format that there is not is told which there are.
    """
    with pytest.raises(RenderError, match=r"'gif'.*html, text, json"):
        render(make_session(), "gif")


def test_each_format_has_a_suffix_of_its_own():
    """
    No two formats of one profile get the same file's name.
    """
    assert len({KINDS[each].suffix for each in FORMATS}) == len(FORMATS)


# --- text -----------------------------------------------------------------------------------------------------------


def test_text_is_pyinstrument_s_tree():
    """
    The text has each function with its time, class and place, waiting and gaps too.
    """
    text = render(report_session(), "text").decode()

    assert text.endswith(
        "1.000 view  shop/view.py:10\n"
        "├─ 0.750 Reports.summary  shop/summary.py:27\n"
        "│  ├─ 0.450 query  shop/query.py:40\n"
        "│  │  ├─ 0.250 [await]  shop/query.py\n"
        "│  │  └─ 0.200 [self]  shop/query.py\n"
        "│  └─ 0.300 [self]  shop/summary.py\n"
        "├─ 0.150 [no sample]  \n"
        "└─ 0.100 [self]  shop/view.py\n"
        "\n"
    )
    assert "\x1b" not in text


def test_text_of_a_real_session():
    """
    What pyinstrument has taken is shown, without what only led to where it was started.
    """
    text = render(profiled_session(), "text").decode()

    assert re.search(r"^\d\.\d+ profiled_session ", text, re.MULTILINE)
    assert " burn  " in text


def test_text_does_no_harm_in_a_terminal():
    """
    A name with a line break, an escape sequence or a bidi mark is one line, with these escaped.
    """
    text = render(ODD["what terminals act upon"], "text").decode()

    assert r"0.500 a\n\x1b[31mb\u202e  " in text


def test_text_hides_the_middle_of_what_is_too_deep():
    """
    Of a stack too deep to be shown whole the outermost and the innermost functions are.
    """
    text = render(recursive(20_000), "text").decode()

    assert " level_0  " in text
    assert f" {HIDDEN_FRAMES}  " in text
    assert " level_19999  " in text


# --- json -----------------------------------------------------------------------------------------------------------


def test_json_is_the_session():
    """
    The JSON is what pyinstrument itself loads, with nothing left out.
    """
    session = recursive(950)

    again = Session.from_json(json.loads(render(session, "json")))

    assert json.dumps(again.to_json()) == json.dumps(session.to_json())


# --- speedscope -----------------------------------------------------------------------------------------------------


def check_speedscope(contents):
    document = json.loads(contents)
    jsonschema.validate(document, SPEEDSCOPE_SCHEMA)
    frames = document["shared"]["frames"]
    for profile in document["profiles"]:
        at, is_open = profile["startValue"], []
        for event in profile["events"]:
            assert event["at"] >= at
            assert 0 <= event["frame"] < len(frames)
            at = event["at"]
            if event["type"] == "O":
                is_open.append(event["frame"])
            else:
                assert is_open.pop() == event["frame"]
        assert is_open == []
        assert profile["endValue"] >= at
    return document


@pytest.mark.parametrize("name", ODD)
def test_speedscope_keeps_to_the_schema(name):
    """
    Every file for speedscope is what its schema asks for, opens and closes calls in pairs, and never goes back in time.
    """
    check_speedscope(render(ODD[name], "speedscope"))


def test_speedscope_of_a_real_session():
    """
    What pyinstrument has taken keeps to the schema as well.
    """
    document = check_speedscope(render(profiled_session(), "speedscope"))

    assert "burn" in [each["name"] for each in document["shared"]["frames"]]


def test_speedscope_has_the_order_in_time():
    """
    Calls follow each other as they were sampled, short ones too, and gaps are seen.
    """
    a, b = frame("a"), frame("b")
    calls = [([frame("view"), each], 0.001) for each in (a, b) * 200]
    session = make_session(*calls, ([frame("view"), "[no sample]"], 0.1), ([frame("view"), "[await]"], 0.1))

    document = check_speedscope(render(session, "speedscope"))

    frames = [each["name"] for each in document["shared"]["frames"]]
    opened = [frames[each["frame"]] for each in document["profiles"][0]["events"] if each["type"] == "O"]
    assert opened == ["view", *["a", "b"] * 200, "[no sample]", "[await]"]
    assert document["profiles"][0]["events"][-1]["at"] == pytest.approx(0.6)


# --- pstats ---------------------------------------------------------------------------------------------------------


def stats_of(session, tmp_path):
    (tmp_path / "profile.pstats").write_bytes(render(session, "pstats"))
    return pstats.Stats(str(tmp_path / "profile.pstats"))


@pytest.mark.parametrize("name", ODD)
def test_pstats_loads_every_session(name, tmp_path, capsys):
    """
    Python's pstats loads and prints what we write.
    """
    stats_of(ODD[name], tmp_path).sort_stats("cumulative").print_stats(5).print_callers(5)

    assert "function calls" in capsys.readouterr().out


def test_pstats_has_own_and_whole_times(tmp_path):
    """
    Each function has its own time and that of all that it calls; waiting and gaps are functions too.
    """
    stats = stats_of(report_session(), tmp_path).stats

    times = {name: (round(own, 3), round(whole, 3)) for (_, _, name), (_, _, own, whole, _) in stats.items()}
    assert times == {
        "view": (0.1, 1.0),
        "summary": (0.3, 0.75),
        "query": (0.2, 0.45),
        "[await]": (0.25, 0.25),
        "[no sample]": (0.15, 0.15),
    }
    query = stats["/srv/shop/query.py", 40, "query"]
    assert query[4]["/srv/shop/summary.py", 27, "summary"][2:] == pytest.approx((0.2, 0.45))


def test_pstats_counts_a_recursive_function_once(tmp_path):
    """
    A function that calls itself has taken no more time than there was.
    """
    stats = stats_of(make_session(([frame("walk")] * 50, 1.0), ([frame("walk")] * 20, 0.5)), tmp_path)

    assert stats.total_tt == pytest.approx(1.5)
    ((_, _, own, whole, callers),) = stats.stats.values()
    assert (own, whole) == pytest.approx((1.5, 1.5))
    ((_, _, edge_own, edge_whole),) = callers.values()
    assert (edge_own, edge_whole) == pytest.approx((1.5, 1.5))


def test_pstats_leaves_out_what_led_to_the_start(tmp_path):
    """
    Functions that were there already when the profiler was started, and did nothing but lead there, are left out.
    """
    boot, serve, view = frame("boot"), frame("serve"), frame("view")
    session = make_session(
        ([boot, serve, view], 0.5), ([boot, serve], 0.1), start_call_stack=[boot, serve, frame("profile")]
    )

    names = [name for _, _, name in stats_of(session, tmp_path).stats]

    assert names == ["serve", "view"]


# --- html -----------------------------------------------------------------------------------------------------------


class _Scripts(html.parser.HTMLParser):
    count = 0

    def handle_starttag(self, tag, attrs):
        self.count += tag == "script"


def test_no_name_ends_the_script_that_it_is_in():
    """
    A request's path or a function's name is data in the page, never markup.
    """
    ordinary, hostile = _Scripts(), _Scripts()
    ordinary.feed(render(report_session(), "html").decode())

    page = render(ODD["what markup means something to"], "html").decode()

    hostile.feed(page)
    assert hostile.count == ordinary.count
    assert HOSTILE not in page


def test_html_of_many_samples_is_made_smaller(capfd):
    """
    A browser gets no more samples than it can cope with.
    """
    calls = [([frame("view"), frame(f"f{number % 7}")], 0.001) for number in range(110_000)]

    page = render(make_session(*calls), "html")

    assert len(page) < 20_000_000
    assert capfd.readouterr().err == ""


def test_html_of_another_pyinstrument_is_refused(monkeypatch):
    """
    If pyinstrument makes its page in a way that we don't know, one learns what to use instead.
    """
    monkeypatch.setattr("pyinstrument.renderers.html.HTMLRenderer.render", lambda self, session: "<html>")
    html_page._page.cache_clear()

    with pytest.raises(RenderError, match="--format speedscope"):
        render(report_session(), "html")
    html_page._page.cache_clear()


def shown_by_chromium(page, tmp_path):
    """What the browser makes of *page*, and what it says on its console."""
    (tmp_path / "page.html").write_bytes(page)
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={tmp_path / 'chromium'}",
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        timeout=90,
        check=False,
    )
    said = [line for line in done.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    return done.stdout.decode(errors="replace"), said


@pytest.mark.realtime
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
@pytest.mark.parametrize(
    ("session", "name"),
    [
        (report_session(), "summary"),
        (make_session(), ""),
        (ODD["what markup means something to"], "document.title="),
        (ODD["very deep"], "level_0"),
    ],
    ids=["report", "empty", "markup", "deep"],
)
def test_a_browser_shows_the_page(session, name, tmp_path):
    """
    Chromium runs the page without a word on its console, and shows the functions.
    """
    document, said = shown_by_chromium(render(session, "html"), tmp_path)

    assert said == []
    assert name in re.sub(r"(?s)<script>.*?</script>", "", document)
    assert "<title>owned" not in document


# --- many samples ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", [each for each in FORMATS if each not in ("svg", "pdf")])
def test_a_hundred_thousand_samples_are_no_trouble(format_):
    """
    A profile of 100,000 samples that alternate between two functions can be had in each format.
    """
    ends = [[frame("root"), *(frame(f"d{depth}") for depth in range(8)), frame(f"f{each}")] for each in range(2)]
    session = make_session(*((ends[each % 2], 0.001) for each in range(100_000)))

    assert len(render(session, format_)) > 300
