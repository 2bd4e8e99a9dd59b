"""Adapt PyTorch's own `nn.Transformer` on a small translation task: reversing a sequence.

    python examples/torch_transformer.py

`nn.MultiheadAttention` has one parameter for query, key and value, `in_proj_weight`, which is not
the weight of a linear layer. Therefore it gets no adapters, and `adapt` warns about it. `exclude`
suppresses the warning.
"""

import copy
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, load_adapters, merge, save_adapters


class Translator(nn.Module):
    """Map token ids to the logits of the next token of the target."""

    def __init__(self, vocabulary: int = 40, width: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(32, width)
        self.transformer = nn.Transformer(width, 4, 2, 2, 128, dropout=0.0, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.embedding(ids) + self.positions.weight[: ids.shape[1]]

    def forward(self, source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        out = self.transformer(self.embed(source), self.embed(target), tgt_mask=mask)
        return self.head(out)


torch.manual_seed(0)
model = Translator().eval()
pretrained = copy.deepcopy(model)
source = torch.randint(1, 40, (32, 8))
target = source.flip(1)
shifted = F.pad(target[:, :-1], (1, 0))  # begins with token 0

with torch.no_grad():
    before = model(source, shifted)
adapt(model, r_main=16, r_sub=4, exclude="*attn.in_proj_weight")
with torch.no_grad():
    change = (model(source, shifted) - before).abs().max() / before.abs().max()
print(f"relative change of the outputs by adapt(): {change:.1e}")

main, sub = adapter_parameters(model)
optimizer = torch.optim.AdamW(
    [{"params": main.values(), "lr": 1e-2}, {"params": sub.values(), "lr": 5e-3}], weight_decay=0.0
)
model.train()
losses = []
for _ in range(40):
    loss = F.cross_entropy(model(source, shifted).flatten(0, 1), target.flatten())
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

model.eval(), loaded.eval()
with torch.no_grad():
    trained = model(source, shifted)
    assert torch.equal(loaded(source, shifted), trained)
    merge(model)  # one matrix product per layer, for inference
    change = (model(source, shifted) - trained).abs().max() / trained.abs().max()
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
