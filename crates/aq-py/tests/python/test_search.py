"""The search for a plan from Python."""
import json

import pytest

import arrow_quant as aq
from conftest import DIGITS


def rates(plan):
    rows = [json.loads(line[4:]) for line in open(plan) if line.startswith("  - ")]
    return [row["rate"] for row in rows if row["decision"] == "quantize"]


def uneven(plan):
    """A score that falls when neighbours have different rates."""
    own = rates(plan)
    return sum(abs(abs(a - b) - 1) for a, b in zip(own, own[1:]))


OPTIONS = {"target_bpw": 2.6, "method": "entropy", "evaluations": 13, "threads": 2}


def test_a_callable_scores_plans_that_quantize_takes(tmp_path):
    told = []
    plan = tmp_path / "plan.yaml"
    found = aq.search(DIGITS, plan, fitness=uneven, seed=3, progress=lambda *event: told.append(event), **OPTIONS)
    assert found["schema"] == "aq.search/1" and found["evaluations"] == 13
    assert found["best"]["score"] == uneven(plan) <= found["start"]["score"]
    assert (13, 13) in [event[:2] for event in told]
    report = aq.quantize(DIGITS, tmp_path / "out.parquet", plan=plan)
    assert 0.98 * 2.6 <= report["output"]["bits_per_weight"] <= 2.6
    again = aq.search(DIGITS, tmp_path / "again.yaml", fitness=uneven, seed=3, **{**OPTIONS, "threads": 1})
    assert again == found
    with pytest.raises(aq.AqError, match="exists"):
        aq.search(DIGITS, plan, **OPTIONS)


def test_what_a_callable_raises_is_raised(tmp_path):
    def fails(plan):
        raise KeyError("no such score")

    with pytest.raises(KeyError, match="no such score"):
        aq.search(DIGITS, tmp_path / "plan.yaml", fitness=fails, **OPTIONS)
    with pytest.raises(TypeError):
        aq.search(DIGITS, tmp_path / "plan.yaml", fitness=lambda plan: "good", **OPTIONS)
    with pytest.raises(aq.ConfigError, match="target"):
        aq.search(DIGITS, tmp_path / "plan.yaml", fitness=uneven)
    assert not (tmp_path / "plan.yaml").exists()
