"""What must never be seen: names of secrets, and the shapes in which they come. None of them looks like a secret."""

from __future__ import annotations

import enum
import json
import types
import urllib.parse
from collections import OrderedDict, defaultdict, deque, namedtuple
from dataclasses import make_dataclass

SECRET = "hunter2zzz"

NAMES = (
    "password",
    "PASSWORD",
    "passwd",
    "pwd",
    "db_pwd",
    "pass",
    "dbpass",
    "user_pass",
    "userPassword",
    "new_password1",
    "passphrase",
    "Passwort",
    "contraseña",
    "mot_de_passe",
    "secret",
    "SECRET_KEY",
    "clientSecret",
    "token",
    "tokens",
    "access_token",
    "accessToken",
    "refreshtoken",
    "csrfmiddlewaretoken",
    "csrf",
    "X-CSRFToken",
    "xsrf",
    "api_key",
    "apikey",
    "apiKey",
    "APIKey",
    "X-Api-Key",
    "access_key",
    "AWS_SECRET_ACCESS_KEY",
    "private_key",
    "privateKey",
    "signing_key",
    "signingkey",
    "encryption-key",
    "key",
    "keys",
    "primary_key",
    "auth",
    "oauth",
    "basicAuth",
    "authorization",
    "Authorization",
    "HTTP_AUTHORIZATION",
    "proxy-authorization",
    "credential",
    "credentials",
    "aws.credentials",
    "cookie",
    "cookies",
    "HTTP_COOKIE",
    "Set-Cookie",
    "session",
    "sessionid",
    "PHPSESSID",
    "session_key",
    "sid",
    "signature",
    "sig",
    "hmac",
    "otp",
    "totp_code",
    "pin",
    "card_pin",
    "ssn",
    "cvv",
    "cvc",
    "iban",
    "card",
    "credit_card",
    "creditCardNumber",
    "cardnumber",
    "bearer",
    "jwt",
    "salt",
    "dsn",
    "nonce",
)

HARMLESS = (
    "user",
    "author",
    "authors",
    "keyboard",
    "keynote",
    "passenger",
    "passage",
    "spin",
    "pinned",
    "discard",
    "cardinality",
    "order_id",
    "pk",
    "amount",
    "encounter",
    "company",
    "span",
    "position",
    "signal",
    "assignment",
    "side",
)


class _Plain:
    pass


def _object(name, secret):
    made = _Plain()
    vars(made)[name] = secret
    return made


def _identifier(name):
    cleaned = "".join(character if character.isalnum() else "_" for character in name)
    return cleaned if cleaned != "pass" else "pass_"


def _slotted(name, secret):
    made = type("Slotted", (), {"__slots__": (_identifier(name),)})()
    setattr(made, _identifier(name), secret)
    return made


def _enumerated(name, secret):
    return {enum.Enum("Field", {"FIELD": name}).FIELD: secret}


SHAPES = {
    "dict": lambda name, secret: {name: secret},
    "dict of bytes": lambda name, secret: {name.encode(): secret.encode()},
    "dict of lists": lambda name, secret: {name: [secret, {"a": secret}]},
    "nested": lambda name, secret: {"a": [{name: secret}]},
    "ordered": lambda name, secret: OrderedDict({name: secret}),
    "default": lambda name, secret: defaultdict(list, {name: [secret]}),
    "derived": lambda name, secret: type("Headers", (dict,), {})({name: secret}),
    "key of a derived string": lambda name, secret: {type("Header", (str,), {})(name): secret},
    "key in a tuple": lambda name, secret: {("user", name): secret},
    "key in an enumeration": _enumerated,
    "pair": lambda name, secret: (name, secret),
    "pairs": lambda name, secret: [("host", "x"), (name, secret)],
    "pairs of bytes": lambda name, secret: [(name.encode(), secret.encode())],
    "list": lambda name, secret: ["x", name, secret],
    "deque": lambda name, secret: deque([name, secret]),
    "arguments": lambda name, secret: ["prog", f"--{name}", secret],
    "argument": lambda name, secret: ["prog", f"--{name}={secret}"],
    "named in a dict": lambda name, secret: {"name": name, "value": secret},
    "object": _object,
    "objects": lambda name, secret: [_object(name, secret)],
    "namespace": lambda name, secret: types.SimpleNamespace(**{name: secret}),
    "slots": _slotted,
    "named tuple": lambda name, secret: namedtuple("Login", ("a", _identifier(name)))(1, secret),  # noqa: PYI024 - named at run time
    "dataclass": lambda name, secret: make_dataclass("Login", [_identifier(name)])(secret),
    "exception": lambda name, secret: ValueError(f"{name}: {secret}"),
    "query string": lambda name, secret: f"a=1&{name}={secret}&b={secret}",
    "url": lambda name, secret: f"https://shop.example/x?{name}={secret}",
    "quoted url": lambda name, secret: urllib.parse.quote(f"/x?{name}={secret}", safe="/"),
    "header": lambda name, secret: f"Host: x\r\n{name}: {secret}\r\n",
    "cookie": lambda name, secret: f"theme=dark; {name}={secret}",
    "json": lambda name, secret: json.dumps({"a": 1, name: secret}),
    "json in json": lambda name, secret: json.dumps(json.dumps({name: {"b": secret}})),
    "json in bytes": lambda name, secret: json.dumps({name: secret}).encode(),
    "escaped letter": lambda name, secret: f'{{"\\u{ord(name[0]):04x}{name[1:]}": "{secret}"}}',
    "line in a repr": lambda name, secret: repr(f"a: 1\n{name}: {secret}"),
    "utf-16": lambda name, secret: f"{name}={secret}".encode("utf-16-le"),
    "repr": lambda name, secret: repr({name: secret}),
    "repr of a pair": lambda name, secret: repr((name, secret)),
    "keyword": lambda name, secret: f"connect(host='x', {name}='{secret} {secret}')",
    "ruby": lambda name, secret: f"{{:{name} => '{secret}'}}",
    "xml": lambda name, secret: f"<a><{name}>{secret}</{name}></a>",
    "form": lambda name, secret: f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{secret}\r\n--x--',
    "input": lambda name, secret: f'<input name="{name}" value="{secret}">',
    "yaml": lambda name, secret: f"a: 1\n{name}: {secret}\n",
    "command": lambda name, secret: f"tool --{name} {secret}",
    "assignment": lambda name, secret: f"export {name} = {secret}",
    "far into a text": lambda name, secret: "x" * 200 + f" {name}={secret}",
    "behind the end of what is shown": lambda name, secret: "x" * 300 + f" {name}={secret}",
}

LOOKS = {
    "password in a url": f"postgres://shop:{SECRET}@db.internal:5432/shop",
    "password with a slash in a url": f"amqp://shop:a/{SECRET}@mq/",
    "token in a url": f"https://{SECRET}@git.example/x.git",
    "url that is cut": "x" * 900 + f" redis://shop:{SECRET}" + "y" * 200,
    "bearer": f"Bearer {SECRET}",
    "lower-case basic": f"basic {SECRET}==",
    "sql": f"ALTER USER shop WITH PASSWORD '{SECRET}'",
    "json web token": f"eyJhbGciOiJIUzI1NiJ9.{SECRET}.{SECRET}",
    "private key": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
    "private key in bytes": f"-----BEGIN RSA PRIVATE KEY-----\n{SECRET}".encode(),
    "github": f"ghp_{SECRET}{SECRET}",
    "stripe": f"sk_live_{SECRET}{SECRET}",
    "slack": f"xoxb-{SECRET}-{SECRET}",
    "password in a url's host": f"shop:{SECRET}@db.internal:5432",
    "hash of Django": f"pbkdf2_sha256$600000$salt${SECRET}",
    "argon2 of Django": f"argon2$argon2id$v=19$m=102400,t=2,p=8$c2FsdA${SECRET}",
    "bcrypt of Django": f"bcrypt_sha256$$2b$12${SECRET}",
    "hash of Werkzeug": f"scrypt:32768:8:1$salt${SECRET}",
    "bcrypt": f"$2b$12${SECRET}aaaaaaaaaa",
    "argon2": f"$argon2id$v=19$m=65536,t=3,p=4$c2FsdA${SECRET}",
    "crypt": f"root:$6$salt${SECRET}:19000:0",
    "hash of LDAP": f"{{SSHA}}{SECRET}",
}
