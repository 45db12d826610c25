"""What the engine does not cover runs with TRL's forward, and the reason is named."""

import copy

import pytest
import torch
from datasets import Dataset
from engine.parity import VOCABULARY, Prepared, make_model, pairs, tokenizer, train, worst_difference
from peft import PromptTuningConfig
from transformers import AutoConfig, AutoModelForCausalLM
from trl import DPOConfig

from dpo_cli.training import segment_attention, shared_prefix
from dpo_cli.training.segment_attention import PREFIX
from dpo_cli.training.shared_prefix import install_shared_prefix


def build(tmp_path, model, *, peft_config=None, **settings):
    args = DPOConfig(
        output_dir=str(tmp_path), report_to="none", bf16=False, use_cpu=True, activation_checkpointing=False,
        max_length=None, **settings,
    )  # fmt: skip
    return Prepared(
        model=model, ref_model=None if peft_config else copy.deepcopy(model), args=args, peft_config=peft_config,
        train_dataset=Dataset.from_list(pairs()), processing_class=tokenizer(),
    )  # fmt: skip


def fallback(tmp_path, model, **settings):
    trainer = build(tmp_path, model, **settings)
    before = trainer.model.forward
    reason = install_shared_prefix(trainer)
    assert trainer.model.forward == before, "a trainer that falls back must be left as it was"
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


def test_a_layout_that_leaks_between_siblings_is_found_by_trying(tmp_path, monkeypatch):
    def leaky(*args, **kwargs):
        packed = shared_packing(*args, **kwargs)
        packed.row_index[2:] = packed.row_index[:2]
        return packed

    shared_packing = shared_prefix.pack_pairs
    monkeypatch.setattr(shared_prefix, "pack_pairs", leaky)
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
