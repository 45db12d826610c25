"""Run TRL's own trainer with and without the engine on tiny models made on the spot."""

from __future__ import annotations

import copy
import warnings

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast, set_seed
from trl import DPOConfig, DPOTrainer

from dpo_cli.engine.packed_forward import ForwardCounts
from dpo_cli.engine.shared_prefix import install_shared_prefix

VOCABULARY = 97
WIDTHS = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 512,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
FAMILIES = {
    "llama": {},
    "qwen2": {},
    "qwen3": {},
    "mistral": {"sliding_window": 16},
    "gemma2": {
        "sliding_window": 16,
        "query_pre_attn_scalar": 8,
        "attn_logit_softcapping": 5.0,
        "final_logit_softcapping": 3.0,
    },
    "gemma3_text": {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]},
    "phi3": {},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "olmo2": {},
    "smollm3": {},
    "mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None},
    "qwen3_moe": {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "minicpm3": {
        "num_key_value_heads": 4,
        "q_lora_rank": 16,
        "kv_lora_rank": 16,
        "qk_nope_head_dim": 8,
        "qk_rope_head_dim": 8,
        "v_head_dim": 4,
        "dim_model_base": 16,
    },
}


def tokenizer():
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2} | {f"w{i}": i for i in range(3, VOCABULARY)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>"
    )


def make_model(family, **changes):
    set_seed(5)
    config = AutoConfig.for_model(family, **{**WIDTHS, **FAMILIES.get(family, {}), **changes})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(4)  # far enough from uniform that a wrong mask shows
    return model


ROPE = {
    "longrope": {"rope_type": "longrope", "rope_theta": 1e4, "original_max_position_embeddings": 24, "factor": 8.0,
                 "short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 3.0, 4.0, 5.0]},
    "dynamic": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
}  # fmt: skip


def scaled(kind):
    """A model whose positions are scaled by the length of a batch beyond 24 tokens."""
    limit = {"max_position_embeddings": 24 if kind == "dynamic" else 192}
    return make_model("llama", rope_parameters=ROPE[kind], **limit)


def pairs(count=12, seed=0, prompt=(3, 30), completion=(2, 25), common=0.5):
    """Token-id pairs: some share the start of their completions, one is a prefix of the other, one shares nothing."""
    draw = torch.Generator().manual_seed(seed)

    def number(low, high):
        return int(torch.randint(low, high + 1, (1,), generator=draw))

    def words(n):
        return torch.randint(3, VOCABULARY, (n,), generator=draw).tolist()

    rows = []
    for index in range(count):
        first, second = words(number(*completion)), words(number(*completion))
        if index % 4 == 0:
            start = words(number(4, 12))
            first, second = start + first, start + second
        if index % 4 == 1:
            second = first + second
        start = words(number(*prompt)) if index % 4 != 2 else words(1)
        rows.append({"prompt_ids": start, "chosen_ids": [*first, 2], "rejected_ids": [*second, 2]})
    return rows


class Requests:
    """Counts what TRL asks a model for: token scores of the policy, and of the reference."""

    requests = 0

    def compute_ref_log_probs(self, *args, **kwargs):
        self.requests += 1
        return super().compute_ref_log_probs(*args, **kwargs)

    def _compute_loss(self, *args, **kwargs):
        self.requests += 1 if self.precompute_ref_logps else 2
        return super()._compute_loss(*args, **kwargs)


class Prepared(Requests, DPOTrainer):
    """TRL's trainer on token ids that are ready."""

    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


def train(model, rows, folder, *, engine, ref_model=None, peft_config=None, data_collator=None, **settings):
    """Train a few steps; returns (trainer, one dict of logged numbers a step, reason of a fallback)."""
    # Where a gradient is zero because chosen and rejected cancel, what is left of it is rounding, and Adam
    # makes full steps of rounding. A larger epsilon keeps the comparison of weights about gradients.
    defaults = {
        "output_dir": str(folder), "per_device_train_batch_size": 4, "max_steps": 10, "learning_rate": 5e-5,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "bf16": False, "disable_tqdm": True,
        "activation_checkpointing": False, "use_cpu": True, "seed": 3, "max_length": None, "dataloader_pin_memory": False,
        "beta": 0.1, "adam_epsilon": 1e-6,
    }  # fmt: skip
    args = DPOConfig(**{**defaults, **settings})
    trainer = Prepared(
        model=model, ref_model=ref_model, args=args, train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(), peft_config=peft_config, data_collator=data_collator,
    )  # fmt: skip
    counts, before = ForwardCounts(), trainer.requests  # TRL's own references are computed in its constructor
    reason = install_shared_prefix(trainer, counts) if engine else None
    trainer.train()
    if engine and reason is None:
        assert (counts.packed, dict(counts.handed_over)) == (trainer.requests - before, {})
        assert counts.packed >= settings.get("max_steps", 10)
    return trainer, [entry for entry in trainer.state.log_history if "loss" in entry], reason


def twice(family, rows, folder, *, changes=None, reference=True, peft_config=None, **settings):
    """The same run with TRL's forward and with the engine: (ours, theirs, differences of their weights)."""
    model = make_model(family, **(changes or {}))
    runs = []
    for engine in (True, False):
        ref_model = copy.deepcopy(model) if reference and peft_config is None else None
        runs.append(
            train(
                copy.deepcopy(model),
                rows,
                folder,
                engine=engine,
                ref_model=ref_model,
                peft_config=copy.deepcopy(peft_config),
                **settings,
            )
        )
    (ours, our_log, reason), (theirs, their_log, _) = runs
    assert reason is None
    gap = max(
        float((a.detach() - b.detach()).abs().max())
        for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True)
    )
    return our_log, their_log, gap


def worst_difference(ours, theirs, *, beta=0.1):
    """Largest difference over all logged numbers of all steps, relative to the size of what they are made of.

    Rewards are differences of log-probabilities: their error is that of the log-probabilities. A mean logit is a
    mean of `V` numbers of size 1 that cancel.
    """
    worst = (0.0, "")
    assert len(ours) == len(theirs) > 0
    for step, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        assert set(a) == set(b)
        size = {"rewards/": beta * max(abs(b["logps/chosen"]), abs(b["logps/rejected"])), "logits/": 1.0}
        # Policy and reference are the same model at step 0: which reward is higher is decided by rounding.
        left_out = {"epoch", "step"} if step else {"epoch", "step", "rewards/accuracies"}
        for name in set(a) - left_out:
            scale = max([abs(b[name]), *(v for k, v in size.items() if name.startswith(k))])
            gap = abs(a[name] - b[name]) / max(scale, 1e-6)
            worst = max(worst, (gap, f"{name} at step {step}: {a[name]} against {b[name]}"))
    return worst
