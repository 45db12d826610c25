"""Settings with characters that act instead of showing: written as escapes, read back as they were."""

import json
import tomllib

import pytest

from dpo_cli.characters import acts, escaped_json
from dpo_cli.config import DPOTrainingConfig, IdentityShiftConfig, load_settings, to_toml
from dpo_cli.errors import ConfigError

HOSTILE = "a\x1b[31m\x9b31m\u202e\u2066\u200b\u2028\U000e0041z \\u202e 你"


def test_config_toml_shows_what_it_holds_and_reads_back():
    config = DPOTrainingConfig(dataset=HOSTILE, report_to=(HOSTILE,), trl={"optim_args": HOSTILE})
    text = to_toml(config, "Written by dpo train.")
    assert not [character for character in text if character != "\n" and acts(character)]
    assert "你" in text
    again = tomllib.loads(text)
    assert (again["dataset"], again["report_to"], again["trl"]["optim_args"]) == (HOSTILE, [HOSTILE], HOSTILE)


def test_json_shows_what_it_holds_and_reads_back():
    text = escaped_json(json.dumps({HOSTILE: HOSTILE}, ensure_ascii=False, indent=2))
    assert not [character for character in text if character != "\n" and acts(character)]
    assert json.loads(text) == {HOSTILE: HOSTILE}


@pytest.mark.parametrize("character", ["\x00", "\x1b", "\n", "\x9b", "\u202e", "\u200b", "\u2028"])
def test_a_new_name_has_no_character_that_acts(character):
    with pytest.raises(ConfigError, match="--new-name: must not contain control or invisible characters"):
        load_settings(IdentityShiftConfig, {"original_name": "Qwen", "new_name": f"Or{character}ion"})


@pytest.mark.parametrize(
    "name", ["O'Brien", 'a "b"', "\u0645\u06cc\u200c\u062e\u0648", "👩\u200d🔬", "Über {x}"]
)
def test_a_new_name_may_be_any_words(name):
    load_settings(IdentityShiftConfig, {"original_name": "Qwen", "new_name": name})
