"""What must not be shown: told by its name before it is looked at, and by its pattern within a text.

A name is taken apart into words (``sessionKey``, ``SESSION_KEY`` and ``session-key`` are the same two), and is a
secret's if one of them is on the list. Short words count only as whole words or at the end (``pin`` is one, ``spin`` is
not); long ones anywhere (``userpassword``). In doubt something harmless is hidden: ``primary_key`` is, and ``monkey``.

Within a text a secret is told by what stands before it (``password=``, ``Authorization:``), by where it stands (a URL's
user and password) or by its looks (a JSON web token, a private key, a credit card's number).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

REDACTED: Final = "<redacted>"

# Anywhere in a name, once its case and its separators are gone.
_PARTS: Final = (
    "accesskey",
    "apikey",
    "authoriz",
    "authoris",
    "bearer",
    "cardnumber",
    "contrase",
    "cookie",
    "credential",
    "creditcard",
    "csrf",
    "debitcard",
    "encryptionkey",
    "kennwort",
    "motdepasse",
    "passcode",
    "passphrase",
    "passwd",
    "passwor",
    "privatekey",
    "secret",
    "senha",
    "sessid",
    "session",
    "signature",
    "signingkey",
    "token",
    "wachtwoord",
    "xsrf",
)
# As a whole word, or its plural.
_WORDS: Final = frozenset(
    {
        "auth",
        "bankaccount",
        "card",
        "cc",
        "cred",
        "cvc",
        "cvv",
        "dsn",
        "hmac",
        "iban",
        "jwt",
        "key",
        "mfa",
        "nonce",
        "oauth",
        "otp",
        "pan",
        "pass",
        "pin",
        "pw",
        "pwd",
        "salt",
        "sid",
        "sig",
        "ssn",
        "totp",
    }
)
# Where somebody has written two words as one: dbpass, signingkey.
_ENDS: Final = ("key", "keys", "pass", "pwd", "auth")

_SPLIT: Final = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_NOT_LETTERS: Final = re.compile(r"[\W_]+")
_MAX_NAME: Final = 100

# What says that a value follows: the quote that closes a name does, too, as in a header's pair or a form's field. What
# is before it is looked at backwards, as a pattern that began with the name would begin anew at each letter.
_FOLLOWED: Final = re.compile(r"=>|[:=>\"']|%3[AaDd]|%22|(?<=[\w\]])\s\\?[\"']")
_CLOSING: Final = " \t\r\n\\\"']"
_NAME_BACKWARDS: Final = re.compile(r"[\w.\-\[\]%\\]{1,100}")
# As URLs, JSON and ``repr`` write them.
_ESCAPED: Final = re.compile(r"(?:%|\\+x|\\+u00)([0-9A-Fa-f]{2})|\\+[nrt]")
_BEFORE: Final = 110
_OPTION: Final = re.compile(r"(?<![\w-])--?([\w.-]{2,60})(?=\s)")
_SCHEME: Final = re.compile(r"(?i)\b(?:bearer|basic|digest|negotiate|apikey|token)\s+(?=[\w+/=.~-]{6})")
_PEM: Final = re.compile(r"-----BEGIN")
# To the last @ before a space: a password may have a slash in it.
_USERINFO: Final = re.compile(r"://\S*@")
# The same where the text was cut before it: anything but a port.
_USERINFO_CUT: Final = re.compile(r"://[^\s/?#@:]*:(?!\d{0,5}$)[^\s/?#@]*$")
_LOOKS: Final = re.compile(
    r"eyJ[\w-]{8,}[\w.=-]*"  # a JSON web token
    r"|(?<!\w)(?:AKIA|ASIA)[0-9A-Z]{12,}"
    r"|(?<!\w)(?:gh[pousr]_|github_pat_|glpat-|xox[a-z]-|npm_|pypi-|ya29\.|SG\.|AIza)[\w.-]{10,}"
    r"|(?<!\w)(?:sk|rk|pk)[_-][\w-]{16,}"
    r"|(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])"  # a social security number
    # A password's hash: of Django, passlib and Werkzeug, and as crypt, PHC and LDAP write them.
    r"|(?<![\w$])(?:pbkdf2|scrypt|argon2|bcrypt|md5|sha1|sha256|sha512|unsalted)[\w:]{0,30}\$[^\s'\"]{6,}"
    r"|(?<![\w$])\$(?:[1-9][a-z]?|y|gy|md5|sha1|argon2\w{0,2}|bcrypt[\w-]{0,10}|scrypt|pbkdf2[\w-]{0,10})\$[^\s'\"]{6,}"
    r"|\{S?(?:SHA|MD5|SHA256|SHA512|CRYPT)\}[^\s'\"]{6,}"
)
# A URL's user, password and host, taken out of it.
_NETLOC: Final = re.compile(r"[^\s/?#@:]*:[^\s@]+@[\w.\-\[\]:]+")
_DIGITS: Final = re.compile(r"(?<!\d)[2-6](?:[ -]?\d){12,18}(?!\d)")
_NINE: Final = 9


class Redaction:
    """Knows what is not to be shown.

    Args:
        more: Words beside the built-in ones; a name that has one of them anywhere in it is a secret's.
    """

    def __init__(self, more: Iterable[str] = ()) -> None:
        squashed = (_squashed(word) for word in more)
        self._parts: Final = (*_PARTS, *(word for word in squashed if word))
        # A cache for each, as what counts depends on its words.
        self._is_secret = lru_cache(maxsize=4096)(self._look_up)

    def hides(self, name: str) -> bool:
        """Whether what has this name is a secret; *name* is a plain ``str``."""
        # Never the whole of a long one: a key of a dictionary may be a document.
        return self._is_secret(name if len(name) <= _MAX_NAME else name[:_MAX_NAME])

    def _look_up(self, name: str) -> bool:
        squashed = _squashed(name)
        if any(part in squashed for part in self._parts) or squashed.endswith(_ENDS):
            return True
        words = [word.lower() for word in _SPLIT.findall(name)]
        return any(word in _WORDS or word.removesuffix("s") in _WORDS or word.endswith(_ENDS) for word in words)

    def without_secrets(self, text: str) -> str:
        """*text*, which is plain and short, without what looks like a secret.

        What follows the name of a secret goes to the very end: where it stops nobody can say.
        """
        if "\0" in text:  # two bytes for each letter, perhaps
            joined = text.replace("\0", "")
            if self._clean(joined) != joined:
                return REDACTED
        return self._clean(text)

    def _clean(self, text: str) -> str:
        end = len(text)
        pem = _PEM.search(text)
        if pem is not None:
            end = pem.start()
        scheme = _SCHEME.search(text)
        if scheme is not None:
            end = min(end, scheme.end())
        for followed in _FOLLOWED.finditer(text, 0, end):
            before = text[max(followed.start() - _BEFORE, 0) : followed.start()].rstrip(_CLOSING)
            name = _NAME_BACKWARDS.match(before[::-1])
            if name is not None and self.hides(_ESCAPED.sub(_unescaped, name[0][::-1])):
                end = followed.end()
                break
        for option in _OPTION.finditer(text, 0, end):
            if self.hides(option[1]):
                end = option.end()
                break
        shown = text[:end]
        shown = _USERINFO.sub(f"://{REDACTED}@", shown)
        shown = _USERINFO_CUT.sub(f"://{REDACTED}", shown)
        shown = _LOOKS.sub(REDACTED, shown)
        if _NETLOC.fullmatch(shown):
            shown = f"{REDACTED}@{shown.rpartition('@')[2]}"
        shown = _DIGITS.sub(_without_card, shown)
        return shown if end == len(text) else shown + REDACTED


def is_card(digits: str) -> bool:
    """Whether *digits* are a payment card's number, by their check digit.

    >>> is_card("4111111111111111"), is_card("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - _NINE if value > _NINE else value
    return total % 10 == 0


def _unescaped(found: re.Match[str]) -> str:
    return chr(int(found[1], 16)) if found[1] else " "


def _without_card(found: re.Match[str]) -> str:
    return REDACTED if is_card(found[0].replace(" ", "").replace("-", "")) else found[0]


def _squashed(name: str) -> str:
    return _NOT_LETTERS.sub("", name).lower()
