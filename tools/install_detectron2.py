"""Install Detectron2 in the Python that runs this script: ``python tools/install_detectron2.py``.

The package index has no package of this name, so the script tries three sources in turn:

1. a Detectron2 that can already be imported;
2. its GitHub repository at a pinned commit, if the server answers within seconds (pip then compiles
   the C++ operators);
3. the source archive ``pb1-detectron2==0.6`` of the package index, which contains the Python files
   of the official tag v0.6 without the C++ sources. pip checks its sha256 before any of its code
   runs. The script patches the archive for current libraries and installs it as pure Python.

Only this script changes v0.6. The package recyclelora supports both v0.6 and GitHub's main. Install
torch before running this script.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

GITHUB = "https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"  # of branch main, after v0.6
GITHUB_TIMEOUT = 10.0
SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
PURE_VERSION = "0.6+pure"

# Requirements of the Python part: the list of v0.6 without black (pinned to 2021), future and pydot
# (used by exports that are left out). setuptools is bounded because v0.6 imports pkg_resources.
REQUIREMENTS = (
    "Pillow>=7.1",
    "cloudpickle",
    "fvcore>=0.1.5,<0.1.6",
    "hydra-core>=1.1",
    "iopath>=0.1.7,<0.1.10",
    "matplotlib",
    "omegaconf>=2.1",
    "pycocotools>=2.0.2",
    "setuptools<81",
    "tabulate",
    "tensorboard",
    "termcolor>=1.1",
    "tqdm>4.29.0",
    "yacs>=0.1.8",
)

# v0.6 was written for Pillow < 10 and NumPy < 1.24, which had these names.
REPLACEMENTS = (
    (re.compile(r"\bImage\.LINEAR\b"), "Image.BILINEAR"),
    (re.compile(r"\bnp\.(int|float|bool|str)\b"), r"\1"),
)

PLACEHOLDER = '''\
"""Replaces the compiled operators of detectron2: this copy is pure Python."""


def get_compiler_version():
    return "none (pure Python)"


def get_cuda_version():
    return "none (pure Python)"


def has_cuda():
    return False


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    raise NotImplementedError(
        f"detectron2._C.{name} is a compiled operator and this detectron2 was installed as pure "
        "Python: install detectron2 from its GitHub repository to use it."
    )
'''

SETUP_PY = """\
from setuptools import find_packages, setup

PROJECTS = {projects!r}

setup(
    name="detectron2",
    version={version!r},
    description="detectron2 v0.6, its Python part, patched for current libraries",
    license="Apache-2.0",
    packages=find_packages(include=["detectron2", "detectron2.*"]) + list(PROJECTS),
    package_dir=PROJECTS,
    package_data={{"detectron2.model_zoo": {configs!r}}},
    install_requires={requirements!r},
)
"""


class InstallError(RuntimeError):
    """An error whose message states what was expected, what happened, and what to do."""


def say(message: str) -> None:
    """Print a line of progress without buffering."""
    print(f"[detectron2] {message}", flush=True)


def run(command: list[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints; a time-out counts as a failure."""
    # No terminal prompt: GitHub asking for a password behind a proxy must not hang the set-up.
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=env,
            check=False,
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def last_lines(result: subprocess.CompletedProcess[str], count: int = 8) -> str:
    """Return the last lines of a failed command's output, for an error message."""
    lines = (result.stdout + "\n" + result.stderr).strip().splitlines()
    return "\n".join(lines[-count:])


def installed() -> str | None:
    """Return the version and folder of the installed detectron2, or None."""
    # A new process also finds a package that has just been installed.
    code = (
        "import detectron2, detectron2.data, detectron2.engine, detectron2.modeling\n"
        "print(detectron2.__version__, 'in', detectron2.__path__[0])"
    )
    result = run([sys.executable, "-W", "ignore", "-c", code])
    if result.returncode == 0:
        return result.stdout.strip().splitlines()[-1]
    reason = last_lines(result, 1)
    if "No module named 'detectron2'" not in reason:
        say(f"the installed detectron2 cannot be imported ({reason})")
    return None


def github_answers() -> bool:
    """Return whether the GitHub repository answers within ``GITHUB_TIMEOUT`` seconds."""
    return run(["git", "ls-remote", GITHUB, "HEAD"], timeout=GITHUB_TIMEOUT).returncode == 0


def pip_install(target: str) -> None:
    """Install a package that builds with the installed torch."""
    result = run([sys.executable, "-m", "pip", "install", "--no-build-isolation", target])
    if result.returncode != 0:
        raise InstallError(
            f"Expected pip to install {target}, but it failed:\n{last_lines(result)}"
        )


def download_sdist(folder: Path) -> Path:
    """Download the source archive from the package index to ``folder``, and check its sha256."""
    # pip runs the archive's setup.py to get its metadata, so pip itself must first check the hash.
    pinned = folder / "requirement.txt"
    pinned.write_text(f"{SDIST} --hash=sha256:{SDIST_SHA256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    command += ["--no-binary", ":all:", "--require-hashes", "--dest", str(folder)]
    result = run([*command, "--requirement", str(pinned)])
    if "DO NOT MATCH THE HASHES" in result.stdout + result.stderr:
        raise InstallError(
            f"Expected sha256 {SDIST_SHA256} for {SDIST}, but the index returned another file. "
            f"Nothing was installed: check your package index.\n{last_lines(result, 4)}"
        )
    archives = sorted(folder.glob("*.tar.gz"))
    if result.returncode != 0 or not archives:
        raise InstallError(
            f"Expected pip to download {SDIST} from the package index, but it failed (it needs "
            "torch, and pip 23.2 to 25.3, because pip 26 rejects this archive):\n"
            f"{last_lines(result)}"
        )
    return archives[0]


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive and return its single top folder."""
    with tarfile.open(archive) as tar:
        # Reject paths and links that lead outside, if this release of Python supports the filter.
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(folder)
    (root,) = [entry for entry in folder.iterdir() if entry.is_dir()]
    if not (root / "detectron2" / "__init__.py").is_file():
        raise InstallError(f"Expected a folder detectron2/ in {archive.name}, but found none.")
    return root


def patch_sources(root: Path) -> int:
    """Replace names that Pillow and NumPy have removed; return the number of changed files."""
    changed = 0
    for path in sorted(root.rglob("*.py")):
        before = path.read_text(encoding="utf-8")
        after = before
        for pattern, replacement in REPLACEMENTS:
            after = pattern.sub(replacement, after)
        if after != before:
            path.write_text(after, encoding="utf-8")
            changed += 1
    return changed


def make_pure_python(root: Path) -> None:
    """Turn the unpacked archive into a pure-Python package named detectron2."""
    (root / "detectron2" / "_C.py").write_text(PLACEHOLDER, encoding="utf-8")
    projects = {
        f"detectron2.projects.{package.name}": str(package.relative_to(root))
        for package in sorted((root / "projects").glob("*/*"))
        if (package / "__init__.py").is_file()
    }
    zoo = root / "detectron2" / "model_zoo"
    configs = [str(path.relative_to(zoo)) for path in sorted(zoo.rglob("configs/**/*.*"))]
    text = SETUP_PY.format(
        projects=projects, version=PURE_VERSION, configs=configs, requirements=list(REQUIREMENTS)
    )
    (root / "setup.py").write_text(text, encoding="utf-8")
    # The old metadata and tool settings describe another distribution.
    for stale in ("setup.cfg", "PKG-INFO"):
        (root / stale).unlink(missing_ok=True)
    for stale_info in root.glob("*.egg-info"):
        shutil.rmtree(stale_info)


def install_from_index() -> None:
    """Install from source 3: download, check, patch and install the archive."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
        folder = Path(temporary)
        say(f"fetching {SDIST} from the package index")
        root = unpack(download_sdist(folder), folder)
        changed = patch_sources(root)
        make_pure_python(root)
        say(f"patched {changed} files for current Pillow and NumPy, installing as pure Python")
        pip_install(str(root))


def install() -> None:
    """Install from source 2, or from source 3 if that fails."""
    if not github_answers():
        say(f"GitHub did not answer within {GITHUB_TIMEOUT:.0f} s")
        install_from_index()
        return
    say(f"GitHub answers: building commit {COMMIT[:12]} (compiles C++, takes minutes)")
    try:
        pip_install(f"git+{GITHUB}@{COMMIT}")
    except InstallError as error:
        say(f"{error}\ntrying the package index")
        install_from_index()


def main() -> int:
    """Install detectron2 if it is missing, and return the exit status."""
    found = installed()
    if found:
        say(f"already installed: {found}")
        return 0
    try:
        install()
        found = installed()
        if not found:
            raise InstallError(
                "Expected to import detectron2 after its installation, but this failed: run "
                f"`{sys.executable} -c 'import detectron2.modeling'` to see the reason."
            )
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    say(f"installed: {found}")
    return 0


if __name__ == "__main__":
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()  # only --help
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
