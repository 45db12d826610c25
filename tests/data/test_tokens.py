"""Token ids, held against TRL's own preparation and collator."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import CHATML, make_tokenizer

from dpo_cli.config import Truncation
from dpo_cli.data.pairs import Pair, RowProblem
from dpo_cli.data.tokens.tokenizer import PairTokenizer
from dpo_cli.errors import ModelError

STRIPPING = (
    "{{ bos_token or '' }}{% for m in messages %}[{{ m['role'] }}]{{ m['content'] | trim }}</s>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
# Renders the prompt alone with a thought that the whole conversation does not have (as Gemma and Qwen templates do).
THINKING = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think></think>{% endif %}"
)
TEMPLATES = {"chatml": CHATML, "stripping": STRIPPING, "thinking": THINKING}


@pytest.fixture(scope="module")
def tokenizers():
    return {name: make_tokenizer(template=template) for name, template in TEMPLATES.items()}


@pytest.fixture(scope="module")
def with_bos():
    """A tokenizer that puts a BOS before plain text and an EOS after it, as Llama's and T5's do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A <|im_end|>", special_tokens=[("<|endoftext|>", 0), ("<|im_end|>", 2)]
    )
    return tokenizer


def trl_ids(tokenizer, pairs, max_length=None, mode="keep_start"):
    """The rows that TRL's trainer would train on, prepared by its own code."""
    from datasets import Dataset
    from trl.trainer.dpo_trainer import DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode=mode)
    trainer = SimpleNamespace(_tokenizer=tokenizer)
    rows = Dataset.from_list([pair.to_row() for pair in pairs])
    prepared = DPOTrainer._prepare_dataset(trainer, rows, tokenizer, args, "train")
    return [(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in prepared]


def our_ids(tokenizer, pairs, **limits):
    found = PairTokenizer(tokenizer, Truncation(**limits)).tokenize(pairs)
    return [(one.prompt, one.chosen, one.rejected) for one in found]


pieces = st.sampled_from(
    ["a", "b", " ", "c", "é", "\n", "<|im_end|>", "<|endoftext|>", "1", ".", "Qwen", "👍"]
)
words = st.lists(pieces, max_size=8).map("".join)


def message(role):
    return st.builds(lambda content: {"role": role, "content": content}, words)


turns = st.lists(st.tuples(message("user"), message("assistant")), max_size=2).map(
    lambda pairs: [turn for pair in pairs for turn in pair]
)
conversational = st.builds(
    lambda system, turns, last, chosen, rejected: Pair([*system, *turns, last], [chosen], [rejected]),
    st.lists(message("system"), max_size=1),
    turns,
    message("user"),
    message("assistant"),
    message("assistant"),
)
standard = st.builds(Pair, words, words, words)
few = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@few
@given(pairs=st.lists(conversational, min_size=1, max_size=4), template=st.sampled_from(sorted(TEMPLATES)))
def test_conversations_have_trls_ids(tokenizers, pairs, template):
    assert our_ids(tokenizers[template], pairs) == trl_ids(tokenizers[template], pairs)


@few
@given(pairs=st.lists(standard, min_size=1, max_size=4), bos=st.booleans())
def test_plain_text_has_trls_ids(tokenizers, with_bos, pairs, bos):
    tokenizer = with_bos if bos else tokenizers["chatml"]
    assert our_ids(tokenizer, pairs) == trl_ids(tokenizer, pairs)


@few
@given(
    pairs=st.lists(conversational, min_size=1, max_size=4),
    max_length=st.integers(8, 60),
    mode=st.sampled_from(["keep_start", "keep_end"]),
)
def test_truncation_leaves_what_trls_collator_leaves(tokenizers, pairs, max_length, mode):
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    tokenizer = tokenizers["chatml"]
    ours = PairTokenizer(tokenizer, Truncation(max_length, mode))
    kept = [
        one
        for one in ours.tokenize(pairs)
        if not (problem := ours.problem(one)) or problem.reason != "prompt fills max_length"
    ]
    rows = trl_ids(tokenizer, pairs, max_length, mode)
    assert [(one.prompt, one.chosen, one.rejected) for one in kept if ours.problem(one) is None] == [
        row for row in rows if _differs(row, max_length, mode)
    ]
    for one in kept:
        if not one.chosen or not one.rejected:
            continue
        example = {"prompt_ids": one.prompt, "chosen_ids": one.chosen, "rejected_ids": one.rejected}
        batch = DataCollatorForPreference(0, max_length, mode)([example])
        cut = ours.cut(one)
        for index, (prompt, completion) in enumerate(
            ((cut.chosen_prompt, cut.chosen), (cut.rejected_prompt, cut.rejected))
        ):
            size = int(batch["attention_mask"][index].sum())
            assert batch["input_ids"][index][:size].tolist() == prompt + completion
            assert int(batch["completion_mask"][index].sum()) == len(completion)


def _differs(row, max_length, mode):
    prompt, chosen, rejected = row
    cut = slice(None, max_length) if mode == "keep_start" else slice(-max_length, None)
    sides = [((prompt + ids)[cut], ([0] * len(prompt) + [1] * len(ids))[cut]) for ids in (chosen, rejected)]
    return chosen != rejected and chosen and rejected and sides[0] != sides[1]


def test_tools_reach_the_template():
    tokenizer = make_tokenizer(template="{{ tools | tojson if tools else 'none' }}" + CHATML)
    user, yes, no = (
        [{"role": role, "content": text}]
        for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    pairs = [Pair(user, yes, no, [tool]), Pair(user, yes, no)]
    ours = our_ids(tokenizer, pairs)
    assert ours == [*trl_ids(tokenizer, pairs[:1]), *trl_ids(tokenizer, pairs[1:])]
    assert '"name"' in tokenizer.decode(ours[0][0])
    assert tokenizer.decode(ours[1][0]).startswith("none")


def test_a_template_that_refuses_a_conversation_costs_that_row_only():
    strict = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHATML
    )
    user, yes, no = (
        [{"role": role, "content": text}]
        for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b"))
    )
    with_system = [{"role": "system", "content": "s"}, *user]
    found = PairTokenizer(make_tokenizer(template=strict)).tokenize(
        [Pair(user, yes, no), Pair(with_system, yes, no)]
    )
    assert not isinstance(found[0], RowProblem)
    assert found[1].reason == "refused by the chat template"
    assert "System role not supported" in found[1].detail


def test_a_missing_template_names_the_way_out():
    tokenizer = make_tokenizer(template=None)
    pair = Pair(
        [{"role": "user", "content": "q"}],
        [{"role": "assistant", "content": "a"}],
        [{"role": "assistant", "content": "b"}],
    )
    with pytest.raises(ModelError, match="--chat-template chatml"):
        PairTokenizer(tokenizer).tokenize([pair])
    assert PairTokenizer(tokenizer).tokenize([Pair("q", "a", "b")])


def test_a_tokenizer_without_special_tokens_takes_plain_text():
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(
        models.WordLevel({"<pad>": 0, "<BRN>": 1, "A": 2, "C": 3, "G": 4, "T": 5}, unk_token="<pad>")
    )
    inner.pre_tokenizer = pre_tokenizers.Split(Regex("<BRN>|."), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>")
    assert our_ids(tokenizer, [Pair("<BRN>", "CAGG", "CAGT")]) == [([1], [3, 2, 4, 4], [3, 2, 4, 5])]
