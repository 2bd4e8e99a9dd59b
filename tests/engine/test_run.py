"""Building a model from its config."""

from pathlib import Path

import pytest
import torch
from detectron2.config import LazyConfig

from recyclelora.engine.run import build_model, pick_device

TINY = Path(__file__).parents[1] / "tools" / "tiny.py"


@pytest.fixture
def cfg():
    return LazyConfig.load(str(TINY))


def test_a_checkpoint_needs_no_pretrained_file_and_the_config_stays(cfg):
    cfg.model.backbone.module.weights = "/nowhere/weights.pth"
    model = build_model(cfg, pretrained=False, device=torch.device("cpu"))
    assert model.backbone.embed_dim == 64
    assert cfg.model.backbone.module.weights == "/nowhere/weights.pth"
    with pytest.raises(FileNotFoundError, match="neither a file nor a known name"):
        build_model(cfg, pretrained=True, device=torch.device("cpu"))


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_model_may_refer_to_other_sections(cfg, pretrained):
    cfg.model.num_queries = "${train.log_period}"
    model = build_model(cfg, pretrained=pretrained, device=torch.device("cpu"))
    assert model.sem_seg_head.predictor.query_feat.weight.shape[0] == cfg.train.log_period


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a GPU where there is none")
def test_a_gpu_that_is_not_there_is_refused():
    assert pick_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="torch sees none"):
        pick_device("cuda")
