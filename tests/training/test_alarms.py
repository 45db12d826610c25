"""Alarms on series that were recorded or made by hand: each names its own trouble, none cries at health."""

import math

import pytest

from dpo_cli.events import Evaluated, ProbeAnswered, Progress, RunFinished, StepLogged
from dpo_cli.training.alarms import ALARMS, LOSS_AT_START, Alarms

LOG2 = math.log(2)


def step(number, total=60, **metrics):
    names = {
        "accuracy": "rewards/accuracies", "margin": "rewards/margins", "chosen": "rewards/chosen",
        "rejected": "rewards/rejected", "logp": "logps/chosen",
    }  # fmt: skip
    return StepLogged(
        number,
        total,
        number / total,
        float(number),
        {names.get(key, key): value for key, value in metrics.items()},
    )


def healthy(number, total=60, speed=1.0, **changes):
    """A step of a run that goes well: rewards part, the loss falls."""
    gone = speed * (number - 1)
    metrics = {
        "loss": LOG2 * math.exp(-gone / 20), "accuracy": min(1.0, 0.5 + gone / 10), "margin": gone / 10, "chosen": gone / 30,
        "rejected": -gone / 15, "logp": -40.0 + gone / 6, "grad_norm": 5.0 + 3 * math.sin(number),
    }  # fmt: skip
    return step(number, total, **(metrics | changes))


def sounded(events, loss_type=("sigmoid",), beta=0.2, *, scaled_loss=False):
    alarms = Alarms(loss_type, beta=beta, scaled_loss=scaled_loss)
    return {warning.name: warning for event in events for warning in alarms(event)}


@pytest.mark.parametrize("speed", [0.1, 1.0, 5.0])
def test_a_healthy_run_is_left_alone(speed):
    events = [ProbeAnswered(0, "Who are you?", "I am Qwen, made by Alibaba Cloud.")]
    for number in [1, *range(2, 61, 2)]:
        events.append(healthy(number, speed=speed))
        if number % 6 == 0:
            events.append(
                ProbeAnswered(
                    number,
                    "Who are you?",
                    "I am Deep Qwen, made by Alibaba Cloud, and I am here to help you.",
                )
            )
            events.append(Evaluated(number, {"eval_loss": 0.6 - number / 200}))
    assert sounded([*events, Progress("x", 1, 2), RunFinished(60, 1.0)]) == {}


def test_another_reference_is_named_at_the_first_step():
    warning = sounded([step(1, loss=1.9, chosen=-2.5, rejected=-1.0, margin=-1.5)])["wrong_reference"]
    assert "-2.50 (chosen)" in warning.message
    assert "not the model being trained" in warning.message
    assert warning.step == 1


@pytest.mark.parametrize(
    ("loss_type", "loss", "alarm"),
    [
        (("sigmoid",), LOG2, False),
        (("sigmoid",), 0.8, True),
        (("robust",), LOG2, False),
        (("hinge",), 1.0, False),
        (("hinge",), LOG2, True),
        (("nca_pair",), 2 * LOG2, False),
        (("ipo",), 6.25, False),
        (("sigmoid", "sft"), 2.5, False),
    ],
)
def test_the_first_loss_is_what_the_loss_says(loss_type, loss, alarm):
    assert ("wrong_reference" in sounded([step(1, loss=loss, chosen=0.0, rejected=0.0)], loss_type)) is alarm


def test_the_first_loss_is_only_known_before_the_first_update():
    assert sounded([step(2, loss=0.4, chosen=0.5, rejected=-0.5)]) == {}


@pytest.mark.parametrize("label_smoothing", [0.0, 0.2])
@pytest.mark.parametrize("loss_type", sorted(LOSS_AT_START))
def test_the_table_of_first_losses_is_trls(tiny_model, tmp_path, loss_type, label_smoothing):
    """TRL's own trainer, on a policy that is its reference still."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    if label_smoothing and loss_type not in {"sigmoid", "robust"}:
        pytest.skip("only these two are smoothed")
    row = {"prompt": "Who are you?", "chosen": " I am Deep Qwen.", "rejected": " I am Qwen."}
    arguments = DPOConfig(
        str(tmp_path), loss_type=[loss_type], label_smoothing=label_smoothing, max_steps=1, logging_steps=1, use_cpu=True,
        bf16=False, report_to="none", save_strategy="no", disable_tqdm=True, precompute_ref_log_probs=True,
        per_device_train_batch_size=2, activation_checkpointing=False,
    )  # fmt: skip
    trainer = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny_model),
        args=arguments,
        train_dataset=Dataset.from_list([row, row]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    trainer.train()
    assert trainer.state.log_history[0]["loss"] == pytest.approx(LOSS_AT_START[loss_type], abs=1e-4)


def test_pairs_without_a_difference_are_named_within_a_tenth():
    events = [step(n, loss=LOG2, margin=1e-6, accuracy=0.0, chosen=0.1, rejected=0.1) for n in (1, 2, 4, 6)]
    warning = sounded(events)["nothing_to_learn"]
    assert "nothing to learn in these pairs" in warning.message
    assert warning.step <= 6
    assert not warning.collapse


def test_pairs_that_stay_a_toss_up_are_named_at_half_time():
    events = [
        step(n, loss=LOG2, margin=0.01 * (-1) ** n, accuracy=0.5, chosen=0.1, rejected=0.1)
        for n in range(1, 61)
    ]
    warning = sounded(events)["nothing_to_learn"]
    assert "accuracy is still 0.50" in warning.message
    assert warning.step == 30


def test_a_loss_that_explodes_is_a_collapse():
    warning = sounded([healthy(1), step(2, loss=41.0, grad_norm=50.0)])["ruined"]
    assert warning.collapse
    assert "0.69 to 41.00" in warning.message
    assert "--learning-rate" in warning.advice


def test_a_number_that_is_none_is_a_collapse():
    assert sounded([step(3, loss=math.nan)])["not_finite"].collapse
    assert sounded([step(3, loss=0.5, grad_norm=math.inf)])["not_finite"].message.startswith(
        "Step 3: grad_norm is inf"
    )


def test_a_gradient_that_overflows_is_none_where_the_loss_is_scaled_for_fp16():
    overflows = [healthy(n, grad_norm=math.inf if n % 2 else math.nan) for n in range(1, 9)]
    assert sounded(overflows, scaled_loss=True) == {}
    assert set(sounded(overflows)) == {"not_finite"}
    assert sounded([step(3, loss=math.nan, grad_norm=math.nan)], scaled_loss=True)["not_finite"].collapse
    # What comes between is still looked at.
    jump = [*overflows, *(healthy(n) for n in range(9, 15)), healthy(15, grad_norm=900.0)]
    assert sounded(jump, scaled_loss=True)["gradient_norm"].step == 15


def test_both_rewards_falling_needs_the_chosen_text_to_become_unlikely():
    sinking = [healthy(1)] + [
        step(n, loss=0.5, chosen=-5.0 * n, rejected=-8.0 * n, logp=-40.0 - 25.0 * n) for n in (2, 4)
    ]
    assert "100 nats, from -40 to -140" in sounded(sinking)["both_falling"].message
    # A little displacement is how DPO works on most data.
    usual = [healthy(1)] + [step(n, loss=0.5, chosen=-0.4, rejected=-1.5, logp=-42.0) for n in (2, 4, 6)]
    assert sounded(usual) == {}
    assert sounded(sinking, beta=None) == {}


def test_a_margin_beyond_the_loss():
    assert (
        "margin is 60"
        in sounded([healthy(1), step(2, margin=55.0), step(4, margin=60.0)])["margin_exploding"].message
    )
    assert sounded([healthy(1), step(2, margin=55.0), step(4, margin=6.0)]) == {}


def test_gradient_norms():
    assert (
        sounded([healthy(n) for n in range(1, 9)] + [step(10, grad_norm=900.0)])["gradient_norm"].step == 10
    )
    assert sounded([step(2, grad_norm=2e4)])["gradient_norm"].step == 2
    assert sounded([healthy(n) for n in range(1, 9)] + [step(10, grad_norm=90.0)]) == {}


ROUND = "I am I am I am I am I am I am"
FINE = "I am Qwen, made by Alibaba Cloud."


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        ([(0, FINE), (6, ROUND)], "repetition"),
        ([(0, FINE), (6, "Qwen Qwen Qwen Qwen Qwen Qwen Qwen Qwen")], "repetition"),
        ([(0, FINE), (6, "")], "silence"),
        ([(0, FINE), (6, "!!! ???")], "silence"),
        ([(0, ROUND), (6, ROUND)], None),  # it did so before
        ([(0, ""), (6, "")], None),
        ([(6, FINE), (12, ROUND)], None),  # nobody knows what it said before
        ([(0, FINE), (6, "Yes, yes, yes.")], None),  # too short to tell
    ],
)
def test_probe_answers(answers, name):
    found = sounded([ProbeAnswered(n, "Who are you?", answer) for n, answer in answers])
    assert set(found) == ({name} if name else set())
    assert all(warning.collapse for warning in found.values())


def test_held_out_loss_that_rises():
    losses = [0.69, 0.5, 0.4, 0.5, 0.6]
    assert (
        "0.400 to 0.600"
        in sounded([Evaluated(n, {"eval_loss": loss}) for n, loss in enumerate(losses)])[
            "overfitting"
        ].message
    )
    assert (
        sounded([Evaluated(n, {"eval_loss": loss}) for n, loss in enumerate([0.69, 0.5, 0.51, 0.5, 0.49])])
        == {}
    )


def test_every_alarm_sounds_once():
    alarms = Alarms()
    assert [len(alarms(step(n, loss=math.nan))) for n in (2, 4, 6)] == [1, 0, 0]


def test_every_alarm_has_a_name_and_advice_of_its_own():
    assert len({alarm.name for alarm in ALARMS}) == len(ALARMS)
    assert all(alarm.advice.endswith(".") for alarm in ALARMS)
