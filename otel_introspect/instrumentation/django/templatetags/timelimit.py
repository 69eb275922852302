"""``{% timelimit seconds %}...{% else %}...{% endtimelimit %}``: a part of a template that may take only so long.

If it takes longer it is interrupted, what it has rendered is discarded, and the part after ``{% else %}`` is rendered
instead, or nothing. The tag has the name and the syntax of django-timelimit's, which also had a ``{% sleep %}``: here
that would be code of ours, which is never interrupted.

To have it, add ``"otel_introspect.instrumentation.django"`` to ``INSTALLED_APPS``, or to a template engine's
``OPTIONS["libraries"]``: ``{"timelimit": "otel_introspect.instrumentation.django.templatetags.timelimit"}``.
"""

from __future__ import annotations

import logging
from math import isfinite
from typing import Any, Final

from django.template import Context, Library, Node, NodeList, TemplateSyntaxError
from django.template.base import FilterExpression, Parser, Token, Variable

from otel_introspect.engine.quota import Quota
from otel_introspect.faults import tell_once
from otel_introspect.instrumentation.django.rendering import RenderingState
from otel_introspect.timeouts import timeout

register: Final = Library()

_WORDS: Final = 2
# More than a year is no limit, and more than a timer can be set to.
_LONGEST: Final = 366 * 86_400
_EXPECTED: Final = "a number of seconds that is more than 0, a Quota, or None for no limit"


class RenderingInterrupted(BaseException):
    """A part of a template has outlived its limit; never leaves the tag.

    No ``Exception``, as Django's ``{% if a in b %}`` takes any of these for False, and goes on.

    Args:
        limit_of: What tells one tag's rendering from another's, as they nest.
    """

    def __init__(self, limit_of: object) -> None:
        super().__init__("a part of a template took longer than its {% timelimit %}")
        self.limit_of = limit_of


class _Interruptions:
    """Makes the exceptions of one rendering, and knows them again.

    Not by identity: in a thread CPython makes one of its own, which has the same attributes.
    """

    __slots__ = ("has_made",)

    def __init__(self) -> None:
        self.has_made = False

    def __call__(self) -> BaseException:
        self.has_made = True
        return RenderingInterrupted(self)


class TimelimitNode(Node):
    """The tag. Threads share it, as they share a cached template: it keeps nothing of a rendering.

    Args:
        seconds: How long the first part may take.
        nodelist: The first part.
        nodelist_else: What is rendered if that takes longer.
    """

    # Where Django looks for a {% block %} that stands in the tag.
    child_nodelists = ("nodelist", "nodelist_else")

    def __init__(self, seconds: FilterExpression, nodelist: NodeList, nodelist_else: NodeList) -> None:
        self.seconds = seconds
        self.nodelist = nodelist
        self.nodelist_else = nodelist_else

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.seconds}>"

    def render(self, context: Context) -> Any:  # noqa: ANN401 - safe text, for which Django's stubs have no one type
        """Render the first part or the second."""
        interruptions = _Interruptions()
        limit = timeout(self._limit(context), interruptions)
        before = RenderingState(context)
        try:
            with limit:
                output = self.nodelist.render(context)
        except RenderingInterrupted as error:
            if error.limit_of is not interruptions:
                raise
        else:
            # Interrupted, and the template's code has swallowed that: it may be wrong from there on.
            if not interruptions.has_made:
                return output
        before.restore()
        return self.nodelist_else.render(context)

    def _limit(self, context: Context) -> float | Quota | None:
        value = self.seconds.resolve(context)
        try:
            return _checked(value)
        except ValueError as error:
            if context.template is None or context.template.engine.debug:
                raise TemplateSyntaxError(str(error)) from None
            tell_once(logging.WARNING, "otel_introspect renders without a limit: %s.", error)
            return None


def _checked(value: object) -> float | Quota | None:
    """*value* as a limit; None for none.

    Raises:
        ValueError: If it can't be one.
    """
    if value is None or isinstance(value, Quota):
        return value
    try:
        seconds = 0.0 if isinstance(value, bool) else float(value)  # type: ignore[arg-type]  # whatever it is
    except OverflowError:
        return None
    except Exception:  # noqa: BLE001 - the application's types may raise anything
        seconds = 0.0
    if not seconds > 0:
        why = f"{{% timelimit %}} wants {_EXPECTED}, not {_shown(value)}"
        raise ValueError(why)
    return seconds if isfinite(seconds) and seconds <= _LONGEST else None


def _shown(value: object) -> str:
    """*value* in the message, by its type where asking it for more would run the application's code."""
    return repr(value)[:60] if type(value) in (str, int, float, bool) else f"an object of type {type(value).__name__}"


def _literal(seconds: FilterExpression) -> object:
    """What is written in the template, if it is a value and not a name; None otherwise."""
    if seconds.filters:
        return None
    var: object = seconds.var
    return var.literal if isinstance(var, Variable) else var


@register.tag
def timelimit(parser: Parser, token: Token) -> TimelimitNode:
    """Limit how many seconds a part of a template may take; render another one if it takes longer.

    Raises:
        TemplateSyntaxError: If it is not given one value, or one that can't be a limit.
    """
    words = token.split_contents()
    if len(words) != _WORDS:
        why = f"{{% {words[0]} %}} takes one value, {_EXPECTED}: {{% {words[0]} 0.5 %}}"
        raise TemplateSyntaxError(why)
    seconds = parser.compile_filter(words[1])
    try:
        _checked(_literal(seconds))
    except ValueError as error:
        raise TemplateSyntaxError(str(error)) from None
    end = f"end{words[0]}"
    nodelist = parser.parse(("else", end))
    nodelist_else = NodeList()
    if parser.next_token().contents == "else":
        nodelist_else = parser.parse((end,))
        parser.delete_first_token()
    return TimelimitNode(seconds, nodelist, nodelist_else)
