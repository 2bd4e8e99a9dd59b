"""The small form of a segmentor's folder: adapters and head, with a reference to the base."""

import json

import pytest
import torch

from recyclelora import Segmentor, adapt
from recyclelora.backbone import DinoVisionTransformer, Eva02VisionTransformer
from recyclelora.baselines import dora
from recyclelora.common.digests import file_digest
from recyclelora.common.safetensors_file import open_safetensors, write_safetensors
from recyclelora.engine.predictor import predictor
from recyclelora.evaluation import native
from recyclelora.mask2former import build_segmentor

from ..support.outside_models import relative_difference
from ..support.small_segmentor import SMALL
from ..support.trained_adapters import learn

SIZES = {"img_size": 64, "patch_size": 16, "depth": 4, "embed_dim": 24, "num_heads": 2}
PROTOCOL = native(long_side=96)


def trained(tmp_path, backbone):
    """A model that has learned, its segmentor, and the file of its base."""
    base = tmp_path / "base.pth"
    torch.save(backbone.state_dict(), base)
    model = build_segmentor(adapt(backbone, r_main=4, r_sub=2), **SMALL)
    learn(model, scale=0.1)
    return model, Segmentor.from_model(model, protocol=PROTOCOL), str(base)


@pytest.fixture
def small(tmp_path):
    model, segmentor, base = trained(tmp_path, DinoVisionTransformer(**SIZES))
    segmentor.save_pretrained(tmp_path / "small", adapted=model, base=base)
    return tmp_path / "small", base


@pytest.mark.parametrize("kind", [DinoVisionTransformer, Eva02VisionTransformer])
def test_adapters_and_base_give_the_merged_model(kind, tmp_path):
    model, segmentor, base = trained(tmp_path, kind(**SIZES))
    model.backbone.pos_embed.data += 0.1  # trained besides the adapters
    segmentor = Segmentor.from_model(model, protocol=PROTOCOL)
    segmentor.save_pretrained(tmp_path / "merged")
    segmentor.save_pretrained(tmp_path / "small", adapted=model, base=base)
    state = torch.get_rng_state()
    found = Segmentor.from_pretrained(tmp_path / "small", device="cpu", base=base)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.rand(2, 3, 64, 96) * 255
    with predictor(model) as expected, predictor(found.model) as computed:
        assert relative_difference(computed(images), expected(images)) < 1e-5
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("small", "merged")]
    assert sizes[0] < sizes[1]
    assert json.loads((tmp_path / "small" / "config.json").read_text())["base"] == {
        "file": "base.pth"
    }


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("form", ["merged", "adapters"])
def test_half_file_is_half_as_large_and_close(form, dtype, tmp_path):
    model, segmentor, base = trained(tmp_path, DinoVisionTransformer(**SIZES))
    given = {"adapted": model, "base": base} if form == "adapters" else {}
    segmentor.save_pretrained(tmp_path / "full", **given)
    segmentor.save_pretrained(tmp_path / "half", dtype=dtype, **given)
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("half", "full")]
    assert sizes[0] < 0.65 * sizes[1]  # the header stays
    base = base if form == "adapters" else None
    found = Segmentor.from_pretrained(tmp_path / "half", device="cpu", base=base)
    for name, tensor in segmentor.model.state_dict().items():
        assert found.model.state_dict()[name].dtype == torch.float32
        assert torch.allclose(found.model.state_dict()[name], tensor, rtol=0.01, atol=0.01)


def change_config(folder, **values):
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def rewrite(folder, change):
    """Change tensors and metadata, with a digest that fits."""
    path = folder / "model.safetensors"
    with open_safetensors(path) as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    header = json.loads(metadata["recyclelora"])
    change(tensors, header)
    write_safetensors(path, tensors, {"recyclelora": json.dumps(header)})
    change_config(folder, weights_sha256=file_digest(path))


def other_initial_factors(tensors, header):
    next(iter(header["layers"].values()))["initial_sha256"] = 64 * "0"


def without_head(tensors, header):
    del tensors["sem_seg_head.predictor.class_embed.bias"]
    del header["also"]["sem_seg_head.predictor.class_embed.bias"]


def other_head(tensors, header):
    tensors["sem_seg_head.predictor.class_embed.bias"] = torch.zeros(3)


def huge_head(folder):
    """Name a size for which memory must not be allocated before the file is compared."""
    head = json.loads((folder / "config.json").read_text())["head"]
    change_config(folder, head=head | {"dec_dim_feedforward": 65_536, "num_queries": 10_000})


DAMAGES = {
    "huge head": (huge_head, "do not match its config.*for \\(65536,"),
    "initial factors": (lambda f: rewrite(f, other_initial_factors), "cannot be recomputed"),
    "no head": (lambda f: rewrite(f, without_head), "do not match its config"),
    "other head": (lambda f: rewrite(f, other_head), "class_embed.bias"),
    "other digest": (lambda f: change_config(f, weights_sha256="0"), "SHA-256 differs"),
    "cut": (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "damaged"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_adapter_folder_raises_one_sentence(damage, small):
    folder, base = small
    change, sentence = DAMAGES[damage]
    change(folder)
    with pytest.raises(ValueError, match=sentence) as raised:
        Segmentor.from_pretrained(folder, device="cpu", base=base)
    assert len(str(raised.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("record", "sentence"),
    [
        ({"file": "base.pth"}, r"'base\.pth', which is not a known name"),
        ({"weights": "../../etc/passwd"}, "not a known name"),
        ("dinov2_vits14", "base must be an object"),
        ({"weights": ["x"]}, "base must be an object"),
    ],
)
def test_base_that_is_not_known_is_not_opened(record, sentence, small):
    change_config(small[0], base=record)
    with pytest.raises(ValueError, match=sentence):
        Segmentor.from_pretrained(small[0], device="cpu")


def test_other_base_raises_and_leaves_the_previous_folder(small, tmp_path):
    folder, base = small
    other = DinoVisionTransformer(**SIZES)
    torch.save(other.state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match="trained on other base weights"):
        Segmentor.from_pretrained(folder, device="cpu", base=str(tmp_path / "other.pth"))
    with pytest.raises(FileNotFoundError, match="neither a file nor a known name"):
        Segmentor.from_pretrained(folder, device="cpu", base="dinov2_vitz14")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    model, segmentor, _ = trained(tmp_path, DinoVisionTransformer(**SIZES))
    with pytest.raises(ValueError, match="trained on other base weights"):
        segmentor.save_pretrained(folder, adapted=model, base=str(tmp_path / "other.pth"))
    other_model, _, _ = trained(tmp_path, DinoVisionTransformer(**SIZES))
    with pytest.raises(ValueError, match="do not reproduce the merged weights"):
        segmentor.save_pretrained(folder, adapted=other_model, base=base)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_models_without_own_adapters_are_refused(tmp_path):
    model = build_segmentor(dora(DinoVisionTransformer(**SIZES), rank=4), **SMALL)
    segmentor = Segmentor.from_model(model, protocol=PROTOCOL)
    with pytest.raises(ValueError, match="got 16 of another kind: save the merged form"):
        segmentor.save_pretrained(tmp_path / "s", adapted=model, base="dinov2_vits14")
    with pytest.raises(ValueError, match="give adapted and base together"):
        segmentor.save_pretrained(tmp_path / "s", adapted=model)
    assert not (tmp_path / "s").exists()


def test_value_too_large_for_the_file_raises(tmp_path):
    model, segmentor, base = trained(tmp_path, DinoVisionTransformer(**SIZES))
    with torch.no_grad():
        for one in (model, segmentor.model):
            one.sem_seg_head.predictor.class_embed.bias.fill_(1e5)
    for given in ({}, {"adapted": model, "base": base}):
        with pytest.raises(ValueError, match=r"float16: .*class_embed"):
            segmentor.save_pretrained(tmp_path / "s", dtype="float16", **given)
    assert not (tmp_path / "s").exists()
