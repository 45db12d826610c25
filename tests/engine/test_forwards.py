"""Which forward computed what: every batch that the engine claims is its own, and what it leaves to TRL is told."""

import copy

import pytest
import torch
from datasets import Dataset
from engine.parity import (
    ROPE,
    VOCABULARY,
    Prepared,
    Requests,
    make_model,
    pairs,
    scaled,
    tokenizer,
    worst_difference,
)
from peft import LoraConfig
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_cli.engine import packed_forward
from dpo_cli.engine.length_scaled_rope import length_limit
from dpo_cli.engine.packed_forward import ForwardCounts
from dpo_cli.engine.shared_prefix import install_shared_prefix
from dpo_cli.engine.trainer import SharedPrefixTrainer
from dpo_cli.training.trl_config import lora_config


class Ready(Requests, SharedPrefixTrainer):
    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def arguments(folder, **settings):
    defaults = {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": 4, "max_steps": 3, "report_to": "none",
        "save_strategy": "no", "bf16": False, "use_cpu": True, "activation_checkpointing": False, "max_length": None,
        "disable_tqdm": True, "dataloader_pin_memory": False, "logging_steps": 1, "seed": 3, "learning_rate": 5e-5,
        "adam_epsilon": 1e-6,
    }  # fmt: skip
    return DPOConfig(**(defaults | settings))


def run(
    kind,
    folder,
    model=None,
    rows=None,
    *,
    data_collator=None,
    peft_config=None,
    ref=False,
    own=None,
    **settings,
):
    """Train three steps; `own` are arguments of SharedPrefixTrainer."""
    model = make_model("llama") if model is None else copy.deepcopy(model)
    own = {} if kind is Prepared else {"cache_folder": folder / "cache"} | (own or {})
    trainer = kind(
        model=model, ref_model=copy.deepcopy(model) if ref else None, args=arguments(folder, **settings),
        train_dataset=Dataset.from_list(pairs() if rows is None else rows), processing_class=tokenizer(),
        data_collator=data_collator, peft_config=peft_config, **own,
    )  # fmt: skip
    trainer.train()
    return trainer


def log(trainer):
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def same(ours, theirs):
    worst, where = worst_difference(log(ours), log(theirs))
    assert worst < 1e-5, where
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-5, rtol=0)


@pytest.mark.parametrize("settings", [{}, {"precompute_ref_log_probs": True}], ids=["in the loop", "stored"])
def test_every_batch_of_a_lora_run_goes_through_the_engine(settings, tmp_path):
    told = []
    trainer = run(
        Ready,
        tmp_path,
        peft_config=lora_config(4),
        own={"on_handover": lambda *a: told.append(a)},
        **settings,
    )
    assert trainer.engine == "shared-prefix"
    assert trainer.forwards.packed == trainer.requests >= 3
    assert not trainer.forwards.handed_over
    assert not told


def test_a_reference_in_mixed_precision_is_compared_as_coarsely_as_its_numbers_are(tmp_path):
    """A reference model makes its own autocast: outside of it, nothing shows that its products are rounded."""
    trainer = run(Ready, tmp_path, ref=True, bf16=True)
    assert trainer.engine == "shared-prefix"
    assert trainer.forwards.packed == trainer.requests
    assert not trainer.forwards.handed_over


def noisy(model):
    """Noise on the embeddings while training, such as a library switches on when training starts."""
    model.get_input_embeddings().register_forward_hook(
        lambda module, _, output: output + 0.1 * torch.rand_like(output) if module.training else output
    )


def test_noise_that_is_switched_on_after_the_trial_is_found_in_the_first_batch(tmp_path):
    from transformers import TrainerCallback

    class SwitchOn(TrainerCallback):
        def on_train_begin(self, *args, model, **kwargs):
            noisy(model)

    model, told, trainers = make_model("llama"), [], []
    for kind in (Ready, Prepared):
        own = {"cache_folder": tmp_path / "cache", "on_handover": lambda *a: told.append(a)}
        trainer = kind(
            model=copy.deepcopy(model), ref_model=copy.deepcopy(model), args=arguments(tmp_path), callbacks=[SwitchOn()],
            train_dataset=Dataset.from_list(pairs()), processing_class=tokenizer(), **(own if kind is Ready else {}),
        )  # fmt: skip
        trainer.train()
        trainers.append(trainer)
    ours, theirs = trainers
    same(ours, theirs)
    assert ours.engine == "trl"
    assert "first batch differed" in ours.fallback_reason
    (sentence, step) = told[0]
    assert "From here on" in sentence
    assert step == 0


class LeftPadding(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        if len(examples[0]["prompt_ids"]) % 2:
            for name in ("input_ids", "attention_mask", "completion_mask"):
                batch[name] = torch.nn.functional.pad(batch[name], (1, 0))
        return batch


def test_batches_that_the_engine_leaves_to_trl_are_counted_and_told_once(tmp_path):
    rows, told = [r | {"prompt_ids": r["prompt_ids"][: 2 - i % 2]} for i, r in enumerate(pairs())], []
    settings = {
        "data_collator": LeftPadding(pad_token_id=0),
        "per_device_train_batch_size": 1,
        "max_steps": 8,
        "ref": True,
    }
    ours = run(Ready, tmp_path, rows=rows, own={"on_handover": lambda *a: told.append(a)}, **settings)
    same(ours, run(Prepared, tmp_path, rows=rows, **settings))
    ((reason, count),) = ours.forwards.handed_over.items()
    assert reason == "a batch that is not padded on the right"
    assert 0 < count < 16
    assert ours.forwards.packed + count == ours.requests == 16
    assert ours.engine == "shared-prefix"
    assert len(told) == 1


def test_the_trial_calls_what_the_trainer_calls(tmp_path, monkeypatch):
    """An adapter's wrapper that passes on what the engine does not know makes it fall back before the first step."""
    from peft import PeftModelForCausalLM

    right = PeftModelForCausalLM.forward
    monkeypatch.setattr(
        PeftModelForCausalLM, "forward", lambda self, *args, **kw: right(self, *args, position_ids=positions(kw), **kw)
    )  # fmt: skip

    def positions(kwargs):
        return torch.arange(kwargs["input_ids"].shape[1])[None]

    trainer = run(Ready, tmp_path, peft_config=lora_config(4))
    assert trainer.engine == "trl"
    assert "position_ids" in trainer.fallback_reason


def test_new_adapters_are_tried_with_weights_that_show(tmp_path, monkeypatch):
    """A new adapter is zero, and nothing of it shows: one that mixes the tokens of a row must be found by trying."""
    from peft.tuners.lora import Linear

    right = Linear.forward

    def mixing(self, x, *args, **kwargs):
        more = self.lora_B["default"](self.lora_A["default"](x.cumsum(1)))
        return right(self, x, *args, **kwargs) + (0 if self.disable_adapters else more)

    monkeypatch.setattr(Linear, "forward", mixing)
    trainer = run(Ready, tmp_path, peft_config=lora_config(4))
    assert "differed" in trainer.fallback_reason
    zero = [p for name, p in run(Ready, tmp_path, peft_config=lora_config(4), max_steps=1, learning_rate=0.0)
            .model.named_parameters() if "lora_B" in name]  # fmt: skip
    assert zero
    assert not any(p.any() for p in zero)


def test_a_reference_that_needs_another_forward_is_tried_too(tmp_path, monkeypatch):
    """The policy runs on the engine, but with its adapters off the model does something else."""
    from peft.tuners.lora import Linear

    right = Linear.forward
    monkeypatch.setattr(
        Linear, "forward",
        lambda self, x, *a, **k: right(self, x, *a, **k) + (1e-2 * x.mean(1, keepdim=True).sum() if self.disable_adapters else 0),
    )  # fmt: skip
    assert "differed" in run(Ready, tmp_path, peft_config=lora_config(4)).fallback_reason


def test_activated_lora_and_neftune_fall_back_by_name(tmp_path):
    activated = LoraConfig(
        task_type="CAUSAL_LM", r=4, target_modules="all-linear", alora_invocation_tokens=[3, 4]
    )
    assert "activated LoRA" in run(Ready, tmp_path, peft_config=activated).fallback_reason
    noise = run(Ready, tmp_path, ref=True, neftune_noise_alpha=5.0)
    assert "NEFTune" in noise.fallback_reason
    same(noise, run(Prepared, tmp_path, ref=True, neftune_noise_alpha=5.0))


@pytest.mark.parametrize("padding", [None, 16])
@pytest.mark.parametrize("kind", list(ROPE))
def test_positions_scaled_by_the_length_of_a_batch(kind, padding, tmp_path):
    """Rows of 24 and 25 tokens lie on both sides of the limit: a packed row leaves out the last token of each."""
    model = scaled(kind)
    assert length_limit(model) == 24
    rows = [{"prompt_ids": [3] * 9, "chosen_ids": list(range(5, 5 + n)), "rejected_ids": list(range(40, 35 + n))}
            for n in (8, 15, 16, 15, 30, 9)]  # fmt: skip
    settings = {"per_device_train_batch_size": 1, "max_steps": 6, "ref": True, "pad_to_multiple_of": padding}
    ours = run(Ready, tmp_path, model, rows, **settings)
    same(ours, run(Prepared, tmp_path, model, rows, **settings))
    assert ours.engine == "shared-prefix"
    assert ours.forwards.packed == (
        ours.requests if padding is None else ours.requests - ours.forwards.handed_over.total()
    )


@pytest.mark.parametrize("kind", list(ROPE))
def test_a_wrong_scale_is_found_by_trying_with_a_narrow_limit(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(packed_forward, "length_scaled_modules", lambda _: [])
    rope = ROPE[kind] | ({"original_max_position_embeddings": 15} if kind == "longrope" else {})
    model = make_model(
        "llama", rope_parameters=rope, max_position_embeddings=15 if kind == "dynamic" else 192
    )
    assert "differed" in run(Ready, tmp_path, model, ref=True, max_steps=1).fallback_reason


@pytest.mark.parametrize("kind", list(ROPE))
def test_the_trial_leaves_the_scale_as_it_was(kind, tmp_path):
    model = scaled(kind)
    rotary = model.model.rotary_emb
    before = {
        k: v.clone() if isinstance(v, torch.Tensor) else v
        for k, v in vars(rotary).items()
        if not k.startswith("_")
    }
    frequencies = rotary.inv_freq.clone()
    trainer = Prepared(
        model=model, ref_model=copy.deepcopy(model), args=arguments(tmp_path),
        train_dataset=Dataset.from_list(pairs()), processing_class=tokenizer(),
    )  # fmt: skip
    assert install_shared_prefix(trainer, ForwardCounts()) is None
    assert torch.equal(rotary.inv_freq, frequencies)
    after = {k: v for k, v in vars(rotary).items() if not k.startswith("_")}
    assert set(after) == set(before)
    assert all(
        torch.equal(a, before[k]) if isinstance(a, torch.Tensor) else a == before[k] for k, a in after.items()
    )


def test_labels_that_are_not_the_tokens_go_through_trls_forward(tmp_path):
    model = make_model("llama")
    trainer = Prepared(
        model=model, ref_model=copy.deepcopy(model), args=arguments(tmp_path),
        train_dataset=Dataset.from_list(pairs()), processing_class=tokenizer(),
    )  # fmt: skip
    ids = torch.randint(3, VOCABULARY, (2, 8))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids.flip(1),
        "fused_lm_head": True,
    }
    theirs = trainer.model(**batch).log_probs
    counts = ForwardCounts()
    assert install_shared_prefix(trainer, counts) is None
    assert torch.equal(trainer.model(**batch).log_probs, theirs)
    assert counts.handed_over == {"labels that are not the tokens of their rows": 1}
