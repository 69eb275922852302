"""What otelcol-redaction.yaml takes out of real evidence, and that it takes out nothing else."""

from __future__ import annotations

import copy
import re

import pytest
import re2
from collector_files import collector, text
from every_evidence import LABELS, LOCALS, SECRETS, as_log_records, events_of, messages, spans_of
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData
from ottl_model import Parser, UnknownError, replace_all, transform

REDACTED = "[redacted]"
QUERIES = {"url.query", "http.request.header.authorization", "http.request.header.user_agent", "api_key", LOCALS}


@pytest.fixture(name="redact", scope="module")
def _redact():
    config = collector("otelcol-redaction.yaml")["processors"]["transform/redact"]

    def redact(message):
        redacted = copy.deepcopy(message)
        transform(config, redacted)
        return redacted

    return redact


def strings(message):
    """Every string in a message, by its place."""
    found = {}

    def collect(each, path):
        if isinstance(each, dict):
            for key, value in each.items():
                collect(value, f"{path}.{key}")
        elif isinstance(each, list):
            for at, value in enumerate(each):
                collect(value, f"{path}[{at}]")
        elif isinstance(each, str):
            found[path] = each

    collect(MessageToDict(message), "")
    return found


def text_of(message):
    return "\n".join(strings(message).values())


def attributes(holder):
    return {pair.key: pair.value for pair in holder.attributes}


def test_the_evidence_has_secrets_to_begin_with():
    """
    Each of the secrets is somewhere in the spans, so that its absence afterwards means something.
    """
    everything = "\n".join(map(text_of, messages().values()))

    assert [secret for secret in SECRETS if secret not in everything] == []
    assert all(secret in text_of(messages()["slow"]) for secret in ("hunter2", "s3cr3t", "eyJhbGciOiJIUzI1NiJ9"))


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("form", ["spans", "log records"])
def test_no_secret_is_left(redact, label, form):
    """
    None is left in spans, in their events, or in the same evidence as log records.
    """
    message = messages()[label] if form == "spans" else as_log_records(messages()[label])

    left = text_of(redact(message))

    assert [secret for secret in SECRETS if secret in left] == []


def test_locals_and_what_is_secret_by_its_name_are_gone(redact):
    """
    The locals' key, query strings and captured headers are no attributes any more; all other keys are still there.
    """
    before = messages()["slow"]
    after = redact(before)

    for old, new in zip(spans_of(before), spans_of(after), strict=True):
        assert set(attributes(old)) - set(attributes(new)) == set(attributes(old)) & QUERIES
    for old, new in zip(events_of(before), events_of(after), strict=True):
        assert set(attributes(old)) - set(attributes(new)) <= {LOCALS}
    assert any(LOCALS in attributes(event) for event in events_of(before))
    assert not any(LOCALS in attributes(event) for event in events_of(after))


def test_urls_keep_all_but_their_query(redact):
    """
    Scheme, host and path of a URL stay; user, password and query go.
    """
    (span,) = [span for span in spans_of(redact(messages()["slow"])) if not span.name.startswith("slow: ")]
    found = {key: value.string_value for key, value in attributes(span).items()}

    assert found["url.full"] == "https://[redacted]@shop.example/orders/7?[redacted]"
    assert found["http.target"] == "/orders/7?[redacted]"
    assert found["url.path"] == "/orders/7"


def test_the_stack_is_whole_but_for_the_literals(redact):
    """
    Of a stack each line is still there, and all files, lines and functions; only the literals are something else.
    """
    for old, new in zip(events_of(messages()["slow"]), events_of(redact(messages()["slow"])), strict=True):
        if "code.stacktrace" not in attributes(old):
            continue
        before = attributes(old)["code.stacktrace"].string_value.splitlines()
        after = attributes(new)["code.stacktrace"].string_value.splitlines()
        changed = [(one, other) for one, other in zip(before, after, strict=True) if one != other]
        assert [one for one, _ in changed if one.lstrip().startswith("File ")] == []
        assert {other.strip() for _, other in changed} <= {
            'sign_in(seconds, password=[redacted], token=[redacted], headers={"Authorization": [redacted]})'
        }
        assert any("another-request" in line or "File" in line for line in after)


@pytest.mark.parametrize("label", ["fast", "recovered", "snapshot in code", "profiled in code", "not enforced"])
def test_what_holds_no_secret_arrives_byte_by_byte(redact, label):
    """
    Where there is nothing to redact, not one byte is different.
    """
    before = messages()[label]

    assert redact(before).SerializeToString(deterministic=True) == before.SerializeToString(deterministic=True)


def test_only_what_is_meant_is_changed(redact):
    """
    In all the evidence, a string that is different afterwards is one that says so, and numbers and ids are the same.
    """
    for message in messages(with_locals=False).values():
        before, after = strings(message), strings(redact(message))
        for new in set(after.values()) - set(before.values()):
            assert REDACTED in new
        for old, new in zip(spans_of(message), spans_of(redact(message)), strict=True):
            assert (old.trace_id, old.span_id, old.start_time_unix_nano) == (
                new.trace_id,
                new.span_id,
                new.start_time_unix_nano,
            )


def statements():
    config = collector("otelcol-redaction.yaml")["processors"]["transform/redact"]
    return [
        statement
        for kind in ("trace_statements", "log_statements", "metric_statements")
        for group in config[kind]
        for statement in group["statements"]
    ]


def patterns():
    """The regular expressions, each once."""
    found = {}
    for statement in statements():
        (_, function, arguments), _ = Parser(statement).statement()
        literals = [node[1] for node in arguments if node[0] == "string"]
        if function == "delete_matching_keys":
            found[literals[0]] = None
        elif function.startswith("replace"):
            found[literals[-2]] = literals[-1]
    return found


def test_every_pattern_is_one_for_re2():
    """
    The collector is a Go program: each pattern compiles under RE2, and refers to groups that it has.
    """
    for pattern, replacement in patterns().items():
        compiled = re2.compile(pattern)
        if replacement is not None:
            assert replacement.count("$1") <= compiled.groups
            assert "$2" not in replacement


def test_a_dollar_is_doubled_or_a_variable():
    """
    The collector puts variables in first: a $ that is meant for a pattern's replacement is written twice.
    """
    lines = [line for line in text("otelcol-redaction.yaml").splitlines() if not line.lstrip().startswith("#")]
    content = "\n".join(lines)

    assert re.sub(r"\$\{env:\w+:-[^}]+\}|\$\$1", "", content).count("$") == 0


def redacted(line):
    for pattern, replacement in patterns().items():
        if replacement is not None and not pattern.startswith("[?]"):
            line = replace_all(pattern, replacement, line)
    return line


@pytest.mark.parametrize(
    "line",
    [
        'password = "SECRET"',
        "DB_PASSWORD='SECRET'",
        'token: str = "SECRET"',
        'api_key: Optional[str] = f"SECRET"',
        'headers["X-Api-Key"] = "SECRET"',
        'os.environ.setdefault("API_KEY", "SECRET")',
        '{"client_secret": "SECRET", "page": 2}',
        'if token == "SECRET":',
        'if (secret := "SECRET"):',
        'password = """SECRET""" + salt',
        "password = 'it\\'s SECRET'",
        'password = "SECRET that was cut off',
        "connect(host='db', password=b'SECRET')",
        "host=db user=bob password=SECRET dbname=shop",
        "curl --token=SECRET https://example.com",
        "GET https://example.com/a?b=SECRET&c=SECRET HTTP/1.1",
        "s3://bucket/x.html?X-Amz-Signature=SECRET",
        "postgres://bob:SECRET@db/shop",
        "Authorization: Bearer SECRET",
        "Cookie: a=SECRET; b=SECRET",
        "Set-Cookie: sessionid=SECRET; HttpOnly",
        "X-Auth-Token: SECRET",
        "used bearer SECRETSECRETSECRET here",
        "csrf_token=SECRET&next=/",
        'json.loads("{\\"password\\": \\"SECRET\\", \\"page\\": 2}")',
        'user.set_password("SECRET")',
        'PASSWORD = ("SECRET"',
        'passwords = ["SECRET"]',
        'password = "a" "SECRET"',
        "token = \"a\" + b'SECRET'",
        'Client(signing_key="SECRET")',
        "ENCRYPTION_KEY=SECRET",
        "postgresql://bob:p@SECRET@db/shop",
        "OTEL_EXPORTER_OTLP_HEADERS=api-key=SECRET,other=1",
    ],
)
def test_secrets_by_their_name(line):
    """
    Each way in which a secret is usually written down is found, in one line of source or of a message.
    """
    assert "SECRET" not in redacted(line)


# Put together here, so that nobody takes them for real ones.
FORMS = {
    "jwt": "eyJhbGciOiJIUzI1NiJ9" + ".eyJzdWIiOiIxMjM0In0" + ".c2lnbmF0dXJl",
    "aws": "AKIA" + "EXAMPLE0" * 2,
    "github": "ghp_" + "a1" * 18,
    "gitlab": "glpat-" + "a1" * 10,
    "slack": "xoxb-" + "12-ab-" * 4,
    "stripe": "sk_live_" + "a1" * 12,
    "pem": "-----BEGIN RSA " + "PRIVATE KEY-----MIIEow",
}


@pytest.mark.parametrize("form", FORMS)
def test_secrets_by_their_form_alone(form):
    """
    Tokens that say what they are need no name beside them.
    """
    assert redacted(f"ValueError: {FORMS[form]} is not known") == "ValueError: [redacted] is not known"


def test_a_whole_private_key_goes_and_no_line_after_it():
    """
    Of a private key over many lines all are hidden, and of a key that was cut off no line of the stack below it.
    """
    begin, end = FORMS["pem"], "-----END RSA " + "PRIVATE KEY-----"

    assert redacted(f"no {begin}\nAbC+/=\n{end} here") == "no [redacted] here"
    assert redacted(f'no {begin}\n  File "a.py"') == 'no [redacted]\n  File "a.py"'


@pytest.mark.parametrize(
    "line",
    [
        "    tokens = tokenizer.encode(text, add_special_tokens=False)",
        "    reply = model.generate(prompt, max_tokens=512)",
        "    return sorted(items, key=lambda item: item[0])",
        "    return sorted(items, key=itemgetter('age'))",
        "    def refresh(self, token: str, secret: bytes) -> str:",
        '    if token in ("(", ")"):',
        "    if token.type == tokenize.NAME:",
        '    raise ImproperlyConfigured("The SECRET_KEY setting must not be empty.")',
        "    request_token = request.POST.get('csrfmiddlewaretoken')",
        '    path("password/reset/", views.password_reset, name="password_reset"),',
        "KeyError: 'token'",
        '  File "/srv/shop/token.py", line 12, in refresh_token',
        '  File "/srv/secret/password.py", line 1, in <module>',
        "    token = get_token(request)",
        "    return self.session.get(url, timeout=5)",
        "    with self.lock:",
        '    if not token:\n  File "/srv/shop/views.py", line 3, in view',
        "    password = form.cleaned_data",
        "0.512 get_token  auth_token.py:12",
        "└─ 1.302 reserve  stock.py:52",
        "SELECT id FROM token WHERE age > 3",
        "    cache_key = make_key(order)",
        "https://shop.example/orders/7",
        "basic understanding of digest",
        "    monkey=1, hockey=2",
    ],
)
def test_what_only_looks_like_one_stays(line):
    """
    Names of files, functions and variables, and code without literals, are the evidence: they stay as they are.
    """
    assert redacted(line) == line


def test_the_model_refuses_what_it_does_not_know():
    """
    A statement of another kind is an error here, rather than one that nobody has tested.
    """
    with pytest.raises(UnknownError):
        Parser("set(span.attributes[0], 1)").statement()
    with pytest.raises((UnknownError, KeyError)):
        transform(
            {"trace_statements": [{"context": "span", "statements": ['truncate_all(span.attributes, "4")']}]},
            _one_span(),
        )


def _one_span():
    data = TracesData()
    data.resource_spans.add().scope_spans.add().spans.add(name="GET /")
    return data
