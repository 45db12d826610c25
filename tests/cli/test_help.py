"""What `--help` shows on a terminal, and what is said about a command that was mistyped."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest
import terminal

from dpo_cli.cli.app import COMMANDS, main
from dpo_cli.config import DPOTrainingConfig, setting_of

WIDTHS = (40, 80, 120, 200)
LONGEST_WORD = 48
"""A command to copy is broken before flags alone, so a hub id may reach beyond a narrow terminal."""


def on_terminal(columns, *arguments):
    """What `dpo` writes to a terminal of that width, without its bold type, and the exit code."""
    page, code = terminal.on_terminal(columns, "-m", "dpo_cli", *arguments)
    return re.sub(r"\x1b\[[0-9;]*m", "", page).replace("\r\n", "\n"), code


@pytest.fixture
def typed(monkeypatch, capsys):
    """A function that runs `dpo` in this process and gives exit code, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["dpo", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize("command", ["train", "identity-shift"])
def test_the_first_page_fits_sixty_lines_of_eighty_columns(command):
    page, code = on_terminal(80, command, "--help")
    lines = page.rstrip("\n").splitlines()
    assert code == 0
    assert len(lines) <= 60
    assert max(map(len, lines)) <= 80
    assert f"  dpo {command} " in page
    asked = ["Model:", "Output:", "--max-steps"]
    asked.insert(*((0, "Identity:") if command == "identity-shift" else (1, "Data:")))
    assert sorted(asked, key=page.index) == asked, "what, on what, where to, how long"


@pytest.mark.parametrize(
    ("columns", "word"), [*((n, "--help-all") for n in WIDTHS), (40, "--help"), (200, "--help")]
)
def test_no_flag_is_cut_and_no_line_is_too_long(columns, word):
    page, code = on_terminal(columns, "train", word)
    assert code == 0
    assert "…" not in page
    assert "<bool>" not in page
    widest = max(columns, LONGEST_WORD)
    assert [line for line in page.splitlines() if len(line) > widest] == []
    for name, field in DPOTrainingConfig.model_fields.items():
        shown = re.search(rf"--(\[no-\])?{name.replace('_', '-')}\b(?!-)", page) is not None
        if word == "--help-all" or setting_of(field)["basic"]:
            assert shown, name


@pytest.mark.parametrize("command", COMMANDS)
def test_the_first_page_says_how_many_settings_it_leaves_out(command, typed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    _, first, _ = typed(command, "--help")
    _, every, _ = typed(command, "--help-all")
    left_out = re.search(rf"(\d+) more settings: dpo {command} --help-all", " ".join(first.split()))

    def flags(page):
        return set(re.findall(r"^  (?:-\w, )?(--\S+)", page, re.MULTILINE))

    assert len(flags(every) - flags(first)) == int(left_out[1])


def test_the_page_of_dpo_is_in_plain_words():
    page, code = on_terminal(80, "--help")
    assert code == 0
    assert page.startswith("Usage: dpo COMMAND [OPTIONS]\n\ndpo changes what a language model prefers")
    assert max(map(len, page.splitlines())) <= 80
    assert "\n  dpo identity-shift --original-name" in page


def test_dpo_alone_says_what_there_is():
    page, code = on_terminal(80)
    assert code == 2
    assert page.startswith("Usage: dpo COMMAND [OPTIONS]")


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("trian", "trian: no such command, did you mean train?", "See `dpo --help`."),
        ("identity", "identity: no such command, did you mean identity-shift?", "See `dpo --help`."),
        ("zzz", "zzz: no such command", "See `dpo --help`."),
        ("--versoin", "--versoin: no such flag, did you mean --version?", "See `dpo --help`."),
        ("train --betta 1", "--betta: no such flag, did you mean --beta?", "See `dpo train --help`."),
        ("train -z", "-z: no such flag", "See `dpo train --help`."),
        ("train --beta", "Option '--beta' requires an argument.", "See `dpo train --help`."),
        ("train --json=1", "Option '--json' does not take a value.", "See `dpo train --help`."),
        (
            "train pairs.jsonl",
            "pairs.jsonl: unexpected argument",
            "See `dpo train --help`. Data is given as --dataset pairs.jsonl.",
        ),
        ("test hello", "hello: unexpected argument", "See `dpo test --help`."),
        ("train --beta -1", "--beta: must be greater than 0, not -1.0", "See `dpo train --help`."),
    ],
)
def test_what_was_typed_wrong_is_said_like_every_other_error(line, message, hint, typed):
    assert typed(*line.split()) == (2, "", f"Error: {message}\n{hint}\n")


def test_what_acts_on_a_terminal_is_made_visible_in_usage_errors():
    for line in (["tra\u202ein"], ["train", "--be\x1b]0;ta"], ["train", "a\x1b[2Jb"]):
        page, code = on_terminal(80, *line)
        assert code == 2
        assert not {"\u202e", "\x1b"} & set(page)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dpo tr", ["train"]),
        ("dpo train --loss-", ["--loss-type", "--loss-weights"]),
        ("dpo train --engine s", ["shared-prefix"]),
    ],
)
def test_completion_offers_commands_flags_and_choices(typed, offered):
    env = os.environ | {
        "_DPO_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    code = "import sys; sys.argv[0] = 'dpo'; from dpo_cli.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert [line.split(",")[-1] for line in done.stdout.split()] == offered, done.stderr
