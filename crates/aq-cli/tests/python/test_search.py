"""The search for a plan: reproducible, resumable, never worse than it begins, and of the size that is asked for."""
import json
import subprocess
import sys

import pytest

from conftest import DIGITS, aq, aq_json, command, environment

MODEL = DIGITS / "model.safetensors"
CALIBRATION = DIGITS / "calib.safetensors"
# A score in which pairs of layers interact: it falls when neighbours have different rates.
SCORE = """
import json, sys
rows = [json.loads(line[4:]) for line in open(sys.argv[1]) if line.startswith("  - ")]
rates = [row["rate"] for row in rows if row["decision"] == "quantize"]
print("read", len(rates))
print("score:", sum(4.0 ** -r for r in rates) + sum(abs(abs(a - b) - 1) for a, b in zip(rates, rates[1:])))
"""


@pytest.fixture
def fitness(tmp_path):
    script = tmp_path / "score.py"
    script.write_text(SCORE)
    return f"{sys.executable} {script} {{plan}}"


def search(out, *options, bpw=2.6):
    arguments = ["--target-bpw", bpw, "--method", "entropy", "--force", *options]
    return aq_json("search", MODEL, "-o", out, *arguments), out.read_text()


def test_a_search_is_reproducible_and_better(fitness, tmp_path):
    options = ["--fitness", fitness, "--evaluations", "24", "--seed", "5"]
    report, plan = search(tmp_path / "one.yaml", *options, "--threads", "1")
    again, same = search(tmp_path / "two.yaml", *options, "--threads", "2")
    assert plan == same and report == again
    assert report["best"]["score"] < report["start"]["score"] and report["evaluations"] == 24
    assert report["history"] == sorted(report["history"], reverse=True)
    other, _ = search(tmp_path / "three.yaml", *options[:-1], "6", "--threads", "2")
    assert other["start"] == report["start"] and other["history"] != report["history"]


def test_a_stopped_search_goes_on(fitness, tmp_path):
    whole, plan = search(tmp_path / "whole.yaml", "--fitness", fitness, "--evaluations", "25")
    part = ["--fitness", fitness, "--checkpoint", tmp_path / "known.json"]
    search(tmp_path / "part.yaml", *part, "--evaluations", "9")
    resumed, same = search(tmp_path / "part.yaml", *part, "--evaluations", "25")
    assert same == plan and resumed["best"] == whole["best"]
    (tmp_path / "known.json").write_text("{}")
    refused(tmp_path, *part, "--evaluations", "9", status=4, word="known.json")


def refused(tmp_path, *options, status, word):
    argv = [command(), "search", MODEL, "-o", tmp_path / "no.yaml", "--method", "entropy", "--target-bpw", "2.6", *options]
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, env=environment())
    assert done.returncode == status and word in done.stderr, done.stderr
    assert not (tmp_path / "no.yaml").exists()


def test_what_cannot_be_scored_is_said(tmp_path):
    refused(tmp_path, "--fitness", "python score.py", status=2, word="{plan}")
    refused(tmp_path, "--fitness", "echo no plan like {plan} >&2; exit 7", status=1, word="no plan like")
    refused(tmp_path, "--fitness", "echo {plan}", status=1, word="no number")
    refused(tmp_path, "--plan", "x.yaml", status=2, word="--plan")


def test_smoothing_and_time_groups_are_searched_for(tmp_path):
    script = tmp_path / "score.py"
    script.write_text("""
import json, sys
rows = [json.loads(line[4:]) for line in open(sys.argv[1]) if line.startswith("  - ")]
rows = [row for row in rows if row["decision"] == "quantize"]
print(sum(row["time_groups"] != 5 for row in rows) + sum(row["smoothing"] != {"alpha": 50} for row in rows))
""")
    inputs = ["--calibration", CALIBRATION, "--act-bits", "8", "--act-mode", "groups"]
    options = [*inputs, "--method", "ls", "--group-size", "64", "--target-bpw", "3.8", "--force"]
    genes = ["--groups", "2,5", "--smoothings", "off,0.5", "--evaluations", "60", "--fitness", f"{sys.executable} {script} {{plan}}"]
    report = aq_json("search", MODEL, "-o", tmp_path / "plan.yaml", *options, *genes)
    assert report["best"]["score"] < 0.6 * report["start"]["score"]
    assert {row["time_groups"] for row in report["layers"] if row["decision"] == "quantize"} <= {2, 5}
    done = aq_json("quantize", MODEL, "-o", tmp_path / "out.parquet", *inputs, "--plan", tmp_path / "plan.yaml")
    groups = {row["name"]: row.get("time_groups") for row in report["layers"]}
    measured = [t for t in done["tensors"] if t.get("activations", {}).get("groups")]
    assert measured and all(t["activations"]["groups"] <= groups[t["name"]] for t in measured)
    assert done["output"]["bits_per_weight"] <= 3.8


def test_plans_of_several_methods_meet_the_size_and_are_taken(tmp_path):
    report, _ = search(tmp_path / "plan.yaml", "--calibration", CALIBRATION, "--methods", "gptq,ls", "--evaluations", "8", bpw=3.7)
    assert report["best"]["score"] <= report["start"]["score"]
    methods = {row["method"] for row in report["layers"] if row["decision"] == "quantize"}
    assert methods <= {"gptq", "ls"}
    out = tmp_path / "out.parquet"
    done = aq_json("quantize", MODEL, "-o", out, "--calibration", CALIBRATION, "--plan", tmp_path / "plan.yaml")
    assert 0.98 * 3.7 <= done["output"]["bits_per_weight"] <= 3.7
    planned = {row["name"]: row["method"] for row in report["layers"]}
    assert {t["name"]: t["method"] for t in done["tensors"]} == planned
    assert aq("search", "--help").count("{plan}") >= 2
    assert json.loads(aq("inspect", out, "--json"))["tensors"]
