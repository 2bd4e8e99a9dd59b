"""Initialise a LoRA of peft with minor and major directions of its base, and train it with peft.

    python examples/peft/init_peft.py FOLDER

The script needs ``pip install recyclelora peft transformers``. It uses a small random DINOv2; use
``Dinov2Model.from_pretrained("facebook/dinov2-base")`` for a pretrained one.
"""

import copy
import sys
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import Dinov2Config, Dinov2Model

from recyclelora.export import init_peft

folder = Path(sys.argv[1])
torch.manual_seed(0)
config = Dinov2Config(
    hidden_size=64, num_hidden_layers=3, num_attention_heads=2, image_size=56, layerscale_value=0.1
)
base = Dinov2Model(config).eval()
images = torch.randn(4, 3, 56, 56)

# r = 9: 8 minor directions and 1 major one, the paper's proportion of 32 to 4.
lora = LoraConfig(r=9, lora_alpha=9, target_modules="all-linear")
model = init_peft(get_peft_model(copy.deepcopy(base), lora)).eval()
with torch.no_grad():
    expected = base(images).last_hidden_state
    difference = (model(images).last_hidden_state - expected).abs().max()
print(f"relative difference before training: {difference / expected.abs().max():.0e}")
assert difference < 1e-5 * expected.abs().max()

# The base is now a residual, so keep the initial factors; then train as usual.
model.save_pretrained(folder / "before")
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
for _ in range(5):
    optimizer.zero_grad()
    model(images).last_hidden_state.square().mean().backward()
    optimizer.step()

# peft subtracts the initial factors: the folder applies to the original base weights.
with torch.no_grad():
    expected = model(images).last_hidden_state
before = str(folder / "before")
model.save_pretrained(folder / "lora", path_initial_model_for_weight_conversion=before)
loaded = PeftModel.from_pretrained(copy.deepcopy(base), str(folder / "lora")).eval()
with torch.no_grad():
    difference = (loaded(images).last_hidden_state - expected).abs().max()
print(f"relative difference on the original base: {difference / expected.abs().max():.0e}")
assert difference < 1e-5 * expected.abs().max()
