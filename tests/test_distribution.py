"""The sdist builds a wheel, and the wheel works without Detectron2."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
USES_IT = """
import sys, torch, recyclelora
from recyclelora import adapt, rrqr
from drawn_streets import draw_street
assert recyclelora.__file__.startswith(sys.argv[1]), recyclelora.__file__
assert recyclelora.library_path() and "detectron2" not in sys.modules
model = torch.nn.Sequential(torch.nn.Linear(64, 64))
x = torch.randn(2, 64)
expected = model(x)
torch.testing.assert_close(adapt(model, r_main=4, r_sub=2)(x), expected, rtol=1e-4, atol=1e-5)
assert rrqr(torch.randn(8, 12), 2, 3).q_minor.shape == (8, 3)
assert draw_street(0, 0, height=32, width=64)[0].shape == (32, 64, 3)
try:
    import detectron2
except ModuleNotFoundError:
    print("detectron2 is absent")
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Return the folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    environment = os.environ | {"RECYCLELORA_NO_CUDA": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def site_without_detectron2(tmp_path_factory) -> Path:
    """Create links to all installed packages except Detectron2 and this project's install."""
    folder = tmp_path_factory.mktemp("site")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not entry.name.startswith(
            ("detectron2", "pb1_detectron2", "__editable__", "recyclelora")
        ):
            (folder / entry.name).symlink_to(entry)
    return folder


@pytest.mark.slow
def test_wheel_holds_the_library_types_and_package_data(built):
    (wheel,) = built.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        "recyclelora/_C.abi3.so",
        "recyclelora/py.typed",
        "recyclelora/include/recyclelora/rrqr.h",
        "recyclelora/cmake/RecycleLoRAConfig.cmake",
        "recyclelora/reproduce/published.json",
        "recyclelora/configs/demo.py",
        "recyclelora/configs/common/train.py",
        "drawn_streets/py.typed",
    }
    assert expected <= names
    assert not [name for name in names if name.split("/")[0] in ("tests", "tools", "benchmark")]


@pytest.mark.slow
def test_sdist_holds_the_sources_of_the_library(built):
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "csrc").rglob("*.*")}
    assert sources <= names


@pytest.mark.slow
def test_wheel_with_detectron2_gives_shipped_configs(built, tmp_path):
    (wheel,) = built.glob("*.whl")
    installed = tmp_path / "installed"
    install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed)]
    subprocess.run([sys.executable, *install, str(wheel)], check=True)
    code = (
        "import recyclelora; from recyclelora.config import config_names, get_config;"
        "print(recyclelora.__file__, len(config_names()), get_config('demo').train.max_iter)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(installed)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    file, count, iterations = done.stdout.split()
    assert file.startswith(str(installed)) and int(iterations) > 0
    assert int(count) == len(list((ROOT / "configs").glob("*.py")))


@pytest.mark.slow
def test_wheel_without_detectron2_adapts_and_decomposes(built, site_without_detectron2, tmp_path):
    (wheel,) = built.glob("*.whl")
    install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--target",
        str(tmp_path / "installed"),
    ]
    subprocess.run([sys.executable, *install, str(wheel)], check=True)
    path = os.pathsep.join([str(tmp_path / "installed"), str(site_without_detectron2)])
    done = subprocess.run(  # -S: without the virtual environment's own site-packages
        [sys.executable, "-S", "-c", USES_IT, str(tmp_path / "installed")],
        env=os.environ | {"PYTHONPATH": path},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "detectron2 is absent"
