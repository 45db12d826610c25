"""Text on its way out: hostile characters made visible, and the two consoles everything is printed on.

Answers of models, rows of data sets and file names are hostile text: an escape sequence moves the cursor, a
bidirectional override turns a line around, a zero-width character hides. Every string from outside goes
through `visible` (or `visible_line`) and into `rich.text.Text`, never into markup.
"""

from __future__ import annotations

import json
import math
import sys
from typing import TYPE_CHECKING, Any, TextIO, cast

from rich.console import Console

from dpo_cli.characters import acts, escaped_json
from dpo_cli.report.streams import Undisturbed

if TYPE_CHECKING:
    from collections.abc import Iterable

_KEPT = frozenset("\n\t")


def visible(text: str, *, keep: Iterable[str] = _KEPT) -> str:
    r"""Make every character that acts instead of showing visible, as `\x1b`, `\u202e` or `\U000e0041`.

    Args:
        text: Any string, lone surrogates included.
        keep: Characters left as they are; newline and tab unless given.

    Returns:
        Text that can be encoded in UTF-8 and prints as it reads.
    """
    if text.isprintable():
        return text
    kept = frozenset(keep)
    return "".join(_shown(character) if character not in kept else character for character in text)


def visible_line(text: str) -> str:
    r"""As `visible`, on one line: newlines and tabs are shown as `\n` and `\t`."""
    return visible(text, keep="")


def _shown(character: str) -> str:
    if not acts(character):
        return character
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")


def stdout() -> Console:
    """The console for results; a reader that goes away raises BrokenPipeError."""
    return _ResultConsole(file=_encodable(sys.stdout), highlight=False, markup=False, emoji=False)


def stderr() -> Console:
    """The console for everything that is not a result; a reader that goes away stops nothing."""
    return Console(
        file=cast("TextIO", Undisturbed(_encodable(sys.stderr))), highlight=False, markup=False, emoji=False
    )


def write_json(document: dict[str, Any]) -> None:
    """Print one JSON document on standard output, and nothing else there.

    Characters stay readable, except for those that `visible` shows: JSON spells them as escapes too.

    Raises:
        BrokenPipeError: The reader went away.
    """
    stream = _encodable(sys.stdout)
    stream.write(json_text(document) + "\n")
    stream.flush()


def json_text(document: object, *, indent: int | None = 2) -> str:
    """A JSON document that is harmless on a terminal and can be encoded in UTF-8.

    JSON has no numbers that are not finite: the infinities and NaN of a ruined model become null.
    """
    return escaped_json(json.dumps(_finite(document), ensure_ascii=False, allow_nan=False, indent=indent))


def _finite(value: object) -> object:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(inner) for inner in value]
    return value


def _encodable(stream: Any) -> Any:  # noqa: ANN401 - a text stream, or None where there is none
    """The stream, set so that a character its encoding lacks is escaped, not an error."""
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")
    return stream


class _ResultConsole(Console):
    """Rich would exit with code 1 when the reader goes away; who calls decides that."""

    def on_broken_pipe(self) -> None:
        """Let the BrokenPipeError that is being handled go on."""
        self.quiet = True
        raise BrokenPipeError
