"""The paper's settings by the letters of its tables: sources for training, targets for testing.

G GTAV, S SYNTHIA, U UrbanSyn, C Cityscapes, B BDD100K, M Mapillary Vistas. Each function returns
the section ``dataloader`` of a config.
"""

from .data import test_loader, train_loader

TARGETS = dict(
    cityscapes="cityscapes_val",
    bdd100k="bdd100k_val",
    mapillary="mapillary_vistas_val",
    **{f"acdc_{weather}": f"acdc_{weather}_val" for weather in ("fog", "night", "rain", "snow")},
)


def towards(*targets):
    """Return a test loader of all validation images for each target."""
    return {name: test_loader(TARGETS[name]) for name in targets}


def g2cbm(crop=512):
    """Synthetic to real from one source: Tables 3, 5 to 7, 9, 11, 12."""
    train = train_loader("gtav_train", crop=crop)
    return dict(train=train, test=towards("cityscapes", "bdd100k", "mapillary"))


def gs2cbm():
    """Synthetic to real from two sources: Table 3."""
    return several("gtav_train", "synthia_train")


def gsu2cbm():
    """Synthetic to real from three sources: Table 3."""
    return several("gtav_train", "synthia_train", "urbansyn_train")


def several(*sources):
    """Return a loader of all sources with equal frequencies of all pairs, without padding."""
    train = train_loader(*sources, pad_to_crop=False)
    return dict(train=train, test=towards("cityscapes", "bdd100k", "mapillary"))


def c2bm():
    """Real to real: Tables 4 and 10."""
    return dict(train=train_loader("cityscapes_train"), test=towards("bdd100k", "mapillary"))


def c2acdc():
    """Fair weather to fog, night, rain and snow: beyond the paper."""
    targets = towards("acdc_fog", "acdc_night", "acdc_rain", "acdc_snow")
    return dict(train=train_loader("cityscapes_train"), test=targets)
