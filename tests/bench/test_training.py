"""`dpo bench`: what it counts, what it reports, how it fails. Nothing here depends on how fast a machine is."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from engine.parity import make_model, train

from dpo_cli.bench import training as bench
from dpo_cli.bench.floor import matmul_rate, useful_flops
from dpo_cli.bench.training import CACHED, OURS, STOCK, run_bench, run_worker
from dpo_cli.bench.worker import WorkerResult, WorkerSpec, _who_computed
from dpo_cli.engine.packed_forward import ForwardCounts
from dpo_cli.errors import TrainingError
from dpo_cli.report.bench import spread

SPEC = WorkerSpec(
    engine="", model="embedded", revision=None, base=None, of_tokenizer={"trust_remote_code": False}, rows="", batch_size=2,
    max_length=64, dtype="float32", device="cpu", lora_rank=None, steps=2, warmup=1, cache_folder="",
)  # fmt: skip


def result(engine, seconds, *, reference=0.0, memory=100, note=""):
    return WorkerResult(
        engine=engine, note=note, dtype="float32", step_seconds=seconds, reference_seconds=reference, pairs=4,
        peak_memory_bytes=memory, loss=[0.69, 0.5, 0.4], useful_flops=50.0, rate=100.0,
    )  # fmt: skip


@pytest.fixture
def canned(monkeypatch):
    """Three rounds of made-up measurements; records what was asked for."""
    asked = []
    answers = {
        STOCK: iter(
            [result(STOCK, 8.0, memory=200), result(STOCK, 4.0, memory=300), result(STOCK, 6.0, memory=200)]
        ),
        OURS: iter(
            [
                result(OURS, 1.0, reference=1.0),
                result(OURS, 1.0, reference=1.0),
                result(OURS, 2.0, reference=2.0),
            ]
        ),
    }

    def answer(spec, folder):
        asked.append((spec.engine, spec.cache_folder, Path(spec.rows).read_text()))
        return next(answers[spec.engine])

    monkeypatch.setattr(bench, "run_worker", answer)
    return asked


def test_engines_alternate_and_each_round_computes_its_references(canned):
    run_bench([{"prompt": "a", "chosen": "b", "rejected": "c"}], SPEC, repetitions=3)
    assert [engine for engine, _, _ in canned] == [STOCK, OURS] * 3
    assert len({cache for engine, cache, _ in canned if engine == OURS}) == 3
    assert json.loads(canned[0][2])[0]["chosen"] == "b"


def test_figures_are_medians_and_ratios_are_taken_round_by_round(canned):
    measured = run_bench([], SPEC, repetitions=3)
    assert measured.ratios(OURS) == [4.0, 2.0, 1.5]
    assert measured.ratios(CACHED) == [8.0, 4.0, 3.0]
    assert measured.memory_ratios() == [0.5, 1 / 3, 0.5]
    document = measured.to_json()
    assert set(document) == {"ratio", "ratio_range", "memory_ratio", "floor_fraction", "engines"}
    assert document["ratio"] == 2.0
    assert document["memory_ratio"] == 0.5
    assert document["floor_fraction"] == 1.0  # 50 operations at 100 a second, and half a second a pair
    assert document["engines"][STOCK] == {
        "pairs_per_second": 4 / 6,
        "peak_memory_bytes": 200,
        "loss": [0.69, 0.5, 0.4],
    }
    assert spread(measured.ratios(OURS)) == "2.00x (1.50 to 4.00)"


def test_a_failed_measurement_is_an_error_that_says_why(tmp_path):
    with pytest.raises(TrainingError, match="no-such-model"):
        run_worker(
            WorkerSpec(**{**vars(SPEC), "engine": OURS, "model": str(tmp_path / "no-such-model")}), tmp_path
        )


def test_a_killed_measurement_says_memory(tmp_path, monkeypatch):
    class Killed:
        returncode, stderr = -9, ""

    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: Killed)
    with pytest.raises(TrainingError, match="memory ran out"):
        run_worker(SPEC, tmp_path)


def test_useful_operations_are_those_counted_by_hand(tmp_path):
    """One pair: 3 tokens of prompt, completions of 2 and 3 tokens that share their first one."""
    row = {"prompt_ids": [3, 4, 5], "chosen_ids": [6, 2], "rejected_ids": [6, 7, 2]}
    trainer, _, _ = train(
        make_model("llama"), [row], tmp_path, engine=False, ref_model=make_model("llama"), max_steps=1
    )
    # Of `3 4 5 6 [2]` and `3 4 5 6 7 [2]` the last tokens are not fed: four shared tokens and one more.
    tokens, scored = 5, 4  # predictions: 6 once, 2 after 6, 7, 2 after 7
    linear = 2 * (32 * (4 + 2 + 2) * 8 + 4 * 8 * 32 + 3 * 32 * 48)  # two layers: q k v, o, gate up down
    seen = 4**2 / 2 + (0 + 0) + (1 * 4 + 1 / 2)
    forward = 2 * linear * tokens + 4 * (2 * 4 * 8) * seen + 2 * 97 * 32 * scored
    assert useful_flops(trainer) == pytest.approx(4 * forward)


def test_the_rate_is_a_rate():
    assert 1e6 < matmul_rate(torch.float32, torch.device("cpu"), seconds=0.0) < 1e16


def test_a_measurement_names_the_forwards_it_took():
    def found(packed, left=None, reason=None):
        counts = ForwardCounts(packed)
        counts.handed_over.update(left or {})
        return SimpleNamespace(fallback_reason=reason, forwards=counts)

    assert not _who_computed(found(3), steps=3)
    assert _who_computed(found(0, reason="dropout"), steps=3) == "dropout"
    assert "2 batches: odd ones" in _who_computed(found(1, {"odd ones": 2}), steps=3)
    with pytest.raises(TrainingError, match="2 batches in 3 steps"):
        _who_computed(found(2), steps=3)


@pytest.mark.slow
def test_the_command_measures_the_embedded_model(tmp_path, capfd):
    from dpo_cli.cli.app import app

    with pytest.raises(SystemExit) as stopped:
        app(["bench", "--pairs", "4", "--repetitions", "1", "--device", "cpu", "--json"])
    assert stopped.value.code == 0
    document = json.loads(capfd.readouterr().out)
    assert {STOCK, OURS, CACHED} == set(document["engines"])
    ours, theirs = (document["engines"][name]["loss"] for name in (OURS, STOCK))
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert document["ratio"] > 0


@pytest.mark.slow
def test_the_command_measures_generation(capfd):
    from dpo_cli.cli.app import app

    with pytest.raises(SystemExit) as stopped:
        app(["bench", "--generate", "--pairs", "6", "--repetitions", "1", "--device", "cpu", "--json"])
    assert stopped.value.code == 0
    document = json.loads(capfd.readouterr().out)
    assert set(document["engines"]) == {"batched", "one at a time"}
    assert document["same_answers"] > 0.8
