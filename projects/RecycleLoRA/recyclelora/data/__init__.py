"""Datasets, label maps, the paper's augmentation, and loaders that resume exactly."""

from .classes import CLASSES, COLORS, IGNORE_LABEL
from .datasets import REAL_SETS, folder_of, real_sets, register, register_folder
from .folders import Folder, Layout
from .label_maps import CAMVID, CITYSCAPES_IDS, LABELMEFACADE, TRAIN_IDS, Folding, LabelMap
from .loader import build_test_loader, build_train_loader
from .mapper import TestMapper, TrainMapper
from .reading import read_image, read_pair

__all__ = [
    "CAMVID",
    "CITYSCAPES_IDS",
    "CLASSES",
    "COLORS",
    "IGNORE_LABEL",
    "LABELMEFACADE",
    "REAL_SETS",
    "TRAIN_IDS",
    "Folder",
    "Folding",
    "LabelMap",
    "Layout",
    "TestMapper",
    "TrainMapper",
    "build_test_loader",
    "build_train_loader",
    "folder_of",
    "read_image",
    "read_pair",
    "real_sets",
    "register",
    "register_folder",
]
