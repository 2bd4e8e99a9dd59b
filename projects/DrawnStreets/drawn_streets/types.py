"""Type aliases that several modules share."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

#: A point, direction or colour of three or four components.
Vector: TypeAlias = Sequence[float] | np.ndarray
#: World coordinates (x, y, z) in metres.
Point: TypeAlias = tuple[float, float, float]
#: (left, top, right, bottom) in pixels; right and bottom are exclusive.
PixelBox: TypeAlias = tuple[int, int, int, int]
#: Occupied ground: the lower and the upper corner (x, z) of rectangles, in metres.
Footprints: TypeAlias = list[tuple[np.ndarray, np.ndarray]]
