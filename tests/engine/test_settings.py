"""The engine against TRL's own trainer in some 280 settings, and the table of them in docs/performance.md."""

import json
import re
from pathlib import Path

import pytest
from engine.settings import SETTINGS, run
from engine.settings_table import RESULTS, in_markdown

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda s: f"{s.family}: {s.name}")
def test_the_engine_gives_trls_numbers_or_names_why_it_does_not_run(setting, tmp_path):
    found = run(setting, tmp_path)
    assert found.outcome == setting.outcome, found
    assert re.search(setting.reason, found.reason), found


def test_the_page_shows_what_was_found_for_these_settings():
    results = json.loads(RESULTS.read_text())
    assert len(SETTINGS) >= 150
    assert [(r["family"], r["name"], r["outcome"]) for r in results] == [
        (s.family, s.name, s.outcome) for s in SETTINGS
    ]
    assert in_markdown(results) in PAGE.read_text()
