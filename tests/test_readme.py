"""The README's examples run, and its tables are what the JSON of the runs says."""

import importlib
import re
import shlex
from pathlib import Path

import pytest

from recyclelora.config.validation import check_config
from recyclelora.engine import train
from recyclelora.engine.build import load_config
from recyclelora.reproduce import readme

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PYTHON_BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_there_are_examples():
    assert len(PYTHON_BLOCKS) >= 2


@pytest.mark.parametrize("block", PYTHON_BLOCKS, ids=lambda block: block.splitlines()[1])
def test_examples_run(block, tmp_path, monkeypatch):
    if "timm" in block:
        pytest.importorskip("timm", reason="this example needs pip install 'recyclelora[timm]'")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})


@pytest.mark.parametrize("page", ["README.md", "projects/DrawnStreets/README.md"])
def test_tables_are_those_of_the_results(page):
    text = (ROOT / page).read_text()
    assert readme.update_tables(page, text, ROOT / "results") == text, "run tools/update_readme.py"


def training_commands() -> list[list[str]]:
    """The words of every command of README.md that trains, from the program on."""
    blocks = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line, comments=True) for line in lines if "lazyconfig_train_net" in line
    ]
    return [[word for word in words if not re.match(r"[A-Z_]+=", word)] for words in commands]


@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_readme_training_command_is_valid(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[0] == "torchrun":
        launcher = importlib.import_module("torch.distributed.run").get_args_parser()
        started = launcher.parse_args(words[1:])
        words = ["python", started.training_script, *started.training_script_args]
    assert words[:2] == ["python", "tools/lazyconfig_train_net.py"]
    args = train.argument_parser().parse_args(words[2:])
    check_config(load_config(args.config_file, args.opts))


def test_readme_training_commands_are_found():
    commands = training_commands()
    assert len(commands) > 5 and {words[0] for words in commands} == {"python", "torchrun"}


@pytest.mark.parametrize("link", re.findall(r"\]\(([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()


@pytest.mark.parametrize("path", sorted(set(re.findall(r"(?:configs|tools)/\w+\.py", README))))
def test_files_named_are_there(path):
    assert (ROOT / path).is_file()
