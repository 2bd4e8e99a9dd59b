"""Building a model from its config."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from recyclelora import rrqr
from recyclelora.common.devices import pick_device
from recyclelora.engine.build import build_model

CPU = torch.device("cpu")
TINY = Path(__file__).parents[1] / "support" / "tiny_config.py"


@pytest.fixture
def cfg():
    return LazyConfig.load(str(TINY))


@pytest.fixture
def state(cfg):
    """Return the weights in a checkpoint of this model."""
    return build_model(cfg, device=CPU).state_dict()


def test_build_model_with_state_reads_no_weight_file(cfg, state):
    cfg.model.backbone.module.weights = "/nowhere/weights.pth"
    model = build_model(cfg, device=CPU, state=state)
    assert model.backbone.embed_dim == 64
    assert cfg.model.backbone.module.weights == "/nowhere/weights.pth"
    with pytest.raises(FileNotFoundError, match="neither a file nor a known name"):
        build_model(cfg, device=CPU)


def test_build_model_with_state_decomposes_nothing(cfg, monkeypatch):
    built = build_model(cfg, device=CPU)
    x = torch.rand(1, 3, 64, 96) * 255
    state = {name: value.clone() for name, value in built.state_dict().items()}

    def only_shapes(weight, *ranks):
        assert weight.is_meta
        return rrqr(weight, *ranks)

    monkeypatch.setattr("recyclelora.adapters.initialisers.rrqr", only_shapes)
    loaded = build_model(cfg, device=CPU, state=state)
    assert not any(t.is_meta for t in (*loaded.parameters(), *loaded.buffers()))
    trainable = [{n for n, p in m.named_parameters() if p.requires_grad} for m in (built, loaded)]
    assert trainable[0] == trainable[1]
    built.eval(), loaded.eval()
    assert torch.equal(loaded.semantic_logits(x), built.semantic_logits(x))


@pytest.mark.parametrize("resumed", [True, False])
def test_build_model_resolves_other_sections(cfg, state, resumed):
    cfg.train.log_period = cfg.model.num_queries
    cfg.model.num_queries = "${train.log_period}"
    model = build_model(cfg, device=CPU, state=state if resumed else None)
    assert model.sem_seg_head.predictor.query_feat.weight.shape[0] == cfg.train.log_period


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_pick_device_without_gpu_raises():
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="torch finds none"):
        pick_device("cuda")
