"""Peak memory of segmenting one large image, measured in a separate process."""

import subprocess
import sys

import pytest

HEIGHT, WIDTH, CLASSES = 4056, 5632, 19  # Mapillary's largest
PROGRAM = f"""
import torch
from recyclelora.evaluation import {{maker}}

def kilobytes(key):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(key))

def predict(images):
    return images[:, :1].expand(-1, {CLASSES}, -1, -1)

image = torch.zeros(3, {HEIGHT}, {WIDTH}, dtype=torch.uint8)
sample = dict(image=image, sem_seg=image[0], file_name="large.jpg")
before = kilobytes("VmHWM")
ids, _, _ = {{maker}}({{options}}).segment(predict, sample, "mapillary_vistas")
print(kilobytes("VmHWM") - before, ids.size)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("maker", "options", "limit"),
    [
        ("native", "mode='slide'", 1.0),  # for one view, less than its logits
        # At half the size. The sum of the views is far below all logits of one view (1.75 ** 2).
        ("multi_scale", "scales=(1.75,)", 1 + 2.7),
    ],
)
def test_segment_large_image_stays_below_memory_limit(maker, options, limit):
    program = PROGRAM.format(maker=maker, options=options)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kilobytes, pixels = map(int, done.stdout.split())
    assert kilobytes * 1024 < limit * 4 * CLASSES * pixels


SCORE = f"""
import torch
from recyclelora.engine.memory import PeakMemory
from recyclelora.evaluation import native
from recyclelora.evaluation.protocol import UNLISTED
from recyclelora.evaluation.scored_map import Wanted

def predict(images):
    return images[:, :1].expand(-1, {CLASSES}, -1, -1) / 255

image = torch.full((1, 3, {HEIGHT}, {WIDTH}), 9, dtype=torch.uint8)
protocol = native(mode="whole", long_side=512)
with PeakMemory(torch.device("cpu")) as memory:
    (found,) = protocol.score(predict, image, UNLISTED, Wanted(uncertainty=True))
print(memory.beyond, found.uncertainty.entropy.numel())
"""


@pytest.mark.slow
def test_uncertainty_of_a_large_image_needs_few_maps():
    done = subprocess.run([sys.executable, "-c", SCORE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    peak, pixels = map(int, done.stdout.split())
    assert peak < 10 * 4 * pixels  # three results, the sums, and one class at a time
