"""What the rendering of a part of a template changes in its context, so that it can be taken back.

An interruption leaves a tag wherever it comes. Some of Django's own put things back without a ``finally``: what comes
after an interrupted ``{% autoescape off %}`` would not be escaped.
"""

from __future__ import annotations

from typing import Any, Final

from django.template import Context
from django.template.loader_tags import BLOCK_CONTEXT_KEY

# Those that the context of every Django from 4.2 on has. The rest of what is in a context is in its dictionaries.
_SWITCHES: Final = ("autoescape", "use_l10n", "use_tz", "template", "template_name")


class RenderingState:
    """What *context* is like now.

    Its dictionaries are copied, what is in them is not: the turns of a ``{% cycle %}`` stay taken.

    Args:
        context: Of the template that is being rendered.
    """

    __slots__ = ("_blocks", "_context", "_layers", "_switches")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._switches = [(name, getattr(context, name)) for name in _SWITCHES if hasattr(context, name)]
        self._layers = [_Layers(context), _Layers(context.render_context)]
        self._blocks: dict[str, list[Any]] = {}
        blocks = context.render_context.get(BLOCK_CONTEXT_KEY)
        if blocks is not None:
            self._blocks = {name: list(nodes) for name, nodes in blocks.blocks.items()}

    def restore(self) -> None:
        """Make it what it was like."""
        for name, value in self._switches:
            setattr(self._context, name, value)
        for layers in self._layers:
            layers.restore()
        blocks = self._context.render_context.get(BLOCK_CONTEXT_KEY)
        if blocks is not None:
            for name, nodes in self._blocks.items():
                blocks.blocks[name][:] = nodes


class _Layers:
    """The dictionaries of a context, one on top of the other, and what is in them.

    Args:
        context: Django's, of variables or of rendering.
    """

    __slots__ = ("_context", "_dicts", "_template")

    def __init__(self, context: Any) -> None:  # noqa: ANN401 - Django's base class of both, which says less than it has
        self._context = context
        self._dicts = [(each, dict(each)) for each in context.dicts]
        self._template = getattr(context, "template", None)

    def restore(self) -> None:
        self._context.dicts[:] = [layer for layer, _ in self._dicts]
        for layer, content in self._dicts:
            if layer != content:
                layer.clear()
                layer.update(content)
        if hasattr(self._context, "template"):
            self._context.template = self._template
