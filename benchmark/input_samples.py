"""The samples that each candidate of ``benchmark.input`` reads, in the process of the candidate.

The module also runs with the code of other commits, so it imports only the mapper and a label map.
"""

import hashlib
import time
from collections.abc import Sequence

import cv2
import numpy as np
import torch

from benchmark.worker import PeakMemory, Timed
from recyclelora.data.label_maps import TRAIN_IDS
from recyclelora.data.mapper import TrainMapper

NOW, PILLOW = "this code", "without fast decoders"


def read_samples(
    system: str, pairs: Sequence[tuple[str, str]], samples: int, digest: bool
) -> Timed:
    """Read training samples with random numbers that depend only on the number of the sample.

    Parameters
    ----------
    system : str
        :data:`PILLOW` decodes without the fast decoders.
    pairs : sequence of (str, str)
        The files of images and labels.
    samples : int
        The number of samples.
    digest : bool
        Whether to compute the digest of the samples, which takes time.

    Returns
    -------
    Timed
        The processor time, the peak memory of the process, and the digest or None.
    """
    cv2.setNumThreads(0)
    if system == PILLOW:
        _remove_fast_decoders()
    mapper = TrainMapper(crop=512)
    records = [
        {"file_name": image, "sem_seg_file_name": label, "label_map": TRAIN_IDS, "image_id": image}
        for image, label in pairs
    ]
    found = hashlib.sha256()
    with PeakMemory(torch.device("cpu")) as memory:
        start = time.process_time()
        for number in range(samples):
            sample = mapper(records[number % len(records)], np.random.default_rng([number, 1]))
            if digest:
                for key in ("image", "sem_seg"):  # labels were int64 in earlier commits
                    found.update(sample[key].numpy().astype(np.uint8).tobytes())
                found.update(str(sample["seed"]).encode())
        seconds = time.process_time() - start
    return Timed(seconds, memory.peak, found.hexdigest() if digest else None)


def _remove_fast_decoders() -> None:
    """Make this process decode as if the extra ``fast`` were not installed."""
    from recyclelora.data import fast_decoding  # earlier commits lack it

    fast_decoding.simplejpeg = fast_decoding.kornia_io = None
