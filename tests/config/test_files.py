"""Settings files: whatever stands in them or in their place, the answer is quick and in one message."""

import os

import pytest

from dpo_cli.config import AskConfig, DPOTrainingConfig, load_settings, parse_toml
from dpo_cli.config.files import SETTINGS_BYTES, parse_yaml
from dpo_cli.errors import ConfigError, DataError, ModelError
from dpo_cli.models.locate import LocatedModel, read_preset
from dpo_cli.text.questions import read_questions

BOMBS = {
    "20,000 brackets": "a = " + "[" * 20_000,
    "5,000 inline tables": "a = " + "{a=" * 5_000,
    "a dotted key of 20,000 parts": "a" + ".a" * 20_000 + " = 1",
    "a dotted header": "[" + "a." * 20_000 + "a]",
    "5,000 digits": "seed = " + "9" * 5_000,
    "30 digits": "seed = " + "9" * 30,
    "30 digits in a table": "[trl]\ndataloader_num_workers = " + "9" * 30,
    "a byte that is not UTF-8": b"seed = 1 # \xff",
    "a NUL byte": "seed = 1\0",
}


def read_config(folder, content):
    file = folder / "run.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_settings(DPOTrainingConfig, {}, str(file))


def read_questions_file(folder, content):
    file = folder / "q.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_questions(file)


def read_preset_file(folder, content):
    file = folder / "preset.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_preset(LocatedModel("m", folder), "train", lora=False)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
@pytest.mark.parametrize(
    ("read", "error"),
    [(read_config, ConfigError), (read_questions_file, DataError), (read_preset_file, ModelError)],
)
def test_a_bomb_is_one_message_with_the_file(tmp_path, content, read, error):
    with pytest.raises(error) as told:
        read(tmp_path, content)
    assert str(tmp_path) in told.value.message
    assert len(told.value.message) < 300
    assert "\n" not in told.value.message


@pytest.mark.parametrize("value", ["[" * 20_000, "9" * 5_000, "{a=" * 5_000, "a.b={" * 1_000])
def test_a_bomb_on_the_command_line_is_the_text_that_it_is(value):
    with pytest.raises(ConfigError, match="--trl: no_such is not a field"):
        load_settings(DPOTrainingConfig, {"trl": [f"no_such={value}"]})


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "device", "huge", "folder", "missing", "nul", "nobody"])
def test_what_is_no_file_of_settings_is_not_read(tmp_path, kind):
    file = tmp_path / "run.toml"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "device":
        file.symlink_to("/dev/zero")
    elif kind == "huge":
        with file.open("wb") as huge:
            huge.truncate(100 << 20)
    elif kind == "folder":
        file.mkdir()
    name = {"nul": "run\0.toml", "nobody": "~nobody-of-that-name/run.toml"}.get(kind, str(file))
    with pytest.raises(ConfigError, match=r"cannot be read|no such file"):
        load_settings(DPOTrainingConfig, {}, name)
    with pytest.raises(DataError):
        read_questions(name)
    if kind == "huge":
        file.rename(tmp_path / "preset.toml")
        with pytest.raises(ModelError, match=f"larger than {SETTINGS_BYTES >> 10} KiB"):
            read_preset(LocatedModel("m", tmp_path), "train", lora=False)


def test_yaml_is_read_as_people_write_it(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text(
        "# a run\nlearning_rate: 5e-5\nbeta: 0.3\nloss_type: [sigmoid, sft]\nloss_weights:\n  - 1.0\n  - 0.2\n"
        "gradient_checkpointing: true\nmax_steps: null\nsystem_prompt: >\n  You are\n  brief.\ntrl:\n  adam_beta2: 0.95\n"
    )
    config = load_settings(DPOTrainingConfig, {"beta": "0.4"}, str(file))
    assert (config.learning_rate, config.beta, config.loss_type) == (5e-5, 0.4, ("sigmoid", "sft"))
    assert (config.loss_weights, config.gradient_checkpointing, config.max_steps) == ((1.0, 0.2), True, None)
    assert (config.system_prompt, config.trl) == ("You are brief.\n", {"adam_beta2": 0.95})


def test_yaml_and_toml_say_the_same_of_a_mistake(tmp_path):
    told = []
    for ending, text in ((".yml", "learning_rte: 1\nbeta: x"), (".toml", 'learning_rte = 1\nbeta = "x"')):
        file = tmp_path / f"run{ending}"
        file.write_text(text)
        with pytest.raises(ConfigError) as error:
            load_settings(DPOTrainingConfig, {}, str(file))
        told.append(error.value.message.replace(str(file), "FILE"))
    assert told[0] == told[1]
    assert "did you mean learning_rate?" in told[0]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 20_000, "nested deeper"),
        ("- " * 3_000, "nested deeper"),
        ("seed: " + "9" * 5_000, "64 bits"),
        ("a: &x [y, y]\nb: [*x, *x]", r"aliases are not supported \(line 2\)"),
        ("seed: 1\nseed: 2", r"duplicate key \(line 2\)"),
        ("a: !!python/object/apply:os.system ['touch x']", "could not determine a constructor"),
        ("- seed", "one `key: value` per line"),
        ("1: 2", "one `key: value` per line"),
        ("seed: 1\n---\nseed: 2", "another document"),
        ("seed: \x01", "unacceptable character"),
        ("a: 2026-13-45", "month must be"),
    ],
)
def test_what_is_no_yaml_of_ours_is_said_in_words(text, says):
    with pytest.raises(ValueError, match=says):
        parse_yaml(text)


def test_an_empty_file_says_nothing(tmp_path):
    for name in ("run.toml", "run.yaml"):
        (tmp_path / name).write_text("# nothing yet\n")
        assert load_settings(AskConfig, {}, str(tmp_path / name)) == AskConfig()
    assert parse_toml("") == {}
