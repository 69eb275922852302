"""Fuzzes what a stranger may send: tokens, query strings, addresses.

``python tests/fuzz/fuzz_tokens.py --seconds 600`` says how many cases it has tried, or how to try the one that failed.
Nothing but a refusal may be raised, and no token may be taken that was not signed for exactly this request.
"""

from __future__ import annotations

import argparse
import base64
import random
import sys
import time
from collections import Counter

from otel_introspect.triggers.asking import asked, is_loopback
from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.refusal import Refused
from otel_introspect.triggers.tokens import MAX_TTL, SKEW, Verifier, canonical_query, sign, sign_travel

KEY = "the key of the service"
NOW = 1_700_000_000
BASE64 = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
HOSTILE = [
    *"=+/ .%&;?#\0\n\r\t\"'\\-_0123456789vVaAzZ",
    *["\u0660", "\uff11", "\xb2", "\xe9", "\u0130", "\u0131", "\u2028", "\ufeff", "\ud800", "\udcff", "\U0001f600"],
    *["v1.", "v2.", "..", "==", "%2E", "%2e", "%00", "%zz", "%", "%%", "%c3%a9", "%e9", "%5F%5Fintrospect__"],
    *["__introspect__", "__geordi__", "__introspect__=", "&__introspect__&", "&&", "&=&", "a=1", "b=2", "a=1&b=2"],
    *["9" * 13, "9" * 5000, "0" * 20, "-1", "1e9", "1_0", "0x10", "inf", "nan"],
    *["127.0.0.1", "::1", "[::1]:80", "for=", 'for="[::1]"', "by=10.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", ",", ":"],
]
METHODS = ["GET", "get", "POST", "HEAD", "OPTIONS", "PURGE"]


class AnyNonce(Nonces):
    """Takes every nonce: what is fuzzed is all that comes before."""

    def use(self, digest: bytes, until: int) -> bool:
        return len(digest) == 32 and until >= 0


class Fuzzer:
    """Makes cases out of a seed, so that one that fails can be made again."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.cases: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.now = NOW
        self.verifier = Verifier(KEY, AnyNonce(), clock=lambda: self.now)

    def text(self, longest: int = 12) -> str:
        draw = self.random
        return "".join(
            draw.choice(HOSTILE) if draw.random() < 0.8 else chr(draw.randrange(0x110000))
            for _ in range(draw.randrange(longest))
        )

    def query(self) -> str:
        draw = self.random
        if draw.random() < 0.5:
            return self.text()
        pieces = [draw.choice(["a=1", "b=2", "a=", "a", "", "c=%20", "c=+", "é=ü"]) for _ in range(draw.randrange(5))]
        return "&".join(pieces)

    def mutated(self, text: str) -> str:
        draw = self.random
        for _ in range(draw.choice([1, 1, 1, 2, 5])):
            place = draw.randrange(len(text) + 1)
            kind = draw.randrange(8)
            if kind == 0:
                text = text[:place] + text[place + 1 :]
            elif kind == 1:
                text = text[:place] + draw.choice(HOSTILE) + text[place:]
            elif kind == 2:
                text = text[:place] + draw.choice(HOSTILE) + text[place + 1 :]
            elif kind == 3:
                text = text[:place] + draw.choice(BASE64) + text[place + 1 :]
            elif kind == 4:
                text = text[:place] + text[place:].swapcase()
            elif kind == 5:
                other = draw.randrange(len(text) + 1)
                text = text[: min(place, other)] + text[max(place, other) :]
            elif kind == 6:
                parts = text.split(".")
                parts[draw.randrange(len(parts))] = draw.choice([*parts, self.text(4), self.number(), self.base64()])
                text = ".".join(parts)
            else:
                text = text[:place] + chr(draw.randrange(0x110000)) + text[place + 1 :]
        return text

    def number(self) -> str:
        return str(self.random.choice([NOW, NOW + 1, 300, 301, MAX_TTL, MAX_TTL + 1, self.random.randrange(10**13)]))

    def base64(self) -> str:
        raw = self.random.randbytes(self.random.choice([16, 32, 15, 33]))
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")

    def verify(self) -> None:
        """A token that is signed for one request, changed or not, and shown with the same request or a changed one."""
        draw = self.random
        method, path, query = draw.choice(METHODS), draw.randbytes(draw.randrange(8)), self.query()
        ttl = draw.randrange(1, MAX_TTL + 1)
        token = sign(KEY, method, path, query, ttl=ttl, now=NOW, nonce=draw.randbytes(16))
        shown, method_, path_, query_ = token, method, path, query
        what = draw.randrange(6)
        if what == 0:
            shown = self.mutated(token)
        elif what == 1:
            method_ = draw.choice([*METHODS, self.text(3)])
        elif what == 2:
            path_ = draw.choice([path + b"/", path[:-1], draw.randbytes(draw.randrange(8))])
        elif what == 3:
            query_ = draw.choice([self.mutated(query), self.query()])
        elif what == 4:
            shown = draw.choice([self.text(), sign_travel(KEY, 1, ttl=ttl, now=NOW)])
        after = draw.choice([0, -SKEW, -SKEW - 1, ttl, ttl + 1, draw.randrange(-200_000, 200_000)])
        self.now = NOW + after
        same = (
            shown == token
            and method_.encode("utf-8", "surrogatepass").upper() == method.encode().upper()
            and path_ == path
            and canonical_query(query_) == canonical_query(query)
        )
        try:
            self.verifier.verify(shown, method_, path_, query_)
            taken = True
        except Refused as refusal:
            taken = False
            self.reasons[refusal.reason] += 1
        expected = same and -SKEW <= after <= ttl
        assert taken is expected, (token, shown, method, method_, path, path_, query, query_, after)
        self.reasons["taken"] += taken

    def verify_travel(self) -> None:
        """The same for a token that travels."""
        draw = self.random
        trace_id = draw.getrandbits(128)
        token = sign_travel(KEY, trace_id, ttl=300, now=NOW, nonce=draw.randbytes(16))
        shown = draw.choice(
            [token, self.mutated(token), self.mutated(token), self.text(), sign(KEY, "GET", b"/", "", now=NOW)]
        )
        other = draw.choice(
            [trace_id, trace_id, trace_id ^ (1 << draw.randrange(128)), -trace_id, draw.getrandbits(200)]
        )
        self.now = NOW
        try:
            self.verifier.verify_travel(shown, other)
            taken = True
        except Refused as refusal:
            taken = False
            self.reasons[refusal.reason] += 1
        assert taken is (shown == token and other == trace_id), (token, shown, trace_id, other)
        self.reasons["taken"] += taken

    def ask(self) -> None:
        """A query string and a header of any kind: what is left of the query has nothing of ours in it."""
        query = self.mutated(self.query())
        header = self.random.choice([None, None, "", self.text(4)])
        found = asked(query, header)
        if found is None:
            assert header is None
            assert canonical_query(query) == canonical_query(query + "&__introspect__=x")
            return
        assert asked(found.query, None) is None, query
        assert canonical_query(query) == canonical_query(found.query), query
        pieces = iter(query.split("&"))
        assert all(piece in pieces for piece in found.query.split("&") if piece), query
        try:
            self.verifier.verify(found.token, "GET", b"/", query)
        except Refused as refusal:
            self.reasons[refusal.reason] += 1
        else:
            raise AssertionError(query)

    def canonical(self) -> None:
        """Two queries mean the same only if their pieces do."""
        one, other = self.query(), self.query()
        same = canonical_query(one) == canonical_query(other)
        assert len(canonical_query(one)) % 2 == 0
        if same and (one + other).isascii() and "%" not in one + other and "+" not in one + other:
            left = [asked(f"{each}&__geordi__", None).query for each in (one, other)]
            assert left[0] == left[1], (one, other)

    def loopback(self) -> None:
        """Addresses and forwarding headers of any kind."""
        forwarded = [self.text(5) for _ in range(self.random.randrange(3))]
        if is_loopback(self.random.choice(["127.0.0.1", "::1", self.text(3)]), forwarded):
            assert not any("10.0.0.1" in each.replace("by=10.0.0.1", "") for each in forwarded), forwarded

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        kinds = [self.verify, self.verify, self.verify, self.verify_travel, self.ask, self.canonical, self.loopback]
        while time.monotonic() < end:
            for _ in range(100):
                kind = self.random.choice(kinds)
                kind()
                self.cases[kind.__name__] += 1


def main() -> None:
    """Fuzz, and say how many cases that were."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = random.randrange(2**32) if arguments.seed is None else arguments.seed
    fuzzer = Fuzzer(seed)
    try:
        fuzzer.run(arguments.seconds)
    except BaseException:
        sys.stderr.write(f"Failed with --seed {seed} after {sum(fuzzer.cases.values())} cases.\n")
        raise
    sys.stdout.write(f"{sum(fuzzer.cases.values())} cases, seed {seed}: {dict(fuzzer.cases)} {dict(fuzzer.reasons)}\n")


if __name__ == "__main__":
    main()
