import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples" / "peft"


@pytest.mark.parametrize("name", ["save_peft", "init_peft"])
def test_example_runs_and_its_outputs_agree(name, tmp_path, monkeypatch, capsys):
    for library in ("peft", "transformers"):
        pytest.importorskip(library)
    monkeypatch.setattr(sys, "argv", [name, str(tmp_path / "folder")])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.count("relative") == 2
