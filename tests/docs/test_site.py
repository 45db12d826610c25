"""The reference page is what the code says, and formulas become MathML."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def test_the_reference_page_is_not_stale():
    import reference

    assert reference.PAGE.read_text(encoding="utf-8") == reference.page(), "run python scripts/reference.py"


def test_every_setting_of_every_command_is_on_the_page():
    import reference

    from dpo_cli.cli.app import COMMANDS

    text = reference.page()
    classes = reference.settings_classes()
    assert classes.keys() == COMMANDS.keys()
    for name, cls in classes.items():
        section = text.split(f"## dpo {name}\n")[1].split("\n## ")[0]
        for key in cls.model_fields:
            assert f"`--{key.replace('_', '-')}`" in section or f"`{key.upper()}`" in section, (name, key)


def test_the_splicing_page_shows_the_results_that_are_kept():
    import json

    import run

    folder = ROOT / "docs"
    kept = json.loads((folder / "examples/splicing/results.json").read_text(encoding="utf-8"))
    page = (folder / "DPO_for_splicing_prediction.md").read_text(encoding="utf-8")
    assert run.table(list(kept["seeds"].values())) in page
    assert "**" + ", ".join(kept["seeds"]) + "**" in page


def test_the_explainer_shows_the_sweep_that_is_kept():
    import json

    import figures_beta

    kept = json.loads((ROOT / "docs/images/beta.json").read_text(encoding="utf-8"))
    assert figures_beta.table(kept) in (ROOT / "docs/DPO_explainer.md").read_text(encoding="utf-8")
    divergences = [row["divergence"] for row in kept]
    assert divergences == sorted(divergences, reverse=True), "higher beta stays closer"


def test_the_thresholds_of_damage_are_shown_with_the_runs_that_are_kept():
    import json

    import damage_runs

    from dpo_cli.evaluation.verdict import CHECKS

    kept = [json.loads(line) for line in (ROOT / "docs/figures/damage.jsonl").read_text("utf-8").splitlines()]
    assert damage_runs.table(kept) in (ROOT / "docs/reading-a-run.md").read_text("utf-8")
    damage = {check.name for check in CHECKS if check.limit == "most"} - set(damage_runs.OF_THE_NAME)
    failed = {
        kind: [damage & set(one["failed"]) for one in kept if one["kind"] == kind]
        for kind in ("healthy", "ruined")
    }
    assert not any(failed["healthy"])
    assert all(failed["ruined"])
    assert min(len(failed["healthy"]), len(failed["ruined"])) >= 10


def test_formulas_become_mathml():
    pytest.importorskip("latex2mathml")
    import mathml

    page = '<p>so <span class="arithmatex">\\(\\beta &lt; 1\\)</span></p><div class="arithmatex">\\[\\frac{a}{b}\\]</div>'
    found = mathml.on_page_content(page)
    assert "arithmatex" not in found
    assert found.count("<math") == 2
    assert "<mfrac>" in found
    assert 'display="block"' in found


@pytest.mark.slow
def test_the_site_is_built_strictly_and_needs_no_network(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("latex2mathml")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text(encoding="utf-8")
        for loaded in ('src="http', "src='http", 'rel="stylesheet" href="http', "@import url(http"):
            assert loaded not in text, (page.name, loaded)
