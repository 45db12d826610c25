"""Render conversations with a model's chat template, within bounds.

A chat template is a program that comes with a model. jinja2's sandbox keeps it from the machine, not from looping for
ever or making gigabytes of text. It therefore runs in a forked child, through the very function that transformers and
TRL use, and the kernel stops the child that takes too much. One child serves many conversations and ends when it has
been idle for a second: a fork shares its parent's memory, which training is about to change.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import resource
import select
import signal
import threading
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from dpo_cli.errors import ModelError, first_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from multiprocessing.connection import Connection

    from jinja2 import nodes
    from transformers import PreTrainedTokenizerBase

LONGEST_TEMPLATE: Final = 128 * 1024
"""Characters of a template; published ones have up to 40,000."""
CPU_SECONDS: Final = 1.0
"""What one conversation may take; usual is a thousandth."""
MEMORY: Final = 256 * 2**20
"""Bytes that the child may take beyond what it was forked with."""
_LONGEST_TEXT: Final = 2**20
"""Characters that a template may add to a conversation."""
_IDLE_SECONDS: Final = 1.0
_WALL_SECONDS: Final = 60.0
"""When a child that uses no CPU is given up: a machine may be busy, so this is generous."""
_AT_ONCE: Final = 64
_HINT = "Give a template of your own with --chat-template, or chatml."


@dataclass(frozen=True)
class Chat:
    """A conversation to be rendered.

    Attributes:
        messages: As `apply_chat_template` takes them.
        add_generation_prompt: End where the assistant begins to speak.
        tools: Schemas of the tools that the assistant may call.
        variables: Further variables of the template, such as `enable_thinking`.
    """

    messages: Sequence[Mapping[str, Any]]
    add_generation_prompt: bool = False
    tools: Sequence[Any] | None = None
    variables: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TemplateOptions:
    """What a tokenizer gives to its template with every conversation, see `models.thinking.set_options`.

    Attributes:
        variables: Variables of the template; those of a `Chat` come before them.
        closes_thinking: The template opens a block of thinking where the model is asked: it is closed at once.
        keeps_thinking: Thinking counts as part of an answer.
    """

    variables: Mapping[str, Any] = field(default_factory=dict)
    closes_thinking: bool = False
    keeps_thinking: bool = False


_ATTRIBUTE: Final = "dpo_template_options"
OPENED: Final = "<think>"
CLOSED: Final = "</think>"
NO_THOUGHTS: Final = f"{OPENED}\n\n{CLOSED}\n\n"
"""A block of thinking as templates write it for an answer without: the prompt ends so where thinking is off."""


def options_of(tokenizer: PreTrainedTokenizerBase) -> TemplateOptions:
    """The options that a tokenizer was loaded with."""
    options = getattr(tokenizer, _ATTRIBUTE, None)
    return options if isinstance(options, TemplateOptions) else TemplateOptions()


def give_options(tokenizer: PreTrainedTokenizerBase, options: TemplateOptions) -> None:
    """Let every text that this tokenizer's template renders be rendered with these options."""
    setattr(tokenizer, _ATTRIBUTE, options)


@dataclass(frozen=True)
class Refusal:
    """A conversation that the template did not render, and why, in words."""

    reason: str


def render_chat(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> str:
    """The text of a conversation, as `tokenizer.apply_chat_template` makes it.

    Raises:
        ModelError: If there is no template, it refuses the conversation, or was stopped.
    """
    text = render_chats(tokenizer, [chat])[0]
    if isinstance(text, Refusal):
        raise ModelError(text.reason, hint=_HINT)
    return text


def render_chats(tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat]) -> list[str | Refusal]:
    """The text of each conversation, or why there is none.

    Raises:
        ModelError: If there is no template, it is too long, or it was stopped for its time or memory.
    """
    if not chats:
        return []
    require_template(tokenizer)
    options = options_of(tokenizer)
    if options.variables:
        chats = [replace(chat, variables={**options.variables, **chat.variables}) for chat in chats]
    texts: list[str | Refusal] = []
    with _LOCK:
        child = _child_for(tokenizer)
        for start in range(0, len(chats), _AT_ONCE):
            texts += child.render(chats[start : start + _AT_ONCE])
    if options.closes_thinking:
        texts = [
            _closed(text) if chat.add_generation_prompt and isinstance(text, str) else text
            for chat, text in zip(chats, texts, strict=True)
        ]
    return texts


def _closed(text: str) -> str:
    open_ = text.rstrip()
    return open_.removesuffix(OPENED) + NO_THOUGHTS if open_.endswith(OPENED) else text


def template_variables(tokenizer: PreTrainedTokenizerBase) -> frozenset[str]:
    """The names that a chat template reads and does not set itself; those of special tokens left out.

    Raises:
        ModelError: If there is no template, it cannot be read, or it took too much time or memory.
    """
    require_template(tokenizer)
    with _LOCK:
        [names] = _child_for(tokenizer).render([_VARIABLES])
    if isinstance(names, Refusal):
        raise ModelError(names.reason, hint=_HINT)
    return frozenset(json.loads(names)) - frozenset(tokenizer.SPECIAL_TOKENS_ATTRIBUTES)


_VARIABLES: Final = Chat([{"role": "variables"}])
"""In place of a conversation: asks the child for the names of the template's variables."""


def require_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer without a chat template, or with one too long to be one.

    Raises:
        ModelError: If it is so.
    """
    template = tokenizer.chat_template
    if not template:
        raise ModelError(
            "the tokenizer has no chat template", hint="Give --chat-template chatml, or a Jinja file."
        )
    texts = template.values() if isinstance(template, dict) else [template]
    if (length := max(len(text) for text in texts)) > LONGEST_TEMPLATE:
        raise ModelError(
            f"the chat template has {length:,} characters, more than the {LONGEST_TEMPLATE:,} allowed",
            hint=_HINT,
        )


class _Child:
    """A forked process that renders with one tokenizer as it was at the fork."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._key = _key(tokenizer)
        self._pid = 0
        self._end: Connection | None = None

    def serves(self, tokenizer: PreTrainedTokenizerBase) -> bool:
        return self._tokenizer is tokenizer and self._key == _key(tokenizer)

    def render(self, chats: Sequence[Chat]) -> list[str | Refusal]:
        request = pickle.dumps(chats)
        status = 0
        for _ in range(2):
            end = self._end or self._start()
            try:
                end.send_bytes(request)
                return [_read(*pair) for pair in json.loads(self._receive(end))]
            except (EOFError, BrokenPipeError, ConnectionResetError):
                # An idle child may have been on its way out, and a signal from outside is no fault of the
                # template's: a second child shows whether it is.
                status = self.stop()
                if _overtime(status):
                    break
            except BaseException:
                self.stop()  # its answer, under way, would be taken for the next one
                raise
        raise _stopped(status)

    def _receive(self, end: Connection) -> bytes:
        if not select.select([end], [], [], _WALL_SECONDS)[0]:
            raise ModelError(f"the chat template produced no text within {_WALL_SECONDS:.0f} s", hint=_HINT)
        return end.recv_bytes()

    def _start(self) -> Connection:
        ours, theirs = Pipe()
        try:
            with _no_word_about_forks():
                self._pid = os.fork()
        except OSError as error:
            raise ModelError(
                f"the chat template cannot be run: no process could be started ({error.strerror})"
            ) from error
        if self._pid == 0:
            _serve(self._tokenizer, theirs)
        theirs.close()
        self._end = ours
        return ours

    def stop(self) -> int:
        """End the child, if it has not ended, and give its exit status."""
        if self._end is None:
            return 0
        self._end.close()
        self._end = None
        try:
            os.kill(self._pid, signal.SIGKILL)
            return os.waitpid(self._pid, 0)[1]
        except (ChildProcessError, ProcessLookupError):  # SIGCHLD is ignored here
            return 0


_LOCK = threading.RLock()
_child: _Child | None = None


def _child_for(tokenizer: PreTrainedTokenizerBase) -> _Child:
    global _child  # noqa: PLW0603 - one child for the process
    if _child is None or not _child.serves(tokenizer):
        if _child is not None:
            _child.stop()
        _child = _Child(tokenizer)
    return _child


def _forget_child() -> None:
    """In a process that was forked from ours: the child is not its own."""
    global _child, _LOCK
    _child, _LOCK = None, threading.RLock()


os.register_at_fork(after_in_child=_forget_child)


def _key(tokenizer: PreTrainedTokenizerBase) -> tuple[Any, ...]:
    """What a text depends on beside the conversation."""
    template = tokenizer.chat_template
    named = tuple(sorted(template.items())) if isinstance(template, dict) else template
    return named, tuple(sorted((key, str(token)) for key, token in tokenizer.special_tokens_map.items()))


def _read(kind: str, text: str) -> str | Refusal:
    if kind == "text":
        return text
    if kind == "refusal":
        return Refusal(f"the chat template {text}")
    raise ModelError(f"the chat template {text}", hint=_HINT)


def _overtime(status: int) -> bool:
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGPROF


def _stopped(status: int) -> ModelError:
    if _overtime(status):
        return ModelError(
            f"the chat template takes more than {CPU_SECONDS} s for one conversation", hint=_HINT
        )
    return ModelError("the chat template ended the process that runs it", hint=_HINT)


# From here on: in the child.


def _serve(tokenizer: PreTrainedTokenizerBase, connection: Connection) -> NoReturn:
    """Answer requests until the parent is gone or has been silent for a while."""
    try:
        _shut_off(connection.fileno())
        while select.select([connection], [], [], _IDLE_SECONDS)[0]:
            replies = []
            for chat in pickle.loads(connection.recv_bytes()):  # noqa: S301 - from our own parent
                signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
                replies.append(_render(tokenizer, chat))
            signal.setitimer(signal.ITIMER_PROF, 0)
            connection.send_bytes(json.dumps(replies).encode())
    finally:
        os._exit(0)


def _render(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> tuple[str, str]:
    from jinja2.exceptions import TemplateError

    try:
        if chat == _VARIABLES:
            return "text", json.dumps(sorted(_undeclared(tokenizer)))
        text = tokenizer.apply_chat_template(
            list(chat.messages),
            tools=chat.tools,
            tokenize=False,
            add_generation_prompt=chat.add_generation_prompt,
            **chat.variables,
        )
    except MemoryError:
        return "stop", f"takes more than {MEMORY // 2**20} MiB of memory"
    except TemplateError as error:
        return "refusal", f"refuses this conversation: {first_line(error)}"
    except Exception as error:  # noqa: BLE001 - the template is anybody's program
        return "refusal", f"fails: {type(error).__name__}: {first_line(error)}"[:500]
    if len(text) > _LONGEST_TEXT and len(text) > _LONGEST_TEXT + 16 * len(str(chat)):
        return "stop", f"produces a text of {len(text):,} characters"
    return "text", text


def _undeclared(tokenizer: PreTrainedTokenizerBase) -> set[str]:
    """Read here, in the child: jinja2 folds constants of the template while it looks for names."""
    from jinja2 import meta
    from transformers.utils.chat_template_utils import _cached_compile_jinja_template

    template = tokenizer.chat_template
    names: set[str] = set()
    for text in template.values() if isinstance(template, dict) else [template]:
        environment = _cached_compile_jinja_template(text).environment
        tree = environment.parse(text)
        # jinja2 also counts what is set in a loop or a branch and read after it; what is first set is no argument.
        first: dict[str, str] = {}
        for name in _names(tree):
            first.setdefault(name.name, name.ctx)
        names |= {name for name in meta.find_undeclared_variables(tree) if first.get(name) == "load"}
    return names


def _names(node: nodes.Node) -> Iterator[nodes.Name]:
    """The names of a template in the order in which they are met: what is assigned comes before what it is assigned to."""
    from jinja2 import nodes

    if isinstance(node, nodes.Name):
        yield node
    children = list(node.iter_child_nodes())
    for child in reversed(children) if isinstance(node, nodes.Assign) else children:
        yield from _names(child)


def _shut_off(connection: int) -> None:
    """Keep nothing of the parent's: its files, locks, pipes and signal handlers. Then set the bounds."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.closerange(3, connection)
    os.closerange(connection + 1, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPROF):
        signal.signal(number, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    now = Path("/proc/self/statm")
    if now.exists():  # elsewhere the kernel does not keep to RLIMIT_AS
        size = int(now.read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        wanted = size + MEMORY
        resource.setrlimit(
            resource.RLIMIT_AS, (wanted if most == resource.RLIM_INFINITY else min(wanted, most), most)
        )


@contextlib.contextmanager
def _no_word_about_forks() -> Iterator[None]:
    """Keep `tokenizers` from warning on standard error: this child does not tokenise."""
    name = "TOKENIZERS_PARALLELISM"
    if name in os.environ:
        yield
        return
    os.environ[name] = "true"
    try:
        yield
    finally:
        os.environ.pop(name, None)
