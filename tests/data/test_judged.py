"""Layouts that hold answers and a judgement: who is better, how draws are told, and what more than two answers come to."""

from __future__ import annotations

import json

import pytest

from dpo_cli.config import DataConfig
from dpo_cli.data.formats import FORMATS, detect, recognise
from dpo_cli.data.load import check_pairs
from dpo_cli.data.pairs import Pair, RowProblem, check_pair
from dpo_cli.data.unwrapping import unwrapped
from dpo_cli.errors import DataError

ASK = {"role": "user", "content": "Twice 4?"}
GOOD, BAD = ({"role": "assistant", "content": text} for text in ("Eight.", "Nine."))
PAIR = Pair([ASK], [GOOD], [BAD])
Q = "Twice 4?"


def pair_of(row):
    row = unwrapped(row)
    return check_pair(recognise(row).read(row))


BETTER_FIRST = {
    "pku-saferlhf": [
        ({"prompt": Q, "response_0": "Eight.", "response_1": "Nine.", "better_response_id": 0}, True),
        ({"prompt": Q, "response_0": "Nine.", "response_1": "Eight.", "better_response_id": "1"}, True),
        ({"prompt": Q, "response_0": "Nine.", "response_1": "Eight.", "safer_response_id": 1}, True),
    ],
    "shp": [
        ({"history": Q, "human_ref_A": "Eight.", "human_ref_B": "Nine.", "labels": 1}, True),
        ({"history": Q, "human_ref_A": "Nine.", "human_ref_B": "Eight.", "labels": 0}, True),
    ],
    "webgpt": [
        ({"question": {"full_text": Q}, "answer_0": "Eight.", "answer_1": "Nine.", "score_0": 1, "score_1": -1}, True),
        ({"question": Q, "answer_0": "Nine.", "answer_1": "Eight.", "score_0": "-0.5", "score_1": "0.5"}, True),
        ({"question": Q, "answer_0": "Nine.", "answer_1": "Eight.", "score_0": 0, "score_1": 0}, False),
    ],
    "helpsteer-preference": [
        ({"prompt": Q, "response_1": "Eight.", "response_2": "Nine.", "preference_strength": -1}, True),
        ({"context": [ASK], "response1": "Nine.", "response2": "Eight.", "overall_preference": 3}, True),
        ({"context": [ASK], "response1": "Nine.", "response2": "Eight.", "overall_preference": 0}, False),
    ],
    "arena": [
        ({"conversation_a": [ASK, BAD], "conversation_b": [ASK, GOOD], "winner": "model_b"}, True),
        ({"conversation_a": [ASK, BAD], "conversation_b": [ASK, GOOD], "winner": "tie (bothbad)"}, False),
        ({"prompt": Q, "response_a": "Eight.", "response_b": "Nine.", "winner": "A"}, True),
        ({"prompt": Q, "response_a": "Nine.", "response_b": "Eight.", "preference": "response_b"}, True),
        ({"prompt": Q, "response_a": "Nine.", "response_b": "Eight.", "winner_model_a": 0, "winner_model_b": 1}, True),
        ({"prompt": Q, "response_a": "Nine.", "response_b": "Eight.", "winner_model_a": 0, "winner_model_b": 0}, False),
    ],
    "ranked-answers": [
        ({"instruction": Q, "completions": [{"response": "Nine.", "overall_score": 2}, {"response": "Eight.", "overall_score": 9.5}]}, True),
        ({"prompt": Q, "answers": [{"answer": "Nine.", "rank": 7}, {"answer": "Eight.", "rank": 1}]}, True),
        ({"context": [ASK], "completions": [{"rank": 0, "completion": [GOOD]}, {"rank": 1, "completion": [BAD]}]}, True),
        ({"prompt": Q, "responses": ["Nine.", "Eight."], "scores": [0.25, 0.5]}, True),
        ({"prompt": Q, "responses": ["Eight.", "Nine."], "rankings": [1, 2]}, True),
        ({"prompt": f"\n\nHuman: {Q}\n\nAssistant: ", "responses": ["Eight.", "Nine."], "ranks": [0, 1]}, True),
        ({"prompt": Q, "responses": ["Eight.", "Nine."], "scores": [1, 1]}, False),
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "row", "decided"), [(name, *case) for name, cases in BETTER_FIRST.items() for case in cases]
)
def test_the_better_answer_is_chosen_and_a_draw_is_no_pair(name, row, decided):
    assert detect([row]).name == name
    if decided:
        assert pair_of(row) == PAIR
        return
    with pytest.raises(RowProblem) as caught:
        pair_of(row)
    assert caught.value.reason == "no preference"


@pytest.mark.parametrize(
    ("row", "reason", "key"),
    [
        ({"prompt": Q, "response_0": "a", "response_1": "b", "better_response_id": 2}, "no preference", "better_response_id"),
        ({"prompt": Q, "response_0": "a", "response_1": "b", "better_response_id": "nan"}, "non-text value", "better_response_id"),
        ({"prompt": Q, "response_a": "a", "response_b": "b", "winner": "both"}, "no preference", ""),
        ({"prompt": Q, "response_a": "a", "response_b": "b", "winner": "gpt-4"}, "non-text value", "winner"),
        ({"prompt": Q, "answers": [{"answer": None, "rank": 1}, {"answer": "b", "rank": 2}]}, "non-text value", "answers[0].answer"),
    ],
)  # fmt: skip
def test_a_judgement_that_cannot_be_read_names_its_column(row, reason, key):
    with pytest.raises(RowProblem) as caught:
        pair_of(row)
    assert (caught.value.reason, caught.value.key) == (reason, key)


def findings(tmp_path, row):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row))
    return {one.name: one for one in check_pairs(DataConfig(dataset=str(path))).findings}


def test_of_many_answers_the_best_is_set_against_the_worst_and_that_is_told(tmp_path):
    answers = [
        {"response": text, "score": score}
        for text, score in (("c", 2), ("Nine.", 1), ("Eight.", 9), ("d", None))
    ]
    row = {"prompt": Q, "responses": answers}
    assert pair_of(row) == PAIR
    assert set(findings(tmp_path, row)) == {"answers left out"}
    row = {"prompt": "Twice 4 is", "chosen": " eight.", "rejected": [" nine.", " ten."]}
    assert pair_of(row) == Pair("Twice 4 is", " eight.", " nine.")
    assert set(findings(tmp_path, row)) == {"answers left out"}


def test_a_safer_answer_that_is_not_the_better_one_is_told(tmp_path):
    row = {"prompt": Q, "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    assert "safer_response_id" in findings(tmp_path, row)["columns left out"].detail


def test_single_answers_with_a_label_are_refused_by_name(tmp_path):
    path = tmp_path / "kto.jsonl"
    path.write_text(json.dumps({"prompt": Q, "completion": "Eight.", "label": True}))
    with pytest.raises(DataError, match=r"kto.jsonl line 1: these are single answers with a label \(KTO\)"):
        check_pairs(DataConfig(dataset=str(path)))


def test_llama_factorys_parts_become_fields():
    def turn(role, *parts):
        return {
            "role": role,
            "content": [{"type": kind, "value": value} for kind, value in parts],
            "loss_weight": 1.0,
        }

    call = json.dumps({"name": "rain", "arguments": {"city": "Ulm"}})
    row = {
        "chosen_messages": [turn("user", ("text", "Is it "), ("text", "wet?")), turn("assistant", ("reasoning", "Ask."), ("tool_call", call))],
        "rejected_messages": [turn("user", ("text", "Is it "), ("text", "wet?")), turn("assistant", ("text", "No."))],
    }  # fmt: skip
    assert recognise(row).name == "message-pairs"
    pair = pair_of(row)
    assert pair.prompt == [{"role": "user", "content": "Is it wet?", "loss_weight": 1.0}]
    [answer] = pair.chosen
    assert (answer["content"], answer["reasoning_content"]) == ("", "Ask.")
    assert answer["tool_calls"][0]["function"] == {"name": "rain", "arguments": {"city": "Ulm"}}


def test_ms_swift_keeps_the_turns_before_the_last_answer():
    hello = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    rows = [
        {"messages": [*hello, ASK, GOOD], "rejected_response": "Nine."},
        {"messages": [*hello, ASK, GOOD], "rejected_messages": [*hello, ASK, BAD]},
        {"query": Q, "response": "Eight.", "rejected_response": "Nine.", "history": [["Hi.", "Hello!"]]},
    ]
    assert [pair_of(row) for row in rows] == [Pair([*hello, ASK], [GOOD], [BAD])] * 3


def test_transcripts_with_windows_line_ends_are_transcripts():
    start = "\r\n\r\nHuman: Hi.\r\n\r\nAssistant: Hello!\r\n\r\nHuman: Twice 4?\r\n\r\nAssistant:"
    row = {"chosen": f"{start} Eight.", "rejected": f"{start} Nine."}
    assert recognise(row) is FORMATS["anthropic-hh"]
    hello = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello!"}]
    assert pair_of(row) == Pair([*hello, ASK], [GOOD], [BAD])
