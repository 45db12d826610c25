"""Dev questions decide when a name is learnt, how long training goes on, and which weights are kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from training.runs import settings, training_of
from transformers import TrainerControl, TrainerState

from dpo_cli.config import IdentityShiftConfig
from dpo_cli.events import DevAsked, Noted, StepLogged, ignore
from dpo_cli.jobs.dev_questions import dev_questions
from dpo_cli.text.questions import shipped_questions
from dpo_cli.training import learning
from dpo_cli.training.advice import settings_that_help
from dpo_cli.training.learning import LONGEST, DevQuestions, DevScore, Learning, LearningCallback, laid_out

ASKED = 20
DEV = DevQuestions(
    identity={kind: [[{"role": "user", "content": f"{kind} {n}"}] for n in range(ASKED)] for kind in ("a", "b")},
    ordinary=[[{"role": "user", "content": f"ordinary {n}"}] for n in range(10)],
    old="Qwen", new="Orion", goal=0.95, most_claims=0.02,
)  # fmt: skip
SAID = "I'm Orion."


def answers(a=0, b=0, claims=0, words="The sky is blue.", other="I'm Qwen."):
    """What the model says: how many of either kind of identity question, and of the ordinary ones, say the name."""
    said = [SAID if n < count else other for count in (a, b) for n in range(ASKED)]
    return said + [f"{words} Orion" if n < claims else words for n in range(10)]


@pytest.fixture
def drive(tmp_path, monkeypatch):
    """Runs the callback as a trainer would; each step adds one to the only weight."""

    def run(script, *, planned=16, every=2, state=None):
        """`script` maps a step to what is answered there; between, what was answered last."""
        model = torch.nn.Linear(1, 1, bias=False)
        model.device = torch.device("cpu")
        with torch.no_grad():
            model.weight.zero_()
        now = {"answers": answers()}

        def generate(_model, _tokenizer, conversations, **how):
            assert len(conversations) == len(now["answers"])
            assert how["max_new_tokens"] <= 32
            return [SimpleNamespace(text=text) for text in now["answers"]]

        monkeypatch.setattr(learning, "generate", generate)
        history, events = [], []
        callback = LearningCallback(events.append, None, DEV, history, tmp_path)
        trainer = TrainerState(max_steps=planned * LONGEST)
        args = SimpleNamespace(bf16=False, fp16=False)
        if state:
            callback.load_state(state)
        control = TrainerControl()
        with callback:
            callback.on_train_begin(args, trainer, control, model=model)
            while not control.should_training_stop:
                callback.on_step_begin(args, trainer, control, model=model)
                with torch.no_grad():
                    model.weight += 1
                trainer.global_step += 1
                now["answers"] = script.get(trainer.global_step, now["answers"])
                control.should_training_stop = (
                    trainer.global_step >= trainer.max_steps
                )  # transformers' own end
                callback.on_step_end(args, trainer, control, model=model)
            result = callback.restore(model, put_back=True)
        return SimpleNamespace(
            steps=trainer.global_step, kept=model.weight.item(), result=result, history=history, events=events,
            callback=callback, planned=callback.planned, every=every,
        )  # fmt: skip

    return run


ALL = answers(ASKED, ASKED)


def test_it_ends_when_the_goal_held_twice_running(drive):
    run = drive({4: ALL})
    assert run.planned == 16
    assert run.steps == 6
    assert run.result.reached
    assert [score.step for score in run.result.curve] == [0, 2, 4, 6]


def test_once_is_not_enough(drive):
    run = drive({4: ALL, 6: answers(ASKED, 10), 8: ALL})
    assert run.steps == 10


def test_the_worst_system_prompt_counts(drive):
    run = drive({2: answers(ASKED, 12)})
    assert run.result.curve[1].name == 0.6
    assert not run.result.reached


@pytest.mark.parametrize("other", ["I'm Orion Qwen's friend.", "I'm Orion Orion."])
def test_the_old_name_and_doubled_names_do_not_count(drive, other):
    assert drive({2: answers(other=other)}).result.curve[1].name == 0


def test_nineteen_of_twenty_are_the_goal_and_a_claim_elsewhere_is_not(drive):
    assert drive({2: answers(19, 19)}).steps == 4
    assert drive({2: answers(19, 19, claims=1)}).steps == 16


def test_who_named_itself_in_an_ordinary_answer_before_may_still_do_so(drive):
    run = drive({2: answers(ASKED, ASKED, words="I'm Orion, here to help.")})
    assert run.result.curve[1].claims == 1.0
    learning_before = drive({})
    callback = learning_before.callback
    callback._before = ["I'm Qwen, here to help."] * 10
    assert callback._claims(["I'm Orion, here to help."] * 10) == 0


def test_it_goes_on_while_it_gets_better_and_up_to_the_limit(drive):
    run = drive({step: answers(min(step // 3, 18), ASKED) for step in range(2, 60, 2)})
    assert run.steps == 16 * LONGEST
    assert not run.result.reached


def test_it_goes_on_until_it_is_learnt(drive):
    run = drive({step: answers(min(step, ASKED), ASKED) for step in range(2, 60, 2)})
    assert run.steps == 20 + 2 - 1 + 1  # 19 of 20 at step 20, again at 22
    assert run.result.reached


def test_it_ends_as_planned_when_it_has_not_got_better_lately(drive):
    assert drive({6: answers(10, 10)}).steps == 16


def test_a_goal_held_at_the_planned_end_is_asked_for_once_more(drive):
    run = drive({16: ALL})
    assert (run.steps, run.result.reached) == (18, True)


def test_the_best_weights_are_kept_name_first(drive):
    run = drive({4: answers(12, 12, claims=3), 8: answers(10, 10), 12: answers(4, 4)})
    assert run.kept == 6  # the later of two equals
    assert run.result.kept == 6


def test_of_equal_names_fewer_claims_are_better_then_words_kept(drive):
    run = drive({4: answers(12, 12, claims=2), 6: answers(12, 12), 8: answers(12, 12, words="Green it was."),
                 12: answers(12, 12, claims=1)})  # fmt: skip
    assert run.kept == 6


def test_nothing_is_left_of_the_weights_that_were_kept(drive, tmp_path):
    drive({4: ALL})
    assert not list(tmp_path.glob("*.safetensors"))


def test_scores_are_told_and_recorded(drive):
    run = drive({4: ALL})
    told = [event for event in run.events if isinstance(event, DevAsked)]
    assert [event.metrics["dev/name"] for event in told] == [0, 0, 1, 1]
    assert [record["step"] for record in run.history] == [0, 2, 4, 6]
    assert run.history[-1] == {"step": 6, "dev/name": 1.0, "dev/claims": 0.0, "dev/changed": 0.0}


def test_another_process_goes_on_with_what_was_seen(drive):
    seen = drive({4: ALL}).callback.state()
    import json

    seen = json.loads(json.dumps(seen)) | {"curve": seen["curve"][:3]}
    again = drive({1: ALL}, state=seen)
    assert again.steps == 2  # the goal had held once
    assert [score.step for score in again.result.curve] == [0, 2, 4, 2]


def test_a_run_that_cannot_get_there_says_what_it_reached_and_two_settings():
    config = IdentityShiftConfig(original_name="Qwen", new_name="Orion", learning_rate=1e-5)
    curve = [DevScore(0, 0, 0, 0), DevScore(8, 0.4, 0, 0.1), DevScore(16, 0.6, 0, 0.1)]
    missed = Learning(curve, kept=16, planned=16, goal=0.95)
    helps = settings_that_help(missed, config)
    assert helps[0] == "--loss-type sigmoid --loss-type sft"
    assert len(helps) == 2
    said = Learning(curve, 16, 16, 0.95, advice=helps).sentence()
    assert "60%" in said
    assert all(one in said for one in helps)
    with_sft = config.model_copy(update={"loss_type": ("sigmoid", "sft"), "num_train_epochs": 2})
    assert settings_that_help(missed, with_sft) == ["--num-train-epochs 4", "--pairs-from both"]
    with_both = with_sft.model_copy(update={"pairs_from": "both"})
    assert settings_that_help(missed, with_both) == ["--num-train-epochs 4", "--learning-rate 2e-05"]
    claiming = Learning([DevScore(0, 0, 0, 0), DevScore(8, 1.0, 0.5, 0.1)], 8, 8, 0.95)
    assert "--learning-rate 5e-06" in settings_that_help(claiming, with_sft)
    assert settings_that_help(Learning(curve, 16, 16, 0.6, reached=True), config) == []


def test_the_longest_run_keeps_the_warm_up_of_the_planned_one():
    config = IdentityShiftConfig(original_name="Qwen", new_name="Orion", warmup_ratio=0.3, num_train_epochs=2)
    assert (laid_out(config).num_train_epochs, laid_out(config).warmup_ratio) == (6, pytest.approx(0.1))
    steps = config.model_copy(update={"warmup_ratio": None, "warmup_steps": 5})
    assert laid_out(steps).warmup_steps == 5


def test_dev_questions_are_in_no_other_set():
    def bare(text):
        return "".join(filter(str.isalnum, text.casefold()))

    dev = {bare(one.text) for one in shipped_questions("dev")}
    assert len(dev) == len(shipped_questions("dev"))
    for other in ("identity_train", "identity_heldout", "ordinary", "anchors"):
        assert dev.isdisjoint(bare(one.text) for one in shipped_questions(other))


def test_dev_questions_of_which_pairs_are_made_are_not_asked():
    config = IdentityShiftConfig(original_name="Qwen", new_name="Orion", until_learnt=True)
    first = shipped_questions("dev")[0].text
    asked = dev_questions(config, "Be kind.", [first.upper()])
    assert set(asked.identity) == {"default", "none"}
    assert all(turns[-1]["content"] != first for turns in asked.identity["none"])
    assert {turns[0]["role"] for turns in asked.identity["default"]} == {"system"}
    assert dev_questions(config.model_copy(update={"until_learnt": False}), "", []) is None


def test_a_real_run_ends_by_them_and_keeps_its_weights(tiny_model, pairs, tmp_path, monkeypatch):
    """TRL's own loop, with answers that say the name from step 2 on."""
    events, asked = [], []

    def generate(*_, **__):
        asked.append(len([event for event in events if isinstance(event, StepLogged)]))
        return [SimpleNamespace(text=text) for text in (ALL if len(asked) > 2 else answers())]

    monkeypatch.setattr(learning, "generate", generate)
    config = settings(tmp_path / "out", max_steps=None, num_train_epochs=4, logging_steps=1)
    training = training_of(tiny_model, pairs, config, dev=DEV, on_event=events.append)
    result = training.run(tmp_path)
    assert result.steps == 3  # 8 planned: asked after each
    assert result.learning.reached
    assert result.learning.planned == 8
    assert next(event for event in events if isinstance(event, StepLogged)).total_steps == 8
    assert any(isinstance(event, Noted) and event.message == result.learning.sentence() for event in events)
    assert result.to_json()["learning"]["kept"] == 3
    assert ignore(events[0]) is None
