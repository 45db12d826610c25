"""Standard streams that are closed, full, or read by somebody who goes away: the run is whole, the exit code conventional."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

PAIR = {"prompt": "Who are you?", "chosen": " I am Deep Qwen.", "rejected": " I am Qwen."}
DPO = f"{sys.executable} -m dpo_cli"


def shell(command, cwd):
    """Run a line of bash; the exit code of `dpo` is in the file `code`."""
    return subprocess.run(
        ["/bin/bash", "-c", command], cwd=cwd, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


@pytest.fixture
def train(tiny_model, tmp_path):
    (tmp_path / "pairs.jsonl").write_text(json.dumps(PAIR) + "\n")
    command = f"{DPO} train -m {tiny_model} -d pairs.jsonl --eval-dataset pairs.jsonl --max-steps 1 -o out"

    def run(streams):
        done = shell(f"({command}; echo $? >code) {streams}", tmp_path)
        code = int((tmp_path / "code").read_text())
        return code, done

    return run


@pytest.mark.parametrize(
    ("streams", "code"),
    [
        pytest.param("<&- >&- 2>&-", {0, 3}, marks=pytest.mark.slow),
        pytest.param("2>/dev/full", {0, 3}, marks=pytest.mark.slow),
        (">/dev/full", {1}),
        ("2>&1 | head -1", {141}),
    ],
)
def test_the_trained_model_is_there_whatever_becomes_of_the_streams(train, tmp_path, streams, code):
    exit_code, done = train(streams)
    assert exit_code in code, done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()
    assert (tmp_path / "out" / "report.html").is_file()
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    if code == {1}:
        assert "standard output: could not be written (No space left on device)" in done.stderr


@pytest.mark.parametrize(
    ("streams", "code"),
    [("2>&-", 0), (">&-", 0), ("<&-", 0), ("2>/dev/full", 0), (">/dev/full", 1), ("| true", 141)],
)
def test_help_ends_with_a_conventional_code(tmp_path, streams, code):
    done = shell(f"({DPO} --help; echo $? >code) {streams}", tmp_path)
    # `true` may have gone before or after the text was written
    assert int((tmp_path / "code").read_text()) in {code, 0 if "true" in streams else code}
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def test_what_a_library_prints_goes_into_no_file_of_ours(tmp_path):
    """A file that is opened while descriptor 2 is closed would take its number."""
    code = (
        "import os; from dpo_cli.report.streams import prepare_streams; prepare_streams();"
        "f = open('data', 'w'); os.write(2, b'warning'); f.write('content'); f.close()"
    )
    shell(f'{sys.executable} -c "{code}" <&- >&- 2>&-', tmp_path)
    assert (tmp_path / "data").read_text() == "content"
