"""What tests of evaluation share."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module")
def two(tiny_model):
    """A model, the same one with other weights, and their tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    before, after = (AutoModelForCausalLM.from_pretrained(tiny_model).eval() for _ in range(2))
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in after.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return before, after, tokenizer
