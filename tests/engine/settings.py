"""The settings in which the engine is held against TRL's own trainer, and how one of them is run."""

from __future__ import annotations

import copy
import functools
import re
import shutil
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import peft
import torch
from datasets import Dataset, IterableDataset
from engine import templates
from engine.parity import ROPE, Prepared, Requests, make_model, pairs, tokenizer, worst_difference
from peft import LoraConfig
from transformers import PrinterCallback, set_seed
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_cli.engine.trainer import SharedPrefixTrainer

if TYPE_CHECKING:
    from collections.abc import Callable

SAME, PARTLY, FELL_BACK, REFUSED = (
    "same",
    "same, some batches by TRL's forward",
    "fell back",
    "refused by both",
)
TOLERANCE = 1e-5


def llama():
    return make_model("llama")


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        family: What is varied.
        name: The variation.
        model: Makes the model.
        rows: Pairs; tokenized ones, or TRL's conversations with `template`.
        options: Of `DPOConfig`.
        adapter: Makes a peft config.
        collator: Makes a collator.
        reference: "model": a second one, "stored": computed beforehand, "loop": the policy without its adapters.
        template: Chat template; rows are conversations then.
        evaluate: What is done after training: "held out", "by name", "resume".
        tolerance: Of all compared numbers.
        outcome: What must come of it.
        reason: Word of the reason, where it falls back or is refused.
    """

    family: str
    name: str
    model: Callable[[], Any] = llama
    rows: Callable[[], Any] = pairs
    options: dict[str, Any] = field(default_factory=dict)
    adapter: Callable[[], Any] | None = None
    collator: Callable[[], Any] | None = None
    reference: str = "model"
    template: str | None = None
    evaluate: str | None = None
    tolerance: float = TOLERANCE
    outcome: str = SAME
    reason: str = ""


@dataclass(frozen=True)
class Found:
    """What came of a setting: the outcome, its reason, and the largest difference and where it was."""

    outcome: str
    reason: str = ""
    difference: float = 0.0
    where: str = ""


class OursReady(Requests, SharedPrefixTrainer):
    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


class Ours(Requests, SharedPrefixTrainer):
    pass


def run(setting: Setting, folder) -> Found:
    """Train with both, and compare every logged number and all weights."""
    sides = []
    for kind in ("ours", "theirs"):
        try:
            sides.append(_train(setting, kind, folder / kind))
        except Exception as error:  # noqa: BLE001 - whatever one of them refuses, the other has to
            sides.append(error)
        shutil.rmtree(folder / kind, ignore_errors=True)
    ours, theirs = sides
    if isinstance(ours, Exception) or isinstance(theirs, Exception):
        if type(ours) is type(theirs) and str(ours) == str(theirs):
            return Found(REFUSED, f"{type(ours).__name__}: {str(ours).splitlines()[0]}")
        raise ours if isinstance(ours, Exception) else theirs
    difference, where = _compare(ours, theirs)
    assert difference <= setting.tolerance, f"{where}: {difference:.2g}; ours: {ours.fallback_reason}"
    counts = ours.forwards
    if ours.fallback_reason is not None:
        assert counts.packed == 0 or "first batch" in ours.fallback_reason
        return Found(FELL_BACK, ours.fallback_reason, difference, where)
    assert counts.packed + counts.handed_over.total() == ours.requests
    assert counts.packed > 0
    if counts.handed_over:
        return Found(PARTLY, "; ".join(counts.handed_over), difference, where)
    return Found(SAME, "", difference, where)


def _train(setting: Setting, kind: str, folder) -> DPOTrainer:
    set_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = _trainer(setting, kind, folder)
        trainer.train()
        if setting.evaluate == "resume":
            checkpoint = folder / "out" / "checkpoint-2"
            trainer = _trainer(setting, kind, folder)
            trainer.train(resume_from_checkpoint=str(checkpoint))
        if setting.evaluate == "held out":
            trainer.evaluate(_data(setting, 3))
        if setting.evaluate == "by name":
            trainer.evaluate({"one": _data(setting, 3), "two": _data(setting, 5)})
    return trainer


def _trainer(setting: Setting, kind: str, folder) -> DPOTrainer:
    defaults = {
        "output_dir": str(folder / "out"), "per_device_train_batch_size": 3, "max_steps": 3, "learning_rate": 5e-5,
        "logging_steps": 1, "report_to": "none", "save_strategy": "no", "bf16": False, "disable_tqdm": True,
        "activation_checkpointing": False, "use_cpu": True, "seed": 3, "max_length": None, "dataloader_pin_memory": False,
        "adam_epsilon": 1e-6, "precompute_ref_log_probs": setting.reference == "stored",
        "per_device_eval_batch_size": 2,
    }  # fmt: skip
    options = dict(setting.options)
    held_out = options.pop("held_out", None)
    model = setting.model()
    words = tokenizer() if setting.template is None else templates.tokenizer(setting.template)
    if setting.template is None:
        kinds = {"ours": OursReady, "theirs": Prepared}
    else:
        kinds = {"ours": Ours, "theirs": DPOTrainer}
    own = {"cache_folder": folder / "cache"} if kind == "ours" else {}
    trainer = kinds[kind](
        model=model,
        ref_model=copy.deepcopy(model) if setting.reference == "model" and setting.adapter is None else None,
        args=DPOConfig(**(defaults | options)),
        train_dataset=_data(setting),
        eval_dataset=held_out(setting) if held_out else None,
        processing_class=words,
        peft_config=None
        if setting.adapter is None or isinstance(model, peft.PeftModel)
        else setting.adapter(),
        data_collator=None if setting.collator is None else setting.collator(),
        **own,
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _data(setting: Setting, seed: int | None = None) -> Dataset | IterableDataset:
    rows = (
        setting.rows()
        if seed is None
        else (pairs(4, seed=seed) if setting.template is None else setting.rows())
    )
    return rows if isinstance(rows, IterableDataset) else Dataset.from_list(rows)


def _compare(ours: DPOTrainer, theirs: DPOTrainer) -> tuple[float, str]:
    """The largest difference of what was logged, in training and in evaluation, and of the weights."""
    worst = worst_difference(_logged(ours), _logged(theirs))
    states = (trainer.model.state_dict().items() for trainer in (ours, theirs))
    for (name, a), (_, b) in zip(*states, strict=True):
        if a.is_floating_point() and a.numel():
            worst = max(worst, (float((a - b).abs().max()), name))
    return worst


def _logged(trainer: DPOTrainer) -> list[dict[str, float]]:
    """The figures of every step and every evaluation, without those of the clock."""
    found = []
    for entry in trainer.state.log_history:
        if any(name.endswith("loss") and name != "train_loss" for name in entry):
            names = {name: re.sub("^eval_(one_|two_)?", "", name) for name in entry}
            found.append({names[n]: v for n, v in entry.items() if not n.endswith(("runtime", "per_second"))})
    return found


# What is varied ------------------------------------------------------------------------------------------------


def lora(**changes):
    settings = {"task_type": "CAUSAL_LM", "r": 4, "target_modules": "all-linear", "init_lora_weights": False}
    return functools.partial(LoraConfig, **(settings | changes))


LOSSES = {
    "sigmoid": {}, "hinge": {}, "ipo": {}, "exo_pair": {"label_smoothing": 1e-3}, "nca_pair": {},
    "robust": {"label_smoothing": 0.1}, "bco_pair": {}, "sppo_hard": {}, "aot": {"label_smoothing": 0.1},
    "aot_unpaired": {}, "apo_zero": {}, "apo_down": {}, "discopop": {"discopop_tau": 0.1}, "sft": {}, "sigmoid_norm": {},
}  # fmt: skip

LOSS_SETTINGS = [
    Setting("losses", f"{loss}, {reference}", options={"loss_type": [loss], **more}, reference=reference,
            adapter=lora() if reference == "loop" else None, tolerance=1e-4 if loss == "discopop" else TOLERANCE)
    for loss, more in LOSSES.items() for reference in ("stored", "loop")
] + [
    Setting("losses", "three with weights", options={"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1]}),
    Setting("losses", "forward KL", options={"f_divergence_type": "forward_kl"}),
    Setting("losses", "Jensen-Shannon", options={"f_divergence_type": "js_divergence"}),
    Setting("losses", "alpha divergence", options={"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 0.3}),
    Setting("losses", "weighted (WPO)", options={"use_weighting": True}),
    Setting("losses", "weighted (WPO), IPO, stored", options={"use_weighting": True, "loss_type": ["ipo"]}, reference="stored"),
    Setting("losses", "length desensitised, 0", options={"ld_alpha": 0.0}),
    Setting("losses", "length desensitised, 0.5, stored", options={"ld_alpha": 0.5}, reference="stored"),
    Setting("losses", "exo_pair without smoothing", options={"loss_type": ["exo_pair"]}, outcome=REFUSED, reason="moothing"),
    Setting("losses", "weighted hinge", options={"use_weighting": True, "loss_type": ["hinge"]}, outcome=REFUSED, reason="inplace"),
    Setting("losses", "weighted AOT", options={"use_weighting": True, "loss_type": ["aot"]}, outcome=REFUSED, reason="WPO"),
    Setting("losses", "NCA with forward KL", options={"f_divergence_type": "forward_kl", "loss_type": ["nca_pair"]},
            outcome=REFUSED, reason="f_divergence_type"),
]  # fmt: skip

OPTIONS = [
    Setting("options", name, options=options, **more)
    for name, options, more in [
        ("accumulation of 3", {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2}, {}),
        ("accumulation of 3, stored", {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 1}, {"reference": "stored"}),
        ("checkpointing", {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": False}}, {}),
        ("checkpointing, reentrant", {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}, {}),
        ("checkpointing, LoRA", {"activation_checkpointing": True}, {"adapter": lora()}),
        ("cut at the end", {"max_length": 31}, {}),
        ("cut at the end, stored", {"max_length": 31}, {"reference": "stored"}),
        ("cut at the start", {"max_length": 20, "truncation_mode": "keep_end"}, {}),
        ("cut at the start, stored", {"max_length": 20, "truncation_mode": "keep_end"}, {"reference": "stored"}),
        ("padding to 16", {"pad_to_multiple_of": 16}, {}),
        ("padding to 16, stored", {"pad_to_multiple_of": 16}, {"reference": "stored"}),
        ("one pair a step", {"per_device_train_batch_size": 1}, {}),
        ("all pairs in a step", {"per_device_train_batch_size": 12}, {}),
        ("moving reference", {"sync_ref_model": True, "ref_model_sync_steps": 2}, {}),
        ("moving reference, LoRA", {"sync_ref_model": True}, {"adapter": lora(), "outcome": REFUSED, "reason": "PEFT"}),
        ("moving reference, stored", {"sync_ref_model": True}, {"reference": "stored", "outcome": REFUSED, "reason": "stale|fixed|together"}),
        ("SGD with momentum", {"optim": "sgd", "optim_args": "momentum=0.9", "learning_rate": 1e-2}, {}),
        ("Adafactor", {"optim": "adafactor"}, {"tolerance": 1e-4}),
        ("cosine schedule, warm-up", {"lr_scheduler_type": "cosine", "warmup_steps": 1}, {}),
        ("weight decay, clipping", {"weight_decay": 0.1, "max_grad_norm": 0.1}, {}),
        ("no clipping", {"max_grad_norm": 0.0}, {}),
        ("epochs", {"num_train_epochs": 1, "max_steps": -1}, {}),
        ("last batch dropped", {"num_train_epochs": 1, "max_steps": -1, "per_device_train_batch_size": 5, "dataloader_drop_last": True}, {}),
        ("grouped by length", {"train_sampling_strategy": "group_by_length"}, {"outcome": REFUSED, "reason": "lengths"}),
        ("in order", {"train_sampling_strategy": "sequential"}, {}),
        ("beta of 2", {"beta": 2.0}, {"tolerance": 1e-4}),
        ("padding_free (TRL leaves it out)", {"padding_free": True}, {}),
        ("bf16 autocast", {"bf16": True}, {"tolerance": 0.3}),
        ("bf16 autocast, LoRA", {"bf16": True}, {"adapter": lora(), "tolerance": 0.3}),
        ("NEFTune", {"neftune_noise_alpha": 5.0}, {"outcome": FELL_BACK, "reason": "NEFTune"}),
        ("NEFTune, LoRA", {"neftune_noise_alpha": 5.0}, {"adapter": lora(), "outcome": FELL_BACK, "reason": "NEFTune"}),
        ("Liger without its package", {"use_liger_kernel": True}, {"outcome": REFUSED, "reason": "iger"}),
        ("router loss of a dense model", {"router_aux_loss_coef": 0.1}, {"outcome": REFUSED, "reason": "router_aux_loss_coef"}),
    ]
]  # fmt: skip


def scaled(parameters, **changes):
    return functools.partial(
        make_model, changes.pop("family", "llama"), rope_parameters=parameters, **changes
    )


def sized(*lengths):
    """Pairs whose longer row has these many tokens."""
    return [
        {
            "prompt_ids": [3, 4, 5],
            "chosen_ids": [*(7 + i % 80 for i in range(n - 4)), 2],
            "rejected_ids": [9, 2],
        }
        for n in lengths
    ]


AT_LIMIT, BELOW, BEYOND = (20, 24, 25, 24, 26, 25), (10, 24, 12, 20, 9, 15), (40, 12, 60, 20, 30, 45)
ROPES = {
    "linear": {"rope_type": "linear", "rope_theta": 1e4, "factor": 4.0},
    "YaRN": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 24},
    "Llama 3": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                "original_max_position_embeddings": 24},
    "another base": {"rope_type": "default", "rope_theta": 100.0},
}  # fmt: skip
ROPE_SETTINGS = [
    Setting("positions", name, scaled(parameters), adapter=adapter)
    for name, parameters in ROPES.items() for adapter in ([None, lora()] if name in ("YaRN", "Llama 3") else [None])
] + [
    Setting("positions", f"{kind}, {where}{', LoRA' if adapter else ''}, batches of {size}",
            scaled(ROPE[kind], max_position_embeddings=24 if kind == "dynamic" else 192),
            functools.partial(sized, *lengths), {"per_device_train_batch_size": size, "max_steps": 3}, adapter=adapter)
    for kind in ("longrope", "dynamic")
    for where, lengths in (("below its limit", BELOW), ("at its limit", AT_LIMIT), ("beyond its limit", BEYOND))
    for size, adapter in ((1, None), (2, lora()))
] + [
    Setting("positions", f"{kind}, beyond its limit, stored",
            scaled(ROPE[kind], max_position_embeddings=24 if kind == "dynamic" else 192),
            functools.partial(sized, *BEYOND), reference="stored")
    for kind in ("longrope", "dynamic")
] + [
    Setting("positions", f"{kind}, padded beyond its limit", scaled(ROPE[kind], max_position_embeddings=24 if kind == "dynamic" else 192),
            functools.partial(sized, 20, 24, 25, 32, 30, 32), {"per_device_train_batch_size": 1, "pad_to_multiple_of": 16}, outcome=PARTLY,
            reason="padding")
    for kind in ("longrope", "dynamic")
] + [
    Setting("positions", "LongRoPE of Phi-3", functools.partial(
        make_model, "phi3", max_position_embeddings=192, original_max_position_embeddings=24, rope_parameters=ROPE["longrope"]),
        functools.partial(sized, *AT_LIMIT), {"per_device_train_batch_size": 1}),
]  # fmt: skip


def architecture(name, **changes):
    """A tiny model of an architecture with its own names for the usual widths."""
    return functools.partial(make_model, name, **changes)


MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {}, "qwen2": {}, "qwen3": {}, "gemma": {}, "gemma2": {}, "gemma3_text": {}, "phi": {}, "phi3": {},
    "olmo": {}, "olmo2": {}, "olmo3": {"sliding_window": 16}, "smollm3": {}, "stablelm": {}, "starcoder2": {"sliding_window": 16},
    "cohere": {}, "cohere2": {"sliding_window": 16}, "granite": {}, "glm": {}, "glm4": {}, "nemotron": {}, "helium": {},
    "exaone4": {"sliding_window": 16}, "ministral": {"sliding_window": 16}, "hunyuan_v1_dense": {}, "ernie4_5": {}, "seed_oss": {"attention_dropout": 0.0, "residual_dropout": 0.0},
    "arcee": {}, "apertus": {}, "persimmon": {}, "gpt_neox": {}, "gptj": {"rotary_dim": 8}, "gpt2": {}, "gpt_bigcode": {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0},
    "opt": {"dropout": 0.0, "word_embed_proj_dim": 32, "ffn_dim": 48}, "biogpt": {}, "xglm": {}, "codegen": {"rotary_dim": 8},
    "bloom": {}, "mpt": {}, "minicpm3": {}, "mixtral": {}, "qwen2_moe": MOE | {"shared_expert_intermediate_size": 16},
    "qwen3_moe": MOE, "olmoe": {"num_experts": 4, "num_experts_per_tok": 2}, "granitemoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "phimoe": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "deepseek_v2": LATENT | {"n_routed_experts": 4, "first_k_dense_replace": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "deepseek_v3": LATENT | {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16,
                             "first_k_dense_replace": 1},
    "mamba": {"state_size": 4, "num_hidden_layers": 1}, "jamba": {}, "gpt_oss": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "llama4_text": {}, "recurrent_gemma": {}, "bitnet": {}, "vaultgemma": {"sliding_window": 16}, "diffllama": {},
}  # fmt: skip


class Left(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        pad = {"input_ids": 0, "attention_mask": 0, "completion_mask": 0}
        return batch | {n: torch.nn.functional.pad(batch[n], (2, 0), value=v) for n, v in pad.items()}


class Wide(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        names = ("input_ids", "attention_mask", "completion_mask")
        return batch | {n: torch.nn.functional.pad(batch[n], (0, 7)) for n in names}


class Cutting(DataCollatorForPreference):
    def torch_call(self, examples):
        return super().torch_call(
            [{n: x[:9] if n.endswith("_ids") else x for n, x in row.items()} for row in examples]
        )


class Masking(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["completion_mask"][:, ::2] = 0
        return batch


class ByBatch(DataCollatorForPreference):
    """Cuts all rows to the shortest prompt of the batch and nine tokens: a pair looks different beside others."""

    def torch_call(self, examples):
        most = min(len(row["prompt_ids"]) for row in examples) + 9
        return DataCollatorForPreference(pad_token_id=0, max_length=max(most, 12))(examples)


class Positions(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        return batch | {
            "position_ids": torch.arange(batch["input_ids"].shape[1]).expand_as(batch["input_ids"])
        }


class Holes(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["attention_mask"][:, 1] = 0
        return batch


class ScoredPadding(DataCollatorForPreference):
    def torch_call(self, examples):
        batch = super().torch_call(examples)
        batch["completion_mask"][:, -1] = 1
        return batch


class SomeLeft(Left):
    def torch_call(self, examples):
        left = len(examples[0]["prompt_ids"]) % 2
        return super().torch_call(examples) if left else DataCollatorForPreference(pad_token_id=0)(examples)


def plain_rows():
    return [row for row in pairs(12, prompt=(3, 8)) if len(row["prompt_ids"]) > 1]


COLLATORS = [
    Setting("collators", f"{name}, {reference}", rows=rows, collator=functools.partial(kind, pad_token_id=0, **more),
            reference=reference, adapter=lora() if reference == "loop" else None, outcome=outcome, reason=reason)
    for name, kind, more, rows, outcome, reason in [
        ("TRL's with a length of its own", DataCollatorForPreference, {"max_length": 12}, plain_rows, SAME, ""),
        ("more padding", Wide, {}, pairs, SAME, ""),
        ("cuts rows", Cutting, {}, plain_rows, SAME, ""),
        ("masks tokens", Masking, {}, pairs, SAME, ""),
        ("cuts by batch", ByBatch, {}, plain_rows, SAME, ""),
        ("padding on the left", Left, {}, pairs, FELL_BACK, "right"),
        ("position ids", Positions, {}, pairs, FELL_BACK, "position_ids"),
        ("a hole in the mask", Holes, {}, pairs, FELL_BACK, "right"),
        ("scores padding", ScoredPadding, {}, pairs, FELL_BACK, "labels"),
    ]
    for reference in ("model", "stored", "loop")
] + [
    Setting("collators", "some batches padded on the left", collator=functools.partial(SomeLeft, pad_token_id=0), outcome=PARTLY, reason="right",
            options={"per_device_train_batch_size": 1, "max_steps": 6}),
]  # fmt: skip

TEMPLATES = [
    Setting("templates", f"{name}, {reference}", rows=functools.partial(templates.conversations, name), template=name,
            reference=reference, options={"max_length": 512})
    for name in templates.TEMPLATES for reference in ("stored", "model")
]  # fmt: skip


def trained_adapter(**changes):
    """A model with an adapter that has been trained, so that TRL keeps a copy of it as the reference."""
    return peft.get_peft_model(make_model("llama"), lora(**changes)())


def other(kind, **settings):
    return functools.partial(getattr(peft, kind), task_type="CAUSAL_LM", **settings)


LINEAR = ["q_proj", "v_proj"]
ADAPTERS = [
    Setting("adapters", name, adapter=adapter, **({"reference": "loop"} | more))
    for name, adapter, more in [
        ("all linear layers", lora(), {}),
        ("all linear layers, stored", lora(), {"reference": "stored"}),
        ("new and zero, as they come", lora(init_lora_weights=True), {}),
        ("new and zero, stored", lora(init_lora_weights=True), {"reference": "stored"}),
        ("query and value", lora(target_modules=LINEAR), {}),
        ("without a task type", lora(task_type=None), {}),
        ("rsLoRA", lora(use_rslora=True), {}),
        ("DoRA", lora(use_dora=True), {}),
        ("biases of LoRA alone", lora(bias="lora_only"), {"model": functools.partial(make_model, "qwen2")}),
        ("all biases", lora(bias="all"), {"model": functools.partial(make_model, "qwen2")}),
        ("all biases, stored", lora(bias="all"), {"model": functools.partial(make_model, "qwen2"), "reference": "stored"}),
        ("embeddings among the targets", lora(target_modules=["q_proj", "embed_tokens"]), {}),
        ("embeddings trained whole", lora(modules_to_save=["embed_tokens"]), {}),
        ("head trained whole", lora(modules_to_save=["lm_head"]), {}),
        ("head trained whole, stored", lora(modules_to_save=["lm_head"]), {"reference": "stored"}),
        ("norms trained whole", lora(modules_to_save=["input_layernorm"]), {}),
        ("some tokens trained", lora(target_modules=LINEAR, trainable_token_indices=[5, 6, 7]), {}),
        ("one layer", lora(target_modules=LINEAR, layers_to_transform=[1]), {}),
        ("ranks by name", lora(target_modules=LINEAR, rank_pattern={"q_proj": 2}), {}),
        ("PiSSA", lora(init_lora_weights="pissa"), {}),
        ("OLoRA", lora(init_lora_weights="olora"), {"reference": "stored"}),
        ("experts by parameter", lora(target_modules=["q_proj"], target_parameters=["mlp.experts.gate_up_proj"]),
         {"model": functools.partial(make_model, "qwen3_moe")}),
        ("of GPT-2", lora(target_modules=["c_attn"], fan_in_fan_out=True), {"model": functools.partial(make_model, "gpt2")}),
        ("of Gemma 2", lora(), {"model": functools.partial(make_model, "gemma2")}),
        ("trained further", lora(), {"model": trained_adapter}),
        ("trained further, stored", lora(), {"model": trained_adapter, "reference": "stored"}),
        ("dropout", lora(lora_dropout=0.1), {"options": {"disable_dropout": False}, "outcome": FELL_BACK, "reason": "dropout"}),
        ("dropout that TRL switches off", lora(lora_dropout=0.1), {}),
        ("activated LoRA", lora(alora_invocation_tokens=[3, 4]), {"outcome": FELL_BACK, "reason": "activated"}),
        ("on the head", lora(target_modules=["lm_head"]), {"outcome": REFUSED, "reason": "lm_head"}),
        ("IA3", other("IA3Config", target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"], init_ia3_weights=False), {}),
        ("LoHa", other("LoHaConfig", r=4, target_modules=LINEAR, init_weights=False), {}),
        ("LoKr", other("LoKrConfig", r=4, target_modules=LINEAR, init_weights=False), {}),
        ("OFT", other("OFTConfig", oft_block_size=8, target_modules=LINEAR), {}),
        ("BOFT", other("BOFTConfig", boft_block_size=8, target_modules=LINEAR), {}),
        ("VeRA", other("VeraConfig", r=4, target_modules=["q_proj"], init_weights=False), {}),
        ("AdaLoRA", other("AdaLoraConfig", target_modules=LINEAR, total_step=30, init_lora_weights=False), {}),
        ("norms", other("LNTuningConfig", target_modules=["input_layernorm", "norm"]), {}),
        ("FourierFT", other("FourierFTConfig", n_frequency=10, target_modules=LINEAR), {}),
        ("HRA", other("HRAConfig", r=4, target_modules=LINEAR), {}),
        ("VB-LoRA", other("VBLoRAConfig", r=4, num_vectors=16, vector_length=8, topk=2, target_modules=["q_proj"]), {}),
        ("RandLoRA", other("RandLoraConfig", r=4, target_modules=["q_proj"]), {}),
        ("MiSS", other("MissConfig", r=4, target_modules=LINEAR), {}),
        ("SHiRA", other("ShiraConfig", r=4, target_modules=["q_proj"]), {}),
        ("prompt tuning", other("PromptTuningConfig", num_virtual_tokens=3), {"outcome": FELL_BACK, "reason": "prompt-learning"}),
        ("prefix tuning", other("PrefixTuningConfig", num_virtual_tokens=3), {"outcome": FELL_BACK, "reason": "prompt-learning"}),
        ("P-tuning", other("PromptEncoderConfig", num_virtual_tokens=3, encoder_hidden_size=16),
         {"outcome": FELL_BACK, "reason": "prompt-learning"}),
        ("adaption prompts", other("AdaptionPromptConfig", adapter_len=3, adapter_layers=1), {"outcome": REFUSED, "reason": "log_probs"}),
    ]
]  # fmt: skip


def held_out(setting):
    return _data(setting, 3)


def held_out_by_name(setting):
    return {"one": _data(setting, 3), "two": _data(setting, 5)}


def streamed():
    return Dataset.from_list(pairs()).to_iterable_dataset()


EVERY = {"eval_strategy": "steps", "eval_steps": 1, "held_out": held_out}
EVALUATION = [
    Setting("evaluation", name, options=options, **more)
    for name, options, more in [
        ("every step", EVERY, {}),
        ("every step, stored", EVERY, {"reference": "stored"}),
        ("every step, LoRA", EVERY, {"adapter": lora()}),
        ("every step, LoRA, stored", EVERY, {"adapter": lora(), "reference": "stored"}),
        ("before the first step", {**EVERY, "eval_on_start": True}, {}),
        ("two sets by name", {**EVERY, "held_out": held_out_by_name}, {}),
        ("two sets by name, stored", {**EVERY, "held_out": held_out_by_name}, {"reference": "stored"}),
        ("after training", {}, {"evaluate": "held out"}),
        ("after training, LoRA, stored", {}, {"evaluate": "held out", "adapter": lora(), "reference": "stored"}),
        ("after training, all biases, stored", {}, {"evaluate": "held out", "adapter": lora(bias="all"), "reference": "stored",
                                                    "model": functools.partial(make_model, "qwen2")}),
        ("after training, two sets", {}, {"evaluate": "by name", "adapter": lora()}),
        ("after training, stored", {}, {"evaluate": "held out", "reference": "stored", "outcome": REFUSED, "reason": "after training has"}),
        ("with checkpointing", {**EVERY, "activation_checkpointing": True}, {}),
        ("in bf16", {**EVERY, "bf16": True, "bf16_full_eval": False}, {"tolerance": 0.3}),
        ("streamed pairs", {}, {"rows": streamed}),
        ("streamed pairs, stored", {}, {"rows": streamed, "reference": "stored", "outcome": REFUSED, "reason": "IterableDataset"}),
    ]
]  # fmt: skip

SAVED = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
RESUME = [
    Setting("resume", name, options={**SAVED, **options}, evaluate="resume", **more)
    for name, options, more in [
        ("full", {}, {}),
        ("full, stored", {}, {"reference": "stored"}),
        ("LoRA", {}, {"adapter": lora()}),
        ("LoRA, stored", {}, {"adapter": lora(), "reference": "stored"}),
        ("accumulation", {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 1}, {}),
        ("moving reference", {"sync_ref_model": True, "ref_model_sync_steps": 1}, {}),
    ]
]  # fmt: skip

SHAPES = {
    "nothing in common": lambda r: {**r, "prompt_ids": [], "chosen_ids": [5, *r["chosen_ids"]], "rejected_ids": [6, *r["rejected_ids"]]},
    "a long common start": lambda r: {**r, "rejected_ids": [*r["chosen_ids"][:-1], 7, 8, 2]},
    "one a prefix of the other": lambda r: {**r, "rejected_ids": [*r["chosen_ids"], 9, 2]},
    "a prompt of one token": lambda r: {**r, "prompt_ids": [4]},
    "completions of one token": lambda r: {**r, "chosen_ids": [5], "rejected_ids": [6]},
    "rows beyond 64 tokens": lambda r: {**r, "prompt_ids": (r["prompt_ids"] * 80)[:80]},
}  # fmt: skip
PAIRS = [
    Setting("pairs", name, rows=functools.partial(lambda change: [change(r) for r in pairs()], change), adapter=adapter)
    for name, change in SHAPES.items() for adapter in (None, lora())
]  # fmt: skip

OTHERWISE = {
    "stablelm": "keywords", "nemotron": "keywords", "gptj": "interface", "codegen": "interface", "bloom": "interface",
    "mpt": "interface", "biogpt": "noise", "xglm": "attention dropout", "mamba": "linear_attention", "jamba": "linear_attention",
    "recurrent_gemma": "linear_attention", "gpt_oss": "s_aux",
}  # fmt: skip
"""Architectures that fall back, and a word of the reason."""

REFUSED_ARCHITECTURES = {
    "granitemoe": "num_experts",
    "phimoe": "num_experts",
    "llama4_text": "last_hidden_state",
}
"""Architectures that TRL's fused head does not know, and a word of its error."""

ARCHITECTURE_SETTINGS = [
    Setting("architectures", name, architecture(name, **changes), options={"optim": "sgd", "learning_rate": 1e-3},
            outcome=FELL_BACK if name in OTHERWISE else REFUSED if name in REFUSED_ARCHITECTURES else SAME,
            reason=(OTHERWISE | REFUSED_ARCHITECTURES).get(name, ""))
    for name, changes in ARCHITECTURES.items()
]  # fmt: skip

SETTINGS = [
    *LOSS_SETTINGS, *OPTIONS, *ROPE_SETTINGS, *ARCHITECTURE_SETTINGS, *COLLATORS, *TEMPLATES, *ADAPTERS, *EVALUATION,
    *RESUME, *PAIRS,
]  # fmt: skip
