r"""A base model for a table of your own, and a ranking of sequences by what training taught.

    python docs/examples/assays/own_table.py base my_assay.csv --out build/mine
    dpo train --config docs/examples/assays/assay.toml --model build/mine/base \
        --dataset my_assay.csv --eval-fraction 0.2 --max-length 512 --output-dir build/mine/dpo
    python docs/examples/assays/own_table.py rank new.csv --out build/mine > ranking.csv

The tables have the columns `prompt` and `sequence`; `dpo train` needs `value` too. The base model reads sequences and
never values.
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from pathlib import Path

from transformers import AutoTokenizer

from dpo_cli.data.sources.locate import read_rows
from dpo_cli.errors import DataError, DpoError
from dpo_cli.report.error import show_error

sys.path.append(str(Path(__file__).parents[1] / "splicing"))
import language_model

TAG = re.compile(r"<[^<>\s]+>")
COLUMNS = ("prompt", "sequence")


def read(file: Path) -> list[tuple[str, str]]:
    """(prompt, sequence) of each row, from any file that `dpo train` reads.

    Raises:
        DataError: With row and column, for a file without sequences or a prompt that is not one tag; the header is row 1.
    """
    rows = []
    for row in read_rows(str(file)):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            raise DataError(f"{file} row 1: no column {missing[0]}.")
        rows.append(tuple(str(row[name] or "").strip() for name in COLUMNS))
    for number, (prompt, sequence) in enumerate(rows, start=2):
        if not TAG.fullmatch(prompt):
            raise DataError(
                f"{file} row {number}, column prompt: {prompt!r} is no tag.",
                hint="A tag is a name in angle brackets, such as <STABLE>: one token of the vocabulary.",
            )
        if not sequence:
            raise DataError(f"{file} row {number}, column sequence: no sequence.")
    return rows


def make_base(texts: list[tuple[str, str]], folder: Path, *, seed: int) -> None:
    """Train a tiny Llama from nothing on the sequences; its alphabet is their letters."""
    tags = sorted({tag for tag, _ in texts})
    letters = "".join(sorted({letter for _, sequence in texts for letter in sequence}))
    language_model.pretrain(folder / "base", texts, tags, seed=seed, letters=letters)


def rank(texts: list[tuple[str, str]], folder: Path, file: Path) -> list[tuple[str, str, float, float]]:
    """(prompt, sequence, log-ratio, log p after), nats, the highest log-ratio first.

    Raises:
        DataError: The models are missing, or a row has a letter or a tag that they have never seen.
    """
    for part in ("base", "dpo"):
        if not (folder / part / "config.json").is_file():
            raise DataError(
                f"{folder / part}: there is no model.", hint="Run the first two commands of the page."
            )
    known = set(AutoTokenizer.from_pretrained(str(folder / "base")).get_vocab())
    for number, (tag, sequence) in enumerate(texts, start=2):
        strange = next((one for one in (tag, *sequence) if one not in known), None)
        if strange is not None:
            column = "prompt" if strange == tag else "sequence"
            raise DataError(f"{file} row {number}, column {column}: the base model has not seen {strange!r}.")
    before, after = (language_model.log_probs(folder / part, texts) for part in ("base", "dpo"))
    rows = [(*text, new - old, new) for text, old, new in zip(texts, before, after, strict=True)]
    return sorted(rows, key=lambda row: -row[2])


def main() -> int:
    """Run the command line and return its exit code."""
    parser = argparse.ArgumentParser(description="A base model for a table of your own, and a ranking.")
    parser.add_argument("what", choices=["base", "rank"])
    parser.add_argument("table", type=Path, help="CSV with the columns prompt and sequence")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    language_model.quiet()
    try:
        texts = read(options.table)
        if options.what == "base":
            make_base(texts, options.out, seed=options.seed)
            return 0
        ranked = rank(texts, options.out, options.table)
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(("prompt", "sequence", "log_ratio", "log_p"))
        for prompt, sequence, ratio, log_p in ranked:
            writer.writerow((prompt, sequence, f"{ratio:.4f}", f"{log_p:.4f}"))
    except DpoError as error:
        show_error(error)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
