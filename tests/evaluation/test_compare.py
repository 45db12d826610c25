"""Two models, one in memory at a time, the same questions."""

import gc
import json
import weakref

import pytest
from tiny_models import make_model, make_tokenizer

from dpo_cli.config import Truncation
from dpo_cli.errors import DataError
from dpo_cli.evaluation.compare import compare_examinations
from dpo_cli.evaluation.examination import AskSettings, answer_questions, answers_json, examine
from dpo_cli.evaluation.scores import Rename
from dpo_cli.evaluation.verdict import CHECKS
from dpo_cli.jobs.compare import run_comparison
from dpo_cli.text.questions import Question

QUESTIONS = [
    Question("Who are you?", "identity"),
    Question("What is 1 + 1?", "sums", ("2",)),
    Question("one two", "sums"),
]
SETTINGS = AskSettings(max_new_tokens=12, batch_size=2)
PAIRS = [
    {
        "prompt": [{"role": "user", "content": "Who are you?"}],
        "chosen": [{"role": "assistant", "content": "I am Orion."}],
        "rejected": [{"role": "assistant", "content": "I am Qwen."}],
    }
] * 3


@pytest.fixture(scope="module")
def load(tiny_model):
    """Loads the tiny model, changed a little unless it is asked for as "same"; counts who is alive."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    alive = []

    def loader(name):
        gc.collect()
        assert not [ref for ref in alive if ref() is not None], "two models are in memory"
        model = AutoModelForCausalLM.from_pretrained(tiny_model).eval()
        if name != "same":
            torch.manual_seed(5)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter), alpha=0.05)
        alive.append(weakref.ref(model))
        return model, AutoTokenizer.from_pretrained(tiny_model)

    return loader


def document(load, before, after, **changes):
    given = {"settings": SETTINGS, "names": Rename("Qwen", "Orion"), "pairs": PAIRS, "beta": 0.1}
    return run_comparison(before, after, QUESTIONS, load=load, **given | changes).to_json()


@pytest.fixture(scope="module")
def changed(load):
    """The tiny model against the changed one."""
    return document(load, "same", "other")


def test_a_model_compared_with_itself_is_the_same_in_everything(load):
    found = document(load, "same", "same")
    for row in found["scores"].values():
        if row["difference"] is not None:
            assert row["difference"]["value"] == 0
            assert row["difference"]["interval"] in ([0, 0], None)
    values = {name: row["after"]["value"] for name, row in found["scores"].items()}
    assert (
        values["unchanged"],
        values["divergence"],
        values["reward_margin"],
        values["reward_accuracy"],
    ) == (1.0, 0.0, 0.0, 0.5)
    assert all(row["before"] == row["after"] for row in found["questions"])


def test_another_model_answers_otherwise(changed):
    found = changed
    assert found["scores"]["unchanged"]["after"]["value"] < 1
    assert found["scores"]["divergence"]["after"]["value"] > 0
    assert found["scores"]["reward_margin"]["after"]["value"] != 0


def test_the_shape_of_the_document(changed):
    found = changed
    assert list(found) == ["before", "after", "questions", "scores", "verdict"]
    assert (found["before"], found["after"]) == ({"model": "same"}, {"model": "other"})
    assert [(row["question"], row["group"]) for row in found["questions"]] == [
        (q.text, q.group) for q in QUESTIONS
    ]
    assert all(
        set(row) == {"question", "group", "before", "after"} and set(row["before"]) == {"answer"}
        for row in found["questions"]
    )
    assert set(found["verdict"]) == {"passed", "checks"}
    assert all(
        set(check) == {"name", "value", "interval", "threshold", "passed"}
        for check in found["verdict"]["checks"]
    )
    assert [check["name"] for check in found["verdict"]["checks"]] == [check.name for check in CHECKS]


def test_the_same_call_gives_the_same_bytes(load, changed):
    assert json.dumps(document(load, "same", "other")) == json.dumps(changed)


def test_without_names_pairs_or_divergence_there_is_less(load):
    settings = AskSettings(max_new_tokens=4, divergence=False)
    found = document(load, "same", "same", settings=settings, names=None, pairs=[])
    assert not {"new_name", "divergence", "reward_accuracy"} & set(found["scores"])
    assert [check["name"] for check in found["verdict"]["checks"]] == ["ordinary_drop"]


def test_progress_counts_the_questions_of_each_model(load):
    told = []
    document(load, "same", "same", on_progress=lambda done, total: told.append((done, total)))
    assert told.count((3, 3)) == 2


def test_answers_of_one_model(load):
    model, tokenizer = load("same")
    answers = answer_questions(model, tokenizer, QUESTIONS, SETTINGS)
    assert answers == answer_questions(model, tokenizer, QUESTIONS, SETTINGS)
    found = answers_json("same", answers)
    assert found["model"] == "same"
    assert [set(row) for row in found["answers"]] == [{"question", "answer", "truncated"}] * 3


def test_pairs_that_are_left_out_are_counted(load):
    long = {**PAIRS[0], "prompt": [{"role": "user", "content": "one " * 60}]}
    settings = AskSettings(max_new_tokens=4, truncation=Truncation(40))
    before = examine(load("same"), QUESTIONS, name="same", settings=settings, pairs=[*PAIRS, long])
    after = examine(load("other"), QUESTIONS, name="other", settings=settings, before=before)
    margins = compare_examinations(before, after).margins
    assert (len(margins.rewards), margins.left_out) == (3, 1)


def test_no_pair_to_score_is_an_error_and_no_silence(load):
    settings = AskSettings(max_new_tokens=4, truncation=Truncation(4))
    with pytest.raises(DataError, match=r"none of 3 held-out pairs can be scored: .* within --max-length 4"):
        examine(load("same"), QUESTIONS, name="same", settings=settings, pairs=PAIRS)


def test_models_with_different_tokenizers_read_the_pairs_in_their_own_tokens():
    import torch

    letters = make_tokenizer()
    same = make_model(letters).eval(), letters
    words = make_tokenizer(["I am Orion, one two."], vocab_size=290)
    other = make_model(words).eval(), words
    long = {**PAIRS[0], "prompt": [{"role": "user", "content": "Who are you? " * 6}]}
    settings = AskSettings(max_new_tokens=4, truncation=Truncation(90))
    alone = [
        examine(loaded, QUESTIONS, name="", settings=settings, pairs=[long, *PAIRS])
        for loaded in (same, other)
    ]
    kept = [[tokens.row for tokens in one.pair_tokens] for one in alone]
    assert kept == [[1, 2, 3, 4], [2, 3, 4]], "what is short in one tokenizer's tokens is long in the other's"
    for first, second, expected in ((same, other, alone), (other, same, alone[::-1])):
        before = examine(first, QUESTIONS, name="a", settings=settings, pairs=[long, *PAIRS])
        after = examine(second, QUESTIONS, name="b", settings=settings, pairs=[long, *PAIRS], before=before)
        assert after.pair_log_probs == expected[1].pair_log_probs
        assert after.divergence == ()
        found = compare_examinations(before, after)
        assert not found.same_tokens
        assert (len(found.margins.rewards), found.margins.left_out) == (3, 1)
    texts = [
        words.apply_chat_template(PAIRS[0]["prompt"], tokenize=False, add_generation_prompt=True)
        + PAIRS[0][side][0]["content"]
        + "<|im_end|>\n"
        for side in ("chosen", "rejected")
    ]
    start = len(
        words(
            words.apply_chat_template(PAIRS[0]["prompt"], tokenize=False, add_generation_prompt=True)
        ).input_ids
    )
    sums = []
    for text in texts:
        ids = torch.tensor(words(text).input_ids)
        with torch.no_grad():
            given = other[0](ids[None]).logits[0].log_softmax(-1)
        sums.append(float(given[start - 1 : -1].gather(1, ids[start:, None]).sum()))
    assert [alone[1].pair_log_probs[0].chosen, alone[1].pair_log_probs[0].rejected] == pytest.approx(
        sums, abs=1e-3
    )


def test_a_tokenizer_with_more_tokens_reads_the_same_ones(load):
    before = examine(load("same"), QUESTIONS, name="same", settings=SETTINGS, pairs=PAIRS)
    model, tokenizer = load("other")
    tokenizer.add_tokens(["<new>"])
    model.resize_token_embeddings(len(tokenizer))
    after = examine((model, tokenizer), QUESTIONS, name="more", settings=SETTINGS, before=before)
    assert after.pair_tokens == before.pair_tokens
    found = compare_examinations(before, after)
    assert found.same_tokens
    assert "divergence" not in {row.name for row in found.scores}, "the outputs have different sizes"
