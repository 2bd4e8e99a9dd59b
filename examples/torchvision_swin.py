"""Adapt torchvision's Swin Transformer, whose attention reads `qkv.weight` instead of calling it.

    python examples/torchvision_swin.py

The weights are random, so that nothing is downloaded. Pass ``weights="DEFAULT"`` for pretrained
weights.
"""

import copy
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.models import SwinTransformer

from recyclelora import adapt
from recyclelora.adapters import (
    adapter_parameters,
    load_adapters,
    merge,
    save_adapters,
    unreached_linears,
)

torch.manual_seed(0)
model = SwinTransformer(
    [4, 4], embed_dim=48, depths=[2, 2], num_heads=[3, 6], window_size=[4, 4], num_classes=64
).eval()
pretrained = copy.deepcopy(model)
images = torch.randn(16, 3, 64, 64)
labels = torch.randint(64, (16,))

with torch.no_grad():
    before = model(images)
adapt(model, r_main=16, r_sub=4)
with torch.no_grad():
    change = (model(images) - before).abs().max() / before.abs().max()
print(f"relative change of the outputs by adapt(): {change:.1e}")

# Reading a weight of an adapted layer gives the effective weight, so every adapter trains.
print(f"layers without effect: {unreached_linears(model, images)}")

main, sub = adapter_parameters(model)
optimizer = torch.optim.AdamW(
    [{"params": main.values(), "lr": 1e-2}, {"params": sub.values(), "lr": 5e-3}], weight_decay=0.0
)
losses = []
for _ in range(15):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.3f} before training, {losses[-1]:.3f} after {len(losses)} steps")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "adapters.safetensors"
    save_adapters(model, path)
    print(f"adapter file: {path.stat().st_size / 1e6:.1f} MB")
    loaded = load_adapters(pretrained, path)

with torch.no_grad():
    trained = model(images)
    assert torch.equal(loaded(images), trained)
    merge(model)  # one matrix product per layer, for inference
    change = (model(images) - trained).abs().max() / trained.abs().max()
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
