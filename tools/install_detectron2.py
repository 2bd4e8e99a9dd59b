"""Put detectron2 into the Python that runs this script: ``python tools/install_detectron2.py``.

detectron2 is on no package index under its own name, so set-up tries three sources in turn:

1. a detectron2 that already imports is taken as it is;
2. its GitHub repository at a pinned commit, if it answers within seconds (it compiles its own C++);
3. the source archive ``pb1-detectron2==0.6`` of the package index: the Python files of the official
   v0.6 tag without the C++ sources. Its sha256 is checked, then it is patched for today's libraries
   and installed as a pure-Python package.

Everything that v0.6 needs changed is changed here and nowhere else: the package itself imports
detectron2 and runs on v0.6 and on GitHub's main alike. torch must be installed before.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path

GITHUB = "https://github.com/facebookresearch/detectron2.git"
COMMIT = "02b5c4e295e990042a714712c21dc79b731e8833"  # of branch main, after v0.6
GITHUB_TIMEOUT = 10.0
SDIST = "pb1-detectron2==0.6"
SDIST_SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
PURE_VERSION = "0.6+pure"

# v0.6 was written for Pillow < 10 and NumPy < 1.24, which still had these names.
REPLACEMENTS = (
    (re.compile(r"\bImage\.LINEAR\b"), "Image.BILINEAR"),
    (re.compile(r"\bnp\.(int|float|bool|str)\b"), r"\1"),
)

PLACEHOLDER = '''\
"""Stands where the compiled operators of detectron2 would be: this copy is pure Python."""


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

SETUP_PY = '''\
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
)
'''


class InstallError(RuntimeError):
    """One sentence for the user: what was expected, what came, what to do."""


def say(message: str) -> None:
    """Print one line of progress, at once."""
    print(f"[detectron2] {message}", flush=True)


def run(command: list[str], timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints; a time-out counts as a failure."""
    # No terminal prompt: GitHub asking for a password behind a proxy must not hang the set-up.
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout, env=env, check=False
        )
    except (subprocess.TimeoutExpired, FileNotFoundError) as error:
        return subprocess.CompletedProcess(command, 1, "", str(error))


def last_lines(result: subprocess.CompletedProcess[str], count: int = 8) -> str:
    """The end of what a failed command printed, for an error message."""
    lines = (result.stdout + "\n" + result.stderr).strip().splitlines()
    return "\n".join(lines[-count:])


def installed() -> str | None:
    """Version and place of the detectron2 that this Python imports, None if it imports none."""
    # Asked of a child, so that what is installed a moment later is seen, and outside this folder.
    code = "import detectron2, detectron2.data, detectron2.modeling, detectron2.model_zoo as z;"
    code += "print(detectron2.__version__, 'in', detectron2.__path__[0])"
    result = run([sys.executable, "-W", "ignore", "-c", code])
    return result.stdout.strip().splitlines()[-1] if result.returncode == 0 else None


def github_answers() -> bool:
    """Whether the GitHub repository can be reached within ``GITHUB_TIMEOUT`` seconds."""
    return run(["git", "ls-remote", GITHUB, "HEAD"], timeout=GITHUB_TIMEOUT).returncode == 0


def pip_install(target: str) -> subprocess.CompletedProcess[str]:
    """Install one thing that builds against the torch that is already here."""
    # --no-deps: the archive pins black and old iopath; requirements/base.txt has what is needed.
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation"]
    return run([*command, target])


def download_sdist(folder: Path) -> Path:
    """Fetch the source archive from the package index into ``folder``."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    result = run([*command, "--no-binary", ":all:", "--dest", str(folder), SDIST])
    archives = sorted(folder.glob("*.tar.gz"))
    if result.returncode != 0 or not archives:
        raise InstallError(
            f"Expected pip to download {SDIST} from the package index, but it failed (it needs "
            f"torch installed and pip 23.2 to 25.3; pip 26 refuses this archive):\n"
            f"{last_lines(result)}"
        )
    return archives[0]


def check_sha256(archive: Path, expected: str) -> None:
    """Refuse an archive whose bytes are not the ones that were reviewed."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != expected:
        raise InstallError(
            f"Expected sha256 {expected} for {archive.name}, but it is {found}: the archive is not "
            "the reviewed one and nothing was installed; clear pip's cache and try again."
        )


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack the archive and return its single top folder."""
    with tarfile.open(archive) as tar:
        # The `data` filter refuses absolute paths and links that lead outside.
        tar.extractall(folder, filter="data")
    (root,) = [entry for entry in folder.iterdir() if entry.is_dir()]
    if not (root / "detectron2" / "__init__.py").is_file():
        raise InstallError(f"Expected a folder detectron2/ in {archive.name}, but found none.")
    return root


def patch_sources(root: Path) -> int:
    """Replace names that Pillow and NumPy no longer have; returns how many files changed."""
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
    text = SETUP_PY.format(projects=projects, version=PURE_VERSION, configs=configs)
    (root / "setup.py").write_text(text, encoding="utf-8")
    # Its old metadata and tool settings describe another distribution.
    for stale in ("setup.cfg", "PKG-INFO"):
        (root / stale).unlink(missing_ok=True)
    for stale_info in root.glob("*.egg-info"):
        shutil.rmtree(stale_info)


def install_from_index() -> None:
    """Source 3: download, check, patch, install."""
    with tempfile.TemporaryDirectory(prefix="detectron2-") as temporary:
        folder = Path(temporary)
        say(f"fetching {SDIST} from the package index")
        archive = download_sdist(folder)
        check_sha256(archive, SDIST_SHA256)
        root = unpack(archive, folder)
        changed = patch_sources(root)
        make_pure_python(root)
        say(f"patched {changed} files for current Pillow and NumPy, installing as pure Python")
        result = pip_install(str(root))
        if result.returncode != 0:
            raise InstallError(
                "Expected pip to install the patched detectron2 v0.6, but it failed:\n"
                f"{last_lines(result, 20)}"
            )


def main() -> int:
    """Install detectron2 unless it is there; returns the exit status."""
    found = installed()
    if found:
        say(f"already installed: {found}")
        return 0
    try:
        if github_answers():
            say(f"GitHub answers: building commit {COMMIT[:12]} (compiles C++, takes minutes)")
            result = pip_install(f"git+{GITHUB}@{COMMIT}")
            if result.returncode != 0:
                say(f"the build from GitHub failed, the package index is next:\n{last_lines(result)}")
                install_from_index()
        else:
            say(f"GitHub does not answer within {GITHUB_TIMEOUT:.0f} s")
            install_from_index()
    except InstallError as error:
        print(textwrap.dedent(f"error: {error}"), file=sys.stderr)
        return 1
    found = installed()
    if not found:
        print(
            "error: Expected detectron2 to import after its installation, but it does not: run "
            f"`{sys.executable} -c 'import detectron2.modeling'` to see why.",
            file=sys.stderr,
        )
        return 1
    say(f"installed: {found}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
