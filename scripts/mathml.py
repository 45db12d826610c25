r"""A hook of MkDocs: formulas become MathML while the site is built, so that a page needs no script and no network.

`pymdownx.arithmatex` (generic) leaves `\(...\)` and `\[...\]` in elements of the class "arithmatex"; browsers
draw MathML by themselves.
"""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING, Any

from latex2mathml.converter import convert

if TYPE_CHECKING:
    from collections.abc import Callable

_FORMULA = re.compile(r'<(span|div) class="arithmatex">\s*\\[(\[](.*?)\\[)\]]\s*</\1>', re.DOTALL)


def on_page_content(content: str, **_of_mkdocs: Any) -> str:  # noqa: ANN401 - MkDocs hands over page, config, files
    """Replace every formula of a page."""
    replace: Callable[[re.Match[str]], str] = _mathml
    return _FORMULA.sub(replace, content)


def _mathml(match: re.Match[str]) -> str:
    display = "block" if match[1] == "div" else "inline"
    formula = convert(_plain(html.unescape(match[2].strip())), display=display)
    return f'<div class="formula">{formula}</div>' if display == "block" else formula


def _plain(latex: str) -> str:
    """What the converter does not know or draws too tight, in words that it does."""
    for size in (r"\Big", r"\big"):
        for opening, closing in ("()", "[]"):
            latex = latex.replace(size + opening, rf"\left{opening}").replace(
                size + closing, rf"\right{closing}"
            )
    for word, other in (
        (r"\lvert", "|"),
        (r"\rvert", "|"),
        (r"\qquad", r"\quad\quad "),
        (r"\log", r"\log\, "),
    ):
        latex = latex.replace(word, other)
    return latex
