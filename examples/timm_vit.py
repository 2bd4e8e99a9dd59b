"""Adapt a ViT of timm, train it on an image classification task, save, load and merge.

    python examples/timm_vit.py

The weights are random, so that nothing is downloaded. Pass ``pretrained=True`` to
``timm.create_model`` for pretrained weights. The script needs ``pip install timm``.
"""

import copy
import tempfile
from pathlib import Path

import timm
import torch
import torch.nn.functional as F

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, load_adapters, merge, save_adapters

torch.manual_seed(0)
model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=4, num_classes=10)
pretrained = copy.deepcopy(model)

# Random images. The class is the position of a bright square.
labels = torch.arange(40) % 10
images = torch.randn(40, 3, 64, 64)
for image, label in zip(images, labels):
    row, column = divmod(int(label), 4)
    image[:, 16 * row : 16 * row + 16, 16 * column : 16 * column + 16] += 3

# The head has ten outputs, fewer than r_main + r_sub, so the whole head is trained.
model.eval()
with torch.no_grad():
    before = model(images)
adapt(model, r_main=32, r_sub=4, exclude="head")
model.head.requires_grad_(True)
with torch.no_grad():
    change = (model(images) - before).abs().max() / before.abs().max()
print(f"relative change of the outputs by adapt(): {change:.1e}")

main, sub = adapter_parameters(model)
count = sum(p.numel() for p in [*main.values(), *sub.values()])
total = sum(p.numel() for p in pretrained.parameters())
print(f"parameters: {count:,} of the adapters, {total:,} of the model")
optimizer = torch.optim.AdamW(
    [
        {"params": main.values(), "lr": 5e-3},
        {"params": sub.values(), "lr": 2e-3},
        {"params": model.head.parameters(), "lr": 1e-3},
    ],
    weight_decay=0.0,
)
model.train()
losses = []
for _ in range(15):
    loss = F.cross_entropy(model(images), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.3f} before training, {losses[-1]:.3f} after {len(losses)} steps")

# The file contains only the adapters. The head is copied with its state dict.
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "adapters.safetensors"
    save_adapters(model, path)
    print(f"adapter file: {path.stat().st_size / 1e6:.1f} MB")
    loaded = load_adapters(pretrained, path)
loaded.head.load_state_dict(model.head.state_dict())

model.eval(), loaded.eval()
with torch.no_grad():
    trained = model(images)
    assert torch.equal(loaded(images), trained)
    merge(model)  # one matrix product per layer, for inference
    change = (model(images) - trained).abs().max() / trained.abs().max()
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
