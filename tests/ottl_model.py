"""A model of the part of OTTL that our files use: the statements of transform, the conditions of tail_sampling.

Written from what opentelemetry-collector-contrib says in pkg/ottl/LANGUAGE.md and pkg/ottl/ottlfuncs/README.md.
What it does not know it refuses, so that nobody adds a statement that is not tested.
"""

from __future__ import annotations

import json
import re

import re2

_TOKEN = re.compile(r'\s*("(?:\\.|[^"\\])*"|[A-Za-z_][\w.]*|==|!=|[()\[\],])')
_ENUMS = {"nil": None}


class UnknownError(Exception):
    """Not OTTL, or a part of it that we don't use."""


def tokens(source):
    found, position = [], 0
    while position < len(source.rstrip()):
        match = _TOKEN.match(source, position)
        if not match:
            raise UnknownError(source[position : position + 40])
        found.append(match[1])
        position = match.end()
    return found


class Parser:
    def __init__(self, source):
        self.left = tokens(source)

    def take(self, expected=None):
        if not self.left or (expected and self.left[0] != expected):
            why = f"expected {expected}, found {self.left[:3]}"
            raise UnknownError(why)
        return self.left.pop(0)

    def sees(self, token):
        return bool(self.left) and self.left[0] == token

    def statement(self):
        call = self.value()
        if call[0] != "call":
            raise UnknownError(call)
        condition = None
        if self.sees("where"):
            self.take()
            condition = self.condition()
        if self.left:
            raise UnknownError(self.left)
        return call, condition

    def condition(self):
        first = self.value()
        if self.left and self.left[0] in ("==", "!="):
            return ("compare", self.take(), first, self.value())
        return first

    def value(self):
        token = self.take()
        if token.startswith('"'):
            return ("string", unquoted(token))
        if token in _ENUMS:
            return ("string", _ENUMS[token])
        if self.sees("("):
            self.take()
            arguments = []
            while not self.sees(")"):
                arguments.append(self.value())
                if self.sees(","):
                    self.take()
            self.take(")")
            return ("call", token, arguments)
        if self.sees("["):
            self.take()
            key = unquoted(self.take())
            self.take("]")
            return ("path", token, key)
        if not re.fullmatch(r"[a-z_]+(\.[a-z_]+)*", token):
            raise UnknownError(token)
        return ("path", token, None)


def unquoted(token):
    """As Go's strconv.Unquote does."""
    if not set(re.findall(r"\\(.)", token)) <= set('\\"nrt'):
        raise UnknownError(token)
    return json.loads(token)


def expand(template, match):
    """As Go's regexp.Expand does, for $1 and ${1}."""
    return re.sub(r"\$(?:(\d+)|\{(\d+)\})", lambda found: match.group(int(found[1] or found[2])) or "", template)


def replace_all(pattern, replacement, value):
    return "".join(_replaced(re2.compile(pattern), replacement, value))


def _replaced(pattern, replacement, value):
    position = 0
    for match in pattern.finditer(value):
        yield value[position : match.start()]
        yield expand(replacement, match)
        position = match.end()
    yield value[position:]


class Context:
    """What a path leads to.

    Args:
        kind: ``span``, ``spanevent``, ``log`` or ``resource``: a path begins with one of these, or with none in the
            conditions of tail_sampling.
        holders: The messages, by their kind.
    """

    def __init__(self, kind, **holders):
        self.kind = kind
        self.holders = holders

    def _split(self, path):
        head, _, rest = path.partition(".")
        if head in ("span", "spanevent", "log", "resource", "scope"):
            if head not in self.holders:
                why = f"{path} in the context {self.kind}"
                raise UnknownError(why)
            return self.holders[head], rest
        return self.holders[self.kind], path

    def attributes(self, path):
        holder, rest = self._split(path)
        if rest != "attributes":
            raise UnknownError(path)
        return holder.attributes

    def string(self, path, key):
        """(value, setter): the value is None where there is nothing, and no string where there is something else."""
        holder, rest = self._split(path)
        if key is not None:
            for pair in self.attributes(path):
                if pair.key == key:
                    return _of_value(pair.value)
            return None, None
        if rest == "name":
            return holder.name, None
        if rest == "status.message":
            return holder.status.message, lambda new: setattr(holder.status, "message", new)
        if rest == "body":
            return _of_value(holder.body)
        raise UnknownError(path)


def _of_value(value):
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return value.string_value, lambda new: setattr(value, "string_value", new)
    return (None if kind is None else getattr(value, kind)), None


def holds(condition, context):
    if condition is None:
        return True
    if condition[0] == "compare":
        _, operator, left, right = condition
        same = _value(left, context) == _value(right, context)
        return same if operator == "==" else not same
    if condition[0] == "call" and condition[1] == "IsString":
        return isinstance(_value(condition[2][0], context), str)
    raise UnknownError(condition)


def _value(node, context):
    if node[0] == "string":
        return node[1]
    if node[0] == "path":
        return context.string(node[1], node[2])[0]
    raise UnknownError(node)


def run(statement, context):
    (_, function, arguments), condition = Parser(statement).statement()
    if not holds(condition, context):
        return
    target, *rest = arguments
    given = [_value(each, context) for each in rest]
    _FUNCTIONS[function](context, target, *given)


def _delete(context, target, is_meant):
    attributes = context.attributes(target[1])
    kept = [pair for pair in attributes if not is_meant(pair.key)]
    if len(kept) < len(attributes):
        del attributes[:]
        attributes.extend(kept)


def _delete_key(context, target, key):
    _delete(context, target, lambda name: name == key)


def _delete_matching_keys(context, target, pattern):
    compiled = re2.compile(pattern)
    _delete(context, target, lambda name: bool(compiled.search(name)))


def _replace_pattern(context, target, pattern, replacement):
    value, put = context.string(target[1], target[2])
    if value is None:
        return
    if not isinstance(value, str):
        why = f"{target} is no string"
        raise UnknownError(why)
    replaced = replace_all(pattern, replacement, value)
    if replaced != value:
        put(replaced)


def _replace_all_patterns(context, target, mode, pattern, replacement):
    if mode != "value":
        raise UnknownError(mode)
    for pair in context.attributes(target[1]):
        if pair.value.WhichOneof("value") == "string_value":
            replaced = replace_all(pattern, replacement, pair.value.string_value)
            if replaced != pair.value.string_value:
                pair.value.string_value = replaced


_FUNCTIONS = {
    "delete_key": _delete_key,
    "delete_matching_keys": _delete_matching_keys,
    "replace_pattern": _replace_pattern,
    "replace_all_patterns": _replace_all_patterns,
}


def transform(config, message):
    """What the processor transform makes of *message*, in place."""
    is_traces = hasattr(message, "resource_spans")
    for group in config["trace_statements" if is_traces else "log_statements"]:
        for context in _contexts(group["context"], message):
            for statement in group["statements"]:
                run(statement, context)


def _contexts(kind, message):
    is_traces = hasattr(message, "resource_spans")
    for each in message.resource_spans if is_traces else message.resource_logs:
        if kind == "resource":
            yield Context(kind, resource=each.resource)
        elif kind in ("span", "spanevent") and is_traces:
            yield from _of_spans(kind, each)
        elif kind == "log" and not is_traces:
            for scope in each.scope_logs:
                yield from (Context(kind, log=record, resource=each.resource) for record in scope.log_records)
        else:
            raise UnknownError(kind)


def _of_spans(kind, each):
    for span in (span for scope in each.scope_spans for span in scope.spans):
        if kind == "span":
            yield Context(kind, span=span, resource=each.resource)
        else:
            yield from (Context(kind, spanevent=event, span=span, resource=each.resource) for event in span.events)


def is_true(condition, context):
    """Whether a condition of tail_sampling holds."""
    parser = Parser(condition)
    found = parser.condition()
    if parser.left:
        raise UnknownError(parser.left)
    return holds(found, context)
