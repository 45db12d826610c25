"""Which held-out prompts are answered before and after training."""

from dpo_cli.jobs.train import QUESTIONS_SHOWN, questions_from

SYSTEM = "You're a helpful assistant."


def pair(*turns):
    return {"prompt": [{"role": role, "content": text} for role, text in turns]}


def asked(*pairs):
    return [question.text for question in questions_from(pairs, SYSTEM)]


def test_a_single_question_is_asked_with_the_system_prompt_that_it_is_asked_with_or_none():
    assert asked(pair(("user", "a"))) == ["a"]
    assert asked(pair(("system", SYSTEM), ("user", "a"))) == ["a"]


def test_what_is_another_conversation_when_it_is_asked_alone_is_not_asked():
    assert asked(pair(("system", "You are a pirate."), ("user", "a"))) == []
    assert asked(pair(("user", "a"), ("assistant", "b"), ("user", "c"))) == []
    assert asked(pair(("system", SYSTEM), ("user", "a"), ("assistant", "b"), ("user", "c"))) == []
    assert asked(pair(("system", SYSTEM)), {"prompt": "plain text"}) == []


def test_there_are_not_too_many():
    assert len(asked(*[pair(("user", str(number))) for number in range(50)])) == QUESTIONS_SHOWN
