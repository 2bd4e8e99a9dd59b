"""Export of the backbone of a run to another library, from the command line."""

import pytest
import torch
from detectron2.config import LazyConfig
from tools import export_backbone

from recyclelora.engine import save_checkpoint
from recyclelora.engine.build import build_model

from ..support.outside_models import relative_difference
from ..support.trained_adapters import learn
from ..support.training_runs import ROOT, TINY

CONFIG = str(ROOT / TINY)


def test_tool_writes_what_transformers_loads(tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    model = build_model(LazyConfig.load(CONFIG), device=torch.device("cpu"))
    learn(model, scale=0.05)
    checkpoint, folder = tmp_path / "iter_0000009.pth", tmp_path / "dinov2"
    save_checkpoint(checkpoint, model=model, iteration=9)
    arguments = ["--config-file", CONFIG, str(checkpoint), str(folder), "--layout"]
    export_backbone.main([*arguments, "hugging_face"])
    said = capsys.readouterr().out
    assert f"wrote {folder}" in said and "largest output difference at 64x64" in said
    images = torch.randn(1, 3, 64, 64)
    vit = transformers.AutoModel.from_pretrained(folder).eval()
    with torch.no_grad():
        ((patches,),) = [model.backbone.eval().get_intermediate_layers(images)]
        found = vit(images).last_hidden_state[:, 1:]
    assert relative_difference(found, patches) < 1e-5
