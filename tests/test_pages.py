"""Examples on the README and documentation pages run, tables match the results, links work."""

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
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
}


def blocks(language: str) -> list:
    """Return the code blocks of a language on all pages, each with an id."""
    return [
        pytest.param(block, id=f"{page}-{number}")
        for page, text in PAGES.items()
        for number, block in enumerate(
            re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL), start=1
        )
    ]


@pytest.mark.parametrize("block", blocks("python"))
def test_python_block_runs(block, tmp_path, monkeypatch):
    if "timm" in block:
        pytest.importorskip("timm", reason="this example needs pip install 'recyclelora[timm]'")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "example.py", "exec"), {})


@pytest.mark.parametrize("page", readme.PAGES)
def test_tables_match_results(page):
    text = (ROOT / page).read_text()
    assert readme.update_tables(page, text, ROOT / "results") == text, "run tools/update_readme.py"


def training_commands() -> list[list[str]]:
    """Return the words of every training command on the pages, without its environment."""
    text = "".join(block.values[0] for block in blocks("bash"))
    lines = text.replace("\\\n", " ").splitlines()
    commands = [
        shlex.split(line, comments=True) for line in lines if "lazyconfig_train_net" in line
    ]
    commands = [[word for word in words if not re.match(r"[A-Z_]+=", word)] for words in commands]
    return [list(words) for words in dict.fromkeys(map(tuple, commands))]


@pytest.mark.parametrize("words", training_commands(), ids=" ".join)
def test_training_command_is_valid(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    if words[0] == "torchrun":
        launcher = importlib.import_module("torch.distributed.run").get_args_parser()
        started = launcher.parse_args(words[1:])
        words = ["python", started.training_script, *started.training_script_args]
    assert words[:2] == ["python", "tools/lazyconfig_train_net.py"]
    args = train.argument_parser().parse_args(words[2:])
    check_config(load_config(args.config_file, args.opts))


def test_training_commands_use_both_launchers():
    commands = training_commands()
    assert len(commands) > 5 and {words[0] for words in commands} == {"python", "torchrun"}


@pytest.mark.parametrize(
    ("page", "link"),
    [
        (page, link)
        for page, text in PAGES.items()
        for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text)
        if not link.startswith("https://")
    ],
)
def test_link_leads_to_file(page, link):
    assert (ROOT / page).parent.joinpath(link).exists()


@pytest.mark.parametrize(
    "path", sorted({p for t in PAGES.values() for p in re.findall(r"(?:configs|tools)/\w+\.py", t)})
)
def test_named_file_exists(path):
    assert (ROOT / path).is_file()
