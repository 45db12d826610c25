"""A million rows: memory that does not grow, time within twice the bare tokenizer's.

    python -m pytest -s tests/data/test_million_rows.py

prints the figures that stand in docs/data.md. Each part runs in a process of its own, so that peaks are its own.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROWS = int(os.environ.get("DPO_ROWS", "1000000"))
SHIPPED = Path(__file__).parents[2] / "dpo_cli" / "data" / "preferences" / "train.jsonl"

MEASURE = """
import json, resource, sys, time
from pathlib import Path
import dpo_cli.models.embedded as embedded
from transformers import AutoTokenizer
import datasets, datasketch
from dpo_cli.config import DataConfig, Truncation
from dpo_cli.data.load import check_pairs
tokenizer = AutoTokenizer.from_pretrained(str(Path(embedded.__file__).parent))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
wall, cpu = time.perf_counter(), time.process_time()
tokens = 0
if sys.argv[1] == "bare":
    batch = []
    wall = cpu = 0.0
    def flush():
        global tokens, wall, cpu
        wall, cpu = wall - time.perf_counter(), cpu - time.process_time()
        ids = tokenizer(batch)["input_ids"]
        wall, cpu = wall + time.perf_counter(), cpu + time.process_time()
        tokens += sum(map(len, ids))
        batch.clear()
    with open(sys.argv[2], encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            batch.append(" ".join((row["prompt"], row["chosen"], row["rejected"])))
            if len(batch) == 1000:
                flush()
    if batch:
        flush()
    report = {"tokens": tokens, "wall": wall, "cpu": cpu}
else:
    events = []
    result = check_pairs(DataConfig(dataset=sys.argv[2]), tokenizer, Truncation(1024), on_event=events.append)
    rows = result.accounting
    report = {"read": rows.read, "kept": rows.kept, "findings": [one.name for one in result.findings], "events": len(events)}
    report |= {"estimate": events[0].total, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps(report | {"grown_mib": (peak - before) / 1024}))
"""


def write_rows(path: Path, rows: int, layout: str) -> None:
    """Rows of about 100 tokens for the embedded tokenizer, from the words of the shipped pairs."""
    lines = SHIPPED.read_text(encoding="utf-8").splitlines()
    words = sorted(
        {word for line in lines for turn in json.loads(line)["chosen"] for word in turn["content"].split()}
    )
    rng = random.Random(0)  # noqa: S311 - made-up rows
    pool = rng.choices(words, k=1_000_000)

    def text(count: int) -> str:
        start = rng.randrange(len(pool) - count)
        return " ".join(pool[start : start + count])

    with path.open("w", encoding="utf-8") as file:
        for _ in range(rows):
            prompt, chosen, rejected = text(14) + "?", text(rng.randint(6, 16)), text(rng.randint(6, 16))
            if layout == "orca":
                row = {"system": "", "question": prompt, "chosen": chosen, "rejected": rejected}
            else:
                row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            file.write(json.dumps(row) + "\n")


def measure(what: str, path: Path) -> dict:
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, what, str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_a_million_rows(tmp_path):
    plain, chat = tmp_path / "plain.jsonl", tmp_path / "chat.jsonl"
    write_rows(plain, ROWS, "standard")
    write_rows(chat, ROWS, "orca")
    bare = measure("bare", plain)
    checked = measure("check", chat)
    tenth = tmp_path / "tenth.jsonl"
    write_rows(tenth, ROWS // 10, "orca")
    small = measure("check", tenth)
    figures = json.dumps({"bare": bare, "check": checked, "a tenth": small}, indent=1)
    ratios = f"cpu ratio {checked['cpu'] / bare['cpu']:.2f}, wall {checked['wall'] / bare['wall']:.2f}"
    sys.stderr.write(f"{figures}\ntokens a row: {bare['tokens'] / ROWS:.0f}; {ratios}\n")
    assert checked["read"] == checked["kept"] == ROWS
    assert not checked["findings"]
    assert checked["grown_mib"] < 2048
    assert checked["cpu"] < 2 * bare["cpu"]
    assert checked["cpu"] < 13 * small["cpu"], "time is linear in rows"
    assert checked["events"] > ROWS / 2048
    assert checked["estimate"] == pytest.approx(ROWS, rel=0.1)
