"""Fuzzes what may be in a flight recorder's file: random, mutated, cut, spliced and forged content.

``python tests/fuzz/fuzz_flight_recorder.py --seconds 600`` says how many files it has tried and how much memory
that took at most, or how to try the one that failed. Nothing but ``UnreadableRecord`` may be raised, what is read must
be fit for an exporter, and no file may make the reader use more than a bounded amount of memory.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import sys
import tempfile
import time
import tracemalloc
from collections import Counter
from pathlib import Path

from otel_introspect.engine import recorder_layout as layout
from otel_introspect.engine.flight_recorder import FlightRecorder
from otel_introspect.engine.recorder_directory import RecorderDirectory
from otel_introspect.engine.recorder_reading import FlightRecord, UnreadableRecord, parse_record
from otel_introspect.engine.stacks import capture, outwards

# A file has 2 MiB; JSON of that size may take several times as much as objects.
MAX_BYTES = 64 * 1024 * 1024
INTERESTING = [0, 1, 2, 7, 8, 127, 128, 255, 256, 4079, 4080, 4081, 2**16 - 1, 2**31, 2**32 - 1, 2**63, 2**64 - 1]
HOSTILE_JSON = [
    *[b"[" * 4000, b'{"a":' * 700, b"[]," * 1300, b"{}", b"[]", b"null", b"\xff" * 100, b"9" * 4000, b"-" * 10],
    *[b'{"name":"n","time":1,"attributes":{"a":%s}}\n' % value for value in (b"NaN", b"1e999", b"[1,[2]]", b"null")],
    b'{"name":"\\ud800","time":1,"attributes":{"\\udfff":"\\ud800","s":["\\ud800"]}}\n',
    b'{"name":"n","time":1,"attributes":{}}\n' * 100,
    b"\n" * 4000,
]


def good_file(spans: int) -> bytes:
    """What a recorder writes."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = FlightRecorder(RecorderDirectory(f"{folder}/flight"), lambda: {"service.name": "shop"})
        if not recorder.open() or recorder.path is None:
            msg = "no recorder here"
            raise RuntimeError(msg)
        here = capture(outwards(sys._getframe()))
        for key in range(1, spans + 1):
            recorder.begin(key, key << 64, 0, key, 1, 1, 2, f"GET /{key}\0GET\0/{key}")
            if key % 3 == 0:
                recorder.note(key, {"name": f"named {key}", "attributes": {"http.route": "/<id>"}})
                recorder.saw(key, here, key, task_state="running")
                recorder.add_event(key, "e", {"text": "x" * (key * 37 % 7000), "list": ["a", "b"]}, key)
        data = recorder.path.read_bytes()
        recorder.close()
        return data


class Fuzzer:
    """Makes files out of a seed, so that one that fails can be made again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cases: Counter[str] = Counter()
        self.found: Counter[str] = Counter()
        self.peak = 0
        self.seeds = [good_file(number) for number in (0, 3, 40, 300)]

    def place(self) -> int:
        """An offset, more often one where something begins."""
        draw = self.random
        kind = draw.randrange(4)
        if kind == 0:
            return draw.randrange(layout.FILE_SIZE)
        if kind == 1:
            return draw.randrange(layout.HEADER_SIZE if draw.random() < 0.1 else 200)
        if kind == 2:
            begin = layout.slot_offset(draw.randrange(40))
            return begin + draw.choice([0, layout.NOTE_OFFSET, layout.STACK_OFFSET]) + draw.randrange(560)
        return layout.page_offset(draw.randrange(60)) + draw.randrange(40)

    def piece(self) -> bytes:
        draw = self.random
        kind = draw.randrange(4)
        if kind == 0:
            return draw.choice(INTERESTING).to_bytes(8, "little")[: draw.choice([1, 2, 4, 8])]
        if kind == 1:
            return draw.randbytes(draw.randrange(1, 64))
        if kind == 2:
            return bytes(draw.randrange(1, 600))
        return draw.choice(HOSTILE_JSON)[: draw.randrange(1, 4000)]

    def mutated(self) -> bytearray:
        """A good file with some places overwritten."""
        data = bytearray(self.random.choice(self.seeds))
        for _ in range(self.random.choice([1, 2, 5, 20, 100])):
            place, piece = self.place(), self.piece()
            data[place : place + len(piece)] = piece
        del data[layout.FILE_SIZE :]
        return data

    def cut(self) -> bytearray:
        """A file that ends anywhere, or has more than it should."""
        data = self.mutated()
        if self.random.random() < 0.8:
            del data[self.place() :]
        else:
            data += self.random.randbytes(self.random.randrange(5000))
        return data

    def spliced(self) -> bytearray:
        """Parts of one file in another: what a writer may have left that was killed at any point."""
        data, other = self.mutated(), self.random.choice(self.seeds)
        for _ in range(self.random.randrange(1, 30)):
            start = self.place()
            end = start + self.random.choice([8, 64, 534, 1024, 4096, 40_000])
            data[start:end] = other[start:end]
        return data

    def random_bytes(self) -> bytearray:
        """Behind a good header, anything."""
        header = self.random.choice(self.seeds)[: layout.HEADER_SIZE if self.random.random() < 0.5 else 128]
        size = self.random.choice([0, 1000, 100_000, layout.FILE_SIZE])
        return bytearray(header + self.random.randbytes(size))

    def forged(self) -> bytearray:
        """Parts with good checksums and hostile content, many of them, for many slots of one number."""
        draw = self.random
        data = bytearray(draw.choice(self.seeds))
        for number in range(draw.choice([1, 10, layout.PAGE_COUNT])):
            content = (draw.choice(HOSTILE_JSON) * 2)[: layout.PAGE_BYTES]
            sealed = layout.sealed(layout.PAGE, (draw.choice([1, 1, 2, 3]), number, len(content)), content)
            place = layout.page_offset(number)
            data[place : place + len(sealed)] = sealed
        slot = bytes(data[layout.slot_offset(0) : layout.slot_offset(1)])
        for number in range(draw.choice([1, layout.SLOT_COUNT])):
            place = layout.slot_offset(number)
            data[place : place + len(slot)] = slot
            note = draw.choice(HOSTILE_JSON)[: layout.NOTE_BYTES]
            sealed = layout.sealed(layout.NOTE, (1, len(note)), note)
            data[place + layout.NOTE_OFFSET : place + layout.NOTE_OFFSET + len(sealed)] = sealed
            lines = draw.choice([b"1\tf\tx.py\n", b"\n", b"\t\t\n", b"9" * 50 + b"\tf\tx\n", b"\xff\t\xff\t\xff\n"])
            text = (lines * 3000)[: layout.STACK_BYTES]
            fields = (1, 1, 1, draw.randrange(5), draw.randrange(6), len(text))
            sealed = layout.sealed(layout.STACK, fields, text)
            data[place + layout.STACK_OFFSET : place + layout.STACK_OFFSET + len(sealed)] = sealed
        note = draw.choice(HOSTILE_JSON)
        sealed = layout.sealed(layout.BLOCK, (len(note),), note)
        data[layout.RESOURCE_OFFSET : layout.RESOURCE_OFFSET + len(sealed)] = sealed
        return data

    def check(self, data: bytes) -> None:
        again = data
        if self.random.random() < 0.1:
            again = bytes(self.mutated())
        try:
            record = parse_record(Path("x.flight"), data, again)
        except UnreadableRecord:
            self.found["unreadable"] += 1
            return
        self.found["readable"] += 1
        self.found["spans"] += len(record.spans)
        self.check_record(record)

    def check_record(self, record: FlightRecord) -> None:
        assert len(record.spans) <= layout.SLOT_COUNT
        fit(record.resource)
        for span in record.spans:
            assert 0 < span.trace_id < 2**128
            assert 0 < span.span_id < 2**64
            assert span.name.encode("utf-8") is not None
            fit(span.attributes)
            assert len(span.events) <= 64
            for event in span.events:
                assert event.name.encode("utf-8") is not None
                fit(event.attributes)
            if span.stack is not None:
                assert len(span.stack.frames) <= 128
                assert all(f"{frame}".encode() for frame in span.stack.frames)

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        kinds = [self.mutated, self.mutated, self.cut, self.spliced, self.spliced, self.random_bytes, self.forged]
        while time.monotonic() < end:
            kind = self.random.choice(kinds)
            data = bytes(kind())
            # Seldom, as it makes everything several times as slow.
            measured = self.random.random() < 0.05
            if measured:
                tracemalloc.start()
            self.check(data)
            if measured:
                peak = tracemalloc.get_traced_memory()[1]
                tracemalloc.stop()
                self.peak = max(self.peak, peak)
                assert peak < MAX_BYTES, peak
            self.cases[kind.__name__] += 1


def fit(attributes: dict[str, object]) -> None:
    """Any exporter can send them."""
    assert json.dumps(attributes, ensure_ascii=False).encode("utf-8")
    assert "" not in attributes
    for value in attributes.values():
        for each in value if isinstance(value, list) else [value]:
            assert isinstance(each, (str, bool, int, float))
            assert not isinstance(each, int) or abs(each) < 2**63


def main() -> None:
    """Fuzz, and say how many files that were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    fuzzer = Fuzzer(seed)
    try:
        fuzzer.run(arguments.seconds)
    except BaseException:
        sys.stderr.write(f"Failed with --seed {seed} after {sum(fuzzer.cases.values())} files.\n")
        raise
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(
        f"{sum(fuzzer.cases.values())} files, seed {seed}: {dict(fuzzer.cases)} {dict(fuzzer.found)};"
        f" {fuzzer.peak / 2**20:.1f} MiB for one file at most, {memory} MiB in all\n"
    )


if __name__ == "__main__":
    main()
