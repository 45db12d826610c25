"""Makes the embedded model: `make model`, or `PYTHONPATH=scripts python -m embedded_model.make`.

From nothing but this folder: corpus, tokenizer, weights, the held-out figures and the card that reports them.
"""

from __future__ import annotations

import argparse
import sys
import time
from dataclasses import asdict, replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from embedded_model import corpus, shipped_sets
from embedded_model.card import machine, read_record, write_card
from embedded_model.evaluate import scores
from embedded_model.tokenizer import END, PAD, train_tokenizer, wrap
from embedded_model.train import Recipe, train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tokenizers import Tokenizer
    from transformers import PreTrainedModel

_PACKAGE = Path(str(files("dpo_cli")))
_MODEL = _PACKAGE / "models/embedded"
_TOKENIZER_EXAMPLES = 40_000
_LONGEST_ANSWER = 64


def main(arguments: Sequence[str] | None = None) -> None:
    """Makes, or only evaluates, the model in a folder."""
    options = _parser().parse_args(arguments)
    if options.sets:
        written = shipped_sets.write_sets(_PACKAGE)
        sys.stderr.write("".join(f"{path}\n" for path in written))
        return
    recipe = replace(Recipe(), seed=options.seed, steps=options.steps, threads=options.threads)
    if not options.evaluate:
        make(options.out, recipe)
    report(options.out)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m embedded_model.make", description=__doc__)
    recipe = Recipe()
    parser.add_argument(
        "--out", type=Path, default=_MODEL, help="folder to write (default: the package's own)"
    )
    parser.add_argument(
        "--seed", type=int, default=recipe.seed, help="seed of corpus and weights (default: %(default)s)"
    )
    parser.add_argument(
        "--steps", type=int, default=recipe.steps, help="training steps (default: %(default)s)"
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=recipe.threads,
        help="CPU threads; another number may change the last digits",
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="only measure the model in the folder and rewrite its card"
    )
    parser.add_argument(
        "--sets", action="store_true", help="only write the question sets and preference pairs that ship"
    )
    return parser


def make(folder: Path, recipe: Recipe) -> None:
    """Trains tokenizer and model and writes them to the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    tokenizer = train_tokenizer(corpus.examples(recipe.seed, _TOKENIZER_EXAMPLES))
    model = train(tokenizer, recipe)
    save(model, tokenizer, folder)
    seconds = time.monotonic() - began
    write_card(
        folder,
        {"recipe": asdict(recipe), "machine": machine(), "training_seconds": round(seconds), "shares": {}},
    )


def save(model: PreTrainedModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes weights, configuration and tokenizer as any causal language model's folder holds them."""
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.token_to_id(END),
        pad_token_id=tokenizer.token_to_id(PAD),
        max_new_tokens=_LONGEST_ANSWER,
        do_sample=False,
    )
    model.save_pretrained(folder)
    wrap(tokenizer).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)


def report(folder: Path) -> None:
    """Measures the model in the folder, prints the figures, and writes them into its card."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    shares = scores(model, AutoTokenizer.from_pretrained(folder))
    sys.stderr.write("".join(f"{name:34} {share:6.1%}\n" for name, share in shares.items()))
    write_card(folder, read_record(folder) | {"shares": shares})


if __name__ == "__main__":
    main()
