"""What the engine does not cover runs with TRL's forward, and the reason is named."""

import copy

import pytest
import torch
from datasets import Dataset
from engine.parity import VOCABULARY, Prepared, make_model, pairs, tokenizer, train, worst_difference
from peft import LoraConfig, PromptTuningConfig
from transformers import AutoConfig, AutoModelForCausalLM
from trl import DPOConfig

from dpo_cli.engine import packed_forward, packing, segment_attention
from dpo_cli.engine.agreement import matmul_precision
from dpo_cli.engine.segment_attention import PREFIX, SegmentAttention
from dpo_cli.engine.shared_prefix import install_shared_prefix


def build(tmp_path, model, *, peft_config=None, **settings):
    defaults = {
        "output_dir": str(tmp_path), "report_to": "none", "bf16": False, "use_cpu": True, "activation_checkpointing": False,
        "max_length": None,
    }  # fmt: skip
    args = DPOConfig(**(defaults | settings))
    return Prepared(
        model=model, ref_model=None if peft_config else copy.deepcopy(model), args=args, peft_config=peft_config,
        train_dataset=Dataset.from_list(pairs()), processing_class=tokenizer(),
    )  # fmt: skip


def fallback(tmp_path, model, **settings):
    trainer = build(tmp_path, model, **settings)
    before, random, mode = trainer.model.forward, torch.get_rng_state(), trainer.model.training
    reason = install_shared_prefix(trainer)
    assert trainer.model.forward == before, "a trainer that falls back must be left as it was"
    assert torch.equal(torch.get_rng_state(), random)
    assert trainer.model.training == mode
    implementation = trainer.model.config._attn_implementation
    assert implementation is None or not implementation.startswith(PREFIX)
    return reason


def test_prompt_learning_adapters(tmp_path):
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    assert "prompt-learning" in fallback(tmp_path, make_model("llama"), peft_config=config)


def test_dropout(tmp_path):
    model = make_model("gpt2", attn_pdrop=0.1)
    assert "dropout" in fallback(tmp_path, model, disable_dropout=False)
    assert "attention dropout" in fallback(tmp_path, make_model("llama", attention_dropout=0.1))


def from_config(family, **settings):
    return AutoModelForCausalLM.from_config(
        AutoConfig.for_model(family, vocab_size=VOCABULARY, pad_token_id=0, eos_token_id=2, **settings)
    )


@pytest.mark.parametrize(
    ("family", "settings", "word"),
    [
        ("bloom", {"hidden_size": 16, "n_layer": 2, "n_head": 2}, "attention interface"),
        ("mamba", {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}, "mamba"),
        ("gpt_oss", {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "head_dim": 8,
            "num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "attn_implementation": "eager",
        }, "s_aux"),
        ("qwen3_next", {
            "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "head_dim": 8,
            "num_key_value_heads": 2, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 8, "linear_num_value_heads": 2, "linear_num_key_heads": 2,
            "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        }, "linear_attention"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)  # fmt: skip
def test_architectures_that_mix_tokens_in_other_ways(tmp_path, family, settings, word):
    assert word in fallback(tmp_path, from_config(family, **settings))


def test_an_attention_that_is_wrong_is_found_by_trying(tmp_path, monkeypatch):
    right = segment_attention.attend_rows
    monkeypatch.setattr(segment_attention, "attend_rows", lambda *args, **kw: right(*args, **kw) * 1.001)
    assert "differed" in fallback(tmp_path, make_model("llama"))


def test_long_rows_are_tried_and_their_backward_pass_too(tmp_path, monkeypatch):
    right = SegmentAttention.backward

    def wrong(ctx, grad):
        to_query, to_key, *others = right(ctx, grad)
        return to_query, 1.5 * to_key, *others

    monkeypatch.setattr(SegmentAttention, "backward", staticmethod(wrong))
    assert "backward" in fallback(tmp_path, make_model("llama"))


def test_a_wide_window_is_tried_on_short_rows(tmp_path, monkeypatch):
    right = segment_attention.attend_rows
    monkeypatch.setattr(
        segment_attention, "attend_rows", lambda *args, **kw: right(*args, **(kw | {"window": None}))
    )
    model = make_model("gemma2", sliding_window=300)
    assert "differed" in fallback(tmp_path, model)
    assert model.config.sliding_window == 300
    assert {layer.self_attn.sliding_window for layer in model.model.layers} == {300, None}


def test_mixed_precision_is_tried_beside_full_precision(tmp_path, monkeypatch):
    right, seen = segment_attention.attend_rows, []

    def full_only(query, *args, **kw):
        seen.append(query.dtype)
        if query.dtype != torch.float32:
            raise RuntimeError("no such kernel")
        return right(query, *args, **kw)

    monkeypatch.setattr(segment_attention, "attend_rows", full_only)
    # With adapters there is no reference model that would be tried, too.
    lora = LoraConfig(r=2, target_modules="all-linear")
    assert "no such kernel" in fallback(tmp_path, make_model("llama"), peft_config=lora, bf16=True)
    assert set(seen) == {torch.float32, torch.bfloat16}


OPT = {
    "hidden_size": 16,
    "word_embed_proj_dim": 16,
    "ffn_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def test_dropout_that_is_no_module_is_found_by_trying(tmp_path):
    assert "dropout" in fallback(tmp_path, from_config("opt", **OPT))
    assert "drops layers" in fallback(tmp_path, from_config("opt", dropout=0.0, layerdrop=0.5, **OPT))


def test_random_numbers_that_are_drawn_for_nothing_are_no_dropout(tmp_path, monkeypatch):
    model = from_config("opt", dropout=0.0, **OPT)
    right, drawn = model.model.forward, []

    def drawing(*args, **kwargs):
        drawn.append(torch.rand(1))
        return right(*args, **kwargs)

    trainer = build(tmp_path, model)
    monkeypatch.setattr(model.model, "forward", drawing)
    assert install_shared_prefix(trainer) is None
    assert drawn


def test_a_model_that_refuses_a_packed_row_is_a_reason(tmp_path, monkeypatch):
    model = make_model("llama")
    right = model.model.forward

    def strict(*args, **kwargs):
        if "packed_pairs" in kwargs:
            raise ValueError("packed_pairs?")
        return right(*args, **kwargs)

    trainer = build(tmp_path, model)
    monkeypatch.setattr(model.model, "forward", strict)
    assert "packed_pairs?" in install_shared_prefix(trainer)


def test_a_mistake_in_the_engine_is_no_reason(tmp_path, monkeypatch):
    monkeypatch.delattr(packing.PackedPairs, "to_rows")
    with pytest.raises(AttributeError, match="to_rows"):
        install_shared_prefix(build(tmp_path, make_model("llama")))


def test_a_layout_that_leaks_between_siblings_is_found_by_trying(tmp_path, monkeypatch):
    def leaky(*args, **kwargs):
        packed = shared_packing(*args, **kwargs)
        packed.row_index[2:] = packed.row_index[:2]
        return packed

    shared_packing = packed_forward.pack_pairs
    monkeypatch.setattr(packed_forward, "pack_pairs", leaky)
    assert "differed" in fallback(tmp_path, make_model("llama"))


def test_a_batch_padded_on_the_left_goes_through_trls_forward(tmp_path):
    model = make_model("llama")
    trainer = build(tmp_path, model)
    ids = torch.randint(3, VOCABULARY, (2, 8))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    labels = ids.masked_fill(mask == 0, -100)
    theirs = trainer.model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    assert install_shared_prefix(trainer) is None
    ours = trainer.model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True).log_probs
    assert torch.equal(ours, theirs)


def test_installing_twice_is_installing_once(tmp_path):
    trainer = build(tmp_path, make_model("llama"))
    assert install_shared_prefix(trainer) is None
    assert install_shared_prefix(trainer) is None
    assert trainer.model.config._attn_implementation == PREFIX + "sdpa"


def test_a_fallback_run_gives_trls_numbers(tmp_path):
    model = from_config("bloom", hidden_size=16, n_layer=2, n_head=2)
    runs = [
        train(copy.deepcopy(model), pairs(), tmp_path, engine=e, ref_model=copy.deepcopy(model), max_steps=2)
        for e in (True, False)
    ]
    assert "bloom" in runs[0][2]
    assert worst_difference(runs[0][1], runs[1][1])[0] == 0


def test_what_products_of_fp32_numbers_are_rounded_to():
    assert matmul_precision("cpu") == "ieee"
    try:
        for setting, rounded in (("high", "tf32"), ("medium", "bf16"), ("highest", "ieee")):
            torch.set_float32_matmul_precision(setting)
            assert matmul_precision("cpu") == rounded
        torch.backends.cuda.matmul.allow_tf32 = True  # the older way to ask for it
        assert matmul_precision("cuda") == "tf32"
    finally:
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.set_float32_matmul_precision("highest")
