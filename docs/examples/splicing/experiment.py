"""One run of the experiment: data, a base model, `dpo train` twice, and every scorer measured."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import language_model
from measures import auroc, both_right, pair_accuracy
from sites import CONSTITUTIVE, TISSUES, Event, Sites, bits, strength

SETTINGS = Path(__file__).parent / "splicing.toml"
BETA = 0.5
COLUMNS = ("pair accuracy", "both tags right", "constitutive AUROC")


@dataclass(frozen=True)
class Size:
    """How much is drawn.

    Attributes:
        pretraining: Sites that the base model reads.
        events: Events that pairs are made from, two pairs each.
        heldout: Events, donors and decoys to measure on.
        replay: Share of the pairs that are donor against decoy under `<CON>`.
    """

    pretraining: int = 30_000
    events: int = 4_000
    heldout: int = 1_000
    replay: float = 0.25


SMALL = Size(pretraining=6_000, events=600, heldout=500)


@dataclass(frozen=True)
class Drawn:
    """All data of a run; no site occurs in two of the fields."""

    pretraining: list[tuple[str, str]]
    pairs: list[dict[str, str]]
    events: list[Event]
    donors: list[str]
    decoys: list[str]


def draw(seed: int, size: Size) -> Drawn:
    """Draw everything that a run needs from one seed."""
    sites = Sites(seed)
    tags = (CONSTITUTIVE, *TISSUES)
    pretraining = [(tags[sites.random.integers(3)], sites.any_donor()) for _ in range(size.pretraining)]
    pairs = []
    for _ in range(size.events):
        event = sites.event()
        for tissue in TISSUES:
            chosen, rejected = sites.preferred(event, tissue)
            pairs.append({"prompt": tissue, "chosen": chosen, "rejected": rejected})
    replayed = round(len(pairs) * size.replay / (1 - size.replay))
    pairs += [
        {"prompt": CONSTITUTIVE, "chosen": sites.donor(), "rejected": sites.decoy()} for _ in range(replayed)
    ]
    return Drawn(
        pretraining,
        pairs,
        [sites.event() for _ in range(size.heldout)],
        [sites.donor() for _ in range(size.heldout)],
        [sites.decoy() for _ in range(size.heldout)],
    )


def heldout_pairs(events: list[Event]) -> list[dict[str, str]]:
    """Both tissues of each event, the site that the truth favours chosen."""
    rows = []
    for event in events:
        for tissue in TISSUES:
            better, worse = event.better(tissue)
            rows.append({"prompt": tissue, "chosen": better, "rejected": worse})
    return rows


def dpo_train(folder: Path, base: Path, runs: dict[str, list[str]]) -> list[Path]:
    """Run `dpo train` with `splicing.toml` once for each name, side by side; output goes to `NAME.log`.

    Args:
        folder: With `pairs.jsonl`; output folders go there.
        base: The model to train.
        runs: For each output folder's name, further flags.

    Returns:
        The output folders.

    Raises:
        subprocess.CalledProcessError: If one fails for another reason than its verdict.
    """
    # The models are so small that a second thread would cost more than it gives: each run has one core.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    started = []
    for name, flags in runs.items():
        command = [
            *("train", "--config", str(SETTINGS), "--model", str(base), "--dataset", str(folder / "pairs.jsonl")),
            *("--output-dir", str(folder / name), "--overwrite", *flags),
        ]  # fmt: skip
        say("  dpo " + shlex.join(command))
        with (folder / f"{name}.log").open("w", encoding="utf-8") as log:
            started.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dpo_cli", *command], stdout=log, stderr=log, env=environment
                )
            )
    for name, process in zip(runs, started, strict=True):
        if process.wait() not in {0, 3}:  # 3: the verdict is FAIL, which the table shows as well
            say((folder / f"{name}.log").read_text(encoding="utf-8"))
            raise subprocess.CalledProcessError(process.returncode, process.args)
    return [folder / name for name in runs]


def run_seed(seed: int, folder: Path, size: Size, engine: str) -> dict[str, dict[str, float]]:
    """Everything for one seed.

    Args:
        seed: Of the data and of the base model's weights.
        folder: Where data, models and logs go.
        size: How much is drawn.
        engine: Of `dpo train`.

    Returns:
        For each scorer, its measures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    drawn = draw(seed, size)
    language_model.write_jsonl(folder / "pairs.jsonl", drawn.pairs)
    language_model.write_jsonl(folder / "heldout.jsonl", heldout_pairs(drawn.events))
    say(f"seed {seed}: the base model reads {len(drawn.pretraining):,} sites")
    base = folder / "base"
    language_model.pretrain(base, drawn.pretraining, (CONSTITUTIVE, *TISSUES), seed=seed)
    say(
        f"seed {seed}: {len(drawn.pairs):,} pairs, {sum(event.adaptive for event in drawn.events):,} of {size.heldout:,} held-out events are adaptive"
    )
    held = ["--eval-dataset", str(folder / "heldout.jsonl"), "--save-rewards", str(folder / "rewards.jsonl")]
    runs = {"dpo": ["--engine", engine, *held], "sft": ["--engine", engine, "--loss-type", "sft"]}
    dpo, sft = dpo_train(folder, base, runs)
    return measure_all(drawn, base, dpo, sft, folder / "rewards.jsonl")


def measure_all(drawn: Drawn, base: Path, dpo: Path, sft: Path, rewards: Path) -> dict[str, dict[str, float]]:
    """Measure the truth, the matrix and the three models."""
    log_p = {
        folder: scores_of(drawn, lambda texts, f=folder: language_model.log_probs(f, texts))
        for folder in (base, dpo, sft)
    }
    saved = [json.loads(line) for line in rewards.read_text(encoding="utf-8").splitlines()]
    implicit = minus(log_p[dpo], log_p[base], BETA)
    # The pairs' rewards are what `dpo train --save-rewards` wrote; the rest of the row is scored here.
    implicit = implicit | {
        "better": [one["chosen"] for one in saved],
        "worse": [one["rejected"] for one in saved],
    }
    scorers = {
        "oracle": scores_of(drawn, lambda texts: [strength(site, tag) for tag, site in texts]),
        "PWM log-odds": scores_of(drawn, lambda texts: [bits(site) for _, site in texts]),
        "base, log p": log_p[base],
        "SFT on chosen, log p": log_p[sft],
        "SFT, log-ratio to base": minus(log_p[sft], log_p[base]),
        "DPO, log p": log_p[dpo],
        "DPO, implicit reward": implicit,
    }
    found = {name: measures_of(drawn, scores) for name, scores in scorers.items()}
    for name, folder in (("SFT on chosen, log p", sft), ("DPO, log p", dpo)):
        shift = sum(log_p[folder]["trained"]) - sum(log_p[base]["trained"])
        found[name]["chosen log p shift"] = shift / len(log_p[base]["trained"])
    return found


def scores_of(drawn: Drawn, score: object) -> dict[str, list[float]]:
    """Scores of everything that is measured on: better and worse sites, donors, decoys, and sites chosen in training."""
    held = heldout_pairs(drawn.events)
    return {
        "better": score([(row["prompt"], row["chosen"]) for row in held]),
        "worse": score([(row["prompt"], row["rejected"]) for row in held]),
        "donors": score([(CONSTITUTIVE, site) for site in drawn.donors]),
        "decoys": score([(CONSTITUTIVE, site) for site in drawn.decoys]),
        "trained": score(
            [(row["prompt"], row["chosen"]) for row in drawn.pairs if row["prompt"] != CONSTITUTIVE]
        ),
    }


def minus(
    one: dict[str, list[float]], other: dict[str, list[float]], scale: float = 1.0
) -> dict[str, list[float]]:
    """Differences of two scorers, times a scale."""
    return {part: [scale * (a - b) for a, b in zip(one[part], other[part], strict=True)] for part in one}


def measures_of(drawn: Drawn, scores: dict[str, list[float]]) -> dict[str, float]:
    """The three columns of the table."""
    adaptive = [
        2 * index + side for index, event in enumerate(drawn.events) if event.adaptive for side in (0, 1)
    ]
    return {
        "pair accuracy": pair_accuracy(scores["better"], scores["worse"]),
        "both tags right": both_right(
            [scores["better"][i] for i in adaptive], [scores["worse"][i] for i in adaptive]
        ),
        "constitutive AUROC": auroc(scores["donors"], scores["decoys"]),
    }


def say(text: str) -> None:
    """Tell the user what is going on, on stderr: stdout is for the table."""
    print(text, file=sys.stderr, flush=True)
