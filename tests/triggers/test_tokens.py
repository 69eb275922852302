"""Tokens: the right one is taken once, and nothing else ever is."""

from __future__ import annotations

import base64
import hmac
import logging
import re
import string
from urllib.parse import quote_plus

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from otel_introspect.errors import ConfigurationError
from otel_introspect.faults import counts
from otel_introspect.triggers.asking import asked
from otel_introspect.triggers.nonces import Nonces
from otel_introspect.triggers.refusal import Refused
from otel_introspect.triggers.tokens import MAX_TTL, SKEW, Verifier, canonical_query, sign, sign_travel

KEY = "a key that is long enough"
OTHER_KEY = "another one of them, also long"
NOW = 1_700_000_000
NONCE = bytes(range(16))
TRACE = 0x0AF7651916CD43DD8448EB211C80319C
TOKEN = sign(KEY, "GET", b"/report", "a=1&b=2", now=NOW, nonce=NONCE)
TRAVELLING = sign_travel(KEY, TRACE, ttl=300, now=NOW, nonce=NONCE)
BASE64 = string.ascii_letters + string.digits + "-_"


class AnyNonce(Nonces):
    """Every nonce is new: for tests of everything else."""

    def use(self, digest: bytes, until: int) -> bool:
        return True


def checker(key=KEY, now=NOW):
    return Verifier(key, AnyNonce(), clock=lambda: now)


def reason_of(token, method="GET", path=b"/report", query="a=1&b=2", *, by=None):
    """Why a token is refused; None if it is taken."""
    try:
        (by or checker()).verify(token, method, path, query)
    except Refused as refusal:
        return refusal.reason
    return None


def travel_reason_of(token, trace_id=TRACE, *, by=None):
    try:
        (by or checker()).verify_travel(token, trace_id)
    except Refused as refusal:
        return refusal.reason
    return None


def edited(token, part, text):
    parts = token.split(".")
    parts[part] = text
    return ".".join(parts)


any_text = st.text(st.characters(exclude_categories=()), max_size=40)
queries = st.one_of(
    any_text,
    st.lists(st.text("ab=&%+20 ;\xe4\u20ac", max_size=6), max_size=5).map("&".join),
)
texts = st.one_of(
    any_text, st.text(BASE64 + ".=", max_size=120), st.text("v10123456789.-_Aw= \n\u0660\uff11", max_size=120)
)


@given(
    method=any_text,
    path=st.binary(max_size=30),
    query=queries,
    ttl=st.integers(1, MAX_TTL),
    now=st.integers(0, 10**12 - 1),
    nonce=st.binary(min_size=16, max_size=16),
    key=st.text(st.characters(exclude_categories=()), min_size=16, max_size=80),
)
def test_what_was_signed_is_taken(*, method, path, query, ttl, now, nonce, key):
    """
    A token is taken for the request that it was made for, whatever that looks like, and is plain URL-safe text.
    """
    token = sign(key, method, path, query, ttl=ttl, now=now, nonce=nonce)

    assert reason_of(token, method, path, query, by=checker(key, now)) is None
    assert quote_plus(token) == token
    assert len(token) <= 88


def test_each_token_has_a_nonce_of_its_own():
    """
    Two tokens for the same request differ.
    """
    assert sign(KEY, "GET", b"/", "", now=NOW) != sign(KEY, "GET", b"/", "", now=NOW)


@given(method=any_text)
@example("HEAD")
@example("POST")
@example("get ")
@example("G\u0415T")
def test_another_method_is_refused(method):
    """
    A token for GET is for no other method, not even for HEAD; upper and lower case are the same one.
    """
    assume(not (method.isascii() and method.upper() == "GET"))

    assert reason_of(TOKEN, method) == "bad-signature"
    assert reason_of(TOKEN, "get") is None


def test_a_letter_that_only_looks_the_same_in_upper_case_is_another_one():
    """
    Only ASCII has an upper case here: what Unicode makes the same letter stays another method.
    """
    token = sign(KEY, "OPTIONS", b"/", "", now=NOW)

    assert "opt\u0131ons".upper() == "OPTIONS"
    assert reason_of(token, "opt\u0131ons", b"/", "") == "bad-signature"


@given(path=st.binary(max_size=30))
@example(b"/report/")
@example(b"/Report")
@example(b"/report\0")
@example(b"//report")
@example(b"")
def test_another_path_is_refused(path):
    """
    A token for one path is for no other.
    """
    assume(path != b"/report")

    assert reason_of(TOKEN, path=path) == "bad-signature"


@given(query=queries)
@example("b=2&a=1")
@example("a=1&b=2&c=3")
@example("a=1")
@example("a=1&b=2&b=2")
@example("a=1&b=2&")
@example("&a=1&b=2")
@example("a=1&&b=2")
@example("a=1&b=3")
@example("a=1;b=2")
@example("a=1%26b=2")
@example("a%3D1&b=2")
@example("A=1&b=2")
@example("a=1&b=2%00")
@example("")
def test_another_query_is_refused(query):
    """
    Content and order of the query string are part of what is signed: added, removed, swapped, it is another request.
    """
    assume(canonical_query(query) != [b"a", b"=1", b"b", b"=2"])

    assert reason_of(TOKEN, query=query) == "bad-signature"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a", "a="),
        ("a=b=c", "a%3Db=c"),
        ("a&b", "a%26b"),
        ("a=+", "a=%2B"),
        ("a=1&b=", "a=1&b"),
        ("=", ""),
        ("&", ""),
        ("x__introspect__=1", ""),
        ("ab=c", "a=bc"),
        ("a=%2541", "a=A"),
    ],
)
def test_queries_that_mean_different_things_are_different(one, other):
    """
    Decoding never makes two queries the same that an application could tell apart.
    """
    assert canonical_query(one) != canonical_query(other)
    assert reason_of(sign(KEY, "GET", b"/", one, now=NOW), "GET", b"/", other) == "bad-signature"


@given(
    pairs=st.lists(st.tuples(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8"))))
)
@example([("q", "a b+c/d~e%20é")])
def test_how_a_query_is_encoded_does_not_matter(pairs):
    """
    A browser that spells the same query in another way, escapes more of it or fewer, asks for the same page.
    """
    assume(not {name for name, _ in pairs} & {"__introspect__", "__geordi__"})
    plain = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    escaped = "&".join("=".join("".join(f"%{byte:02x}" for byte in text.encode()) for text in pair) for pair in pairs)
    token = sign(KEY, "GET", b"/", plain, now=NOW)

    assert reason_of(token, "GET", b"/", escaped) is None
    assert reason_of(token, "GET", b"/", plain.replace("+", "%20")) is None


@given(query=queries, ours=st.sampled_from(["__introspect__", "__introspect__=x", "__geordi__=", "%5F%5fgeordi%5F_=y"]))
def test_our_own_parameter_is_no_part_of_the_query(query, ours):
    """
    What is signed is the query without our parameter: the same before it was added, with it, and as the application
    gets it.
    """
    with_ours = f"{query}&{ours}" if query else ours

    assert canonical_query(with_ours) == canonical_query(query)
    assert canonical_query(asked(with_ours, None).query) == canonical_query(query)


def test_bytes_as_wsgi_passes_them_are_what_was_escaped():
    """
    A query with raw UTF-8, which WSGI passes as Latin-1, is the same as one in which it is escaped.
    """
    assert canonical_query("q=é".encode().decode("latin-1")) == canonical_query("q=%C3%A9") == [b"q", "=é".encode()]


@pytest.mark.parametrize(("part", "text"), [(1, str(NOW + 1)), (1, str(NOW - 1)), (2, "301"), (2, "86400")])
def test_another_time_is_refused(part, text):
    """
    Nobody without the key makes a token begin later or last longer.
    """
    assert reason_of(edited(TOKEN, part, text)) == "bad-signature"
    assert travel_reason_of(edited(TRAVELLING, part, text)) == "bad-signature"


@given(raw=st.binary(min_size=16, max_size=16))
def test_another_nonce_is_refused(raw):
    """
    A nonce that was exchanged, for one more try, spoils the token.
    """
    assume(raw != NONCE)
    other = base64.urlsafe_b64encode(raw).decode().rstrip("=")

    assert reason_of(edited(TOKEN, 3, other)) == "bad-signature"


@given(raw=st.binary(min_size=32, max_size=32))
def test_another_signature_is_refused(raw):
    """
    Any other 32 bytes are not the signature.
    """
    other = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    assume(other != TOKEN.split(".")[4])

    assert reason_of(edited(TOKEN, 4, other)) == "bad-signature"


@given(bit=st.integers(0, 255))
def test_one_bit_of_the_signature_is_enough(bit):
    """
    A signature of which a single bit is wrong is wrong.
    """
    raw = bytearray(base64.urlsafe_b64decode(TOKEN.split(".")[4] + "="))
    raw[bit // 8] ^= 1 << bit % 8

    assert reason_of(edited(TOKEN, 4, base64.urlsafe_b64encode(raw).decode().rstrip("="))) == "bad-signature"


@given(key=st.text(min_size=16))
@example(KEY + "\0")
@example(KEY + " ")
@example(KEY.upper())
def test_another_key_is_refused(key):
    """
    A token is worth nothing to a service with another key, and the same key with a zero byte after it is another one.
    """
    assume(key != KEY)

    assert reason_of(TOKEN, by=checker(key)) == "bad-signature"
    assert travel_reason_of(TRAVELLING, by=checker(key)) == "bad-signature"


def test_a_long_key_is_not_its_own_digest():
    """
    A key longer than a block of the hash differs from its digest, which plain HMAC would take in its place.
    """
    import hashlib

    long = "k" * 100
    digest = hashlib.sha256(long.encode()).digest().decode("latin-1")

    assert reason_of(sign(long, "GET", b"/", "", now=NOW), "GET", b"/", "", by=checker(digest)) == "bad-signature"


NONCE_TEXT, MAC_TEXT = TOKEN.split(".")[3:]
MALFORMED = {
    "empty": "",
    "padded": TOKEN + "=",
    "nonce padded": edited(TOKEN, 3, NONCE_TEXT + "=="),
    "space before": " " + TOKEN,
    "space after": TOKEN + " ",
    "newline after": TOKEN + "\n",
    "newline before": "\n" + TOKEN,
    "nul after": TOKEN + "\0",
    "quoted": f'"{TOKEN}"',
    "escaped": TOKEN.replace(".", "%2E"),
    "version in upper case": "V" + TOKEN[1:],
    "another version": "v2" + TOKEN[2:],
    "no version": TOKEN[3:],
    "standard alphabet": edited(TOKEN, 4, "+" + MAC_TEXT[1:]),
    "standard alphabet's slash": edited(TOKEN, 4, "/" + MAC_TEXT[1:]),
    "leading zero": edited(TOKEN, 1, f"0{NOW}"),
    "ttl with leading zero": edited(TOKEN, 2, "0300"),
    "sign": edited(TOKEN, 1, f"+{NOW}"),
    "negative": edited(TOKEN, 1, f"-{NOW}"),
    "underscore": edited(TOKEN, 2, "3_00"),
    "fraction": edited(TOKEN, 2, "3e2"),
    "hexadecimal": edited(TOKEN, 2, "0x12c"),
    "Arabic digits": edited(TOKEN, 2, "\u0663\u0660\u0660"),
    "full-width digits": edited(TOKEN, 2, "\uff13\uff10\uff10"),
    "superscript digits": edited(TOKEN, 2, "\xb3\xb0\xb0"),
    "ttl of nothing": edited(TOKEN, 2, "0"),
    "ttl over a day": edited(TOKEN, 2, "86401"),
    "no ttl": edited(TOKEN, 2, ""),
    "5,000 digits": edited(TOKEN, 1, "1" * 5000),
    "short nonce": edited(TOKEN, 3, NONCE_TEXT[:-1]),
    "long nonce": edited(TOKEN, 3, NONCE_TEXT + "A"),
    "short signature": TOKEN[:-1],
    "no signature": edited(TOKEN, 4, ""),
    "six parts": TOKEN + ".",
    "four parts": TOKEN.rpartition(".")[0],
    "Cyrillic letter": TOKEN.replace("v", "\u0475", 1),
    "surrogate": TOKEN[:-1] + "\udc41",
    "very long": TOKEN * 10_000,
}


@pytest.mark.parametrize("token", MALFORMED.values(), ids=MALFORMED)
def test_another_spelling_is_malformed(token):
    """
    A token has one spelling: no padding, no space around it, no other alphabet, digits or zeros.
    """
    assert reason_of(token) == "malformed"
    assert travel_reason_of(token) == "malformed"


@pytest.mark.parametrize("part", [3, 4])
def test_no_other_last_character_stands_for_the_same_bytes(part):
    """
    The bits that base64's last character has to spare are 0: the characters that decode to the same bytes are refused.
    """
    text = TOKEN.split(".")[part]
    raw = base64.urlsafe_b64decode(text + "==")
    same = [
        text[:-1] + last
        for last in BASE64
        if base64.urlsafe_b64decode(text[:-1] + last + "==") == raw and last != text[-1]
    ]

    assert len(same) == {3: 15, 4: 3}[part]
    assert {reason_of(edited(TOKEN, part, each)) for each in same} == {"malformed"}


@given(
    place=st.integers(0, len(TOKEN) - 1),
    change=st.sampled_from(["swap case", "delete", "double", "insert"]),
    other=any_text,
)
def test_no_slip_of_the_pen_is_taken(place, change, other):
    """
    One character in the other case, left out, doubled or put in between spoils the token.
    """
    character = TOKEN[place]
    wrong = (
        TOKEN[:place]
        + {
            "swap case": character.swapcase(),
            "delete": "",
            "double": character * 2,
            "insert": character + other,
        }[change]
        + TOKEN[place + 1 :]
    )
    assume(wrong != TOKEN)

    assert reason_of(wrong) in ("malformed", "bad-signature")


@given(token=texts, method=any_text, path=st.binary(max_size=30), query=queries, trace_id=st.integers())
def test_nothing_but_a_refusal_is_ever_raised(token, method, path, query, trace_id):
    """
    Whatever comes, the answer is a refusal with a reason: nobody without the key is let in or breaks anything.
    """
    assert reason_of(token, method, path, query) in ("malformed", "bad-signature")
    assert travel_reason_of(token, trace_id) in ("malformed", "bad-signature")


def test_the_time_for_which_it_is_valid():
    """
    It is valid from 30 s before it was issued until it has expired, by the clock of who verifies, and no longer.
    """
    reasons = {
        after: reason_of(TOKEN, by=checker(now=NOW + after)) for after in (-31, -30.5, -30, 0, 300, 300.5, 10**9)
    }

    assert SKEW == 30
    assert reasons == {
        -31: "not-yet-valid",
        -30.5: "not-yet-valid",
        -30: None,
        0: None,
        300: None,
        300.5: "expired",
        10**9: "expired",
    }


def test_a_wrong_signature_learns_nothing_of_the_time(directory, wall):
    """
    Without the right signature the answer is the same for a token that is expired, early, or used: its signature is
    wrong.
    """
    verifier = Verifier(KEY, Nonces(directory, clock=wall), clock=wall)
    verifier.verify(TOKEN, "GET", b"/report", "a=1&b=2")
    wrong = edited(TOKEN, 4, "A" * 43)

    assert reason_of(wrong, by=verifier) == "bad-signature"
    assert reason_of(wrong, by=checker(now=NOW + 10**6)) == "bad-signature"
    assert reason_of(wrong, by=checker(now=0)) == "bad-signature"


@pytest.mark.parametrize("answer", [True, False])
def test_the_constant_time_comparison_decides(monkeypatch, answer):
    """
    Whether a signature is right is what ``hmac.compare_digest`` says of all of it, and nothing else.
    """
    compared = []

    def compare(one, other):
        compared.append((one, other))
        return answer

    monkeypatch.setattr(hmac, "compare_digest", compare)
    wrong = edited(TOKEN, 4, "A" * 43)
    taken = [reason_of(each) is None for each in (TOKEN, wrong)]
    travelled = [travel_reason_of(each) is None for each in (TRAVELLING, edited(TRAVELLING, 4, "A" * 43))]

    assert taken == travelled == [answer, answer]
    assert len(compared) == 4
    assert {len(each) for pair in compared for each in pair} == {32}


def test_it_counts_once(verifier):
    """
    The same token for the same request a second time is refused as replayed.
    """
    assert reason_of(TOKEN, by=verifier) is None
    assert [reason_of(TOKEN, by=verifier) for _ in range(3)] == ["replayed"] * 3


def test_another_worker_knows_that_it_has_been_used(wall, directory):
    """
    A token that one process has taken is refused by every other one that shares its directory.
    """
    one, other = (Verifier(KEY, Nonces(directory, clock=wall), clock=wall) for _ in range(2))

    assert reason_of(TOKEN, by=one) is None
    assert reason_of(TOKEN, by=other) == "replayed"


def test_a_token_that_is_refused_is_not_used_up(verifier, wall):
    """
    A token that came too early, or with another request, still counts once where it belongs.
    """
    wall.now = NOW - 100
    early = reason_of(TOKEN, by=verifier)
    wall.now = NOW
    elsewhere = reason_of(TOKEN, path=b"/other", by=verifier)

    assert (early, elsewhere, reason_of(TOKEN, by=verifier)) == ("not-yet-valid", "bad-signature", None)


def test_it_is_remembered_for_as_long_as_it_is_valid(verifier, wall):
    """
    There is no moment at which a used token is forgotten and not yet expired.
    """
    assert reason_of(TOKEN, by=verifier) is None
    for after in (1, 299, 300, 301, 331, 400, 100_000):
        wall.now = NOW + after
        # Another one, so that what has expired is cleaned up.
        assert reason_of(sign(KEY, "GET", b"/", "", now=wall.now), "GET", b"/", "", by=verifier) is None
        assert reason_of(TOKEN, by=verifier) == ("replayed" if after <= 300 else "expired")


def test_what_is_remembered_is_a_digest_and_the_last_moment():
    """
    What is kept of a token is 32 bytes that are not its nonce, and the last second in which it would be taken.
    """
    noted = []

    class Noting(Nonces):
        def use(self, digest: bytes, until: int) -> bool:
            noted.append((digest, until))
            return True

    for key in (KEY, OTHER_KEY):
        token = sign(key, "GET", b"/", "", now=NOW, nonce=NONCE)
        Verifier(key, Noting(), clock=lambda: NOW).verify(token, "GET", b"/", "")

    assert [until for _, until in noted] == [NOW + 300 + SKEW] * 2
    assert len({digest for digest, _ in noted}) == 2
    assert all(len(digest) == 32 and NONCE not in digest for digest, _ in noted)


def test_keys_do_not_use_up_each_other_s_nonces(wall, directory):
    """
    The same nonce under another key is another one.
    """
    nonces = Nonces(directory, clock=wall)
    for key in (KEY, OTHER_KEY):
        token = sign(key, "GET", b"/report", "a=1&b=2", now=NOW, nonce=NONCE)

        assert reason_of(token, by=Verifier(key, nonces, clock=wall)) is None


def test_without_a_key_nothing_is_taken():
    """
    Without a key every token is refused.
    """
    assert reason_of(TOKEN, by=checker("")) == "no-key"
    assert reason_of("", by=checker("")) == "no-key"
    assert travel_reason_of(TRAVELLING, by=checker("")) == "no-key"


def test_a_key_that_can_be_guessed_is_warned_about(caplog):
    """
    A short key works; that it can be guessed is said once, without the key.
    """
    for _ in range(2):
        token = sign("hunter2", "GET", b"/report", "a=1&b=2", now=NOW, nonce=NONCE)
        assert reason_of(token, by=checker("hunter2")) is None
        assert reason_of(TOKEN, by=checker("hunter2")) == "bad-signature"

    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "OTEL_PYTHON_INTROSPECT_PROFILER_KEY has fewer than 16 characters" in caplog.text
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize(
    "wrong",
    [
        {"key": ""},
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": MAX_TTL + 1},
        {"now": -1},
        {"now": 10**12},
        {"nonce": b""},
        {"nonce": b"x" * 15},
        {"nonce": b"x" * 17},
    ],
)
def test_what_nobody_would_take_is_not_signed(wrong):
    """
    Signing without a key, or for a time out of bounds, fails with what is wrong, and without the key.
    """
    given = {"key": KEY, "ttl": 300, "now": NOW, "nonce": NONCE} | wrong
    key = given.pop("key")

    with pytest.raises(ConfigurationError, match=r"key|ttl|now|nonce") as raised:
        sign(key, "GET", b"/", "", **given)
    with pytest.raises(ConfigurationError):
        sign_travel(key, TRACE, **given)

    assert not key or key not in str(raised.value)


def test_the_longest_and_the_shortest_time_are_taken():
    """
    A second and a day are within the bounds.
    """
    for ttl in (1, MAX_TTL):
        assert reason_of(sign(KEY, "GET", b"/", "", ttl=ttl, now=NOW), "GET", b"/", "") is None


def test_now_and_a_fresh_nonce_are_the_default():
    """
    A token that is signed without further arguments is valid now, for five minutes.
    """
    token = sign(KEY, "GET", b"/", "")

    Verifier(KEY, AnyNonce()).verify(token, "GET", b"/", "")
    assert re.fullmatch(r"v1\.[0-9]{10}\.300\.[\w-]{22}\.[\w-]{43}", token)


@given(trace_id=st.integers(0, 2**128 - 1), now=st.integers(0, 10**12 - 1), ttl=st.integers(1, MAX_TTL))
def test_a_travelling_decision_is_taken_by_every_service_of_its_trace(trace_id, now, ttl):
    """
    The travelling token is taken for its trace, as often as it comes, and for no other.
    """
    token = sign_travel(KEY, trace_id, ttl=ttl, now=now)

    assert [travel_reason_of(token, trace_id, by=checker(now=now)) for _ in range(5)] == [None] * 5
    assert travel_reason_of(token, trace_id ^ 1, by=checker(now=now)) == "bad-signature"
    assert quote_plus(token) == token


def test_a_travelling_decision_expires():
    """
    The travelling token is valid for its time and the skew of the clocks, as any other.
    """
    reasons = {after: travel_reason_of(TRAVELLING, by=checker(now=NOW + after)) for after in (-31, -30, 300, 331)}

    assert reasons == {-31: "not-yet-valid", -30: None, 300: None, 331: "expired"}


@pytest.mark.parametrize(
    "trace_id", [0, -TRACE, TRACE + 1, TRACE >> 4, TRACE + 2**128, 1 << 20_000], ids=lambda each: hex(each)[:40]
)
def test_a_travelling_decision_is_for_no_other_trace(trace_id):
    """
    No other number is the trace that was signed, however long it is.
    """
    assert travel_reason_of(TRAVELLING, trace_id) == "bad-signature"


def test_a_token_serves_the_purpose_that_it_was_made_for():
    """
    A token that was made for a request does not travel, and one that travels starts no request by itself.
    """
    assert travel_reason_of(TOKEN) == "bad-signature"
    assert reason_of(TRAVELLING) == "bad-signature"
    assert reason_of(TRAVELLING, f"{TRACE:032x}", b"", "") == "bad-signature"


def test_a_travelling_decision_uses_no_nonce(wall, directory, tmp_path):
    """
    Verifying a travelling token leaves nothing on the disk.
    """
    Verifier(KEY, Nonces(directory, clock=wall), clock=wall).verify_travel(TRAVELLING, TRACE)

    assert list(tmp_path.iterdir()) == []


def test_each_refusal_is_counted():
    """
    A refusal is counted by its reason.
    """
    reason_of("")
    reason_of(TOKEN, path=b"/other")
    travel_reason_of(TRAVELLING, 1)

    assert counts == {("refused", "profile: malformed"): 1, ("refused", "profile: bad-signature"): 2}
