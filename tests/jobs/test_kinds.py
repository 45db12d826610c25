"""Every command on every kind of chat model, with the tokens that it is asked with being those that it is trained with."""

import json
from types import SimpleNamespace

import pytest
from kinds import ANSWER, KINDS, THOUGHTS, make_kind

from dpo_cli.config import AskConfig, CheckConfig, CompareConfig, DPOTrainingConfig, IdentityShiftConfig
from dpo_cli.data.pairs import Pair
from dpo_cli.data.tokens.tokenizer import PairTokenizer
from dpo_cli.evaluation import examination as evaluation
from dpo_cli.jobs import identity_shift as job
from dpo_cli.jobs.check import check
from dpo_cli.jobs.compare import _template_before, ask, compare, of_tokenizer
from dpo_cli.jobs.identity_shift import identity_shift
from dpo_cli.jobs.train import train
from dpo_cli.models.generate import accepted_system_prompt, conversation, generate, prompt_ids
from dpo_cli.models.loading import load_model_and_tokenizer, load_tokenizer
from dpo_cli.models.locate import locate_model
from dpo_cli.models.templates import Chat, render_chat
from dpo_cli.text.questions import Question

QUESTIONS = [f"Who are you , number {i} ?" for i in range(8)]
PAIRS = [
    {
        "prompt": [{"role": "user", "content": f"Who are you , number {i} ?"}],
        "chosen": [{"role": "assistant", "content": "I am called Orion"}],
        "rejected": [{"role": "assistant", "content": f"I am called Qwen number {i}"}],
    }
    for i in range(8)
]
TURNS = [
    {"role": "user", "content": "Who ?"},
    {"role": "assistant", "content": "<think>\nlet me\n</think>\n\nI am"},
    {"role": "user", "content": "are you ?"},
]
QUICK = {"max_steps": 2, "learning_rate": 1e-6, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1,
         "max_new_tokens": 16, "device": "cpu", "dtype": "float32"}  # fmt: skip


QUICK_KINDS = {"system in the user's turn", "thinking opened by the template", "a switch of another name"}


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kind") / "model"
    make_kind(kind, folder, [*QUESTIONS, "You're a helpful assistant."])
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in PAIRS))
    (folder / "questions.txt").write_text("\n".join(QUESTIONS))
    return folder


@pytest.fixture(autouse=True)
def few_questions(monkeypatch):
    groups = {"identity_heldout": "identity", "ordinary": "ordinary"}
    monkeypatch.setattr(job, "shipped_questions", lambda name: [Question("number 3 ?", groups[name])])


def thinks(kind):
    return kind.thinks and kind.options.get("thinking") != "off"


def test_pairs_are_trained_after_the_tokens_that_the_model_is_asked_with(kind, folder):
    tokenizer = load_tokenizer(locate_model(str(folder)), **kind.options)
    asked = conversation(QUESTIONS[0], accepted_system_prompt(tokenizer, "You're a helpful assistant."))
    [prompt] = prompt_ids(tokenizer, [asked])
    pair = Pair(asked, PAIRS[0]["chosen"], PAIRS[0]["rejected"])
    [tokens] = PairTokenizer(tokenizer).tokenize([pair])
    said = tokenizer.decode(tokens.chosen, skip_special_tokens=True)
    if thinks(kind) and kind.last == "<think>":
        assert (
            tokens.left_out
        )  # the template opens a block where the model is asked, and writes none into answers
        assert prompt[: len(tokens.prompt)] == tokens.prompt
    else:
        assert (tokens.prompt, tokens.left_out) == (prompt, [])
    assert said.split()[-4:] == ["I", "am", "called", "Orion"]
    assert tokenizer.decode(tokens.chosen[-1:]) == kind.end


def test_thinking_of_earlier_turns_is_left_to_the_template(kind, folder):
    tokenizer = load_tokenizer(locate_model(str(folder)), **kind.options)
    text = render_chat(tokenizer, Chat(TURNS, add_generation_prompt=True))
    assert ("let me" in text) == ("split('</think>')" not in (kind.template or ""))


def test_an_answer_comes_without_its_thinking(kind, folder):
    model, tokenizer = load_model_and_tokenizer(str(folder), **kind.options)
    asked = conversation("Who ?", accepted_system_prompt(tokenizer, "You're a helpful assistant."))
    [whole] = generate(model, tokenizer, [asked], max_new_tokens=16)
    assert (whole.text, whole.truncated) == (ANSWER, False)
    assert whole.thinking == (THOUGHTS if thinks(kind) else "")
    [cut] = generate(model, tokenizer, [asked], max_new_tokens=5)
    assert (cut.text, cut.truncated) == ("" if thinks(kind) else ANSWER, thinks(kind) or cut.truncated)


@pytest.mark.parametrize(
    "kind",
    [name if name in QUICK_KINDS else pytest.param(name, marks=pytest.mark.slow) for name in KINDS],
    indirect=True,
    scope="module",
)
def test_every_command_runs(kind, folder, files, tmp_path, monkeypatch):
    pairs, out = str(files / "pairs.jsonl"), tmp_path / "renamed"
    report = check(CheckConfig(dataset=pairs, model=str(folder), **kind.options)).to_json()
    assert report["rows"]["kept"] == len(PAIRS)

    events = []
    renamed = identity_shift(
        IdentityShiftConfig(
            model=str(folder), questions=str(files / "questions.txt"), original_name="Qwen", new_name="Orion",
            output_dir=str(out), anchors=0, **QUICK, **kind.options,
        ),
        events.append,
    )  # fmt: skip
    rows = [json.loads(line) for line in (out / "pairs.jsonl").read_text().splitlines()]
    assert renamed.problems == []
    assert {row["rejected"][0]["content"] for row in rows} == {ANSWER}
    assert {row["chosen"][0]["content"] for row in rows} == {ANSWER.replace("Qwen", "Orion")}

    tuned = train(
        DPOTrainingConfig(
            model=str(folder), dataset=pairs, eval_fraction=0.3, output_dir=str(tmp_path / "tuned"), **QUICK, **kind.options
        )
    )  # fmt: skip
    assert tuned.problems == []

    asked = []
    real = evaluation._ask

    def spy(model, tokenizer, *rest):
        found = real(model, tokenizer, *rest)
        asked.append([(tokenizer.decode(one.prompt), tokenizer.decode(one.tokens)) for one in found[1]])
        return found

    monkeypatch.setattr(evaluation, "_ask", spy)
    _, answers = ask(AskConfig(model=str(out), question=(QUESTIONS[0],), max_new_tokens=16, device="cpu"))
    result = compare(CompareConfig(after=str(out), question=(QUESTIONS[0],), max_new_tokens=16, device="cpu"))
    assert [one.answer for one in answers] == [ANSWER]
    assert [(old.answer, new.answer) for old, new in result.answers] == [(ANSWER, ANSWER)]
    test, before, after = asked
    assert test == after
    assert before == [(prompt.replace("Orion", "Qwen"), answer) for prompt, answer in after]
    assert (result.names.old, result.names.new) == ("Qwen", "Orion")


def test_the_model_before_is_asked_with_the_template_of_the_run(tmp_path):
    file, after = tmp_path / "t.jinja", SimpleNamespace(folder=tmp_path / "out")
    run = DPOTrainingConfig(chat_template=str(file))
    assert _template_before(CompareConfig(), run, after) == {
        "chat_template": str(tmp_path / "out" / "chat_template.jinja")
    }
    file.write_text("x")
    assert _template_before(CompareConfig(), run, after) == {"chat_template": str(file)}
    assert _template_before(CompareConfig(chat_template="chatml"), run, after) == {}
    assert _template_before(CompareConfig(), DPOTrainingConfig(), after) == {}


def test_what_is_said_of_thinking_goes_before_what_the_run_did():
    run = DPOTrainingConfig(thinking="off", template={"a": 1})
    said = of_tokenizer(AskConfig(template={"b": 2}), run)
    assert (said["thinking"], said["template"]) == ("off", {"b": 2})
    assert of_tokenizer(AskConfig(), None)["thinking"] is None
