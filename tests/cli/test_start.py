"""What `dpo` does before anything heavy is imported, each time in a fresh process."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "datasets", "trl", "numpy")
PROBE = "import sys; from dpo_cli.cli.app import main\ntry: main()\nfinally: print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"


def dpo(*arguments, cwd=None):
    """Run dpo in a fresh process; the last line of stderr is the list of heavy modules it imported.

    The time is that of the processor: what a person waits for on an idle machine, also on a busy one.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(heavy=HEAVY), *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def imported(done):
    return done.stderr.strip().splitlines()[-1]


def fastest(*arguments, runs=5):
    return min(dpo(*arguments)[1] for _ in range(runs))


def test_help_names_every_command_and_imports_nothing_heavy():
    done, _ = dpo("--help")
    assert done.returncode == 0
    assert imported(done) == "[]"
    for command in ("identity-shift", "train", "test", "compare", "check", "bench"):
        assert f"\n  {command} " in done.stdout


def test_the_probe_for_heavy_modules_can_fail():
    done = subprocess.run(
        [sys.executable, "-c", "import sys, numpy; " + PROBE.format(heavy=HEAVY), "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert imported(done) == "['numpy']"


def test_help_is_quick():
    dpo("--help")
    assert fastest("--help") < 0.3


@pytest.mark.parametrize("command", ["identity-shift", "train", "test", "compare", "check", "bench"])
def test_each_command_explains_itself_with_an_example(command):
    done, _ = dpo(command, "--help")
    assert done.returncode == 0
    assert f"dpo {command}" in done.stdout
    assert "--json" in done.stdout
    assert imported(done) == "[]"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", "--betta", "1"], "--betta"),
        (["train", "--beta", "nan"], "--beta: must be a finite number"),
        (["train", "--beta"], "--beta"),
        (
            ["train", "--learning-rate", "2", "--beta", "-1"],
            "--learning-rate: must be less than or equal to 1",
        ),
        (["identity-shift", "--original-name", "Qwen"], "--new-name: is required"),
        (["identity-shift", "--original-name", "Qwen", "--new-name", "Qwen"], "there is nothing to change"),
        (["train", "--config", "/nowhere/run.toml"], "/nowhere/run.toml: no such file"),
        (["train", "-m", "./nowhere"], "./nowhere: no such folder"),
        (["test", "-m", "./nowhere"], "./nowhere: no such folder"),
        (["compare", "--before", "./nowhere", "--after", "embedded"], "./nowhere: no such folder"),
        (["nonsense"], "nonsense"),
    ],
)
def test_a_mistake_is_told_at_once_without_a_traceback(arguments, says, tmp_path):
    done, seconds = dpo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert "torch" not in imported(done)
    assert seconds < 1 or fastest(*arguments) < 1  # one run in a busy moment may take longer
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_is_quick(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text("betta = 1\n[trl]\nwarmup_ration = 1\n")
    assert fastest("train", "--beta", "-1") < 1
    assert fastest("train", "--config", str(file)) < 1


def test_importing_the_package_costs_nothing():
    code = "import sys, dpo_cli; dir(dpo_cli); assert not {'torch', 'pydantic', 'typer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_public_name_can_be_imported():
    import dpo_cli

    for name in dpo_cli.__all__:
        assert getattr(dpo_cli, name).__doc__
    with pytest.raises(AttributeError):
        dpo_cli.nonsense  # noqa: B018 - the access is the test
