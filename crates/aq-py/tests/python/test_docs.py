"""The examples of docs/python.md run."""
import re
import shutil

from conftest import DIGITS, ROOT


def test_examples(tmp_path, monkeypatch, capsys):
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(examples) == 3
    shutil.copytree(DIGITS, tmp_path / "docs" / "models" / "digits-dit")
    monkeypatch.chdir(tmp_path)
    names = {}
    for example in examples:
        exec(example, names)
    assert "(384, 128) affine 4.5" in capsys.readouterr().out
