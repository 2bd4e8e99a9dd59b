"""A segmentor as a folder: round trips, images of every kind, damaged files."""

import copy
import dataclasses
import json
import pickle
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from recyclelora import Segmentor, adapt
from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer
from recyclelora.baselines import Rein, dora, soma
from recyclelora.common.safetensors_file import open_safetensors, write_safetensors
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import native, paper
from recyclelora.evaluation.protocol import nearest
from recyclelora.mask2former import build_segmentor

from ..support.outside_models import relative_difference
from ..support.small_segmentor import SMALL
from ..support.trained_adapters import learn

SIZES = {"img_size": 64, "patch_size": 16, "depth": 4}
KINDS = {
    "recyclelora": lambda: adapt(dino(), r_main=4, r_sub=2),
    "narrow": lambda: adapt(dino(mlp_ratio=2.5, init_values=None), r_main=4, r_sub=2),
    "swiglu_registers": lambda: dino(ffn_layer="swiglu", num_register_tokens=2),
    "eva02": lambda: adapt(
        Eva02VisionTransformer(**SIZES, embed_dim=24, num_heads=2), r_main=4, r_sub=2
    ),
    "dora": lambda: dora(dino(), rank=4),
    "soma": lambda: soma(dino(), rank=4, first_block=1),
}
PROTOCOL = native(long_side=96)


def dino(**settings):
    return DinoVisionTransformer(**SIZES, embed_dim=24, num_heads=2, **settings)


def trained(kind="recyclelora", **settings):
    model = build_segmentor(KINDS[kind](), **SMALL | settings)
    learn(model, scale=0.1)
    return model


@pytest.fixture(scope="module")
def model():
    return trained()


@pytest.fixture(scope="module")
def segmentor(model):
    return Segmentor.from_model(model, protocol=PROTOCOL, provenance={"iteration": 9})


@pytest.fixture(scope="module")
def saved(segmentor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "segmentor"
    segmentor.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "segmentor")


def picture(height=60, width=90, seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return values


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip_equals_the_exported_model(kind, tmp_path):
    model = trained(kind, pixel_mean=[100.0, 110.0, 120.0], nheads=2, dec_layers=1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    Segmentor.from_model(model, protocol=PROTOCOL).save_pretrained(tmp_path)
    found = Segmentor.from_pretrained(tmp_path, device="cpu")
    images = torch.rand(2, 3, 64, 96) * 255
    with predictor(model) as expected, predictor(found.model) as computed:
        assert relative_difference(computed(images), expected(images)) < 1e-5
    assert not found.model.training and not any(p.requires_grad for p in found.model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_folder_keeps_protocol_classes_and_provenance(folder, segmentor):
    found = Segmentor.from_pretrained(str(folder), device="cpu")
    for name in ("protocol", "class_names", "colors", "provenance"):
        assert getattr(found, name) == getattr(segmentor, name)
    found.save_pretrained(folder.parent / "again")
    for file in ("config.json", "model.safetensors"):
        assert (folder / file).read_bytes() == (folder.parent / "again" / file).read_bytes()


@pytest.mark.parametrize(
    "protocol",
    [
        PROTOCOL,
        native(),
        native(mode="slide", crop=48),
        native(long_side=64, argmax="input"),
        native(long_side=64, scales=(0.75, 1.0), flip=True),
        native(mode="slide", crop=48, flip=True),
    ],
    ids=str,
)
def test_classes_equal_those_of_the_evaluation(segmentor, model, protocol):
    pixels = picture(70, 51)
    other = copy.copy(segmentor)
    other.protocol = protocol
    image = torch.from_numpy(pixels).permute(2, 0, 1)
    sample = {"image": image, "sem_seg": torch.zeros(70, 51, dtype=torch.uint8), "file_name": "x"}
    with predictor(model) as predict:
        expected = nearest(protocol.segment(predict, sample, "any")[0], (70, 51))
    found = other.predict(pixels, logits=True)
    assert np.array_equal(found.classes, expected) and found.classes.dtype == np.uint8
    assert np.array_equal(found.logits.argmax(0), expected)
    assert np.array_equal(other.predict(pixels).confidence, found.confidence)
    assert found.confidence.shape == (70, 51) and found.confidence.dtype == np.float32
    assert found.confidence.min() >= 1 / 19 and found.confidence.max() <= 1
    if len(protocol.scales) == 1 and not protocol.flip:
        shares = found.logits / found.logits.sum(0)
        assert np.allclose(found.confidence, shares.max(0), atol=1e-6)


def test_confidence_is_higher_where_one_class_has_the_score(segmentor):
    class Certain(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def semantic_logits(self, images):
            scores = torch.full((len(images), 19, *images.shape[2:]), 0.01)
            scores[:, 4, :, : images.shape[3] // 2] = 0.82
            scores[:, :, 0] = 0  # no mask at all
            return scores

    other = copy.copy(segmentor)
    other.model, other.protocol = Certain(), native()
    found = other.predict(picture(4, 8))
    assert (found.classes[1:, :4] == 4).all() and np.allclose(found.confidence[1:, :4], 0.82)
    assert np.allclose(found.confidence[1:, 4:], 1 / 19) and (found.confidence[0] == 0).all()


def test_every_kind_of_image_gives_the_same_classes(segmentor, tmp_path):
    pixels = picture()
    file = tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    tensor = torch.from_numpy(pixels).permute(2, 0, 1)
    given = [file, str(file), pixels, Image.open(file), tensor, Image.fromarray(pixels)]
    expected = segmentor.predict(pixels).classes
    for found in segmentor.predict(given):
        assert np.array_equal(found.classes, expected) and np.array_equal(found.image, pixels)
    assert segmentor.predict([]) == [] and len(segmentor.predict((file,))) == 1


def test_pictures_of_other_modes_are_upright_rgb(segmentor):
    turned = Image.fromarray(picture(20, 30))
    turned.getexif()[274] = 6  # orientation: a quarter turn
    images = [turned, turned.convert("L"), turned.convert("RGBA"), turned.convert("P")]
    assert segmentor.predict(images[0]).classes.shape == (30, 20)
    for found in segmentor.predict(images[1:]):
        assert found.image.shape[2] == 3 and found.image.dtype == np.uint8


def test_batches_equal_single_images_in_order(segmentor):
    images = [picture(60, 90, seed) for seed in range(3)]
    images += [picture(1, 1), picture(3, 300), picture(60, 90, 7)]
    singles = [segmentor.predict(image) for image in images]
    for one, found in zip(singles, segmentor.predict(images, batch_size=2), strict=True):
        assert found.classes.shape == one.image.shape[:2]
        assert np.array_equal(found.image, one.image)
        assert np.allclose(found.confidence, one.confidence, atol=1e-4)
        assert (found.classes == one.classes).mean() > 0.99


def test_bfloat16_is_close_to_float32(folder):
    images = picture(64, 96)
    half = Segmentor.from_pretrained(folder, device="cpu", dtype=torch.bfloat16).predict(images)
    full = Segmentor.from_pretrained(folder, device=torch.device("cpu")).predict(images)
    assert half.confidence.dtype == np.float32
    assert np.abs(half.confidence - full.confidence).mean() < 0.02


@pytest.mark.gpu
def test_cuda_equals_cpu(folder):
    results = [
        Segmentor.from_pretrained(folder, device=device).predict(picture(), logits=True)
        for device in ("cpu", "cuda")
    ]
    assert np.allclose(results[0].logits, results[1].logits, atol=1e-3)


def test_protocol_of_a_benchmark_applies_to_other_images(segmentor):
    other = copy.copy(segmentor)
    other.protocol = paper()
    assert other.predict(picture()).classes.shape == (60, 90)
    with pytest.raises(ValueError, match="does not list 'kitti'"):
        other.predict(picture(), benchmark="kitti")


def test_save_writes_pictures_and_refuses_lossy_ids(segmentor, tmp_path):
    found = segmentor.predict(picture())
    for kind in ("overlay", "color", "classes", "confidence"):
        with Image.open(found.save(tmp_path / "new" / f"{kind}.png", kind)) as image:
            assert image.size == (90, 60)
            if kind == "classes":
                assert np.array_equal(np.asarray(image), found.classes)
            if kind == "confidence":
                error = np.abs(np.asarray(image) / 255 - found.confidence)
                assert error.max() < 0.003
    found.save(tmp_path / "overlay.jpg")
    colors = np.array(found.colors)[found.classes]
    assert np.array_equal(np.asarray(found.overlay(1)), colors)
    assert np.array_equal(np.asarray(found.overlay(0)), found.image)
    for name, kind in (("x.jpg", "classes"), ("x", "overlay"), ("x.png", "mask")):
        with pytest.raises(ValueError, match=r"expected a file name|kind must be"):
            found.save(tmp_path / name, kind)
    assert not list(tmp_path.glob("x*"))


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        ("nowhere.jpg", "nowhere.jpg: no such file"),
        (np.zeros((4, 4)), "uint8 RGB, got shape"),
        (np.zeros((3, 4, 4), np.uint8), "uint8 RGB, got shape"),
        (np.zeros((0, 4, 3), np.uint8), "1 pixel"),
        (torch.rand(3, 4, 4), "uint8 RGB, got shape .* of torch.float32"),
        (torch.zeros(2, 3, 4, 4, dtype=torch.uint8), "several images as a list"),
        (None, "expected a path"),
    ],
)
def test_invalid_image_raises_with_its_name(segmentor, image, sentence):
    with pytest.raises((ValueError, TypeError, OSError), match=sentence):
        segmentor.predict(image)
    if not isinstance(image, str):
        with pytest.raises((ValueError, TypeError), match="image 1 of the list: "):
            segmentor.predict([picture(), image])


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def rewrite(folder, change):
    """Change the tensors, with a digest that fits."""
    from recyclelora.common.digests import file_digest

    path = folder / "model.safetensors"
    with open_safetensors(path) as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    change(tensors)
    write_safetensors(path, tensors, {"format": "pt"})
    change_config(folder, weights_sha256=file_digest(path))


def change_part(part, **values):
    """Return a damage that changes entries of a part of the config; None removes the entry."""

    def damage(folder):
        config = json.loads((folder / "config.json").read_text())
        changed = {k: v for k, v in (config[part] | values).items() if v is not None}
        change_config(folder, **{part: changed})

    return damage


def flip_bit(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)


NAME = "sem_seg_head.predictor.class_embed.bias"
DAMAGES = {
    "no config": lambda f: (f / "config.json").unlink(),
    "no weights": lambda f: (f / "model.safetensors").unlink(),
    "no folder": lambda f: f.rename(f.with_name("other")),
    "cut config": lambda f: (f / "config.json").write_bytes((f / "config.json").read_bytes()[:200]),
    "no text": lambda f: (f / "config.json").write_bytes(b"\xff\xfe"),
    "deep": lambda f: (f / "config.json").write_text("[" * 100_000),
    "list": lambda f: (f / "config.json").write_text("[]"),
    "other format": lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
    "newer": lambda f: change_config(f, version=2),
    "cut weights": lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-1]
    ),
    "pickle": lambda f: (f / "model.safetensors").write_bytes(pickle.dumps({"a": 1})),
    "flipped bit": flip_bit,
    "unknown backbone": lambda f: change_config(f, backbone={"type": "os.system"}),
    "backbone of text": lambda f: change_config(f, backbone="DinoVisionTransformer"),
    "type of list": lambda f: change_config(f, backbone={"type": []}),
    "no number of heads": change_part("backbone", num_heads=None),
    "unknown argument": change_part("backbone", checkpointing=True),
    "bias of text": change_part("backbone", qkv_bias="x"),
    "antialias of number": change_part("backbone", interpolate_antialias=1),
    "offset of list": change_part("backbone", interpolate_offset=[]),
    "negative eps": change_part("backbone", layer_norm_eps=-1),
    "blocks of text": change_part("backbone", out_indices="0123"),
    "negative scale": change_part("backbone", init_values=-1),
    "huge ratio": change_part("backbone", mlp_ratio=10**400),
    "version of bool": lambda f: change_config(f, version=True),
    "listed of text": change_part("protocol", only_listed="no"),
    "huge head": lambda f: change_config(f, head={"hidden_dim": 10**12}),
    "head null": lambda f: change_config(f, head=None),
    "two classes": lambda f: change_config(f, classes=["a", "b"], colors=[[0, 0, 0]] * 2),
    "colors": lambda f: change_config(f, colors=[[0, 0, 999]] * 19),
    "zero std": lambda f: change_config(
        f, normalisation={"pixel_mean": [0, 0, 0], "pixel_std": [0, 1, 1]}
    ),
    "protocol": lambda f: change_config(f, protocol={"name": "x", "crop": -1}),
    "protocol null": lambda f: change_config(f, protocol=None),
    "provenance": lambda f: change_config(f, provenance=3),
    "missing tensor": lambda f: rewrite(f, lambda t: t.pop(NAME)),
    "half": lambda f: rewrite(f, lambda t: t.update({NAME: t[NAME].half()})),
    "nan": lambda f: rewrite(f, lambda t: t[NAME].fill_(float("nan"))),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_folder_raises_one_sentence(folder, damage):
    DAMAGES[damage](folder)
    with pytest.raises((ValueError, FileNotFoundError)) as raised:
        Segmentor.from_pretrained(folder, device="cpu")
    assert len(str(raised.value).splitlines()) == 1
    assert str(folder) in str(raised.value)


def test_failed_save_leaves_the_previous_folder(folder, segmentor, monkeypatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    (folder / "notes.txt").write_text("mine")
    monkeypatch.setattr(segmentor, "provenance", {"tensor": torch.ones(1)})
    with pytest.raises(TypeError):
        segmentor.save_pretrained(folder)
    monkeypatch.undo()
    assert all((folder / name).read_bytes() == content for name, content in before.items())
    segmentor.save_pretrained(folder)
    assert (folder / "notes.txt").exists() and len(list(folder.parent.iterdir())) == 1


def test_models_that_cannot_be_held_are_refused():
    with pytest.raises(TypeError, match="expected a MaskFormer, got Linear"):
        Segmentor.from_model(nn.Linear(2, 2), protocol=PROTOCOL)
    backbone = Rein(dino(), num_tokens=8, rank=4, query_dim=SMALL["hidden_dim"])
    model = build_segmentor(backbone, **SMALL, learned_queries=False)
    with pytest.raises(TypeError, match="got Rein"):
        Segmentor.from_model(model, protocol=PROTOCOL)
    changed = trained()
    with pytest.raises(ValueError, match="19 classes, but 1 were named"):
        Segmentor.from_model(changed, protocol=PROTOCOL, classes=["a"], colors=[(0, 0, 0)])
    with pytest.raises(ValueError, match=r"call model\.float"):
        Segmentor.from_model(trained().half(), protocol=PROTOCOL)
    changed.sem_seg_head.predictor.decoder_norm.eps = 1.0
    with pytest.raises(ValueError, match="have different outputs"):
        Segmentor.from_model(changed, protocol=PROTOCOL)


def test_from_pretrained_draws_no_random_numbers(folder):
    state = torch.get_rng_state()
    Segmentor.from_pretrained(folder, device="cpu")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [({"device": "tpu"}, "device must be auto"), ({"dtype": "int8"}, "dtype must be float32 or")],
)
def test_unknown_device_or_dtype_raises(folder, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        Segmentor.from_pretrained(folder, **options)


def test_other_protocol_can_be_assigned(segmentor, folder):
    found = Segmentor.from_pretrained(folder, device="cpu")
    found.protocol = dataclasses.replace(found.protocol, long_side=64)
    assert found.predict(picture()).classes.shape == (60, 90)
