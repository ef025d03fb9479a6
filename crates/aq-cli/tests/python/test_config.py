"""Settings: files, variables, profiles, rules, and what is stored of them."""
import json

import pytest

from conftest import DIGITS, ROOT, aq, aq_json, digest
from small_models import load_safetensors, save_safetensors

MODEL = DIGITS / "model.safetensors"


def settings(tmp_path, *options, **more):
    return aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--force", *options, **more)["settings"]


def test_options_go_before_variables_before_the_file_before_the_profile(tmp_path):
    file = tmp_path / "aq.yaml"
    file.write_text("profile: cloud\nbits: 5\ngroup_size: 64\nmethod: ls\n")
    variables = {"AQ_BITS": "3", "AQ_GROUP_SIZE": "32"}
    of = lambda *options, env=None: settings(tmp_path, "--config", file, *options, env=env)
    told = of("--bits", 2, env=variables)
    assert (told["bits"], told["group_size"], told["method"], told["profile"]) == (2, 32, "ls", "cloud")
    told = of(env=variables)
    assert (told["bits"], told["group_size"]) == (3, 32)
    told = of()
    assert (told["bits"], told["group_size"]) == (5, 64)
    assert settings(tmp_path, env={"AQ_PROFILE": "edge"})["bits"] == 2


def test_init_writes_a_file_that_changes_nothing(tmp_path):
    file, plain, configured = tmp_path / "aq.yaml", tmp_path / "a.parquet", tmp_path / "b.parquet"
    aq("init", "-o", file, "--profile", "edge")
    aq("quantize", MODEL, "-o", plain, "--profile", "edge")
    aq("quantize", MODEL, "-o", configured, "--config", file)
    assert digest(plain) == digest(configured)
    aq("init", "-o", file, status=1)
    aq("init", "-o", file, "--force")
    assert "\nprofile: local\n" in file.read_text() and file.read_text() == aq("init")
    assert json.loads(aq("init", "--schema")) == json.loads((ROOT / "docs" / "aq.schema.json").read_text())


def test_the_schema_knows_the_keys_of_the_file(tmp_path):
    known = json.loads(aq("init", "--schema"))["properties"]
    keys = [line.lstrip("#").split(":")[0] for line in aq("init").splitlines() if line[1:2].isalpha() and ": " in line]
    assert len(keys) > 30 and set(keys) <= set(known)
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--method", "ls", "--group-size", "64")
    stored = aq_json("inspect", tmp_path / "out.parquet")["settings"]
    assert stored == {k: v for k, v in report["settings"].items() if v is not None}
    assert "setting method: \"ls\"" in aq("inspect", tmp_path / "out.parquet")


@pytest.mark.parametrize("text, word", [("min_cosin: 0.9", "min_cosine"), ("bits: 7", "2, 3, 4"), ("rules: [{mach: a}]", "match")])
def test_mistakes_are_answered_with_what_was_meant(text, word, tmp_path, capfd):
    (tmp_path / "aq.yaml").write_text(text)
    with pytest.raises(AssertionError, match=word):
        aq("quantize", MODEL, "-o", tmp_path / "out.parquet", "--config", tmp_path / "aq.yaml")
    aq("quantize", MODEL, "-o", tmp_path / "out.parquet", "--config", tmp_path / "aq.yaml", status=4)
    aq("quantize", MODEL, "-o", tmp_path / "out.parquet", env={"AQ_BITS": "7"}, status=4)
    assert list(tmp_path.iterdir()) == [tmp_path / "aq.yaml"]


def test_rules_by_name_and_block(tmp_path):
    single = tmp_path / "model.safetensors"
    save_safetensors(single, load_safetensors(MODEL))
    (tmp_path / "aq.yaml").write_text("""
bits: 3
method: minmax
rules:
  - {match: 'blocks\\.0\\.mlp\\.fc1', skip: true}
  - {match: 't_embedder', dtype: bf16}
  - {blocks: [0, -1], bits: 8, method: ls}
  - {match: 'attn\\.proj', blocks: '1..3', bits: 4}
""")
    out, back = tmp_path / "out.parquet", tmp_path / "back.safetensors"
    report = aq_json("quantize", single, "-o", out, "--config", tmp_path / "aq.yaml")
    got = {t["name"]: (t["method"], t["bits"]) for t in report["tensors"] if t["kept_reason"] is None}
    assert got.pop("blocks.0.attn.qkv.weight") == ("ls", 8) == got.pop("blocks.4.mlp.fc2.weight")
    assert got.pop("blocks.1.attn.proj.weight") == ("minmax", 4) == got.pop("blocks.2.attn.proj.weight")
    assert got.pop("blocks.3.attn.proj.weight") == ("minmax", 3) == got.pop("blocks.1.attn.qkv.weight")
    kept = {t["name"]: t for t in report["tensors"] if t["kept_reason"] is not None}
    assert kept["blocks.0.mlp.fc1.weight"]["kept_reason"] == "rule"
    assert kept["blocks.0.mlp.fc1.bias"]["kept_reason"] == "rule"
    assert kept["blocks.0.attn.qkv.bias"]["kept_reason"] == "rank 1", "a rule of blocks chooses no tensors"
    cast = kept["t_embedder.mlp.0.weight"]
    assert (cast["kept_reason"], cast["bits"]) == ("rule: stored as BF16", 16)
    assert cast["bytes"] == 2 * cast["params"]
    aq("verify", out)
    aq("dequantize", out, "-o", back)
    source, result = load_safetensors(single), load_safetensors(back)
    a, b = source["t_embedder.mlp.0.weight"], result["t_embedder.mlp.0.weight"]
    assert (abs(a - b) <= abs(a) / 256).all()
    plan = json.loads(aq("plan", single, "--config", tmp_path / "aq.yaml"))
    assert {l["name"]: l["bytes_estimate"] for l in plan["layers"]}["t_embedder.mlp.0.weight"] == cast["bytes"]


def test_a_value_that_does_not_fit_f16_is_refused(tmp_path):
    import numpy as np
    weight = np.ones((64, 64), np.float32)
    weight[3, 4] = 1e6
    save_safetensors(tmp_path / "model.safetensors", {"a.weight": weight})
    with pytest.raises(AssertionError, match="too large for F16"):
        aq("quantize", tmp_path / "model.safetensors", "-o", tmp_path / "out.parquet", "--tensor-type", "a=f16")
    aq("quantize", tmp_path / "model.safetensors", "-o", tmp_path / "out.parquet", "--tensor-type", "a=bf16")
