"""Write two sets of other proportions from real pairs: prompts four times as long as completions, and of ten tokens.

    python scripts/make_bench_sets.py ../shared/data/preference_pairs_en.json build/bench-model build/bench-sets

Texts are cut at token boundaries of the model's tokenizer; nothing is made up.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from dpo_cli.config import DataConfig
from dpo_cli.data.load import load_pairs
from dpo_cli.models.loading import load_tokenizer
from dpo_cli.models.locate import locate_model

TEN, FOUR = 10, 4


def main() -> None:
    """Write `prompt-heavy.jsonl` and `short-prompts.jsonl`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    tokenizer = load_tokenizer(locate_model(given.model))

    def cut(text: str, tokens: int) -> str:
        return tokenizer.decode(tokenizer(text)["input_ids"][:tokens])

    heavy, short = [], []
    for row in load_pairs(DataConfig(dataset=given.data, allow_drops=True)).train:
        turns = "\n".join(f"{m['role']}: {m['content']}" for m in row["prompt"])
        chosen, rejected = (row[side][-1]["content"] for side in ("chosen", "rejected"))
        length = len(tokenizer(turns)["input_ids"])
        if len(row["prompt"]) > 1 and length >= FOUR * TEN:
            prompt = cut(turns, 800)
            most = min(length, 800) // FOUR
            heavy.append({"prompt": prompt, "chosen": cut(chosen, most), "rejected": cut(rejected, most)})
        short.append(
            {"prompt": cut(row["prompt"][-1]["content"], TEN), "chosen": chosen, "rejected": rejected}
        )
    given.folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("prompt-heavy", heavy), ("short-prompts", short)):
        (given.folder / f"{name}.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        print(f"{name}: {len(rows)} pairs")


if __name__ == "__main__":
    main()
