"""Rows and messages that are no pairs, in every layout."""

import json

from bad_input.harness import Case, bad_input_test
from bad_input.makers import PAIRS, lines

USER, ANSWER, OTHER = (
    {"role": "user", "content": "What color is the sky?"},
    {"role": "assistant", "content": "It is blue."},
    {"role": "assistant", "content": "It is green."},
)
TALK = {"prompt": [USER], "chosen": [ANSWER], "rejected": [OTHER]}


def rows(name, row, *says, code=2, argv=(), **more):
    """`dpo check` of rows that are all like this one."""
    text = row if isinstance(row, str) else lines(*[row] * 12)
    return Case(
        name,
        ("check", "p.jsonl", *argv),
        ("p.jsonl", *says) if code == 2 else says,
        code=code,
        files={"p.jsonl": text},
        **more,
    )


def talk(name, *says, argv=(), **changes):
    return rows(name, TALK | changes, *says, argv=argv)


test_columns = bad_input_test(
    [
        rows("rows without a column", {}),
        rows("rows of other columns", {"text": "a", "label": 1}, "text"),
        rows("rows without rejected", {"prompt": "a", "chosen": "b"}, "rejected"),
        rows("rows without chosen", {"prompt": "a", "rejected": "b"}, "chosen"),
        rows("columns in capitals", {"Prompt": "a", "Chosen": "b", "Rejected": "c"}, "Chosen"),
        rows("columns with blanks", {" prompt": "a", "chosen ": "b", "rejected": "c"}),
        rows("a prompt that is null", {"prompt": None, "chosen": "b", "rejected": "c"}, "line 1", "prompt"),
        rows("a chosen that is null", {"prompt": "a", "chosen": None, "rejected": "c"}, "line 1", "chosen"),
        rows(
            "a rejected that is a number", {"prompt": "a", "chosen": "b", "rejected": 3}, "line 1", "rejected"
        ),
        rows(
            "a chosen that is a switch", {"prompt": "a", "chosen": True, "rejected": "c"}, "line 1", "chosen"
        ),
        rows(
            "a chosen that is an object",
            {"prompt": "a", "chosen": {"a": 1}, "rejected": "c"},
            "line 1",
            "chosen",
        ),
        rows(
            "a chosen that is a list of numbers",
            {"prompt": "a", "chosen": [1], "rejected": [2]},
            "line 1",
            "chosen",
        ),
        rows("a chosen that is empty", {"prompt": "a", "chosen": "", "rejected": "c"}, "line 1"),
        rows("answers that are the same", {"prompt": "a", "chosen": "b", "rejected": "b"}, "line 1"),
        Case(
            "a layout that there is not",
            "check p.jsonl --format nonsense",
            ("--format", "nonsense"),
            files={"p.jsonl": lines()},
        ),
        rows("a layout that is another", PAIRS[0], argv=("--format", "openai")),
        Case(
            "a layout with an escape",
            ("check", "p.jsonl", "--format", "\x1b[31m"),
            ("--format", r"\x1b"),
            files={"p.jsonl": lines()},
        ),
        rows(
            "a column for the prompt that there is not",
            PAIRS[0],
            "--prompt-column",
            "nope",
            argv=("--prompt-column", "nope"),
        ),
        rows("a column for chosen that there is not", PAIRS[0], "nope", argv=("--chosen-column", "nope")),
        rows("a column for system that there is not", PAIRS[0], "nope", argv=("--system-column", "nope")),
        rows("one column for both answers", PAIRS[0], "chosen", argv=("--rejected-column", "chosen")),
        rows("a table of values that has none", PAIRS[0], argv=("--format", "assay")),
        rows(
            "a table of values that are words",
            {"sequence": "ACGT", "value": "high"},
            "line 1",
            argv=("--format", "assay"),
        ),
        rows(
            "a table of values that are all the same",
            {"sequence": "ACGT", "value": 1},
            argv=("--format", "assay"),
        ),
        rows(
            "a table of values that are not finite",
            '{"sequence": "ACGT", "value": NaN}\n{"sequence": "AC", "value": Infinity}\n',
            "line 1",
            argv=("--format", "assay"),
        ),
        rows("rows that change their layout", lines(*PAIRS, *[TALK] * 16), "line 17"),
        rows("a row too many that is dropped", lines(*PAIRS, *[PAIRS[0] | {"chosen": None}] * 2), "line 17"),
        rows(
            "a dropped row under --strict",
            lines(*PAIRS, PAIRS[0] | {"chosen": ""}),
            "line 17",
            argv=("--strict",),
        ),
        rows(
            "rows that are dropped one and all, and allowed",
            {"prompt": "a", "chosen": "", "rejected": "b"},
            argv=("--allow-drops",),
        ),
        rows(
            "rows longer than the model is to see",
            {"prompt": "word " * 3000, "chosen": "a", "rejected": "b"},
            argv=("--max-length", "8"),
        ),
    ]
)

test_messages = bad_input_test(
    [
        talk("messages that are none", prompt=[]),
        talk("a message that is text", "line 1", prompt=["hello"]),
        talk("a message that is a number", "line 1", prompt=[3]),
        talk("a message that is null", "line 1", prompt=[None]),
        talk("a message without a role", "line 1", prompt=[{"content": "a"}]),
        talk("a message without content", "line 1", prompt=[{"role": "user"}]),
        talk("a role that is null", "line 1", prompt=[{"role": None, "content": "a"}]),
        talk("a role that is a list", "line 1", prompt=[{"role": ["user"], "content": "a"}]),
        talk("a role of nobody's", "line 1", argv=("--strict",), prompt=[{"role": "wizard", "content": "a"}]),
        talk(
            "a role with an escape",
            r"\x1b",
            argv=("--strict",),
            prompt=[{"role": "\x1b[31m", "content": "a"}],
        ),
        talk("content that is null", "line 1", prompt=[{"role": "user", "content": None}]),
        talk("content that is a number", "line 1", prompt=[{"role": "user", "content": 3}]),
        talk(
            "content that is an image",
            "line 1",
            prompt=[{"role": "user", "content": [{"type": "image", "url": "x"}]}],
        ),
        talk(
            "content of parts without a type", "line 1", prompt=[{"role": "user", "content": [{"txt": "a"}]}]
        ),
        talk("content that nests", "line 1", prompt=[{"role": "user", "content": [[["a"]]]}]),
        talk(
            "an answer that is the user's",
            "line 1",
            argv=("--strict",),
            chosen=[USER],
            rejected=[USER | {"content": "b"}],
        ),
        talk(
            "an answer that is empty",
            "line 1",
            chosen=[ANSWER | {"content": ""}],
            rejected=[ANSWER | {"content": ""}],
        ),
        talk("tools that are a number", "line 1", tools=3),
        talk("tools that are text", "line 1", tools="not JSON"),
        talk("tools that are numbers", "line 1", tools=[1, 2]),
        rows("tools that nest 100,000 deep", json.dumps(TALK)[:-1] + ', "tools": "' + "[" * 100_000 + '"}\n'),
        rows(
            "tools that nest 900 deep", json.dumps(TALK)[:-1] + ', "tools": ' + "[" * 900 + "]" * 900 + "}\n"
        ),
        talk("template settings that are a number", "line 1", chat_template_kwargs=3),
        talk("tool calls that are a number", "line 1", chosen=[ANSWER | {"tool_calls": 3}]),
        rows(
            "an input without messages",
            {"input": {}, "preferred_output": [ANSWER], "non_preferred_output": [OTHER]},
        ),
        rows(
            "conversations that are text",
            {
                "conversations": "a",
                "chosen": {"from": "gpt", "value": "a"},
                "rejected": {"from": "gpt", "value": "b"},
            },
        ),
        rows(
            "conversations that end with the assistant",
            {
                "conversations": [{"from": "human", "value": "a"}],
                "chosen": {"from": "human", "value": "a"},
                "rejected": {"from": "human", "value": "b"},
            },
            argv=("--strict",),
        ),
        rows(
            "transcripts that share nothing",
            {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: c\n\nAssistant: d"},
        ),
        rows("transcripts without an answer", {"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: a"}),
        rows("a conversation of 1,000 turns", TALK | {"prompt": [USER, ANSWER] * 500 + [USER]}),
    ]
)
