"""What takes the place of what was found: variables, and what is to be done by hand."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from email.utils import getaddresses, parseaddr
from math import isfinite
from typing import Final, NamedTuple

from otel_introspect.cli.migration import names
from otel_introspect.cli.migration.constants import UNKNOWN
from otel_introspect.cli.migration.traces import MIDDLEWARE, SWITCH, Import, Setting, Tag, Traces

DOGSLOW_TIMER: Final = 25
"""The seconds that dogslow takes where its setting is missing."""
_MAX_MS: Final = 2**31 - 1
_ADDRESS: Final = re.compile(r"[^\s@<>,;:\"()\\]+@[^\s@<>,;:\"()\\]+")
# Reports are written where no other user may write, and /tmp is what dogslow's own documentation has.
_SHARED: Final = frozenset({"/tmp", "/var/tmp", "/dev/shm"})  # noqa: S108 - so that they are not used
_OWN_DIRECTORY: Final = "slow-requests"


class Variable(NamedTuple):
    """A variable to be set.

    Args:
        name: The variable's.
        value: Its value; where *is_sure* is false, what may be one, or an example.
        why: The old setting, where it is and what is different now.
        is_sure: Whether it can be set without a look at it.
    """

    name: str
    value: str
    why: str
    is_sure: bool = True


class Task(NamedTuple):
    """Something to be done by hand."""

    text: str


class _Counterpart(NamedTuple):
    """One setting that becomes one variable.

    Args:
        variable: The variable's name.
        convert: Makes its value of the setting's; raises ``ValueError`` with what is wrong.
        note: What is different.
        example: What to write where the setting's value is not known.
    """

    variable: str
    convert: Callable[[object], str]
    note: str
    example: str


def _milliseconds(value: object) -> str:
    if isinstance(value, str):
        try:
            value = int(value)  # as dogslow does
        except ValueError:
            value = None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        why = "it is no number of seconds"
        raise ValueError(why)  # noqa: TRY004 - as for any other value that won't do
    if not isfinite(value) or value * 1000 > _MAX_MS:
        why = "it is longer than a threshold can be (24 days)"
        raise ValueError(why)
    if round(value * 1000) < 1:
        why = "it had every request reported, and 0 is off here: write how many milliseconds are slow"
        raise ValueError(why)
    return str(round(value * 1000))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        why = "it is no text"
        raise ValueError(why)
    if not value.isprintable():
        why = "it has line breaks or invisible characters in it"
        raise ValueError(why)
    return value.strip()


def _directory(value: object) -> str:
    path = _text(value).rstrip("/") or "/"
    return f"{path}/{_OWN_DIRECTORY}" if path in _SHARED else path


def _sender(value: object) -> str:
    text = _text(value)
    _bare(parseaddr(text)[1])
    return text


def _addresses(value: object) -> str:
    """Comma-separated, without the names of those who have them."""
    texts = [_text(each) for each in (value if isinstance(value, list) else [value])]
    return ",".join(_bare(address) for _, address in getaddresses(texts)) or _bare("")


def _bare(address: str) -> str:
    if not _ADDRESS.fullmatch(address):
        why = "it is no address such as ops@example.org"
        raise ValueError(why)
    return address


def _boolean(value: object) -> str:
    return "true" if value else "false"


COUNTERPARTS: Final[Mapping[str, _Counterpart]] = {
    "DOGSLOW_TIMER": _Counterpart(names.THRESHOLD, _milliseconds, "seconds there, milliseconds here", "25000"),
    "DOGSLOW_OUTPUT": _Counterpart(
        names.REPORTS_DIR,
        _directory,
        f"for the reports that {names.FILES} writes, a directory in which no other user may write",
        "/var/log/slow",
    ),
    "DOGSLOW_EMAIL_TO": _Counterpart(
        names.EMAIL_TO, _addresses, f"mails are sent by {names.EMAIL}; addresses only, without names", "ops@example.org"
    ),
    "DOGSLOW_EMAIL_FROM": _Counterpart(names.EMAIL_FROM, _sender, "the mails' sender", "no-reply@example.org"),
    "DOGSLOW_STACK_VARS": _Counterpart(
        names.LOCALS, _boolean, "of the application's frames only, redacted and bounded", "true"
    ),
    "GEORDI_OUTPUT_DIR": _Counterpart(
        names.STORE, _text, "whole profiles, as HTML and for `otel-introspect render`", "/var/lib/profiles"
    ),
}
"""The settings that become one variable each."""

BY_HAND: Final[Mapping[str, str]] = {
    "DOGSLOW_LOGGER": (
        f"in LOGGING, give the handlers of that logger to {names.LOGGER!r}, to which {names.LOGGING} writes"
    ),
    "DOGSLOW_LOG_LEVEL": (
        f"delete it: set the level of the logger {names.LOGGER!r} or of its handlers in LOGGING instead"
    ),
    "DOGSLOW_LOG_TO_SENTRY": (
        f"delete it: Sentry takes what the logger {names.LOGGER!r} gets by its own logging integration"
    ),
    "DOGSLOW_IGNORE_URLS": (
        "its names of URL patterns are no regular expressions: put @otel_introspect.exempt on these views, or list the"
        f" URLs in {names.EXCLUDED_URLS}"
    ),
    "GEORDI_CELERY": "delete it: the request itself is profiled while it runs, so no worker is needed for that",
    "GEORDI_GPROF2DOT_OPTIONS": (
        "delete it: `otel-introspect render PROFILE --format pdf` makes the call graph when somebody wants it"
    ),
}
"""The settings that no variable stands for, and what to do instead."""

SWITCHES: Final = ("DOGSLOW", "DOGSLOW_LOG_TO_FILE")
"""Settings that say whether others count."""


class Advice:
    """All that is to be done about what was found.

    Args:
        traces: What was found.
    """

    def __init__(self, traces: Traces) -> None:
        self._traces = traces
        self.variables: list[Variable] = []
        self.tasks: list[Task] = []
        has_dogslow = self._has("DOGSLOW", MIDDLEWARE[0])
        has_geordi = self._has("GEORDI_", MIDDLEWARE[1])
        if has_dogslow:
            self._dogslow()
        if has_geordi:
            self._geordi()
        self._unknown_names()
        for entry in traces.entries:
            self._entry(entry.text, f"{entry.place}", entry.in_list)
        for each in traces.imports:
            self.tasks.extend(Task(f"{each.place}: {text}") for text in _about_import(each))
        self.tasks.extend(Task(f"{tag.place}: {_about_tag(tag)}") for tag in traces.tags)
        if traces.settings:
            places = ", ".join(dict.fromkeys(str(each.place) for each in traces.settings))
            self.tasks.append(Task(f"at last, delete the settings themselves: {places}"))

    def _has(self, prefix: str, middleware: str) -> bool:
        return any(each.name.startswith(prefix) for each in self._traces.settings) or any(
            each.text == middleware for each in self._traces.entries
        )

    def _last(self, name: str, default: object) -> object:
        """What a setting is at last; ``UNKNOWN`` where that depends."""
        found = self._traces.of(name)
        if not found:
            return default
        return found[0].value if len(found) == 1 and not found[0].condition else UNKNOWN

    # dogslow

    def _dogslow(self) -> None:
        is_on = self._last("DOGSLOW", default=True)
        if is_on is not UNKNOWN and not is_on:
            place = self._traces.of("DOGSLOW")[0].place
            self.variables.append(
                Variable(names.THRESHOLD, "0", f"DOGSLOW, {place}: it was off, and so is the watchdog")
            )
            self._each("DOGSLOW_TIMER", "to switch it on again", is_sure=False)
        else:
            for each in self._traces.of("DOGSLOW"):
                if each.value is UNKNOWN or not each.value:
                    why = f"{_where(each)}: where it is to be off"
                    self.variables.append(Variable(names.THRESHOLD, "0", why, is_sure=False))
            self._each("DOGSLOW_TIMER")
            if not self._traces.of("DOGSLOW_TIMER"):
                why = f"dogslow's own default, {DOGSLOW_TIMER} s; without this it is one second"
                self.variables.append(Variable(names.THRESHOLD, str(DOGSLOW_TIMER * 1000), why))
        self._each("DOGSLOW_STACK_VARS")
        exporters = [*self._mail(), *self._logger(), *self._files()]
        if exporters:
            why = "beside the exporter that you have: if that is another one than otlp, write its name instead"
            self.variables.append(Variable(names.TRACES_EXPORTER, ",".join([names.OTLP, *exporters]), why))
        for name in ("DOGSLOW_LOG_LEVEL", "DOGSLOW_LOG_TO_SENTRY", "DOGSLOW_IGNORE_URLS"):
            self._by_hand(name)

    def _mail(self) -> Iterator[str]:
        both = [self._last(name, default=None) for name in ("DOGSLOW_EMAIL_TO", "DOGSLOW_EMAIL_FROM")]
        if None not in both:
            self._each("DOGSLOW_EMAIL_TO")
            self._each("DOGSLOW_EMAIL_FROM")
            yield from self._exporter(names.EMAIL, names.EMAIL_TO, names.EMAIL_FROM)
        elif both != [None, None]:
            only = "only one of them is set, so no mail was sent"
            self.tasks.append(Task(f"DOGSLOW_EMAIL_TO, DOGSLOW_EMAIL_FROM: {only}"))

    def _logger(self) -> Iterator[str]:
        loggers = [each for each in self._traces.of("DOGSLOW_LOGGER") if each.value is not None]
        self._by_hand("DOGSLOW_LOGGER")
        if any(not each.condition for each in loggers):
            yield names.LOGGING
        elif loggers:
            self.tasks.append(Task(f"where that logger is set, add {names.LOGGING} to {names.TRACES_EXPORTER}"))

    def _files(self) -> Iterator[str]:
        is_on = self._last("DOGSLOW_LOG_TO_FILE", default=True)
        has_directory = bool(self._traces.of("DOGSLOW_OUTPUT"))
        if is_on is not UNKNOWN and not is_on:
            if has_directory:
                self.tasks.append(Task("DOGSLOW_OUTPUT: not needed, as DOGSLOW_LOG_TO_FILE is off"))
            return
        if has_directory:
            self._each("DOGSLOW_OUTPUT")
            yield from self._exporter(names.FILES, names.REPORTS_DIR)
            return
        self.tasks.append(
            Task(
                "dogslow wrote a file for each slow request into the temporary directory, unless DOGSLOW_LOG_TO_FILE"
                f" was off: if somebody reads them, set {names.REPORTS_DIR} to a directory and add {names.FILES} to"
                f" {names.TRACES_EXPORTER}"
            )
        )

    def _exporter(self, exporter: str, *variables: str) -> Iterator[str]:
        """*exporter*, if all that it needs is known by now."""
        if {each.name for each in self.variables if each.is_sure}.issuperset(variables):
            yield exporter
        else:
            wanted = " and ".join(variables)
            self.tasks.append(Task(f"when you have set {wanted}, add {exporter} to {names.TRACES_EXPORTER}"))

    # geordi

    def _geordi(self) -> None:
        self._each("GEORDI_OUTPUT_DIR")
        self._by_hand("GEORDI_CELERY")
        self._by_hand("GEORDI_GPROF2DOT_OPTIONS")
        why = (
            "the secret that signs links with which one request is profiled, by `otel-introspect sign`:"
            " python -c 'import secrets; print(secrets.token_urlsafe())' makes one"
        )
        # Empty is unset: an example would be somebody's secret one day.
        self.variables.append(Variable(names.KEY, "", why, is_sure=False))
        why = "geordi let superusers in; a function(request) of yours that says whether this is one lets them in again"
        self.variables.append(Variable(names.ALLOW, "yourproject.access.is_superuser", why, is_sure=False))

    # Either

    def _each(self, name: str, more: str = "", *, is_sure: bool = True) -> None:
        counterpart = COUNTERPARTS[name]
        for each in self._traces.of(name):
            why = f"{_where(each)}: {more or counterpart.note}"
            if each.value is UNKNOWN:
                why += "; its value can't be told without running the file: write it yourself"
                self.variables.append(Variable(counterpart.variable, counterpart.example, why, is_sure=False))
                continue
            if each.value is None:
                continue  # as if it were not set
            try:
                value = counterpart.convert(each.value)
            except ValueError as error:
                why += f"; {error}"
                self.variables.append(Variable(counterpart.variable, counterpart.example, why, is_sure=False))
                continue
            sure = is_sure and not each.condition
            self.variables.append(Variable(counterpart.variable, value, why, is_sure=sure))

    def _by_hand(self, name: str) -> None:
        for each in self._traces.of(name):
            self.tasks.append(Task(f"{_where(each)}: {_listed(each.value)}{BY_HAND[name]}"))

    def _unknown_names(self) -> None:
        known = {*COUNTERPARTS, *BY_HAND, *SWITCHES}
        for each in self._traces.settings:
            if each.name not in known:
                self.tasks.append(Task(f"{_where(each)}: no version of dogslow or geordi that we know reads it"))

    def _entry(self, text: str, where: str, in_list: str) -> None:
        if text == "django_timelimit":
            self.tasks.append(
                Task(f"{where}: in {in_list}, write {names.APPLICATION!r} for {text!r}: templates stay as they are")
            )
        else:
            self.tasks.append(Task(f"{where}: remove {text!r} from {in_list}: nothing takes its place there"))


def _where(setting: Setting) -> str:
    where = f"{setting.name}, {setting.place}"
    return f"{where}, only in {setting.condition}" if setting.condition else where


def _listed(value: object) -> str:
    """A list of names, for the task that is about them."""
    if not isinstance(value, list) or not value:
        return ""
    return ", ".join(repr(each) for each in value if isinstance(each, str)) + ": "


_PLACES: Final = {
    "timeout": names.PACKAGE,
    "Quota": names.PACKAGE,
    "disable_timeouts": names.PACKAGE,
    "enable_timeouts": f"{names.PACKAGE}.timeouts",
}
"""Where the names of interruptingcow are now."""


def _about_import(found: Import) -> Iterator[str]:
    if found.package == SWITCH:
        yield f"{SWITCH}=1 is {names.DISABLED}=true now"
        return
    if found.package != "interruptingcow":
        yield f"it imports {found.package}, which nothing of ours stands in for: remove it"
        return
    if not found.names:
        alias = found.alias or found.package
        yield f"write `import {names.PACKAGE} as {alias}`"
        yield f"{alias}.StateException is gone, and enable_timeouts is in {names.PACKAGE}.timeouts"
        return
    wanted = ("timeout", "Quota", "disable_timeouts") if found.names == ("*",) else found.names
    for place in sorted(set(_PLACES.values())):
        here = [each for each in wanted if _PLACES.get(each.partition(" ")[0]) == place]
        if here:
            yield f"write `from {place} import {', '.join(here)}`"
    for each in wanted:
        if each.partition(" ")[0] not in _PLACES:
            yield f"{each} has no counterpart: limits work in any thread and beside others' SIGALRM, if not as well"


def _about_tag(tag: Tag) -> str:
    if tag.name == "sleep":
        return "remove {% sleep %}, which there is no more"
    return f"{{% timelimit %}} stays as it is, with {names.APPLICATION!r} in INSTALLED_APPS"
