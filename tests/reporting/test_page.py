"""The report in a browser: it draws, is silent, asks for nothing, fits a phone, and follows the theme."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright
from typer.testing import CliRunner

from hfwarmup.cli import app
from hfwarmup.reporting.page import render_page
from hfwarmup.reporting.panels import make_panels
from hfwarmup.run_folder.data import read_run

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DESKTOP = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="NO CHROMIUM: the report is not looked at; install chromium")


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def look(browser):
    """Open a page file, wait until its charts are drawn; `.said` and `.asked` are what it logged and requested."""
    contexts = []

    def opened(path: Path, **device):
        context = browser.new_context(**{**DESKTOP, **device})
        contexts.append(context)
        page = context.new_page()
        page.said, page.asked = [], []
        page.on("console", lambda message: page.said.append(message.text))
        page.on("pageerror", lambda error: page.said.append(str(error)))
        page.on("request", lambda request: page.asked.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-drawn]", state="attached")  # waiting for a script would be against the policy
        return page

    yield opened
    for context in contexts:
        context.close()


def report(*runs: Path, output: Path | None = None) -> Path:
    """The page that `hfwarmup report` makes."""
    flags = [] if output is None else ["-o", str(output)]
    result = CliRunner().invoke(app, ["report", *map(str, runs), *flags])
    assert result.exit_code == 0, result.output
    return output or runs[0] / "report.html"


@pytest.fixture(params=["one run", "one that is being made", "three", "none of whose record is there"])
def page_file(request, make_run, tmp_path):
    """The page of what a user may have."""
    if request.param == "one run":
        return report(make_run(measured=True))
    if request.param == "one that is being made":
        return report(make_run(made=45))
    if request.param == "three":
        runs = [make_run("a"), make_run("b", steps=80, measured=True), make_run("c", made=20)]
        return report(*runs, output=tmp_path / "comparison.html")
    folder = make_run()
    for name in ("run.json", "learning_rates.csv", "all_results.json"):
        (folder / name).unlink()
    return report(folder)


@pytest.mark.parametrize("device", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_every_page_draws_in_silence_and_asks_for_nothing(device, page_file, look):
    page = look(page_file, **device)
    assert page.said == []
    assert page.asked == [page_file.as_uri()]
    curves = page.locator(".plot").evaluate_all("divs => divs.map(d => d.querySelectorAll('.js-line').length)")
    assert len(curves) >= 3
    assert min(curves) >= 1
    assert page.evaluate("document.documentElement.scrollWidth") == device["viewport"]["width"]


def test_the_page_says_what_the_run_is(make_run, look):
    text = look(report(make_run(measured=True))).locator("main").inner_text()
    for part in (
        "12 updates\n20.0% of the run",
        "peak_lr 0.001 -> 0.002: lr_scaling=linear (eta k, Goyal et al. 2017)",
        "NUM_PROCESSES=2 ./launch.sh pretrain_clm --config configs/pretrain_clm/stdlib.yaml",
        "eval_perplexity\t25.79",
        "transformers\t5.23.0",
        "too steep",
        "too short for a peak of 0.002, by 20% of the run",
        "one update moved a weight matrix by 6.0% of its size (a ramp gentle enough stays below 3%)",
        "warmup 24 updates (40% of the run) at the same peak, a ramp 2.0 times as gentle",
    ):
        assert part in text


def test_the_warmup_is_shaded_up_to_its_end_in_every_chart(make_run, look):
    page = look(report(make_run(measured=True)))
    ends = page.locator(".plot").evaluate_all("divs => divs.map(d => d.layout.shapes[0].x1)")
    assert ends == [12] * 5


def test_hovering_shows_the_values(make_run, look):
    page = look(report(make_run()))
    box = page.locator(".plot .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 12 / 60.6, box["y"] + box["height"] / 2)
    hover = page.locator(".plot").first.locator(".hoverlayer .legend")
    hover.wait_for()
    assert hover.locator("text").all_text_contents() == ["update 12", "planned : 0.002", "applied : 0.002"]


def colours(page) -> tuple[str, str, str]:
    """Of the page's ground, of its ink, and of the charts' labels."""
    script = """() => [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color,
                       document.querySelector(".plot").layout.font.color]"""
    return tuple(page.evaluate(script))


def test_the_theme_is_the_systems_until_the_button_says_otherwise(make_run, look):
    page = look(report(make_run()), color_scheme="light", bypass_csp=True)  # to wait for what a script says
    light = colours(page)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"document.querySelector('.plot').layout.font.color != '{light[2]}'")
    dark = colours(page)
    assert len({*light, *dark}) == 6
    for expected in (light, dark):
        page.get_by_role("button", name="Switch between light and dark").click()
        page.wait_for_function(f"document.querySelector('.plot').layout.font.color == '{expected[2]}'")
        assert colours(page) == expected


def test_zooming_one_chart_zooms_all(make_run, look):
    page = look(report(make_run()), bypass_csp=True)
    page.evaluate("Plotly.relayout(document.querySelector('.plot'), {'xaxis.range': [10, 20]})")
    page.wait_for_function("[...document.querySelectorAll('.plot')].every(d => d.layout.xaxis.range.join() == '10,20')")


def test_what_a_run_is_called_is_text_and_nothing_else(make_run, look):
    name = "<b onclick=alert(1)>&'\""
    command = "python train.py --x '</script><script>alert(1)</script>'"
    page = look(report(make_run(name, commands=[{"from_update": 0, "command": command}])))
    assert page.locator("h1").inner_text() == name
    assert page.locator("pre").inner_text() == command
    assert page.said == []


def test_ten_thousand_updates_are_less_than_a_megabyte(make_run):
    run = read_run(make_run(steps=10_000, measured=True))
    assert len(render_page([run], make_panels([run]), plotly_js="").encode()) < 1_000_000


def test_the_picture_shows_every_panel(make_run):
    import matplotlib.image

    sizes = []
    for name, measured in (("a", False), ("b", True)):
        picture = report(make_run(name, measured=measured)).with_suffix(".png")
        image = matplotlib.image.imread(picture)
        sizes.append(image.shape[0])
        assert len({tuple(pixel) for pixel in image[::3, ::3].reshape(-1, image.shape[2])}) > 20  # lines in colours
    assert sizes[1] > sizes[0]


NO_RUN = "none holds no run: neither run.json nor log.jsonl nor trainer_state.json is there; give a run's output_dir."
ERRORS = [
    # words of the command line, the line that it ends with
    (["none"], f"error: {NO_RUN}"),
    (["none", "-o", "page.pdf"], "error: output=page.pdf: choose a name that ends in .html."),
]


@pytest.mark.parametrize(("words", "line"), ERRORS, ids=["no run", "no page"])
def test_errors_of_one_line(words, line):
    result = CliRunner().invoke(app, ["report", *words])
    assert (result.exit_code, result.output.strip()) == (1, line)


def test_without_plotly_the_extra_is_named(make_run, monkeypatch):
    monkeypatch.setattr("hfwarmup.commands.report.find_spec", lambda _: None)
    result = CliRunner().invoke(app, ["report", str(make_run())])
    line = "error: report draws with Plotly, which is not installed; pip install 'plotly>=6.3' jinja2."
    assert (result.exit_code, result.output.strip()) == (1, line)


def test_what_is_missing_is_said_on_the_command_line_too(make_run):
    result = CliRunner().invoke(app, ["report", str(make_run(made=45))])
    assert result.output.splitlines()[0] == "run: no all_results.json yet: 45 of 60 updates done."
