"""Plans as files: what `aq plan --json` prints and hands write is what `aq quantize --plan` does."""
import json
import subprocess

import pytest

from conftest import DIGITS, aq, aq_json, command, environment

MODEL = DIGITS / "model.safetensors"
CALIBRATION = DIGITS / "calib.safetensors"


def quantized(tmp_path, name, *options):
    """Tensors of the report, and the bytes of the dequantized weights."""
    out, back = tmp_path / f"{name}.parquet", tmp_path / f"{name}.safetensors"
    report = aq_json("quantize", MODEL, "-o", out, *options)
    aq("dequantize", out, "-o", back)
    return report["tensors"], back.read_bytes()


@pytest.mark.parametrize("options", [
    ["--bits", "3", "--method", "ls", "--group-size", "32", "--rotation", "on", "--seed", "9", "--gain", "off"],
    ["--rate", "2.3"],
    ["--bits", "4", "--method", "minmax", "--low-rank", "4", "--tensor-type", "adaLN=skip"],
    ["--target-bpw", "4.1", "--method", "ls"],
], ids=["ls", "entropy", "low-rank", "target"])
def test_a_printed_plan_does_what_its_options_do(options, tmp_path):
    plan = tmp_path / "plan.json"
    plan.write_text(aq("plan", MODEL, *options, "--json"))
    by_options, weights = quantized(tmp_path, "options", *options)
    by_plan, same = quantized(tmp_path, "plan", "--plan", plan)
    keys = ("name", "method", "bits", "group_size", "codec", "rotation")
    if "--target-bpw" not in options:
        # A target is met by what writing tells of the container, which a plan cannot know.
        assert weights == same
        assert [[t[k] for k in keys] for t in by_options] == [[t[k] for k in keys] for t in by_plan]
    assert [t["kept_reason"] for t in by_options] == [t["kept_reason"] for t in by_plan]
    decisions = [(x["method"], x["bits"], x["group_size"]) for x in json.loads(plan.read_text())["layers"]]
    assert len(set(decisions)) > 2 or "--target-bpw" not in options


def test_a_plan_by_hand_and_one_that_does_not_fit(tmp_path):
    names = [x["name"] for x in aq_json("plan", MODEL)["layers"]]
    row = {name: f"  - {{name: {json.dumps(name)}, decision: keep}}\n" for name in names}
    wide = "blocks.0.mlp.fc1.weight"
    row[wide] = f"  - {{name: {wide}, decision: quantize, method: entropy, rate: 2.5}}\n"
    plan = tmp_path / "plan.yaml"

    def write(rows):
        plan.write_text("layers:\n" + "".join(rows))

    write(row.values())
    report = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", "--plan", plan)
    (tensor,) = [t for t in report["tensors"] if t["method"]]
    assert tensor["name"] == wide and 2.4 < tensor["bits_per_weight"] <= 2.5

    def refused(*options, status):
        argv = [command(), "quantize", str(MODEL), "-o", str(tmp_path / "no.parquet"), "--plan", str(plan), *options]
        done = subprocess.run(argv, capture_output=True, text=True, env=environment())
        assert done.returncode == status and len(done.stderr.splitlines()) == 1, done.stderr
        assert not (tmp_path / "no.parquet").exists()
        return done.stderr

    assert "--bits" in refused("--bits", "4", status=2)
    assert "--target-bpw" in refused("--target-bpw", "4", status=2)
    write([r for name, r in row.items() if name != wide])
    assert wide in refused(status=4)
    write([*row.values(), "  - {name: stranger.weight, decision: keep}\n"])
    assert "stranger.weight" in refused(status=4)
    write([*row.values()][1:] + [f"  - {{name: {names[0]}, decision: keep, shape: [1, 2]}}\n"])
    assert names[0] in refused(status=4)
    plan.write_text("{\"layers\": [")
    assert "plan.yaml" in refused(status=4)
    plan.unlink()
    assert "plan.yaml" in refused(status=3)


def test_sensitive_layers_are_listed_with_the_reason(tmp_path):
    plan = aq_json("plan", MODEL, "--calibration", CALIBRATION, "--bits", "3")
    layers = [x for x in plan["layers"] if x["decision"] == "quantize"]
    assert all(0 < x["error_estimate"] < 0.1 for x in layers)
    # One layer that a file says is a hundred times as sensitive.
    weights = {x["name"]: x["shape"][0] * x["shape"][1] for x in layers}
    damage = {name: size * (100 if "blocks.2.mlp.fc1" in name else 1) * 1e-9 for name, size in weights.items()}
    points = lambda d: [{"bits_per_weight": b, "damage": d * 4.0 ** -b} for b in (1.0, 2.0, 3.0, 4.0)]
    file = tmp_path / "sensitivity.json"
    rows = [{"name": name.removesuffix(".weight"), "points": points(d)} for name, d in damage.items()]
    file.write_text(json.dumps({"schema": "aq.sensitivity/1", "layers": rows}))
    plan = aq_json("plan", MODEL, "--sensitivity", file, "--target-bpw", "3")
    reasons = {x["name"]: x["reason"] for x in plan["layers"] if x["decision"] == "quantize" and x["reason"]}
    assert list(reasons) == ["blocks.2.mlp.fc1.weight"]
    assert "sensitive: 100.0 times" in reasons["blocks.2.mlp.fc1.weight"]
    rates = {x["name"]: x["rate"] for x in plan["layers"] if x["decision"] == "quantize"}
    others = [rate for name, rate in rates.items() if name not in reasons]
    # log4(100) = 3.3 bits more.
    assert rates["blocks.2.mlp.fc1.weight"] > max(others) + 2.5 and max(others) - min(others) <= 0.25
    assert plan["allocation_gap"] < 0.01
    table = aq("plan", MODEL, "--sensitivity", file, "--target-bpw", "3", "--table")
    assert "sensitive: 100.0 times" in table
    del rows[3]
    file.write_text(json.dumps({"schema": "aq.sensitivity/1", "layers": rows}))
    argv = [command(), "plan", str(MODEL), "--sensitivity", str(file), "--target-bpw", "3"]
    done = subprocess.run(argv, capture_output=True, text=True, env=environment())
    assert done.returncode == 4 and "was not measured" in done.stderr
