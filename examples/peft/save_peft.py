"""Adapt a Hugging Face model, train it, and use the adapters in peft on the original weights.

    python examples/peft/save_peft.py FOLDER

The script needs ``pip install recyclelora peft transformers``. It uses a small random DINOv2; use
``Dinov2Model.from_pretrained("facebook/dinov2-base")`` for a pretrained one.
"""

import copy
import sys

import torch
from peft import PeftModel
from transformers import Dinov2Config, Dinov2Model

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters
from recyclelora.export import save_peft

folder = sys.argv[1]
torch.manual_seed(0)
config = Dinov2Config(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, layerscale_value=0.1
)
base = Dinov2Model(config).eval()

# Train main and sub adapters, here with an arbitrary loss.
model = adapt(copy.deepcopy(base), r_main=6, r_sub=2, alpha=8.0)
main, sub = adapter_parameters(model)
optimizer = torch.optim.AdamW([*main.values(), *sub.values()], lr=1e-2)
images = torch.randn(4, 3, 56, 56)
for _ in range(5):
    optimizer.zero_grad()
    model(images).last_hidden_state.square().mean().backward()
    optimizer.step()

# On the original base weights, peft computes the same outputs.
save_peft(model, folder)
loaded = PeftModel.from_pretrained(copy.deepcopy(base), folder)
with torch.no_grad():
    expected = model(images).last_hidden_state
    difference = (loaded(images).last_hidden_state - expected).abs().max()
print(f"relative difference in peft: {difference / expected.abs().max():.0e}")
assert difference < 1e-5 * expected.abs().max()

# A LoRA of a quarter of the rank, and the relative error of the change.
error = save_peft(model, folder, rank=4)
print(f"relative error of the change with rank 4: {error:.2f}")
