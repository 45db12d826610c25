"""Conversations through the chat template, many at a time.

A template is a program and running it costs more than tokenising a short pair. Most templates only ever
*print* what messages say; they look at roles. For those, conversations with the same roles are the same text
with other words in the gaps, so the template runs once for each sequence of roles (a `skeleton`).
`contents_use` reads the template's syntax tree to find out whether that holds; where it does not, and
for messages with more than role and content, the template runs for each conversation. The first rows are
rendered both ways regardless, and one difference switches the short way off.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from dpo_cli.data.pairs import TEMPLATE_REFUSED, Message, Pair, RowProblem
from dpo_cli.data.tokens.unrendered import Unrendered
from dpo_cli.models.templates import NO_THOUGHTS, OPENED, Chat, Refusal, options_of, render_chats

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jinja2 import nodes
    from transformers import PreTrainedTokenizerBase

Triple = tuple[str, str, str]
"""The prompt, the prompt with chosen, the prompt with rejected, as text for the tokenizer."""

Use = Literal["as it is", "trimmed", "unknown"]

_GAP: Final = re.compile("\ue000(\\d+)\ue001")
_PROBED: Final = 64
"""Conversations that are rendered both ways before the short way is trusted alone."""
_MOST_SKELETONS: Final = 4096
_PLAIN: Final = {"role", "content"}
_ELSEWHERE: Final = frozenset({"content", "previtem", "nextitem"})


@dataclass(frozen=True, slots=True)
class _Skeleton:
    """A rendered conversation with gaps: literal, index of a message, literal, index, ..., literal."""

    literals: list[str]
    indices: list[int]


class ChatRenderer:
    """Renders pairs with a tokenizer's chat template, exactly as `apply_chat_template` does.

    Args:
        tokenizer: With a chat template.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        template = tokenizer.chat_template
        self._use: Use = contents_use(template) if isinstance(template, str) else "unknown"
        self._skeletons: dict[tuple[Any, ...], _Skeleton | Refusal] = {}
        self._to_probe = _PROBED
        self._closes = options_of(tokenizer).closes_thinking
        self._unrendered = Unrendered(self._run)

    def render(self, pairs: Sequence[Pair]) -> list[Triple | RowProblem]:
        """Each conversational pair as the three texts that are tokenised, or why the template refuses it.

        Raises:
            ModelError: If the tokenizer has no chat template, or it was stopped for its time or memory.
        """
        chats = [chat for pair in pairs for chat in _chats(pair)]
        texts: list[str | Refusal | None] = [self._short_way(chat) for chat in chats]
        open_ = [place for place, text in enumerate(texts) if text is None]
        ran = render_chats(self._tokenizer, [chats[place] for place in open_])
        for place, text in zip(open_, ran, strict=True):
            texts[place] = text
        triples = [_triple(texts[start : start + 3]) for start in range(0, len(texts), 3)]
        return [self._without_thinking(triple) for triple in triples] if self._closes else triples

    def _without_thinking(self, triple: Triple | RowProblem) -> Triple | RowProblem:
        """A triple whose answers follow the prompt that asks for no thinking: the template leaves the block out of them."""
        if isinstance(triple, RowProblem) or not triple[0].endswith(NO_THOUGHTS):
            return triple
        prompt, *whole = triple
        start = prompt.removesuffix(NO_THOUGHTS)
        chosen, rejected = (
            prompt + text[len(start) :]
            if text.startswith(start) and not text.startswith(start + OPENED)
            else text
            for text in whole
        )
        return prompt, chosen, rejected

    def left_out(self, pair: Pair, triple: Triple) -> tuple[str, ...]:
        """The fields of a conversational pair that are not in its rendered texts, in words."""
        return self._unrendered.fields(pair, triple[1], triple[2])

    def _run(self, messages: Sequence[Message], pair: Pair) -> str | Refusal:
        return render_chats(self._tokenizer, [_chat(pair, messages)])[0]

    def _short_way(self, chat: Chat) -> str | Refusal | None:
        """The text by way of a skeleton; None where the template has to run."""
        messages = chat.messages
        if (
            self._use == "unknown"
            or chat.tools
            or chat.variables
            or any(message.keys() != _PLAIN for message in messages)
        ):
            return None
        key = (chat.add_generation_prompt, *[message["role"] for message in messages])
        skeleton = self._skeletons.get(key)
        if skeleton is None:
            if len(self._skeletons) >= _MOST_SKELETONS:
                return None
            skeleton = self._skeletons[key] = self._skeleton(key)
        if isinstance(skeleton, Refusal):
            return skeleton
        text = self._filled(skeleton, messages)
        if self._to_probe:
            self._to_probe -= 1
            [whole] = render_chats(self._tokenizer, [chat])
            if whole != text:
                self._use = "unknown"
                return whole
        return text

    def _filled(self, skeleton: _Skeleton, messages: Sequence[Mapping[str, Any]]) -> str:
        parts = [skeleton.literals[0]]
        for index, literal in zip(skeleton.indices, skeleton.literals[1:], strict=True):
            content: str = messages[index]["content"]
            parts += (content.strip() if self._use == "trimmed" else content, literal)
        return "".join(parts)

    def _skeleton(self, key: tuple[Any, ...]) -> _Skeleton | Refusal:
        start_answer, *roles = key
        gaps = [{"role": role, "content": f"\ue000{index}\ue001"} for index, role in enumerate(roles)]
        [rendered] = render_chats(self._tokenizer, [Chat(gaps, add_generation_prompt=start_answer)])
        if isinstance(rendered, Refusal):
            return rendered
        pieces = _GAP.split(rendered)
        return _Skeleton(pieces[::2], [int(index) for index in pieces[1::2]])


def _chats(pair: Pair) -> tuple[Chat, Chat, Chat]:
    chosen, rejected = [*pair.prompt, *pair.chosen], [*pair.prompt, *pair.rejected]
    return (
        _chat(pair, pair.prompt, start_answer=True),  # type: ignore[arg-type]
        _chat(pair, chosen),
        _chat(pair, rejected),
    )


def _chat(pair: Pair, messages: Sequence[Message], *, start_answer: bool = False) -> Chat:
    """Messages with what the pair gives to the template; tools among its variables go before its own, as in TRL."""
    more = {"tools": pair.tools, **(pair.template_kwargs or {})}
    return Chat(messages, start_answer, more.pop("tools"), more)


def _triple(texts: Sequence[str | Refusal | None]) -> Triple | RowProblem:
    for text in texts:
        if isinstance(text, Refusal):
            return RowProblem(TEMPLATE_REFUSED, text.reason)
    prompt, chosen, rejected = texts
    return prompt, chosen, rejected  # type: ignore[return-value]


def contents_use(template: str) -> Use:
    """What a template does with the contents of messages.

    Args:
        template: Jinja source.

    Returns:
        "as it is" when contents are only printed, "trimmed" when they are only printed with outer white space
        removed, "unknown" for everything else (compared, measured, assigned, passed on, or not understood).
    """
    from jinja2 import Environment, TemplateSyntaxError

    if "\ue000" in template:
        return "unknown"
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(template)  # noqa: S701 - parsed, never run
        return _Reading(tree).use()
    except (TemplateSyntaxError, RecursionError):
        return "unknown"


class _Reading:
    """Reads a syntax tree for what happens to `messages` and to what is taken out of it."""

    def __init__(self, tree: nodes.Template) -> None:
        self._tree = tree
        self._lists = {"messages"}
        self._single: set[str] = set()
        self._uses: set[Use] = set()

    def use(self) -> Use:
        """The one use of all contents."""
        from jinja2 import nodes

        for _ in range(2):  # a list may get its second name after the loop that uses it
            for loop in self._tree.find_all(nodes.For):
                if self._is_list(loop.iter) and isinstance(loop.target, nodes.Name):
                    self._single.add(loop.target.name)
            for assign in self._tree.find_all(nodes.Assign):
                if self._is_list(assign.node) and isinstance(assign.target, nodes.Name):
                    self._lists.add(assign.target.name)
        self._visit(self._tree, printed=False)
        return self._uses.pop() if len(self._uses) == 1 else "unknown"

    def _is_list(self, node: Any) -> bool:  # noqa: ANN401 - any node
        from jinja2 import nodes

        if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
            node = node.node
        return isinstance(node, nodes.Name) and node.name in self._lists

    def _is_message(self, node: Any) -> bool:  # noqa: ANN401 - any node
        from jinja2 import nodes

        if isinstance(node, nodes.Getitem) and not isinstance(node.arg, nodes.Slice):
            return self._is_list(node.node)
        return isinstance(node, nodes.Name) and node.name in self._single

    def _key(self, node: Any) -> str | None:  # noqa: ANN401 - any node
        """The key that is taken from a message; None for anything else."""
        from jinja2 import nodes

        if isinstance(node, nodes.Getattr) and self._is_message(node.node):
            return str(node.attr)
        if (
            isinstance(node, nodes.Getitem)
            and self._is_message(node.node)
            and isinstance(node.arg, nodes.Const)
        ):
            return str(node.arg.value)
        return None

    def _visit(self, node: Any, *, printed: bool) -> None:  # noqa: ANN401 - any node
        """Walk down; `printed` is whether the value of this expression goes to the output unchanged."""
        from jinja2 import nodes

        key = self._key(node)
        if key is not None:
            if key == "content":
                self._uses.add("as it is" if printed else "unknown")
            if isinstance(node, nodes.Getitem):
                self._visit_index(node.node)
            return
        if self._harmless(node):
            return
        if isinstance(node, nodes.Filter) and node.name == "trim" and self._key(node.node) == "content":
            self._uses.add("trimmed" if printed and not node.args and not node.kwargs else "unknown")
            return
        if isinstance(node, nodes.Name) and node.name in self._lists | self._single and node.ctx == "load":
            self._uses.add("unknown")
            return
        if self._hides(node):
            self._uses.add("unknown")
            return
        through = isinstance(node, nodes.Output | nodes.Add | nodes.Concat) and (
            printed or isinstance(node, nodes.Output)
        )
        for child in node.iter_child_nodes():
            self._visit(child, printed=through)

    def _hides(self, node: Any) -> bool:  # noqa: ANN401 - any node
        """Ways to a content that are not followed: output that is captured, neighbours in a loop, other names."""
        from jinja2 import nodes

        if isinstance(node, nodes.AssignBlock | nodes.FilterBlock | nodes.CallBlock | nodes.Macro):
            return any(name.name in self._lists | self._single for name in node.find_all(nodes.Name))
        if isinstance(node, nodes.Getattr):
            return node.attr in _ELSEWHERE
        return (
            isinstance(node, nodes.Getitem)
            and isinstance(node.arg, nodes.Const)
            and node.arg.value in _ELSEWHERE
        )

    def _visit_index(self, message: Any) -> None:  # noqa: ANN401 - any node
        from jinja2 import nodes

        if isinstance(message, nodes.Getitem):
            self._visit(message.arg, printed=False)

    def _harmless(self, node: Any) -> bool:  # noqa: ANN401 - any node
        """Uses that depend on nothing but roles, keys and the number of messages."""
        from jinja2 import nodes

        if isinstance(node, nodes.Test):
            return (
                node.name in {"string", "defined", "undefined", "none", "mapping"}
                and self._key(node.node) is not None
            )
        if isinstance(node, nodes.Compare):
            return (
                isinstance(node.expr, nodes.Const)
                and len(node.ops) == 1
                and node.ops[0].op in {"in", "notin"}
                and self._is_message(node.ops[0].expr)
            )
        if isinstance(node, nodes.Filter):
            return node.name in {"length", "count"} and self._is_list(node.node)
        if isinstance(node, nodes.For) and self._is_list(node.iter) and isinstance(node.target, nodes.Name):
            for child in [*node.body, *node.else_, *([node.test] if node.test else [])]:
                self._visit(child, printed=False)
            return True
        return isinstance(node, nodes.Assign) and self._is_list(node.node)
