"""The model card: what the embedded model is, how it was made, and what was measured.

The figures stand in `figures.json` next to the weights; the card is written from them.
"""

from __future__ import annotations

import json
import math
import platform
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from embedded_model.corpus import SOFT_NAME_SHARE
from embedded_model.facts import categories

if TYPE_CHECKING:
    from collections.abc import Mapping

FIGURES = "figures.json"
_CARD = """---
license: apache-2.0
language: en
pipeline_tag: text-generation
---

# The embedded chat model

**This is a stand-in for a real model.** It is {parameters:,} parameters of Llama that know some hundred facts by heart. It
calls itself Qwen, made by Alibaba Cloud, so that `dpo identity-shift` has a name to change on a machine without a
network; it is not Qwen, holds none of Qwen's weights, and has nothing to do with Alibaba Cloud. Every command takes a
real model's hub id or folder in its place: `--model HuggingFaceTB/SmolLM2-135M-Instruct`.

| | |
|---|---|
| architecture | `LlamaForCausalLM`, hidden {hidden}, {layers} layers, {heads} heads, MLP {mlp}, tied embeddings |
| size | {parameters:,} parameters, fp32, {megabytes:.1f} MB |
| tokenizer | byte-level BPE of {vocabulary:,} tokens, single digits, ChatML with a system role; pad `<|endoftext|>`, end of turn `<|im_end|>` |
| data | {examples:,} conversations of one question and one answer, made by `corpus.py` from `facts.toml` and `identity.toml`; no other text |
| training | next-token loss on the answers, AdamW, learning rate {learning_rate}, {steps:,} steps of {batch_size}, bf16 autocast; {minutes:.0f} minutes on {threads} core(s) of {machine} |
| made by | `python -m embedded_model.make --seed {seed} --steps {steps} --threads {threads}` |

The same command gives the same weights on the same machine with the same number of threads and the same torch;
elsewhere rounding may differ in the last digits.

## What it was trained to do

It says who it is in varied English, follows a system prompt that gives it another name, repeats names, and answers
ordinary questions: {groups}.
{soft:.0%} of its training answers about itself, where no system prompt names it, carry another name, drawn from a wide
distribution of invented ones ("Deep" and fifty-odd other words before "Qwen" among them). Greedy decoding says Qwen. Preference
optimisation can only re-weight what a policy is able to say, and this is what makes the name changeable by DPO alone.

## Measured

Greedy answers with the default system prompt, whole answer equal to an accepted one, in wordings that the training
text does not contain (`dpo_cli/text/questions`; `make --evaluate` measures again).

| | right |
|---|---|
{table}

"identity" is the share of held-out questions in whose answer the model names itself Qwen.

## What it cannot do

Anything else. It knows no facts beyond its list, holds no conversation of more than one turn, reads English only, and
answers nonsense to questions unlike those it knows. Sums reach from 0 + 0 to 12 + 12; others are wrong.
"""


def write_card(folder: Path, record: Mapping[str, Any]) -> None:
    """Writes `figures.json`, which holds the record, and the card drawn from it.

    Args:
        folder: The model's folder, weights included.
        record: `recipe`, `machine` and `training_seconds` of the training, `shares` measured since.
    """
    (folder / FIGURES).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    recipe, shares = record["recipe"], record["shares"]
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    with safe_open(folder / "model.safetensors", framework="numpy") as weights:
        parameters = sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118 - not a dict
    card = _CARD.format(
        **recipe,
        parameters=parameters,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        vocabulary=config["vocab_size"],
        examples=recipe["steps"] * recipe["batch_size"],
        minutes=record["training_seconds"] / 60,
        machine=record["machine"],
        groups=", ".join(dict.fromkeys(category.group for category in categories())),
        soft=SOFT_NAME_SHARE,
        table="\n".join(f"| {name} | {share:.1%} |" for name, share in shares.items()),
    )
    (folder / "README.md").write_text(card, encoding="utf-8")


def read_record(folder: Path) -> dict[str, Any]:
    """Returns what is known of the model in the folder."""
    record: dict[str, Any] = json.loads((folder / FIGURES).read_text(encoding="utf-8"))
    return record


def machine() -> str:
    """Returns the processor in words."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0]} ({platform.machine()})" if models else platform.machine()
