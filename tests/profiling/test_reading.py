"""Finding a profile: stored ones wherever they are, those that a trace carries, and what is none of these."""

import gzip
import io
import json
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from handmade import make_session, profiled_session, report_session
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from pyinstrument.renderers import ConsoleRenderer

from otel_introspect import semconv
from otel_introspect.profiling import retrieval
from otel_introspect.profiling.console_text import console_text
from otel_introspect.profiling.console_tree import NOT_SHOWN, Circumstances, session_from_text
from otel_introspect.profiling.formats import FORMATS, render
from otel_introspect.profiling.reading import ReadError, find, read
from otel_introspect.profiling.renderable import parts_of

ID = "0123456789abcdef" * 2
STORE = "OTEL_PYTHON_INTROSPECT_PROFILER_STORE"
TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TEXT = """\
0.600 view  shop/views.py:10
├─ 0.450 Reports.summary  shop/reports.py:27
│  ├─ 0.250 [await]  shop/reports.py
│  └─ 0.200 [self]  shop/reports.py
└─ 0.150 [no sample]
"""


def same(one, other):
    return json.dumps(one.to_json()) == json.dumps(other.to_json())


def store(directory, session, name=f"{ID}.pyisession.json"):
    path = directory / name
    path.write_bytes(render(session, "json"))
    return path


def tree(session):
    """The tree as pyinstrument's console renderer prints it, all of it."""
    text = ConsoleRenderer(unicode=True, color=False, show_all=True).render(session)
    return text.split("\n\n", 2)[2].rstrip("\n")


# --- stored ---------------------------------------------------------------------------------------------------------


def test_a_stored_profile_is_read(tmp_path):
    """
    A session is read from its file, by path or URL, packed or not.
    """
    session = profiled_session()
    path = store(tmp_path, session)
    packed = tmp_path / "packed.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))

    assert same(read(str(path)), session)
    assert same(read(path.as_uri()), session)
    assert same(read(str(packed)), session)


def test_what_pyinstrument_has_saved_is_read(tmp_path):
    """
    A file that pyinstrument itself has saved is a profile too.
    """
    session = profiled_session()
    session.save(tmp_path / "mine.pyisession")

    found = find(str(tmp_path / "mine.pyisession"))

    assert same(found.session, session)
    assert found.name == "mine"


def test_the_page_stands_for_the_session_beside_it(tmp_path):
    """
    Who names the page means the session that it was made of.
    """
    store(tmp_path, report_session())
    page = tmp_path / f"{ID}.html"

    assert same(read(str(page)), report_session())
    assert same(read(page.as_uri()), report_session())


def test_an_id_is_looked_up_in_the_store(tmp_path, monkeypatch):
    """
    An id alone is enough where the variable says where profiles are stored.
    """
    store(tmp_path, report_session())
    monkeypatch.chdir("/")

    with pytest.raises(ReadError, match=STORE):
        read(ID)
    for where in (str(tmp_path), f"{tmp_path}/", tmp_path.as_uri()):
        monkeypatch.setenv(STORE, where)
        assert same(read(ID.upper()), report_session())
    assert find(ID).name == ID


def test_an_object_store_is_read_by_fsspec():
    """
    Whatever fsspec knows can be named by URL.
    """
    fsspec = pytest.importorskip("fsspec")
    with fsspec.open(f"memory://profiles/{ID}.pyisession.json", "wb") as file:
        file.write(render(report_session(), "json"))

    assert same(read(f"memory://profiles/{ID}.html"), report_session())
    with pytest.raises(ReadError, match="nothing at memory://profiles/none"):
        read("memory://profiles/none.json")
    with pytest.raises(ReadError, match="no-such-protocol"):
        read("no-such-protocol://profiles/none.json")


def test_without_fsspec_the_message_says_what_to_install(monkeypatch):
    """
    Without fsspec one learns what to install.
    """
    monkeypatch.setitem(sys.modules, "fsspec", None)

    with pytest.raises(ReadError, match=r"pip install 'otel-introspect\[store\]'"):
        read("s3://profiles/a.json")


@contextmanager
def web_server(answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            answer(self)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def sending(body, status=200, **headers):
    def answer(handler):
        handler.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture(name="no_proxy", autouse=True)
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv(STORE, raising=False)


def test_a_web_server_is_asked():
    """
    A profile is fetched by HTTP, and the query that may be needed for it stays.
    """
    asked = []

    def answer(handler):
        asked.append(handler.path)
        sending(render(report_session(), "json"))(handler)

    with web_server(answer) as url:
        assert same(read(f"{url}/{ID}.html?signature=a"), report_session())
    assert asked == [f"/{ID}.pyisession.json?signature=a"]


def test_a_web_server_that_has_nothing_is_said():
    """
    An answer that is none, or that leads to a file of this machine, is an error with its reason.
    """
    with web_server(sending(b"", 404)) as url, pytest.raises(ReadError, match="Not Found"):
        read(f"{url}/none.json")
    with web_server(sending(b"", 302, Location="file:///etc/passwd")) as url, pytest.raises(ReadError, match="fetched"):
        read(f"{url}/none.json")
    with pytest.raises(ReadError, match="cannot be fetched"):
        read(f"{url}/gone.json")
    for url in ("http://[", "file://["):
        with pytest.raises(ReadError, match="is no URL"):
            read(url)


def test_a_web_server_that_does_not_end_is_left(monkeypatch):
    """
    What comes too slowly is not waited for.
    """
    monkeypatch.setattr(retrieval, "_TRANSFER_SECONDS", 0.0)

    with web_server(sending(b"x" * 1_000_000)) as url, pytest.raises(ReadError, match="within 0 seconds"):
        read(f"{url}/slow.json")


def test_no_more_is_read_than_the_bound(tmp_path):
    """
    A file that is too large is refused, and so is one that only unpacked is.
    """
    large = tmp_path / "large.json"
    large.write_bytes(b" " * 3_000_000)
    packed = tmp_path / "packed.gz"
    packed.write_bytes(gzip.compress(b" " * 3_000_000))

    for path in (large, packed, "/dev/zero"):
        with pytest.raises(ReadError, match="more than 2 MiB"):
            find(str(path), max_bytes=2 * 1024 * 1024)


def test_no_password_is_repeated():
    """
    A message about a URL does not say the password in it.
    """
    with pytest.raises(ReadError) as caught:
        read("no-such-protocol://me:secret@host/a.json")

    assert "secret" not in str(caught.value)


# --- what is none ---------------------------------------------------------------------------------------------------

GOOD = json.loads(render(report_session(), "json"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        (b"", "is no JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"hello", "is no JSON"),
        (b"[" * 100_000, "is no JSON"),
        (b"9" * 5_000, "is no JSON|neither"),
        (b"{}", "neither a profile nor a trace"),
        (b"[]", "neither a profile nor a trace"),
        (b"3", "neither a profile nor a trace"),
        (b"\x1f\x8bnot", "cannot be unpacked"),
        (b"<html>", "is no JSON"),
        (json.dumps({"frame_records": 3}), "frame_records is not a list of samples"),
        (json.dumps({"frame_records": [3]}), "list of pairs"),
        (json.dumps({"frame_records": [[[3], 1]]}), "lists of strings"),
        (json.dumps({"frame_records": [[["a"], "1"]]}), "number of 0 or more"),
        (json.dumps({"frame_records": [[["a"], float("nan")]]}), "number of 0 or more"),
        (json.dumps({"frame_records": [[["a"], float("inf")]]}), "number of 0 or more"),
        (json.dumps({"frame_records": [[["a"], -1]]}), "number of 0 or more"),
        (json.dumps({"frame_records": [[["a"], True]]}), "number of 0 or more"),
        (json.dumps({"frame_records": [[["a"], 10**400]]}), "number of 0 or more"),
        (json.dumps(GOOD | {"duration": "long"}), "duration is not a number"),
        (json.dumps(GOOD | {"start_time": 1e300}), "start_time is not a number"),
        (json.dumps(GOOD | {"sys_path": [3]}), "sys_path is not a list of strings"),
        (json.dumps(GOOD | {"target_description": 3}), "target_description is not a string"),
        (json.dumps({"resourceSpans": []}), "neither a profile nor a trace"),
        (json.dumps({"resourceSpans": [{}]}), "No span in .* carries a profile"),
    ],
)
def test_what_is_no_profile_is_refused(contents, message, tmp_path):
    """
    What is no profile is refused by a message that says what is wrong.
    """
    (tmp_path / "given").write_bytes(contents.encode() if isinstance(contents, str) else contents)

    with pytest.raises(ReadError, match=message):
        read(str(tmp_path / "given"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "No profile is named"),
        ("/no/such/file", "There is no file"),
        ("/", "directory"),
        ("a\0b", "cannot be read"),
    ],
)
def test_what_is_not_there_is_said(source, message):
    """
    A source that is not there, or cannot be one, is said to be so.
    """
    with pytest.raises(ReadError, match=message):
        read(source)


def test_the_least_that_is_a_profile(tmp_path):
    """
    What is missing in a session is taken from what is there.
    """
    (tmp_path / "a.json").write_text(json.dumps({"frame_records": [[["a\0/b.py\x003"], 0.5]]}))

    session = read(str(tmp_path / "a.json"))

    assert (session.duration, session.sample_count) == (0.5, 1)
    assert tree(read(str(tmp_path / "a.json")))
    assert b"0.500 a  /b.py:3" in render(session, "text")


# --- in a trace -----------------------------------------------------------------------------------------------------


def event_of(**attributes):
    attributes = {
        semconv.PROFILE_ID: ID,
        semconv.PROFILE_TEXT: TEXT,
        semconv.PROFILE_TRIGGER: "slow",
        semconv.PROFILE_INTERVAL_MS: 10,
        semconv.PROFILE_SAMPLE_COUNT: 60,
        semconv.PROFILE_DURATION_MS: 612,
        semconv.PROFILE_TRUNCATED: False,
    } | attributes
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue"}
    return {
        "name": semconv.PROFILE_EVENT,
        "timeUnixNano": "1700000001000000000",
        "attributes": [
            {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}
            for key, value in attributes.items()
            if value is not None
        ],
    }


def trace_of(*events, name="GET /report", trace_id=TRACE_ID, span_id="00f067aa0ba902b7"):
    span = {"traceId": trace_id, "spanId": span_id, "name": name, "events": [{"name": "log"}, *events]}
    return {"resourceSpans": [{"resource": {}, "scopeSpans": [{"scope": {}, "spans": [{"events": []}, span]}]}]}


def written(tmp_path, *documents):
    path = tmp_path / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, documents)) + "\n")
    return str(path)


def test_a_profile_is_rebuilt_from_the_span_s_text(tmp_path):
    """
    A trace alone is enough: the tree in its text becomes a profile, which says that it was rebuilt.
    """
    found = find(written(tmp_path, trace_of(event_of())))

    assert tree(found.session) == TEXT.rstrip().replace("[no sample]", "[no sample]  ")
    assert found.name == ID
    assert "Rebuilt from the text on the span" in " ".join(found.notes)
    assert found.session.duration == 0.612
    assert found.session.sample_count == 60
    assert found.session.start_time == pytest.approx(1_700_000_000.388)
    assert found.session.target_description.startswith(f"GET /report (trace {TRACE_ID}")


@pytest.mark.parametrize("format_", [each for each in FORMATS if each not in ("svg", "pdf")])
def test_every_format_can_be_had_from_a_trace(format_, tmp_path):
    """
    What was rebuilt from text can be had in each format, functions, waiting and gaps included.
    """
    contents = render(read(written(tmp_path, trace_of(event_of()))), format_)

    for name in (b"summary", b"[await]", b"[no sample]"):
        assert name in contents


def test_a_file_of_the_real_exporter_is_read(tmp_path):
    """
    What OpenTelemetry's exporter writes into a file is a trace.
    """
    exporting = pytest.importorskip("opentelemetry.exporter.otlp.json.file.trace_exporter")
    written_to = io.StringIO()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporting.FileSpanExporter(stream=written_to)))
    tracer = provider.get_tracer(__name__)
    for number in range(3):
        with tracer.start_as_current_span(f"GET /{number}") as span:
            if number == 1:
                span.add_event(
                    semconv.PROFILE_EVENT,
                    {semconv.PROFILE_ID: ID, semconv.PROFILE_TEXT: TEXT, semconv.PROFILE_DURATION_MS: 600},
                )
    provider.shutdown()
    (tmp_path / "traces.jsonl").write_text(written_to.getvalue())

    session = read(str(tmp_path / "traces.jsonl"))

    assert tree(session) == TEXT.rstrip().replace("[no sample]", "[no sample]  ")
    assert f"{span.get_span_context().trace_id:032x}" not in session.target_description
    assert "GET /1 " in session.target_description


def test_other_ways_to_write_a_trace_are_read(tmp_path):
    """
    One object over many lines, a list, an answer of a tracing back end, base64 ids and snake case are read as well.
    """
    trace = trace_of(event_of())
    (tmp_path / "one.json").write_text(json.dumps(trace, indent=2))
    base64_ids = trace_of(event_of(), trace_id="S/kvNXezTaajzpKdDg5HNg==", span_id="APBnqgupArc=")
    snake = json.loads(
        json.dumps(trace).replace("resourceSpans", "resource_spans").replace("scopeSpans", "scope_spans")
    )

    assert read(str(tmp_path / "one.json"))
    for document in ([trace], {"result": trace}, {"batches": trace["resourceSpans"]}, base64_ids, snake):
        assert TRACE_ID in read(written(tmp_path, document)).target_description


def test_a_line_that_is_being_written_does_not_matter(tmp_path):
    """
    The last line may be incomplete, as the service may be writing it right now.
    """
    path = written(tmp_path, trace_of(event_of()), trace_of(event_of()))
    with Path(path).open("a") as file:
        file.write('{"resourceSpans": [{"otel_introspect.profile')

    assert read(path)


def test_of_several_one_is_chosen(tmp_path):
    """
    If a trace has several profiles they are listed, and one is chosen by the begin of its id, or its trace or span.
    """
    other = ID[::-1]
    path = written(
        tmp_path,
        trace_of(event_of()),
        trace_of(
            event_of(**{semconv.PROFILE_ID: other, semconv.PROFILE_TRIGGER: "tail"}),
            name="GET /other\x1b[31m",
            trace_id="a" * 32,
            span_id="b" * 16,
        ),
    )

    with pytest.raises(ReadError) as caught:
        read(path)
    head, first, second = str(caught.value).splitlines()
    assert "2 profiles" in head
    assert "--id" in head
    assert first == f"  {ID}  GET /report  trace {TRACE_ID}  span 00f067aa0ba902b7  0.612 s  slow"
    assert second == f"  {other}  GET /other\\x1b[31m  trace {'a' * 32}  span {'b' * 16}  0.612 s  tail"
    for wanted in (other, other[:4], other.upper(), "a" * 32, "b" * 16):
        assert find(path, profile_id=wanted).name == other
    with pytest.raises(ReadError, match=r"No profile in .* answers to 9999"):
        read(path, profile_id="9999")
    with pytest.raises(ReadError, match="No profile"):
        read(path, profile_id="")


def test_a_long_list_is_cut(tmp_path):
    """
    Of very many profiles the first are listed, and how many more there are.
    """
    path = written(tmp_path, *(trace_of(event_of(**{semconv.PROFILE_ID: f"{each:032x}"})) for each in range(50)))

    with pytest.raises(ReadError) as caught:
        read(path)

    lines = str(caught.value).splitlines()
    assert len(lines) == 22
    assert lines[-1] == "  and 30 more"


def test_lines_without_a_profile_are_passed_over(tmp_path):
    """
    A file of many traces may have lines that are no objects, and traces without a profile.
    """
    path = written(
        tmp_path, [semconv.PROFILE_EVENT], trace_of(), semconv.PROFILE_EVENT, trace_of(event_of()), trace_of()
    )

    assert find(path).name == ID


def test_an_ambiguous_id_lists_what_it_means(tmp_path):
    """
    An id with which two profiles begin is not guessed at.
    """
    twin = ID[:-1] + "0"
    path = written(tmp_path, trace_of(event_of()), trace_of(event_of(**{semconv.PROFILE_ID: twin})))

    with pytest.raises(ReadError, match=r"2 profiles in .* answer to 0123"):
        read(path, profile_id="0123")


def test_the_whole_profile_is_taken_where_there_is_one(tmp_path):
    """
    If the event says where the whole profile is, and it is there, that is it.
    """
    stored = store(tmp_path, report_session())
    for url in (str(stored), stored.as_uri(), str(tmp_path / f"{ID}.html")):
        found = find(written(tmp_path, trace_of(event_of(**{semconv.PROFILE_URL: url}))))

        assert same(found.session, report_session())
        assert (found.name, found.notes) == (ID, ())


@pytest.mark.parametrize(
    "url", ["/no/such/file", "simplecache::memory://a", "traces.jsonl", "list.json", "no-such://a"]
)
def test_the_text_is_taken_where_the_whole_is_not_to_be_had(url, tmp_path, monkeypatch):
    """
    If the whole profile cannot be had its user learns why, and gets what the text tells.
    """
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]")

    found = find(written(tmp_path, trace_of(event_of(**{semconv.PROFILE_URL: url}))))

    assert "The whole profile is not to be had" in found.notes[0]
    assert "summary" in tree(found.session)


def test_an_event_without_text_or_profile_is_an_error(tmp_path):
    """
    If there is neither text nor a whole profile that is said.
    """
    with pytest.raises(ReadError, match=r"no text .* no URL"):
        read(written(tmp_path, trace_of(event_of(**{semconv.PROFILE_TEXT: None}))))
    with pytest.raises(ReadError, match=r"no text .*not to be had"):
        read(written(tmp_path, trace_of(event_of(**{semconv.PROFILE_TEXT: None, semconv.PROFILE_URL: "/none"}))))


# --- from text ------------------------------------------------------------------------------------------------------


def rebuilt(text):
    return session_from_text(text, Circumstances())


def test_head_and_notes_are_passed_over():
    """
    pyinstrument's head, a note on hidden frames and a last line that was cut are not part of the tree.
    """
    head = ConsoleRenderer(unicode=True, color=False).render_preamble(report_session())

    for text in (
        f"{head}{TEXT}\n\n",
        f"500 errors\n{TEXT}",
        f"{TEXT}[3 smaller frames hidden]",
        f"{TEXT}   └─ 0.1",
        TEXT.replace("\n", "\r\n"),
    ):
        assert tree(rebuilt(text)) == tree(rebuilt(TEXT))


def test_ascii_is_read_too():
    """
    The tree may be drawn in ASCII.
    """
    text = ConsoleRenderer(unicode=False, color=False, show_all=True).render(report_session())

    assert tree(rebuilt(text)) == tree(report_session())


def test_hidden_library_frames_stay_hidden():
    """
    A group of hidden frames is one frame, with what they called below it.
    """
    text = (
        "1.000 main  main.py:1\n"
        "└─ 0.900 handle  django/base.py:5\n"
        "      [4 frames hidden]  django, asgiref\n"
        "         0.500 view  shop/views.py:10"
    )

    assert tree(rebuilt(text)) == (
        "1.000 main  main.py:1\n"
        "├─ 0.900 handle  django/base.py:5\n"
        "│  └─ 0.900 [4 frames hidden]  django, asgiref\n"
        "│     ├─ 0.500 view  shop/views.py:10\n"
        f"│     └─ 0.400 {NOT_SHOWN}  \n"
        f"└─ 0.100 {NOT_SHOWN}  "
    )


def test_time_that_the_text_does_not_tell_is_not_given_to_anybody():
    """
    What is neither a function's own time nor its callees' is a frame of its own; what is only rounded is not.
    """
    text = "0.600 view  a.py:1\n├─ 0.300 one  a.py:2\n└─ 0.100 two  a.py:3"
    rounded = "0.601 view  a.py:1\n├─ 0.300 one  a.py:2\n└─ 0.300 two  a.py:3"

    assert f"0.200 {NOT_SHOWN}" in tree(rebuilt(text))
    assert NOT_SHOWN not in tree(rebuilt(rounded))


def test_text_without_a_tree_is_refused():
    """
    A text that is no tree is refused, and that of an empty profile is one.
    """
    assert rebuilt("No samples were recorded.").frame_records == []
    for text in ("hello", "└─ 0.5 a  b.py:1", "0.600", "   "):
        with pytest.raises(ReadError, match="no tree of calls"):
            rebuilt(text)


def test_what_we_put_on_a_span_is_read():
    """
    The text that the profiler writes can be rebuilt, however little of it there was room for.
    """
    session = report_session()

    for room in (2_000, 300, 200):
        text, _ = console_text(session, room)
        frames = {parts_of(each)[0] for stack, _ in rebuilt(text).frame_records for each in stack}
        assert frames & {"view", "Reports.summary", "query"}


names = st.text(st.characters(codec="utf-8", exclude_characters="\0\1\n\r"), min_size=1, max_size=12).filter(
    lambda name: name.strip() and "  " not in name and name.strip() == name and not name.startswith("[")
)
functions = st.builds(
    lambda name, file, line: f"{name}\0{file}\0{line}",
    names,
    st.sampled_from(["a.py", "<string>", "größe.py", "with space.py", "shop:views.py"]),
    st.integers(1, 5_000),
)
leaves = st.sampled_from(["[await]", "[self]", "[no sample]", "[out-of-context]"])
stacks = st.builds(lambda stack, leaf: [*stack, *leaf], st.lists(functions, max_size=5), st.lists(leaves, max_size=1))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    shared=st.lists(functions, min_size=1, max_size=6),
    records=st.lists(st.tuples(stacks, st.lists(st.integers(0, 5), max_size=4), st.integers(1, 3_000)), min_size=1),
    decimals=st.sampled_from([0, 2, 3, 4]),
)
def test_tree_to_text_to_tree(shared, records, decimals):
    """
    The text of any tree, read and printed again, is the same text.
    """
    made = [
        ([shared[0], *(shared[each % len(shared)] for each in path), *stack], milliseconds / 10**decimals)
        for stack, path, milliseconds in records
    ]
    text = tree(make_session(*made, max_interval=10.0**-decimals, sys_path=[]))

    assert tree(rebuilt(text)) == text


# --- anything -------------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=5), children, max_size=3),
    max_leaves=8,
)


def places_in(value, path=()):
    yield path
    if isinstance(value, dict):
        for key in value:
            yield from places_in(value[key], (*path, key))
    elif isinstance(value, list):
        for index in range(min(len(value), 4)):
            yield from places_in(value[index], (*path, index))


def replaced(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


SEEDS = [GOOD, trace_of(event_of()), trace_of(event_of(), event_of(**{semconv.PROFILE_ID: "f" * 32}))]
NASTY = st.sampled_from(
    [None, True, -1, 1e308, 10**400, "", "\0", "\ud800", [], {}, [[]], "x" * 5_000, "9" * 5_000, [["[await]", "b"], 1]]
)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_a_changed_document_is_read_or_refused(data, tmp_path_factory):
    """
    Whatever is changed in a profile or a trace: it is read, and can be shown, or refused by our own kind of error.
    """
    document = data.draw(st.sampled_from(SEEDS))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(places_in(document))))
        document = replaced(document, place, data.draw(NASTY | json_values))
    path = tmp_path_factory.mktemp("fuzz") / "given"
    path.write_text(json.dumps(document))

    try:
        session = read(str(path), profile_id=data.draw(st.none() | st.just("f")))
    except ReadError:
        return
    for format_ in ("text", "html", "speedscope", "pstats", "dot", "json"):
        assert render(session, format_)


@settings(deadline=None, max_examples=300)
@given(data=st.data())
def test_changed_bytes_are_read_or_refused(data, tmp_path_factory):
    """
    Whatever bytes are cut out, put in or changed: what is read can be shown, all else is refused.
    """
    contents = bytearray(json.dumps(data.draw(st.sampled_from(SEEDS))).encode())
    if data.draw(st.booleans()):
        contents = bytearray(gzip.compress(bytes(contents), mtime=0))
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(contents)))
        contents[at : at + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=5))
    path = tmp_path_factory.mktemp("fuzz") / "given"
    path.write_bytes(contents)

    try:
        session = read(str(path))
    except ReadError:
        return
    assert render(session, "text")


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["", "├─ ", "│  └─ ", "│     ", "   ", "      [2 frames hidden]  a", "|- ", "\t"]),
            st.sampled_from(["0.1 ", "12 ", "0. ", "0.123456789 ", "x ", "999999999999 ", ""]),
            st.text(max_size=10),
        ),
        max_size=8,
    )
)
def test_any_text_is_read_or_refused(lines):
    """
    Lines that are like those of a tree make a tree that can be shown, or none.
    """
    text = "\n".join("".join(line) for line in lines)

    try:
        session = rebuilt(text)
    except ReadError:
        return
    for format_ in ("text", "html", "speedscope", "pstats"):
        assert render(session, format_)
