"""How Sphinx builds this documentation: `make docs`, with warnings as errors and without a network."""

from __future__ import annotations

import re
import sys
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tools"))

import reference  # noqa: E402 - its folder is no package

project = "otel_introspect"
author = "The otel_introspect authors"
copyright = author  # noqa: A001 - Sphinx's name
version = release = version_of("otel-introspect")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
exclude_patterns = ["_build"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
# Types of others are named, not linked: what describes them would have to be fetched.
nitpick_ignore_regex = [("py:.*", r"(?!otel_introspect\.).*"), ("py:.*", r"otel_introspect\..*\.(P|R|T|F)")]

html_theme = "furo"
html_title = f"otel_introspect {version}"
html_static_path: list[str] = []
html_show_sourcelink = False
copybutton_prompt_text = "$ "
copybutton_here_doc_delimiter = "EOF"

# The pages of the repository's root are pages here, too: one text, two places.
ROOT_PAGES = {
    "project/architecture": "ARCHITECTURE.md",
    "project/changelog": "CHANGELOG.md",
    "project/contributing": "CONTRIBUTING.md",
    "project/security": "SECURITY.md",
}
PAGE_OF = {name: page.removeprefix("project/") + ".md" for page, name in ROOT_PAGES.items()} | {
    "README.md": "../index.md"
}


def as_seen_from_here(text: str) -> str:
    """The text of a page of the root, with its links as they are from ``docs/project/``."""

    def target(found: re.Match[str]) -> str:
        path, hash_sign, anchor = found[1].partition("#")
        if path in PAGE_OF:
            return f"]({PAGE_OF[path]}{hash_sign}{anchor})"
        if path.startswith("docs/"):
            return f"](../{path.removeprefix('docs/')}{hash_sign}{anchor})"
        return found[0]

    return re.sub(r"\]\(([^)\s]+)\)", target, text)


def fill(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put in place what is generated, and what is written elsewhere."""
    if docname in ROOT_PAGES:
        page = HERE.parent / ROOT_PAGES[docname]
        app.env.note_dependency(str(page))
        source[0] = as_seen_from_here(page.read_text(encoding="utf-8"))
    source[0] = reference.filled(source[0])


def setup(app: Sphinx) -> None:
    """Register the above."""
    app.connect("source-read", fill)
