"""The process of one candidate of ``benchmark.input``, which reads samples on one core.

The process also runs with the code of other commits, so it imports only the mapper and a label map.
"""

import ctypes
import hashlib
import json
import os
import re
import sys
import time
from pathlib import Path

os.sched_setaffinity(0, {int(sys.argv[1])})
if sys.argv[2:] == ["pillow"]:
    sys.modules["kornia_rs"] = sys.modules["simplejpeg"] = None  # makes their import fail

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from recyclelora.data.label_maps import TRAIN_IDS  # noqa: E402
from recyclelora.data.mapper import TrainMapper  # noqa: E402


def read(task: dict) -> dict:
    """Read the samples of a task."""
    mapper = TrainMapper(crop=512)
    records = [
        {"file_name": image, "sem_seg_file_name": label, "label_map": TRAIN_IDS, "image_id": image}
        for image, label in task["pairs"]
    ]
    digest = hashlib.sha256()
    ctypes.CDLL(None).malloc_trim(0)  # returns memory that an earlier task freed
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # resets the peak
    start = time.process_time()
    for number in range(task["samples"]):
        sample = mapper(records[number % len(records)], np.random.default_rng([number, 1]))
        if task["digest"]:
            for key in ("image", "sem_seg"):  # labels were int64 in earlier commits
                digest.update(sample[key].numpy().astype(np.uint8).tobytes())
            digest.update(str(sample["seed"]).encode())
    seconds = time.process_time() - start
    if task["digest"]:
        return {"digest": digest.hexdigest()}
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE).group(1)) * 1024
    return {"seconds": seconds, "peak_bytes": peak}


if __name__ == "__main__":
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    for line in sys.stdin:
        print(json.dumps(read(json.loads(line))), flush=True)
