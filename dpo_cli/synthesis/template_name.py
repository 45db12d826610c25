"""Give a chat template the new name where it says the old one, as a default system prompt may.

A template is code. The name is replaced in what it prints: in text between the tags and inside of string literals,
each written so that Jinja reads the new name back as it is. Then conversations are rendered with both templates, and
the new one is kept if its texts are the old one's with the name replaced, and nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Final

from dpo_cli.models.templates import Chat, Refusal, render_chats
from dpo_cli.text.names import replace_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transformers import PreTrainedTokenizerBase

_MARK: Final = "\ue000"
_MARKUP: Final = frozenset("{}#%\r\n")
"""Characters that Jinja may not print as they stand."""
_COMPARISONS: Final = frozenset({"==", "!=", "<", ">", "<=", ">=", "in", "not", "is"})
_QUESTION: Final = {"role": "user", "content": "a"}
_TURNS: Final = (
    [_QUESTION],
    [{"role": "system", "content": "b"}, _QUESTION],
    [_QUESTION, {"role": "assistant", "content": "c"}, {"role": "user", "content": "d"}],
    [_QUESTION, {"role": "assistant", "content": "c"}],
)
_TOOL: Final = {
    "type": "function",
    "function": {"name": "f", "description": "g", "parameters": {"type": "object", "properties": {}}},
}


@dataclass(frozen=True)
class TemplateRename:
    """What became of the old name in a chat template.

    Attributes:
        count: Places where it was replaced.
        left: Why the template was left as it was although it says the name; empty when it was not.
    """

    count: int
    left: str = ""


def rename_in_template(
    tokenizer: PreTrainedTokenizerBase, original_name: str, new_name: str
) -> TemplateRename:
    """Replace the name where the chat template itself says it; the tokenizer keeps its template if that fails.

    Raises:
        ModelError: If a template takes too much time or memory.
    """
    old = tokenizer.chat_template
    if not old:
        return TemplateRename(0)
    new, count = _renamed_all(old, original_name, new_name)
    if not count:
        return TemplateRename(0)
    before, marked, after = (
        _rendered(tokenizer, template) for template in (old, _renamed_all(old, original_name, _MARK)[0], new)
    )
    for was, with_mark, now in zip(before, marked, after, strict=True):
        if not _only_renamed(was, with_mark, now, original_name, new_name):
            tokenizer.chat_template = old
            return TemplateRename(0, f"with {new_name} in place of {original_name} it renders other text")
    return TemplateRename(count)


def _renamed_all(template: str | dict[str, str], old: str, new: str) -> tuple[str | dict[str, str], int]:
    if isinstance(template, str):
        return _renamed(template, old, new)
    renamed = {key: _renamed(text, old, new) for key, text in template.items()}
    return {key: text for key, (text, _) in renamed.items()}, sum(count for _, count in renamed.values())


def _rendered(tokenizer: PreTrainedTokenizerBase, template: str | dict[str, str]) -> list[str | Refusal]:
    tokenizer.chat_template = template
    return render_chats(tokenizer, _conversations())


def _only_renamed(was: str | Refusal, marked: str | Refusal, now: str | Refusal, old: str, new: str) -> bool:
    """Whether a text differs from what it was in nothing but the name; as the text reads, or where the mark stands."""
    if isinstance(was, Refusal) or isinstance(marked, Refusal) or isinstance(now, Refusal):
        return was == now
    if now == replace_name(was, old, new).text:
        return True
    return all(
        marked.replace(_MARK, name).casefold() == text.casefold() for name, text in ((old, was), (new, now))
    )


def _conversations() -> list[Chat]:
    return [
        Chat(turns, add_generation_prompt=start, tools=tools)
        for turns, start, tools in product(_TURNS, (True, False), (None, [_TOOL]))
    ]


def _renamed(template: str, old: str, new: str) -> tuple[str, int]:
    """The template with the name replaced in what it prints, and in how many places."""
    template = template.replace("\r\n", "\n").replace("\r", "\n")  # as jinja2 does
    tokens = list(_tokens(template))
    parts: list[str] = []
    done = count = 0
    for index, (start, kind, text) in enumerate(tokens):
        if kind == "string" and not _compared(tokens, index):
            written, places = _in_literal(text, old, new)
        elif kind == "data":
            raw = index > 0 and tokens[index - 1][1] == "raw_begin"
            written, places = _in_data(text, old, new, raw=raw)
        else:
            continue
        if places:
            parts += template[done:start], written
            done, count = start + len(text), count + places
    return "".join([*parts, template[done:]]), count


def _tokens(template: str) -> Iterator[tuple[int, str, str]]:
    """Start, kind and text of Jinja's tokens, white space inside of tags left out.

    Jinja drops white space that a template trims and gives no columns: each token is looked for after the last.
    """
    from jinja2 import Environment, TemplateSyntaxError

    environment = Environment(keep_trailing_newline=True)  # noqa: S701 - read, never run
    place = 0
    try:
        for _, kind, text in environment.lex(template):
            start = template.find(text, place)
            place = start + len(text)
            if kind != "whitespace":
                yield start, kind, text
    except TemplateSyntaxError:
        return


def _compared(tokens: list[tuple[int, str, str]], index: int) -> bool:
    """Whether a literal is looked at rather than printed: compared, searched for, a key."""
    texts = [text for _, _, text in tokens[index - 1 : index + 2 : 2]]  # a tag begins before, and ends after
    return bool(_COMPARISONS & set(texts)) or texts == ["[", "]"] or texts[-1] == ":"


def _in_literal(literal: str, old: str, new: str) -> tuple[str, int]:
    said = (
        literal[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape")
    )  # as jinja2.lexer reads it
    replaced = replace_name(said, old, new)
    return _quoted(replaced.text, literal[0]), replaced.count


def _in_data(text: str, old: str, new: str, *, raw: bool) -> tuple[str, int]:
    replaced = replace_name(text, old, new)
    if raw or not replaced.count or not _MARKUP & set(new):
        return replaced.text, replaced.count
    # As an expression that prints it. White space at the ends stays outside, where the tags around may trim it.
    inside = replaced.text.strip()
    before, _, after = replaced.text.partition(inside)
    return f"{before}{{{{ {_quoted(inside)} }}}}{after}", replaced.count


def _quoted(text: str, quote: str = "'") -> str:
    escapes = {"\\": "\\\\", quote: "\\" + quote, "\n": "\\n", "\r": "\\r"}
    return quote + "".join(escapes.get(character, character) for character in text) + quote
