"""Fill the caches of plants and materials on import.

The server that forks the workers of a pool imports this module once, so that no worker has to spend
seconds on its own caches.
"""

import cv2

from .objects.plants import render_plants
from .render.textures import MATERIALS, material

cv2.setNumThreads(0)  # threads do not survive a fork
render_plants()
for name in MATERIALS:
    material(name)
