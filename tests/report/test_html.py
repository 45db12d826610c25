"""report.html: as text here, in a real browser below."""

import dataclasses
import json
import re
import tempfile

import pytest
from markdown_it import MarkdownIt

from dpo_cli.events import Warned
from dpo_cli.report.html import html, write_html
from dpo_cli.report.model_card import code, fenced, model_card
from dpo_cli.report.plots import draw_curves, draw_margins

TAGS = {
    "html",
    "head",
    "meta",
    "title",
    "link",
    "style",
    "body",
    "a",
    "header",
    "h1",
    "p",
    "code",
    "nav",
    "ul",
    "li",
    "main",
    "section",
    "h2",
    "span",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "strong",
    "figure",
    "figcaption",
    "div",
    "details",
    "summary",
    "dl",
    "dt",
    "dd",
    "pre",
    "del",
    "ins",
    "svg",
    "g",
    "path",
    "defs",
    "text",
    "use",
    "clippath",
    "rect",
    "desc",
}
ATTRIBUTES = {
    "lang",
    "charset",
    "http-equiv",
    "content",
    "name",
    "rel",
    "href",
    "class",
    "dir",
    "aria-label",
    "aria-labelledby",
    "id",
    "scope",
    "data-label",
    "open",
    "tabindex",
    "role",
    "viewbox",
    "d",
    "fill",
    "stroke",
    "stroke-width",
    "stroke-dasharray",
    "stroke-dashoffset",
    "stroke-linejoin",
    "stroke-linecap",
    "fill-opacity",
    "stroke-opacity",
    "opacity",
    "text-anchor",
    "font-size",
    "transform",
    "x",
    "y",
    "width",
    "height",
    "xlink:href",
    "clip-path",
    "xmlns",
    "xmlns:xlink",
    "viewBox",
}


def dirty(record, make_comparison, hostile):
    """A record with a hostile string wherever a string comes from outside."""
    rows = [(text, text, text[::-1]) for text in hostile]
    return dataclasses.replace(
        record,
        title=hostile[150],
        base=hostile[151],
        comparison=dataclasses.replace(
            make_comparison(rows, model=(hostile[152], hostile[153])), margins=record.comparison.margins
        ),
        warnings=[Warned(text, text, text, 1) for text in hostile[140:180]],
        stopped_early=hostile[154],
        facts=dict(zip(hostile, hostile, strict=True)),
        pairs=dict(zip(hostile, hostile, strict=True)),
        preset=dict(zip(hostile, hostile, strict=True)),
        settings="\n".join(hostile),
    )


def test_the_verdict_comes_first_and_everything_is_there(record):
    text = html(record)
    order = [
        text.index(f'id="{part}"')
        for part in ("verdict", "curves", "margins", "scorecard", "questions", "pairs", "settings", "run")
    ]
    assert order == sorted(order)
    assert text.count("<svg") == 5
    assert "<ins>Deep</ins>" in text
    assert "Warning at step 30." in text
    assert "default-src &#39;none&#39;" in text
    assert "<script" not in text
    assert " style=" not in text
    assert not re.search(r"(?:src|href)=\"(?!#|data:,)", text)


def test_a_comparison_alone_and_a_run_alone(record):
    assert "<svg" not in html(
        dataclasses.replace(
            record, history=(), comparison=dataclasses.replace(record.comparison, margins=None)
        )
    )
    assert "Verdict: none" in html(dataclasses.replace(record, comparison=None))


def test_plots_have_words_and_no_style(history):
    for plot in [*draw_curves(history), draw_margins([1.0, 2.0], [3.0, float("nan")])]:
        assert f">{plot.title}</title>" in plot.svg
        assert f">{plot.description}</desc>" in plot.svg
        assert "style" not in plot.svg
        assert "<text" in plot.svg
    assert "goes from" in draw_curves(history)[0].description
    assert draw_margins([], [1.0]) is None
    assert draw_curves([{"step": 1.0, "loss": float("nan")}]) == []


def test_the_same_run_gives_the_same_report(record):
    assert html(record) == html(record)


def links_and_html(tokens):
    for token in tokens:
        if token.type in ("link_open", "image", "html_inline", "html_block"):
            yield token
        yield from links_and_html(token.children or ())


def test_a_model_card_has_no_markup_but_its_own(record, make_comparison, hostile):
    clean, soiled = (
        MarkdownIt("commonmark").enable("table").parse(model_card(one).split("---\n", 2)[2])
        for one in (record, dirty(record, make_comparison, hostile))
    )
    assert not list(links_and_html(clean))
    assert not list(links_and_html(soiled))
    headings = [
        [tokens[n + 1].content for n, token in enumerate(tokens) if token.type == "heading_open"]
        for tokens in (clean, soiled)
    ]
    assert set(headings[1][1:]) <= {*headings[0], "Verdict: FAIL"}


def test_addresses_in_a_model_card_stand_in_code_spans_where_github_links_nothing(record):
    addresses = ("www.evil.example", "WWW.evil.example", "me@evil.example", "ftp://evil.example", "`www.a.b`")
    card = model_card(
        dataclasses.replace(
            record,
            title=addresses[0],
            stopped_early=addresses[2],
            pairs={one: one for one in addresses},
            facts={"Model": addresses[3]},
        )
    )

    def text(tokens):
        for token in tokens:
            yield token.content if token.type == "text" else ""
            yield from text(token.children or ())

    words = " ".join(text(MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])))
    assert "evil" not in words
    assert card.count("evil") >= 9


def test_a_model_card_names_its_base_only_when_the_hub_can_know_it(record):
    assert 'base_model: "Qwen/Qwen2.5-0.5B-Instruct"' in model_card(record)
    assert "base_model" not in model_card(dataclasses.replace(record, base="./folder"))
    assert "library_name: peft" in model_card(dataclasses.replace(record, adapter=True))


def test_code_spans_and_fences_hold_what_they_are_given():
    for text in ("a", "`", "``a`", " ", "```", "a\n```\nb"):
        rendered = MarkdownIt("commonmark").render(code(text))
        assert rendered.count("<code>") == 1
        assert MarkdownIt("commonmark").parse(fenced(text))[0].content == text + "\n"


@pytest.fixture(scope="module")
def browser():
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (
            "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking",
            "disable-component-update", "disable-sync", f"user-data-dir={profile}",
        ):  # fmt: skip
            options.add_argument(f"--{flag}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService("/usr/bin/chromedriver"))
        yield driver
        driver.quit()


def open_page(browser, path, width, *, dark=False):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False},
    )
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    browser.get("about:blank")
    for log in ("browser", "performance"):
        browser.get_log(log)  # what the browser did before
    browser.get(path.as_uri())
    browser.execute_script("document.querySelectorAll('details').forEach(one => one.open = true)")


def sideways(browser):
    return browser.execute_script(
        "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )


def assert_quiet(browser, path):
    """Since the page was opened: nothing on the console, nothing asked for but the file itself."""
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {path.as_uri()}


@pytest.mark.browser
def test_a_browser_shows_it_without_a_request_or_an_error(browser, record, tmp_path):
    path = tmp_path / "report.html"
    write_html(path, record)
    for width in (400, 1400):
        for dark in (False, True):
            open_page(browser, path, width, dark=dark)
            assert sideways(browser) <= 0
            assert_quiet(browser, path)
            ink, paper = browser.execute_script(
                "const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]"
            )
            assert (
                sum(map(int, re.findall(r"\d+", ink)[:3])) > sum(map(int, re.findall(r"\d+", paper)[:3]))
            ) is dark
    boxes = browser.execute_script(
        "return [...document.querySelectorAll('svg')].map(s => s.getBoundingClientRect().width)"
    )
    assert len(boxes) == 5
    assert min(boxes) > 200
    lines = browser.execute_script(
        "return [...document.querySelectorAll('path.stroke-one')].map(p => getComputedStyle(p).stroke)"
    )
    assert set(lines) == {"rgb(108, 182, 255)"}


@pytest.mark.browser
def test_hostile_strings_make_no_element_attribute_or_script(
    browser, record, make_comparison, hostile, tmp_path
):
    path = tmp_path / "hostile.html"
    write_html(path, dirty(record, make_comparison, hostile))
    for width in (400, 1400):
        open_page(browser, path, width)
        assert sideways(browser) <= 0
        assert_quiet(browser, path)
    tags, attributes = browser.execute_script(
        "const all = [...document.querySelectorAll('*')];"
        "return [all.map(e => e.tagName.toLowerCase()), all.flatMap(e => [...e.attributes].map(a => a.name))]"
    )
    assert set(tags) <= TAGS
    assert set(attributes) <= ATTRIBUTES
    assert browser.execute_script("return typeof hacked") == "undefined"
    shown = browser.execute_script("return document.querySelectorAll('.answers tbody th').length")
    assert shown == len(hostile)
    assert "<script>hacked=1</script>" in browser.execute_script("return document.body.textContent")
