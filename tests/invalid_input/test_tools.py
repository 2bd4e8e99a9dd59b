"""Every command line with invalid arguments: one message, exit code 1 or 2."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"
TRAIN = "lazyconfig_train_net.py --config-file tests/support/tiny_config.py"
PREDICT = "predict.py --config-file tests/support/tiny_config.py --out OUT"
EXPORT_BACKBONE = "export_backbone.py --config-file tests/support/tiny_config.py"
EXPORT_SEGMENTOR = "export_segmentor.py --config-file tests/support/tiny_config.py"
NOT_A_COUNT = "expected a whole number from 1"

# The arguments -> a part of the message. OUT is an output folder, FILE an existing file.
COMMANDS = [
    ("lazyconfig_train_net.py", "expected a config, got none: give --config-file"),
    ("lazyconfig_train_net.py --config-file", "expected one argument"),
    ("lazyconfig_train_net.py --config-file nowhere.py", "no config at nowhere.py"),
    (f"{TRAIN} --nonsense", "the form key=value|options must precede|unrecognized arguments"),
    (f"{TRAIN} --num-gpus x", "invalid int value"),
    (f"{TRAIN} --num-gpus 0", "--num-gpus must be a whole number from 1"),
    (f"{TRAIN} --num-gpus -3", "--num-gpus must be a whole number from 1"),
    (f"{TRAIN} --num-machines 0", "--num-machines must be a whole number from 1"),
    (f"{TRAIN} --machine-rank 5", "--machine-rank must be a whole number from 0 to 0, got 5"),
    (f"{TRAIN} --eval-only train.output_dir=OUT", "no checkpoint to evaluate"),
    (f"{TRAIN} train.output_dir=FILE", "must be a folder to write to"),
    ("draw_streets.py", "arguments are required: root, --count"),
    ("draw_streets.py OUT --count many", "invalid int value: 'many'"),
    ("draw_streets.py OUT --count 0", "at least 1"),
    ("draw_streets.py OUT --count 1 --domain dawn", "unknown street domain 'dawn'"),
    ("draw_streets.py OUT --count 1 --height 1", "32 to 8192 pixels"),
    ("draw_streets.py OUT --count 1 --width 100000", "32 to 8192 pixels"),
    ("draw_streets.py OUT --count 1 --seed -1", "not be negative"),
    ("draw_streets.py OUT --count 1 --workers 0", "at least 1"),
    ("draw_streets.py OUT --count 1 --image-format tiff", "unknown image format"),
    ("draw_streets.py FILE --count 1", "is a file: name a folder"),
    ("draw_streets.py FILE/below --count 1", "Not a directory"),
    ("predict.py", "arguments are required"),
    (f"{PREDICT} --checkpoint FILE nowhere.jpg", "no photograph or folder at nowhere.jpg"),
    (f"{PREDICT} --checkpoint FILE tests", "expected a picture"),
    (f"{PREDICT} --checkpoint nowhere.pth docs/demo.jpg", "no checkpoint at nowhere.pth"),
    (f"{PREDICT} --checkpoint FILE docs/demo.jpg", "FILE"),
    (f"{PREDICT} --checkpoint FILE docs/demo.jpg train.device=x", "train.device must be auto"),
    (
        "export_trained.py --config-file tests/support/tiny_config.py nowhere.pth OUT",
        "no checkpoint at",
    ),
    ("export_trained.py --config-file tests/support/tiny_config.py FILE OUT", "FILE"),
    (f"{EXPORT_SEGMENTOR} nowhere.pth OUT", "no checkpoint at"),
    (f"{EXPORT_SEGMENTOR} FILE OUT", "FILE"),
    (f"{EXPORT_BACKBONE} nowhere.pth OUT --layout timm", "no checkpoint at"),
    (f"{EXPORT_BACKBONE} FILE OUT --layout timm", "FILE"),
    (f"{EXPORT_BACKBONE} FILE OUT --layout jax", "invalid choice: 'jax'"),
    (f"{EXPORT_BACKBONE} FILE OUT", "arguments are required: --layout"),
    ("reproduce.py --table nonsense", "invalid choice: 'nonsense'"),
    ("reproduce.py --table streets_to_real --row none", "no row none in streets_to_real"),
    ("reproduce.py --table streets_to_real --seeds -3", "no seed -3 in streets_to_real"),
    ("reproduce.py train.max_iter=3", "give --scratch FOLDER"),
    ("reproduce.py --row 2", "expected names of tables, got none"),
    ("reproduce.py --table 13", "invalid choice: '13'"),
    ("reproduce.py --table 9 --row 10", "no row 10 in 9: choose from 1, 2, 3"),
    ("reproduce.py --table 3 --row 1", "quoted from the paper"),
    ("reproduce.py --table 9 --seeds -3", "a seed must be"),
    ("reproduce.py --table 9 --num-gpus 0", "--num-gpus must be"),
    ("check_datasets.py cityscapes", "expected the name of a registered dataset, got 'cityscapes'"),
    ("check_datasets.py bdd100k_val --workers 0", "workers must be a whole number from 1"),
    ("check_datasets.py bdd100k_val --workers two", "invalid int value: 'two'"),
    ("check_datasets.py bdd100k_val --json tests", "--json: expected a file in a folder"),
    ("check_datasets.py bdd100k_val --json OUT/x.json", "--json: expected a file in a folder"),
    ("update_readme.py --nonsense", "unrecognized arguments: --nonsense"),
    ("demo.py --nonsense", "unrecognized arguments: --nonsense"),
    ("install_detectron2.py --nonsense", "unrecognized arguments: --nonsense"),
    ("benchmark/rrqr.py --device tpu", "--device must be auto, cpu, cuda or cuda:N, got 'tpu'"),
    ("benchmark/rrqr.py --rounds 0", NOT_A_COUNT),
    ("benchmark/rrqr.py --models gigantic", "expected one of"),
    ("benchmark/rrqr.py --models tiny:40x", "invalid model_size value"),
    ("benchmark/rrqr.py --sizes 0", NOT_A_COUNT),
    ("benchmark/rrqr.py --threads -1", NOT_A_COUNT),
    ("benchmark/rrqr.py --output FILE/below.json", "FILE (File exists)"),
    ("benchmark/adapter.py --width 0", NOT_A_COUNT),
    ("benchmark/adapter.py --rows 1.5", NOT_A_COUNT),
    ("benchmark/adapter.py --precisions int8", "invalid choice: 'int8'"),
    ("benchmark/adapter.py --output tests", "expected a file to write, got the folder tests"),
    ("benchmark/step.py --crop 0", NOT_A_COUNT),
    ("benchmark/step.py --backbone vit_xxl", "invalid choice: 'vit_xxl'"),
    ("benchmark/memory.py --runs dinov2_l:0", NOT_A_COUNT),
    ("benchmark/memory.py --runs vit_l", "expected NAME:BATCH with a name of"),
]
if not torch.cuda.is_available():
    COMMANDS += [
        (f"{TRAIN} --num-gpus 2", "torch finds 0"),
        (f"{TRAIN} --num-machines 2", "needs a GPU on each"),
        (f"{TRAIN} train.device=cuda", "train.device=cuda needs a GPU, but torch finds none"),
        ("benchmark/rrqr.py --device cuda", "needs a GPU, but torch finds none"),
    ]


@pytest.fixture
def typed(monkeypatch, tmp_path, capfd):
    """``typed("tool.py --option")``: the output of the tool, run as a program in this process."""
    file = tmp_path / "FILE"
    file.write_text("neither weights nor a picture")

    def run(command: str) -> str:
        words = command.replace("OUT", str(tmp_path / "OUT")).replace("FILE", str(file)).split(" ")
        monkeypatch.chdir(ROOT)
        module, arguments = words[0].removesuffix(".py").replace("/", "."), words[1:]
        module = module if "." in module else f"tools.{module}"
        monkeypatch.setattr(sys, "argv", [words[0], *arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module(module, run_name="__main__")
        out, err = capfd.readouterr()
        code = stopped.value.code
        assert code == 1 or code == 2 or isinstance(code, str), code  # a text is exit code 1
        said = code if isinstance(code, str) else err
        assert "Traceback" not in out + err and not said.startswith("error: unexpected")
        return said.strip().splitlines()[-1]

    return run


@pytest.mark.parametrize(("command", "words"), COMMANDS, ids=lambda text: text[:70])
def test_invalid_command_exits_with_one_message(command, words, typed, tmp_path):
    said = typed(command)
    assert any(one in said for one in words.split("|")), said
    left = [p for p in tmp_path.rglob("*") if p.suffix in (".pth", ".png", ".json", ".tmp")]
    assert not left and (tmp_path / "FILE").read_text() == "neither weights nor a picture"


# Environment variables of a user -> a part of the message, or None if the run succeeds.
ENVIRONMENT = [
    ({"RANK": "0", "WORLD_SIZE": "2"}, "start by torchrun, or unset them"),
    ({"RANK": "first", "WORLD_SIZE": "1"}, "RANK is 'first'"),
    ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, "LOCAL_WORLD_SIZE is None"),
    ({"RANK": "5", "WORLD_SIZE": "2"}, "start by torchrun, or unset them"),
]


@pytest.mark.parametrize(("variables", "words"), ENVIRONMENT, ids=str)
def test_inconsistent_torchrun_variables_exit_with_message(variables, words, typed, monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert words in typed(TRAIN)


@pytest.mark.parametrize(
    ("variable", "value", "dataset", "words"),
    [
        ("DETECTRON2_DATASETS", "/nowhere", "gtav_train", "set DETECTRON2_DATASETS to"),
        ("DETECTRON2_DATASETS", "/dev/null", "cityscapes_val", "set DETECTRON2_DATASETS to"),
        ("RECYCLELORA_DATA", "/nowhere", "camvid_dusk", "set RECYCLELORA_DATA to"),
        ("RECYCLELORA_DATA", "", "camvid_dusk", "environment variable RECYCLELORA_DATA is not set"),
    ],
)
def test_variable_without_folder_stops_the_run(
    variable, value, dataset, words, refusal, monkeypatch
):
    monkeypatch.setenv(variable, value)
    assert words in refusal(f"dataloader.train.dataset={dataset}")


def test_demo_config_missing_real_sets_stops_the_run(refusal, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_DATA", "/nowhere")
    said = refusal(f"--config-file={ROOT / 'configs' / 'demo.py'}")
    assert "RECYCLELORA_DATA: expected a folder, got /nowhere" in said


def test_cache_that_is_no_folder_stops_the_run(refusal, monkeypatch):
    monkeypatch.setenv("RECYCLELORA_CACHE", "/dev/null")
    assert "/dev/null" in refusal("model.backbone.module.weights=dinov2_vitl14")


@pytest.mark.slow
def test_invalid_override_on_the_terminal_prints_one_line(street_files, tmp_path):
    """The message is the same if variables of other libraries have invalid values."""
    command = [sys.executable, str(TOOLS / "lazyconfig_train_net.py"), "--config-file"]
    command += ["tests/support/tiny_config.py", f"dataloader.streets={street_files}"]
    command += [f"train.output_dir={tmp_path / 'run'}", "train.max_iter=never"]
    nonsense = {"OMP_NUM_THREADS": "many", "CUDA_VISIBLE_DEVICES": "the fast one"}
    environment = os.environ | nonsense | {"RECYCLELORA_NO_CUDA": "perhaps"}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1 and "Traceback" not in done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == (
        "error: train.max_iter must be a whole number from 1 to 1,000,000,000, got 'never'"
    )
    assert not (tmp_path / "run").exists()
