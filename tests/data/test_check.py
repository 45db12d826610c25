"""Findings: what was planted is found under its name, and nothing else is."""

from __future__ import annotations

import json
import random
import sys

import pytest
from tiny_models import CHATML, make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from dpo_cli.config import DataConfig, Truncation
from dpo_cli.data.audit.findings import refuses
from dpo_cli.data.load import check_pairs, load_pairs
from dpo_cli.events import ignore

WORDS = [
    "river",
    "stone",
    "window",
    "garden",
    "market",
    "little",
    "yellow",
    "quiet",
    "morning",
    "letter",
    "bridge",
    "winter",
    "silver",
    "forest",
    "candle",
    "paper",
    "travel",
    "doctor",
    "engine",
    "planet",
    "summer",
    "island",
    "finger",
    "bottle",
    "copper",
    "velvet",
    "harbor",
    "pepper",
    "thunder",
    "meadow",
    "ribbon",
    "saddle",
    "lantern",
    "walks",
    "keeps",
    "holds",
    "gives",
    "takes",
    "makes",
    "finds",
    "reads",
    "turns",
    "moves",
    "near",
    "under",
    "behind",
    "between",
    "along",
    "without",
    "before",
    "after",
]
ROWS = 1000
EACH = 5


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer([" ".join(WORDS)] * 3, vocab_size=500)


def sentence(rng, low=8, high=20):
    return " ".join(rng.choices(WORDS, k=rng.randint(low, high))).capitalize() + "."


def clean_rows(count, seed=0):
    rng = random.Random(seed)  # noqa: S311 - made-up rows
    return [
        {
            "prompt": [{"role": "user", "content": sentence(rng)}],
            "chosen": [{"role": "assistant", "content": sentence(rng)}],
            "rejected": [{"role": "assistant", "content": sentence(rng)}],
        }
        for _ in range(count)
    ]


def said(row, part, change):
    row[part][-1]["content"] = change(row[part][-1]["content"])


def plant_identical(row):
    row["rejected"] = row["chosen"]


def plant_identical_cut(row):
    start = "the same " * 200
    said(row, "chosen", lambda text: start + text)
    said(row, "rejected", lambda text: start + text)


PLANTS = {
    "identical completions": plant_identical,
    "identical after truncation": plant_identical_cut,
    "empty completion": lambda row: said(row, "rejected", lambda _: "  "),
    "prompt fills max_length": lambda row: said(row, "prompt", lambda text: text * 40),
    "unusual role order": lambda row: row["prompt"].append({"role": "user", "content": "And another thing."}),
    "non-text value": lambda row: row["chosen"].__setitem__(0, {"role": "assistant", "content": None}),
    "special tokens in text": lambda row: said(row, "prompt", lambda text: f"{text} <|endoftext|> and more"),
    "doubled EOS": lambda row: said(row, "chosen", lambda text: text + "<|im_end|>"),
    "placeholders": lambda row: said(row, "chosen", lambda text: f"Dear {{{{name}}}}, {text}"),
    "one-sided refusals": lambda row: said(
        row, "rejected", lambda text: f"I'm sorry, but I can't help with that. {text}"
    ),
}


def plant(rows):
    """Twelve kinds of defects, and the rows (from 1) that must be named for each."""
    rng = random.Random(1)  # noqa: S311 - made-up rows
    expected = {}
    places = iter(rng.sample(range(100, len(rows)), EACH * 13))
    for name, change in PLANTS.items():
        expected[name] = sorted(next(places) for _ in range(EACH))
        for place in expected[name]:
            change(rows[place])
    for name in ("duplicates", "near-duplicates"):
        expected[name] = sorted(next(places) for _ in range(EACH))
        for original, place in enumerate(expected[name], start=1 if name == "duplicates" else 20):
            rows[place] = json.loads(json.dumps(rows[original]))
            if name == "near-duplicates":
                said(rows[place], "chosen", lambda text: text.replace(".", " indeed.").lower())
    lines = [json.dumps(row) for row in rows]
    expected["unreadable row"] = sorted(next(places) for _ in range(EACH))
    for place in expected["unreadable row"]:
        lines[place] = lines[place].replace('"rejected"', '"chosen"')
    found = {name: [place + 1 for place in places] for name, places in expected.items()}
    # The EOS token written out is special-token text as well.
    found["special tokens in text"] = sorted(found["special tokens in text"] + found["doubled EOS"])
    return lines, found


def test_every_planted_defect_is_found_and_none_is_invented(tmp_path, tokenizer):
    lines, expected = plant(clean_rows(ROWS))
    path = tmp_path / "planted.jsonl"
    path.write_text("\n".join(lines))
    result = check_pairs(DataConfig(dataset=str(path)), tokenizer, Truncation(256))
    document = result.to_json()
    assert {one["name"]: sorted(one["rows"]) for one in document["findings"]} == expected
    assert {one["name"]: one["count"] for one in document["findings"]} == {
        name: len(rows) for name, rows in expected.items()
    }
    assert all(one["advice"] for one in document["findings"])
    rows = document["rows"]
    assert rows["read"] == ROWS == rows["kept"] + sum(rows["dropped"].values())
    assert rows["dropped"] == dict.fromkeys(("unreadable row", "non-text value", "empty completion", "identical completions", "prompt fills max_length", "identical after truncation"), EACH)  # fmt: skip
    assert result.problem is None
    loaded = load_pairs(DataConfig(dataset=str(path)), tokenizer, Truncation(256), inspect=True)
    assert len(loaded.train) == rows["kept"], "training sees exactly the kept rows"
    assert loaded.check.to_json() == document
    assert loaded.to_json()["findings"] == document["findings"]


@pytest.mark.parametrize("layout", ["conversational", "standard"])
def test_ten_thousand_clean_rows_have_no_finding(tmp_path, tokenizer, layout):
    rows = clean_rows(10_000, seed=7)
    if layout == "standard":
        rows = [{name: turns[0]["content"] for name, turns in row.items()} for row in rows]
    path = tmp_path / "clean.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    result = check_pairs(DataConfig(dataset=str(path)), tokenizer, Truncation(256))
    assert [(one.name, one.count) for one in result.findings] == []
    assert result.accounting.kept == 10_000


def check(tmp_path, rows, tokenizer=None, max_length=None, on_event=ignore, **options):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    data = DataConfig(dataset=str(path), **options)
    return check_pairs(data, tokenizer, Truncation(max_length), on_event=on_event)


def names(result):
    return {one.name: one.count for one in result.findings}


def test_length_that_would_win_alone_with_its_figure(tmp_path):
    rows = clean_rows(200)
    for row in rows[:180]:
        said(
            row,
            "chosen",
            lambda text: text + " And much more besides, at length, so that it is longer than any other.",
        )
    [finding] = check(tmp_path, rows).findings
    assert finding.name == "length bias"
    assert "is the chosen one in 9" in finding.detail
    assert finding.rows
    assert not check(tmp_path, clean_rows(200)).findings


def test_the_same_prompt_in_train_and_eval(tmp_path):
    rows = clean_rows(40)
    held = tmp_path / "held.jsonl"
    held.write_text("\n".join(map(json.dumps, clean_rows(10, seed=5) + rows[:2])))
    result = check(tmp_path, rows, eval_dataset=str(held))
    assert names(result) == {"same prompt in train and eval": 2}
    assert result.findings[0].rows == [1, 2]
    assert result.eval_accounting.read == 12


def test_contradicting_pairs(tmp_path):
    rows = clean_rows(20)
    rows[7] = {"prompt": rows[3]["prompt"], "chosen": rows[3]["rejected"], "rejected": rows[3]["chosen"]}
    [finding] = check(tmp_path, rows).findings
    assert (finding.name, finding.rows) == ("contradicting pairs", [4, 8])


def test_a_missing_chat_template(tmp_path):
    result = check(tmp_path, clean_rows(20), tokenizer=make_tokenizer(template=None), max_length=100)
    assert names(result) == {"missing chat template": 20}
    assert "--chat-template chatml" in result.findings[0].advice
    assert result.problem is not None


def test_a_template_that_renders_the_prompt_differently(tmp_path, tokenizer):
    thinking = make_tokenizer(
        template=CHATML.replace("assistant\n{% endif", "assistant\n<think></think>{% endif")
    )
    assert names(check(tmp_path, clean_rows(20), tokenizer=thinking)) == {
        "template renders the prompt differently": 20
    }
    rows = [{"prompt": "the ri", "chosen": "ver", "rejected": "bbon"}]
    assert names(check(tmp_path, rows, tokenizer=tokenizer)) == {"prompt and completion share a token": 1}


def test_a_doubled_bos(tmp_path):
    from tokenizers.processors import TemplateProcessing

    tokenizer = make_tokenizer()
    tokenizer.bos_token = "<|endoftext|>"
    tokenizer._tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    rows = [{"prompt": f"Say {index}: ", "chosen": "a b", "rejected": "c d"} for index in range(9)]
    rows[4]["prompt"] = "<|endoftext|>" + rows[4]["prompt"]
    assert names(check(tmp_path, rows, tokenizer=tokenizer)) == {
        "special tokens in text": 1,
        "doubled BOS": 1,
    }


def test_plain_text_that_brings_its_own_template_is_left_alone(tmp_path, tokenizer):
    start, end = "<|im_start|>user\n", "<|im_end|>\n<|im_start|>assistant\n"
    rows = [
        {
            "prompt": start + row["prompt"][0]["content"] + end,
            **{part: row[part][0]["content"] + "<|im_end|>" for part in ("chosen", "rejected")},
        }
        for row in clean_rows(50)
    ]
    assert names(check(tmp_path, rows, tokenizer=tokenizer)) == {}


def test_other_pairs_on_a_long_prompt_and_other_numbers_are_no_near_duplicates(tmp_path):
    rows = clean_rows(3)
    text = sentence(random.Random(3), 200, 200)  # noqa: S311 - made-up rows
    for row in rows:
        row["prompt"][0]["content"] = text
    sums = [
        {
            "prompt": f"What is {a} plus 17 when every one of the numbers is read in base ten?",
            "chosen": f"It is {a + 17}, as anybody can work out on paper.",
            "rejected": "I do not know the answer to this question at all.",
        }
        for a in range(30)
    ]
    assert names(check(tmp_path, rows)) == {}
    assert names(check(tmp_path, sums)) == {"length bias": 30} or names(check(tmp_path, sums)) == {}


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("I'm sorry, but I can't help with that.", True),
        ("I\u2019m sorry, I can\u2019t assist.", True),
        ("I cannot provide that information.", True),
        ("As an AI language model, I cannot feel.", True),
        ("Unfortunately, I am unable to do so.", True),
        ("I apologize, but I cannot translate this.", True),
        ("I cannot recommend this place enough!", False),
        ("I'm sorry for your loss. He was a good dog.", False),
        ("Sorry is a word.", False),
        ("You can't help but smile.", False),
    ],
)
def test_refusals(text, refusal):
    assert refuses(text) is refusal


def test_the_pair_as_the_model_sees_it(tmp_path, tokenizer):
    rows = [
        {
            "prompt": [{"role": "user", "content": "river 👍"}],
            "chosen": [{"role": "assistant", "content": "stone"}],
            "rejected": [{"role": "assistant", "content": "ñ"}],
        }
    ]
    view = check(tmp_path, rows, tokenizer=tokenizer).view
    assert (
        "".join(text for text, _ in view.chosen)
        == "<|im_start|>user\nriver 👍<|im_end|>\n<|im_start|>assistant\nstone<|im_end|>\n"
    )
    assert view.chosen[0] == ("<|im_start|>", "special prompt")
    assert ("<|im_end|>", "special completion") in view.rejected
    assert not any("\ufffd" in text for text, _ in view.chosen + view.rejected)
    assert "".join(text for text, kind in view.chosen if kind == "completion") == "stone\n"
    lengths = check(tmp_path, rows, tokenizer=tokenizer).lengths
    assert check(tmp_path, rows, tokenizer=tokenizer, max_length=lengths["prompt"]["max"] + 2).view.cut


def test_progress_has_an_estimate(tmp_path, monkeypatch):
    from dpo_cli.data.sources import json_rows

    monkeypatch.setattr(json_rows, "_CHUNK", 1000)
    events = []
    check(tmp_path, clean_rows(3000), on_event=events.append)
    assert events[0].done == 1024
    assert events[0].total == pytest.approx(3000, rel=0.2)
    assert (events[-1].done, events[-1].total) == (3000, 3000)


@pytest.fixture
def dpo(monkeypatch, capsys):
    """Run a command in this process: its exit code, standard output and standard error."""
    from dpo_cli.cli.app import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dpo", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


def test_the_command(tmp_path, tiny_model, dpo):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, clean_rows(30))) + "\n")
    code, out, err = dpo("check", path, "--model", tiny_model, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert set(document) == {"format", "rows", "findings", "lengths"}
    assert document["rows"] == {"read": 30, "kept": 30, "dropped": {}}
    assert document["format"] == "trl-conversational"
    code, out, err = dpo("check", path, "--model", tiny_model)
    assert code == 0
    assert "30 rows read = 30 pairs kept + 0 dropped" in out
    assert "<|im_start|>" in out
    hostile = {"prompt": [{"role": "user", "content": "\x1b[31mred"}], "chosen": "", "rejected": "b"}
    path.write_text((json.dumps(hostile) + "\n") * 20 + json.dumps({**hostile, "chosen": "\x1b[31mc"}))
    code, out, err = dpo("check", path, "--model", tiny_model)
    assert code == 2
    assert "more than a tenth" in err
    assert "\\x1b" in out
    assert "\x1b[31m" not in out + err


def test_a_missing_file_is_said_before_a_model_is_looked_for(tmp_path, dpo):
    code, _, err = dpo("check", tmp_path / "no.jsonl", "--model", "no/such-model")
    assert code == 2
    assert "no such file" in err
    assert "model" not in err


def test_reading_shows_how_long_it_will_take():
    import io

    from rich.console import Console

    from dpo_cli.events import Progress, Stage
    from dpo_cli.report.live import LiveView

    screen = io.StringIO()
    with LiveView(Console(file=screen, force_terminal=True, width=100, legacy_windows=False)) as view:
        for event in (
            Stage("reading pairs", "started"),
            Progress("reading pairs", 10, 100),
            Progress("reading pairs", 50, 100),
        ):
            view(event)
    assert "50/100" in screen.getvalue()
    assert "s left" in screen.getvalue()


def letters_tokenizer(**special):
    """One token a letter, for A, C, G and T; all else is `<unk>`."""
    words = ["<unk>", "</s>", "A", "C", "G", "T"]
    raw = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="</s>", **special)


@pytest.mark.parametrize(
    ("special", "rows"),
    [({"unk_token": "<unk>"}, [2, 3]), ({"unk_token": "</s>"}, [])],
    ids=["an unknown token", "none but EOS"],
)
def test_letters_that_the_tokenizer_does_not_know(tmp_path, special, rows):
    path = tmp_path / "sites.jsonl"
    pairs = [("A", "ACGT", "AC"), ("A", "AXGT", "AC"), ("N", "ACG", "T"), ("C", "GTT", "TTG")]
    path.write_text(
        "".join(json.dumps(dict(zip(("prompt", "chosen", "rejected"), p, strict=True))) + "\n" for p in pairs)
    )
    findings = check_pairs(
        DataConfig(dataset=str(path)), letters_tokenizer(**special), Truncation(16)
    ).findings
    assert [one.rows for one in findings if one.name == "characters without a token"] == (
        [rows] if rows else []
    )
