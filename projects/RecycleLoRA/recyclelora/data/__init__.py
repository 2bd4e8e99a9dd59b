"""Datasets, label maps, the paper's augmentation, and loaders that resume exactly."""

from .classes import CLASSES, COLORS, IGNORE_LABEL
from .datasets import REAL_SETS, get_dataset, real_sets, register, register_folder
from .folder_dataset import FolderDataset
from .label_maps import CAMVID, CITYSCAPES_IDS, LABELMEFACADE, TRAIN_IDS, Folding, LabelMap
from .loader import build_test_loader, build_train_loader
from .mapper import TestMapper, TrainMapper
from .pairing import Layout
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
    "FolderDataset",
    "Folding",
    "LabelMap",
    "Layout",
    "TestMapper",
    "TrainMapper",
    "build_test_loader",
    "build_train_loader",
    "get_dataset",
    "read_image",
    "read_pair",
    "real_sets",
    "register",
    "register_folder",
]
