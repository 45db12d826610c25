"""A secret reaches no file and no output: not by a flag, a table, the environment or a crash.

Every setting of every command is tried, from the settings themselves: a new one is covered by being declared.
"""

from __future__ import annotations

import json
import sys

import pytest

from dpo_cli import config as config_module
from dpo_cli.cli.app import _show_bug, main
from dpo_cli.config import DPOTrainingConfig, load_settings, to_toml
from dpo_cli.config.trl_table import trl_fields
from dpo_cli.errors import ConfigError, DpoError, ModelError
from dpo_cli.models.locate import locate_model
from dpo_cli.redaction import find_secret, is_secret_name, redact
from dpo_cli.training.trainer import DPOTrainerWrapper

CANARY = "hf_" + "CanaryOfTheMine42" * 2
PLAIN = "correct-horse-battery"
"""A secret that no shape gives away."""

SHAPED = [
    CANARY,
    "sk-proj-" + "Abc123_" * 5,
    "AKIAIOSFODNN7EXAMPLE",
    "ghp_" + "a1B2" * 9,
    "local-" + "0af3" * 10,
    f"https://user:{PLAIN}@example.org/model",
    f"https://{PLAIN}@example.org/model",
    f"https://example.org/model?access_token={PLAIN}",
    f"s3://key:{PLAIN}@bucket/model",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
]
COMMANDS = [
    cls for cls in vars(config_module).values() if isinstance(cls, type) and getattr(cls, "command", "")
]
SETTINGS = [(cls, name) for cls in COMMANDS for name in cls.model_fields]
NAMES = {"original_name": "Qwen", "new_name": "Orion"}


def without_canary(text: str) -> None:
    for secret in (CANARY, PLAIN):
        assert secret not in text


def run(capsys, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and everything it printed."""
    sys.argv = ["dpo", *arguments]
    with pytest.raises(SystemExit) as stop:
        main()
    printed = capsys.readouterr()
    return stop.value.code, printed.out + printed.err


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["dpo"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("cls", "name"), SETTINGS, ids=[f"{c.command}-{n}" for c, n in SETTINGS])
def test_no_flag_takes_a_secret_or_echoes_it(cls, name, capsys, workplace):
    value = f"adam_beta1={CANARY}" if name == "trl" else CANARY
    flag = (
        [value] if name == "dataset" and cls.command == "check" else [f"--{name.replace('_', '-')}={value}"]
    )
    code, printed = run(capsys, cls.command, *flag, *(["--json"] if cls.command != "bench" else []))
    assert code == 2
    without_canary(printed)
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("cls", COMMANDS, ids=lambda cls: cls.command)
def test_no_key_of_a_settings_file_takes_a_secret_or_echoes_it(cls, workplace):
    for number, name in enumerate([*cls.model_fields, "no_such_setting", CANARY]):
        for ending, line in ((".toml", f'{name} = "{CANARY}"'), (".yaml", f"{name}: {CANARY}")):
            file = workplace / f"{number}{ending}"
            file.write_text(line)
            given = {key: value for key, value in NAMES.items() if key in cls.model_fields and key != name}
            with pytest.raises(ConfigError) as error:
                load_settings(cls, given, str(file))
            without_canary(f"{error.value} {error.value.hint}")
            assert f"{number}{ending}" in error.value.message


def test_no_field_of_trl_takes_a_secret_or_echoes_it(capsys, workplace):
    for name in sorted(trl_fields()):
        for value in (CANARY, f'["{CANARY}"]', f'{{a = {{b = "{CANARY}"}}}}'):
            with pytest.raises(ConfigError) as error:
                load_settings(DPOTrainingConfig, {"trl": [f"{name}={value}"]})
            without_canary(str(error.value))
    (workplace / "run.toml").write_text(f'[trl]\nhub_token = "{PLAIN}"\n')
    for arguments in (
        ["--trl", f"hub_token={PLAIN}"],
        ["--trl", f"hub_token:{PLAIN}"],
        ["--trl", "hub_token=1234567"],
        ["--config", "run.toml"],
    ):
        code, printed = run(capsys, "train", *arguments)
        assert code == 2
        without_canary(printed)
        assert "1234567" not in printed
        assert "HF_TOKEN" in printed or "is not key=value" in printed


@pytest.mark.parametrize("secret", SHAPED)
def test_every_shape_is_refused_with_the_way_to_give_it(secret, capsys, workplace):
    code, printed = run(capsys, "train", "--model", secret, "--dataset", secret, "--question-file", "x")
    assert code == 2
    code, printed = run(capsys, "train", "--model", secret, "--dataset", secret)
    assert code == 2
    assert printed.count("settings are written to files") == 2
    without_canary(printed)
    assert secret not in printed
    assert list(workplace.iterdir()) == []


@pytest.mark.parametrize("secret", SHAPED)
def test_from_python_it_is_refused_as_well(secret, workplace):
    for build in (
        lambda: DPOTrainingConfig(model=secret),
        lambda: DPOTrainingConfig(beta=secret),
        lambda: DPOTrainingConfig(trl={"hub_token": secret}),
        lambda: locate_model(secret),
        lambda: DPOTrainerWrapper(secret, dataset_name="none.jsonl"),
    ):
        with pytest.raises((ValueError, ModelError)) as error:
            build()
        assert secret not in str(error.value)
    assert secret not in to_toml(DPOTrainingConfig().model_copy(update={"model": secret}), "x")
    assert list(workplace.iterdir()) == []


def test_usage_errors_do_not_echo_secrets(capsys):
    for arguments in (
        [CANARY],
        ["train", f"--hub-token={CANARY}"],
        ["train", CANARY],
        ["train", f"--{CANARY}"],
    ):
        code, printed = run(capsys, *arguments)
        assert code == 2
        without_canary(printed)


@pytest.mark.parametrize(
    "message", [f"401 for https://u:{PLAIN}@hub", CANARY, f"hub_token={PLAIN}", f"denied: {PLAIN}", f"{{'api_key': '{PLAIN}'}}"]
)  # fmt: skip
def test_a_crash_keeps_its_traceback_and_loses_the_secret(message, capsys, monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", PLAIN)

    def broken(*_, **__):
        raise RuntimeError(message) from KeyError(message)

    monkeypatch.setattr("dpo_cli.config.sources.find_secret", broken)
    monkeypatch.setattr(sys, "argv", ["dpo", "check", "--max-length", "5"])
    with pytest.raises(RuntimeError):
        main()
    try:
        broken()
    except RuntimeError:
        sys.excepthook(*sys.exc_info())
    printed = capsys.readouterr().err
    assert "Traceback" in printed
    assert "in broken" in printed
    without_canary(printed)


def test_a_crash_shows_control_characters_instead_of_sending_them(capsys):
    try:
        raise RuntimeError("\x1b[2J\u202efi\x9b")  # noqa: TRY301 - the traceback is what is looked at
    except RuntimeError:
        _show_bug(*sys.exc_info())
    printed = capsys.readouterr().err
    assert "\\x1b[2J\\u202efi\\x9b" in printed
    assert printed.replace("\n", "").isprintable()


def test_errors_and_their_notes_lose_what_the_environment_holds(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", PLAIN)

    def broken(*_, **__):
        error = DpoError(f"the hub said {PLAIN}", hint=f"is {PLAIN} right?")
        error.add_note(f"kept in {PLAIN}")
        raise error

    monkeypatch.setattr("dpo_cli.config.sources.find_secret", broken)
    code, printed = run(capsys, "check", "--max-length", "5")
    assert code == 1
    assert printed.count("***") == 3
    without_canary(printed)


VARIABLES = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY", "COMET_API_KEY", "MLFLOW_TRACKING_PASSWORD",
    "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY",
)  # fmt: skip


def test_secrets_of_the_environment_reach_no_file_and_no_output(capsys, workplace, monkeypatch):
    for variable in VARIABLES:
        monkeypatch.setenv(variable, CANARY)
    code, printed = run(capsys, "train", "--max-samples=8", "--max-steps=1", "--save-steps=1", "-o", "out")
    assert code in {0, 3}, printed
    without_canary(printed)
    files = [path for path in workplace.rglob("*") if path.is_file()]
    assert {"config.toml", "README.md", "report.html", "training_args.bin"} <= {path.name for path in files}
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_an_adapter_that_names_a_base_with_a_password_is_refused_without_it(workplace, capsys):
    (workplace / "adapter").mkdir()
    base = f"https://user:{PLAIN}@example.org/base"
    (workplace / "adapter/adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    (workplace / "adapter/adapter_model.safetensors").write_bytes(b"")
    code, printed = run(capsys, "test", "--model", "adapter")
    assert code == 2
    without_canary(printed)


def test_harmless_settings_are_no_secrets():
    names = {name for _, name in SETTINGS} | set(trl_fields())
    assert [name for name in sorted(names) if is_secret_name(name)] == ["hub_token"]
    for value in (
        "HuggingFaceTB/SmolLM2-135M-Instruct", "./hf_models2026/run-17", "models/sk-learn-experiments-2024",
        "0123456789abcdef0123456789abcdef01234567", "git@github.com:someone/model", "s3://bucket/key", "<|im_end|>",
        "https://huggingface.co/datasets/x?download=true", "task-sk-1", "What is your password?",
    ):  # fmt: skip
        assert find_secret(value, "model") is None
        assert redact(value) == value


def test_folders_of_the_environment_stay_readable(workplace, monkeypatch):
    monkeypatch.setenv("PWD", str(workplace))
    monkeypatch.setenv("MY_TOKEN", str(workplace))
    assert str(DpoError(f"{workplace}/run.toml: no such file")) == f"{workplace}/run.toml: no such file"


def test_every_secret_shown_in_a_text_is_hidden_and_the_rest_stays():
    for secret in SHAPED:
        hidden = redact(f"before {secret} after")
        assert hidden.startswith("before ")
        assert hidden.endswith(" after")
        assert secret not in hidden
    assert redact("pad_token=<pad> and max_new_tokens=5") == "pad_token=<pad> and max_new_tokens=5"
