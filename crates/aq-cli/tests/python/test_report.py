"""Report files: what they hold, and how a browser shows them."""
import json
import re

import numpy as np
import pytest

from browser import Browser
from conftest import DIGITS, aq, aq_json

CALIBRATION = DIGITS / "calib.safetensors"


@pytest.fixture(scope="module")
def reports(tmp_path_factory):
    """The report of one job in each form, and of a comparison of its output."""
    folder = tmp_path_factory.mktemp("reports")
    options = ["--bits", 3, "--group-size", 64, "--calibration", CALIBRATION]
    for form in ("html", "md", "json"):
        aq("quantize", DIGITS, "-o", folder / f"{form}.parquet", *options, "--report", folder / f"quantize.{form}", "--quiet")
    compare = ["compare", DIGITS, folder / "md.parquet", "--calibration", CALIBRATION]
    for form in ("html", "md", "json"):
        aq(*compare, "--report", folder / f"compare.{form}")
    return folder


def test_json_is_the_object_of_the_command_with_what_was_measured(reports):
    quantize, compare = (json.loads((reports / f"{name}.json").read_text()) for name in ("quantize", "compare"))
    assert (quantize["schema"], compare["schema"]) == ("aq.quantize/1", "aq.compare/1")
    assert compare["global"] == aq_json("compare", DIGITS, reports / "md.parquet")["global"]
    quantized = {t["name"]: t for t in quantize["tensors"] if t["kept_reason"] is None}
    for report in (quantize, compare):
        histograms = report["details"]["histograms"]
        assert len(histograms) == 4
        for h in histograms:
            assert sum(h["before"]) == sum(h["after"]) == quantized[h["tensor"]]["params"]
        (by_time,) = report["details"]["output_error_by_time"]
        assert by_time["times"] == sorted(by_time["times"]) and len(by_time["times"]) > 1
        assert {layer["name"] for layer in by_time["layers"]} == quantized.keys()
        for layer in by_time["layers"]:
            errors = layer["output_error"]
            assert len(errors) == len(by_time["times"]) and 0 < min(errors) <= max(errors)
            held_out = quantized[layer["name"]]["output_error"]
            assert np.median(errors) / 4 < held_out < max(errors) * 4
    worst = sorted(quantized.values(), key=lambda t: -t["output_error"])[:4]
    assert [h["tensor"] for h in quantize["details"]["histograms"]] == [t["name"] for t in worst]


def test_an_error_by_time_is_what_numpy_measures(reports, tmp_path):
    from small_models import load_safetensors
    aq("dequantize", reports / "json.parquet", "-o", tmp_path / "q.safetensors")
    w, q, x = (load_safetensors(path) for path in (DIGITS / "model.safetensors", tmp_path / "q.safetensors", CALIBRATION))
    (by_time,) = json.loads((reports / "quantize.json").read_text())["details"]["output_error_by_time"]
    order = np.argsort(x["timesteps"])
    assert np.allclose(by_time["times"], x["timesteps"][order])
    compared = 0
    for layer in by_time["layers"]:
        name = layer["name"]
        inputs = x.get(name.removesuffix(".weight"))
        if inputs is None:
            continue
        rows = inputs.shape[1]
        for error, t in zip(layer["output_error"], order, strict=True):
            few = inputs[t].astype(np.float64)[::-(-rows // 64)]
            few = few[::-(-len(few) // 16)]
            out = few @ w[name].reshape(len(w[name]), -1).T.astype(np.float64)
            lost = few @ (w[name].astype(np.float64) - q[name]).reshape(len(w[name]), -1).T
            assert abs(error - (lost**2).sum() / (out**2).sum()) <= 1e-4 * error, name
            compared += 1
    assert compared > 20


def test_markdown_has_every_tensor_and_decision(reports):
    text, report = (reports / "quantize.md").read_text(), json.loads((reports / "quantize.json").read_text())
    for tensor in report["tensors"]:
        assert f"| {tensor['name']} |" in text
    kept = sum(t["kept_reason"] is not None for t in report["tensors"])
    assert sum(map(int, re.findall(r"^- (\d+) kept: ", text, re.M))) == kept
    assert f"{report['output']['bits_per_weight']:.3f}" in text and '"group_size": 64' in text
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


@pytest.mark.parametrize("name, status", [("r.pdf", 2), ("r", 2), ("missing/r.html", 3)])
def test_files_that_cannot_be_are_refused_before_the_work(name, status, tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "out.parquet", "--report", tmp_path / name, status=status)
    aq("compare", DIGITS, DIGITS, "--report", tmp_path / name, status=status)
    assert not list(tmp_path.iterdir())


def test_a_report_needs_no_calibration(tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "out.safetensors", "--report", tmp_path / "r.html", "--bits", 4)
    html = (tmp_path / "r.html").read_text()
    assert 'id="depth"' in html and "heat" not in re.findall(r'class="chart[^"]*"', html)
    assert "Without a calibration" in html


def test_pages_ask_for_nothing(reports):
    for name in ("quantize", "compare"):
        html = (reports / f"{name}.html").read_text()
        assert "default-src 'none'" in html and html.count("<svg") == html.count("</svg>") == 6
        for forbidden in ("http:", "https:", "<script", "url(", "src=", "@import", "<link"):
            assert forbidden not in html


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    pytest.importorskip("PIL", reason="needs Pillow to look at screenshots")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


BOXES = """return [...document.querySelectorAll('figure.chart svg')].map(svg => {
    const box = svg.getBoundingClientRect();
    return {x: box.x + scrollX, y: box.y + scrollY, width: box.width, height: box.height};
})"""


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["quantize", "compare"])
def test_every_chart_is_drawn(browser, reports, name, width, dark):
    page = reports / f"{name}.html"
    browser.requests()
    browser.show(page, width, dark)
    boxes = browser.ask(BOXES)
    assert len(boxes) == 6
    for box in boxes:
        assert box["width"] > 250 and box["x"] >= 0 and box["x"] + box["width"] <= width
        pixels = np.asarray(browser.picture(box)).astype(int)
        background = pixels[2, 2]
        drawn = np.abs(pixels - background).max(2) > 24
        assert drawn.mean() > 0.02, f"{drawn.mean()} of the chart at {box} is drawn"
        assert (drawn.any(0).mean() > 0.5) and (drawn.any(1).mean() > 0.5)
        assert (background.mean() < 80) == dark
    # Nothing is wider than the window, and nothing but the page was asked for.
    assert browser.ask("return document.documentElement.scrollWidth") <= width
    assert {url for url in browser.requests() if not url.startswith(("data:", "chrome"))} == {page.as_uri()}


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read(browser, reports, dark):
    """Every colour of text has a contrast of at least 4.5 to what is behind it (WCAG AA)."""
    browser.show(reports / "quantize.html", 1280, dark)
    colours = browser.ask("""const style = getComputedStyle(document.documentElement);
        return Object.fromEntries(['paper', 'card', 'ink', 'muted', 'weight', 'output'].map(n => [n, style.getPropertyValue('--' + n).trim()]))""")

    def luminance(colour):
        channels = np.array([int(colour[i:i + 2], 16) for i in (1, 3, 5)]) / 255
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    for text in ("ink", "muted", "weight", "output"):
        for behind in ("paper", "card"):
            light, low = sorted((luminance(colours[text]), luminance(colours[behind])), reverse=True)
            assert (light + 0.05) / (low + 0.05) >= 4.5, (text, behind)
