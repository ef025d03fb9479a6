"""The model card beside a folder output."""
import json
import shutil

import pytest

from conftest import DIGITS, aq, aq_json


def front_matter(card):
    """The values in front of a card; each line is a key and JSON, which YAML contains."""
    start, matter, text = card.split("---\n", 2)
    assert start == ""
    return {key: json.loads(value) for key, value in (line.split(": ", 1) for line in matter.splitlines())}, text


@pytest.fixture
def model(tmp_path):
    """A component of a cached model with a card, as it lies in the cache of the Hugging Face Hub."""
    folder = tmp_path / "models--someone--digits" / "snapshots" / "0123" / "transformer"
    folder.mkdir(parents=True)
    shutil.copy(DIGITS / "model.safetensors", folder / "diffusion_pytorch_model.safetensors")
    (folder / "config.json").write_text('{"_class_name": "DiTTransformer2DModel"}')
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: digits-1\nlicense_link: LICENSE.md\ntags: [a]\n---\n# Digits\n")
    return folder


@pytest.mark.parametrize("format", ["folder", "safetensors"])
def test_cards_say_what_was_made_of_what(model, format, tmp_path):
    options = ["--bits", 4, "--group-size", 64, "--calibration", DIGITS / "calib.safetensors"]
    report = aq_json("quantize", model, "-o", tmp_path / "out", "--format", format, *options)
    assert (tmp_path / "out" / "config.json").read_bytes() == (model / "config.json").read_bytes()
    matter, text = front_matter((tmp_path / "out" / "README.md").read_text())
    assert matter["base_model"] == "someone/digits" and matter["base_model_relation"] == "quantized"
    assert matter["library_name"] == "diffusers" and {"arrowquant", "quantized", "4-bit"} <= set(matter["tags"])
    assert [matter[f"license{end}"] for end in ("", "_name", "_link")] == ["other", "digits-1", "LICENSE.md"]
    assert f"{report['output']['bits_per_weight']:.3f}" in text
    assert f"{report['weight']['cosine_global']:.6f}" in text and "Output error" in text
    size = sum(p.stat().st_size for p in (tmp_path / "out").iterdir() if p.name not in ("README.md", "config.json"))
    assert report["output"]["bytes"] == size


def test_the_name_can_be_given_and_cards_are_the_same_every_time(model, tmp_path):
    for name, options in (("a", []), ("b", ["--threads", 1])):
        aq("quantize", model, "-o", tmp_path / name, "--base-model", "me/mine", *options)
    cards = [(tmp_path / name / "README.md").read_text() for name in "ab"]
    assert cards[0] == cards[1] and front_matter(cards[0])[0]["base_model"] == "me/mine"
    aq("verify", tmp_path / "a")
    aq("compare", model, tmp_path / "a")


def test_a_pipeline_has_one_card(model, tmp_path):
    pipe = tmp_path / "pipe"
    shutil.copytree(model, pipe / "transformer")
    (pipe / "model_index.json").write_text('{"_class_name": "P", "transformer": ["diffusers", "DiT"]}')
    (pipe / "README.md").write_text("---\nlicense: mit\n---\n# Pipe\n")
    aq("quantize", pipe, "-o", tmp_path / "out")
    matter, text = front_matter((tmp_path / "out" / "README.md").read_text())
    assert (matter["base_model"], matter["license"], matter["library_name"]) == ("pipe", "mit", "diffusers")
    assert "# pipe, quantized" in text
    assert (tmp_path / "out" / "transformer" / "README.md").read_text() == (model / "README.md").read_text()


def test_single_files_have_no_card(tmp_path):
    aq("quantize", DIGITS, "-o", tmp_path / "out.parquet")
    assert [p.name for p in tmp_path.iterdir()] == ["out.parquet"]
