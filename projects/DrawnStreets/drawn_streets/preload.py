"""Imported by the server that forks the workers of ``write_streets``: plants are grown and walls
laid there, once, and every worker begins with them instead of spending seconds on its own.
"""

import cv2

from .objects.plants import render_plants
from .render import textures

cv2.setNumThreads(0)  # a fork must not inherit threads
render_plants()
for name in textures.MATERIALS:
    textures.material(name)
