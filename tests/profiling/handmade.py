"""Sessions made by hand, and one that pyinstrument has taken."""

from pyinstrument import Profiler
from pyinstrument.session import Session

AWAIT = "[await]"


def frame(name, line=1, file=None):
    return f"{name}\0{file or f'/srv/shop/{name}.py'}\0{line}"


def make_session(*records, **others):
    """A session of (stack, seconds); a frame is a name, or an identifier as pyinstrument has it."""
    given = {
        "start_time": 1_700_000_000.0,
        "duration": sum(seconds for _, seconds in records),
        "min_interval": 0.001,
        "max_interval": 0.001,
        "sample_count": len(records),
        "start_call_stack": ["MainThread\0<thread>\x00140048"],
        "target_description": "GET /report",
        "cpu_time": 0.25,
        "sys_path": ["/srv"],
        "sys_prefixes": [],
    }
    return Session(frame_records=[(list(stack), seconds) for stack, seconds in records], **given | others)


def report_session():
    """What a request could have done: work, a wait, and a time in which nothing could be seen."""
    view, summary, query = frame("view", 10), frame("summary", 27), frame("query", 40)
    return make_session(
        ([view, f"{summary}\x01l28\x01cReports"], 0.3),
        ([view, f"{summary}\x01l29\x01cReports", query], 0.2),
        ([view, summary, query, AWAIT], 0.25),
        ([view, "[no sample]"], 0.15),
        ([view], 0.1),
    )


def recursive(depth):
    return make_session(([frame(f"level_{each}") for each in range(depth)], 1.0))


def burn():
    return sum(each * each for each in range(2_000_000))


def profiled_session():
    """A session of the real pyinstrument, of a function that is busy."""
    with Profiler(interval=0.001) as profiler:
        burn()
    return profiler.last_session
