"""The examples of docs/python.md that need torch run."""
import re
from pathlib import Path

from small_diffusers import dit, pipeline

ROOT = Path(__file__).resolve().parents[4]


def test_examples(tmp_path, monkeypatch):
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python torch\n(.*?)```", text, re.S)
    assert len(examples) == 2
    monkeypatch.chdir(tmp_path)
    dit().save_pretrained("dit")
    pipeline().save_pretrained("pipeline")
    names = {}
    for example in examples:
        exec(example, names)
    assert (tmp_path / "pipeline-4bit" / "transformer" / "config.json").is_file()
