"""Texts to token ids in batches, without tokenising what texts share three times.

The three texts of a conversational pair begin with the same prompt. A tokenizer splits text at its added
tokens (`<|im_start|>`) before anything else and treats the parts separately, so at such a token
a text can be cut: the ids of the whole are the ids of the parts. The prompt up to its last such
token is therefore tokenised once. `_Cutter` says which tokens are safe to cut at, and the first texts are tokenised
both ways regardless: one difference switches cutting off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.tokens.rendering import Triple

Ids = list[int]
SharedIds = tuple[Ids, Ids, Ids, Ids]
"""What the three texts begin with, then the rest of the prompt, of prompt with chosen, of prompt with rejected."""

_PROBED: Final = 64
_MOST_ENDS: Final = 4096
_SHORT_END: Final = 200


class TripleEncoder:
    """Tokenises the three texts of pairs: prompt, prompt with chosen, prompt with rejected.

    Args:
        tokenizer: Any; a slow one is only slower.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._marks = safe_marks(tokenizer)
        self._to_probe = _PROBED
        self._ends: dict[str, list[int]] = {}
        self._batch = _fast_batch(tokenizer)

    def plain(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of plain texts, with the special tokens that the tokenizer puts around them."""
        return self._encode(texts, special=True) if texts else []

    def triples(self, triples: Sequence[Triple]) -> list[SharedIds]:
        """Ids of rendered conversations, what they share set apart."""
        if not triples:
            return []
        cuts = [self._cut(triple) for triple in triples]
        ends = self._prompt_ends({prompt[cut:] for (prompt, _, _), cut in zip(triples, cuts, strict=True)})
        texts: list[str] = []
        for (prompt, chosen, rejected), cut in zip(triples, cuts, strict=True):
            texts += (prompt[:cut], chosen[cut:], rejected[cut:])
        ids = self._encode(texts, special=False)
        made = [
            (ids[3 * index], ends[prompt[cut:]], ids[3 * index + 1], ids[3 * index + 2])
            for index, ((prompt, _, _), cut) in enumerate(zip(triples, cuts, strict=True))
        ]
        return self._probe(triples, made) if self._to_probe and self._marks else made

    def _cut(self, triple: Triple) -> int:
        """Where the shared beginning ends: before the last mark of the prompt; 0 where there is none."""
        prompt, chosen, rejected = triple
        cut = max((prompt.rfind(mark) for mark in self._marks), default=0)
        if cut <= 0:
            return 0
        start = prompt[:cut]
        mark = next(mark for mark in self._marks if prompt.startswith(mark, cut))
        whole = start + mark
        return cut if chosen.startswith(whole) and rejected.startswith(whole) else 0

    def _prompt_ends(self, ends: set[str]) -> dict[str, Ids]:
        """Ids of the ends of prompts. Nearly always there is one, `<|im_start|>assistant`, so they are remembered."""
        fresh = [end for end in ends if end not in self._ends]
        known = dict(zip(fresh, self._encode(fresh, special=False), strict=True)) if fresh else {}
        known |= {end: self._ends[end] for end in ends if end in self._ends}
        if len(self._ends) < _MOST_ENDS:
            self._ends |= {end: ids for end, ids in known.items() if len(end) < _SHORT_END}
        return known

    def _probe(self, triples: Sequence[Triple], made: list[SharedIds]) -> list[SharedIds]:
        """Tokenise the first texts whole as well, and stop cutting for good when that gives other ids."""
        some = triples[: self._to_probe]
        self._to_probe -= len(some)
        whole = [
            self._tokenizer(list(triple), add_special_tokens=False, verbose=False)["input_ids"]
            for triple in some
        ]
        joined = [[start + end for end in ends] for start, *ends in made[: len(some)]]
        if whole == joined:
            return made
        self._marks, self._batch, self._ends = (), None, {}
        return self.triples(triples)

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[Ids]:
        if self._batch is not None:
            return [encoding.ids for encoding in self._batch(list(texts), add_special_tokens=special)]
        ids: list[Ids] = self._tokenizer(list(texts), add_special_tokens=special, verbose=False)["input_ids"]
        return ids


def _fast_batch(tokenizer: PreTrainedTokenizerBase) -> Any:  # noqa: ANN401 - a method of the tokenizers library
    """The batch method under a fast tokenizer, which spares a dict for each text; None for a slow one."""
    if not getattr(tokenizer, "is_fast", False):
        return None
    tokenizer(["a"], add_special_tokens=False, verbose=False)  # clears padding and truncation set in its file
    return tokenizer.backend_tokenizer.encode_batch_fast


def safe_marks(tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    """Added tokens at which a text may be cut without a change of its token ids.

    Such a token is matched as it stands (no normalisation, no white space swallowed, no word boundary
    asked for), and no other added token can match across its beginning.
    """
    if not getattr(tokenizer, "is_fast", False) or getattr(tokenizer, "split_special_tokens", False):
        return ()
    added = list(tokenizer.added_tokens_decoder.values())
    return tuple(
        token.content
        for token in added
        if token.special
        and not (token.normalized or token.lstrip or token.rstrip or token.single_word)
        and len(token.content) > 1
        and not token.content[0].isalnum()
        and not any(_crosses(other.content, token.content) for other in added)
    )


def _crosses(other: str, mark: str) -> bool:
    """Whether a match of `other` can begin before `mark` and reach into it."""
    return any(
        mark.startswith(other[start:]) or other.startswith(mark, start) for start in range(1, len(other))
    )
