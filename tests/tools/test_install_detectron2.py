"""tools/install_detectron2.py on small trees: patches, errors, and the order of the sources."""

import importlib.util
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "install_detectron2.py"


@pytest.fixture
def tool():
    spec = importlib.util.spec_from_file_location("install_detectron2", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tree(tmp_path):
    """Create a small archive with one module of each kind that v0.6 has."""
    root = tmp_path / "pb1-detectron2-0.6"
    files = {
        "detectron2/__init__.py": "__version__ = '0.6'\n",
        "detectron2/projects/__init__.py": "",
        "detectron2/model_zoo/__init__.py": "",
        "detectron2/model_zoo/configs/COCO/base.yaml": "A: 1\n",
        "detectron2/model_zoo/configs/common/train.py": "train = {}\n",
        "detectron2/old.py": (
            "import numpy as np\nfrom PIL import Image\n"
            "a = (Image.LINEAR, np.zeros(1, dtype=np.int), np.float, x.astype(np.bool), np.str)\n"
            "b = (Image.BILINEAR, np.int64, np.float32, np.bool_, np.integer, np.interp)\n"
        ),
        "detectron2/layers.py": "from detectron2 import _C\n",
        "projects/PointRend/point_rend/__init__.py": "NAME = 'point_rend'\n",
        "setup.py": "raise SystemExit('the archive ran its own set-up')\n",
        "setup.cfg": "[egg_info]\ntag_build = old\n",
        "PKG-INFO": "Name: pb1-detectron2\n",
        "pb1_detectron2.egg-info/requires.txt": "black==21.4b2\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_patches_only_the_names_that_are_gone(tool, tree):
    assert tool.patch_sources(tree) == 1
    lines = (tree / "detectron2/old.py").read_text().splitlines()
    assert lines[2] == "a = (Image.BILINEAR, np.zeros(1, dtype=int), float, x.astype(bool), str)"
    assert lines[3] == "b = (Image.BILINEAR, np.int64, np.float32, np.bool_, np.integer, np.interp)"
    assert tool.patch_sources(tree) == 0


def test_pure_python_package_installs_and_explains_its_missing_operators(tool, tree, tmp_path):
    tool.make_pure_python(tree)
    assert not list(tree.glob("*.egg-info")) and not (tree / "setup.cfg").exists()
    command = [sys.executable, "setup.py", "-q", "build", "--build-lib", str(tmp_path / "lib")]
    subprocess.run(command, cwd=tree, check=True, capture_output=True)
    lib = tmp_path / "lib"
    assert (lib / "detectron2/model_zoo/configs/COCO/base.yaml").is_file()
    assert (lib / "detectron2/model_zoo/configs/common/train.py").is_file()
    code = (
        "import detectron2.layers\nfrom detectron2.projects.point_rend import NAME\n"
        "print(NAME, detectron2._C.has_cuda(), hasattr(detectron2._C, '__wrapped__'))\n"
        "detectron2._C.nms_rotated()\n"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=lib, capture_output=True, text=True)
    assert result.stdout.split() == ["point_rend", "False", "False"]
    assert "detectron2._C.nms_rotated is a compiled operator" in result.stderr.splitlines()[-1]


def pack(tree: Path, folder: Path) -> Path:
    archive = folder / "pb1-detectron2-0.6.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(tree, arcname=tree.name)
    return archive


def test_another_archive_is_refused_before_any_of_it_runs(tool, tree, tmp_path, monkeypatch):
    marker = tmp_path / "ran"
    (tree / "setup.py").write_text(f"open({str(marker)!r}, 'w')\n")
    index = tmp_path / "index"
    index.mkdir()
    pack(tree, index)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    monkeypatch.setattr(tool, "pip_install", lambda target: pytest.fail("must not install"))
    with pytest.raises(tool.InstallError, match="the index returned another file"):
        tool.install_from_index()
    assert not marker.exists()


def test_an_index_without_the_archive_is_one_sentence(tool, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(tool.InstallError, match=r"Expected pip to download pb1-detectron2==0\.6"):
        tool.download_sdist(tmp_path)


def test_unpack_refuses_other_content(tool, tmp_path):
    (tmp_path / "other").mkdir()
    archive = pack(tmp_path / "other", tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(tool.InstallError, match="Expected a folder detectron2/"):
        tool.unpack(archive, tmp_path / "a")


def test_what_imports_already_is_taken(tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "installed", lambda: "0.6 in /somewhere")
    monkeypatch.setattr(tool, "install", lambda: pytest.fail("must not install"))
    assert tool.main() == 0
    assert "already installed: 0.6 in /somewhere" in capsys.readouterr().out


@pytest.mark.parametrize("answers", [True, False])
def test_github_first_then_the_index(tool, monkeypatch, capsys, answers):
    calls = []

    def failing_pip(target):
        calls.append(target)
        raise tool.InstallError("no compiler")

    monkeypatch.setattr(tool, "github_answers", lambda: answers)
    monkeypatch.setattr(tool, "pip_install", failing_pip)
    monkeypatch.setattr(tool, "install_from_index", lambda: calls.append("index"))
    tool.install()
    github = [f"git+{tool.GITHUB}@{tool.COMMIT}"] if answers else []
    assert calls == [*github, "index"]
    assert ("no compiler" in capsys.readouterr().out) == answers


def test_a_failure_is_an_error_and_a_status(tool, monkeypatch, capsys):
    def fail():
        raise tool.InstallError("Expected this, but that came")

    monkeypatch.setattr(tool, "installed", lambda: None)
    monkeypatch.setattr(tool, "install", fail)
    assert tool.main() == 1
    assert capsys.readouterr().err == "error: Expected this, but that came\n"
    monkeypatch.setattr(tool, "install", lambda: None)
    assert tool.main() == 1
    assert "does not import" not in capsys.readouterr().out


def test_a_silent_host_is_given_up_after_the_timeout(tool):
    result = tool.run([sys.executable, "-c", "import time; time.sleep(30)"], timeout=0.5)
    assert result.returncode == 1
