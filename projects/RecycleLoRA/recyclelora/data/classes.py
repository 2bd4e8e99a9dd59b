"""The 19 Cityscapes train classes, from road (train id 0) to bicycle (18), and the ignore label."""

from detectron2.data.datasets.builtin_meta import CITYSCAPES_CATEGORIES

#: Train id of pixels that are excluded from training and scores.
IGNORE_LABEL = 255

#: Class names; the index is the train id.
CLASSES = tuple(category["name"] for category in CITYSCAPES_CATEGORIES)

#: RGB colours, 0..255, of the Cityscapes label definition.
COLORS = tuple(tuple(category["color"]) for category in CITYSCAPES_CATEGORIES)
