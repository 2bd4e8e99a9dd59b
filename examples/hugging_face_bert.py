"""Adapt a BERT of transformers to classify sentences, and train its new classifier too.

    python examples/hugging_face_bert.py

The weights are random, so that nothing is downloaded. Use ``from_pretrained`` for pretrained
weights. The script needs ``pip install transformers``.
"""

import copy
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, export, load_adapters, merge, save_adapters

torch.manual_seed(0)
config = BertConfig(
    vocab_size=200,
    hidden_size=128,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=256,
    num_labels=2,
)
model = BertForSequenceClassification(config).eval()
pretrained = copy.deepcopy(model)

# Sentences of 16 tokens, a third of them padded. Sentences of class 1 contain token 7.
ids = torch.randint(10, 200, (48, 16))
labels = torch.arange(48) % 2
ids[labels == 1, 3] = 7
mask = torch.ones_like(ids)
mask[::3, 12:] = 0
batch = {"input_ids": ids, "attention_mask": mask, "labels": labels}

# Two outputs are fewer than r_main + r_sub, so the whole classifier is trained.
with torch.no_grad():
    before = model(**batch).logits
adapt(model, r_main=32, r_sub=4, exclude="classifier")
model.classifier.requires_grad_(True)
with torch.no_grad():
    change = (model(**batch).logits - before).abs().max() / before.abs().max()
print(f"relative change of the outputs by adapt(): {change:.1e}")

main, sub = adapter_parameters(model)
optimizer = torch.optim.AdamW(
    [
        {"params": main.values(), "lr": 5e-3},
        {"params": sub.values(), "lr": 2e-3},
        {"params": model.classifier.parameters(), "lr": 1e-3},
    ],
    weight_decay=0.0,
)
model.train()
losses = []
for _ in range(30):
    loss = model(**batch).loss
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"loss: {losses[0]:.3f} before training, {losses[-1]:.3f} after {len(losses)} steps")

with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "adapters.safetensors"
    save_adapters(model, path)
    print(f"adapter file: {path.stat().st_size / 1e6:.1f} MB")
    loaded = load_adapters(copy.deepcopy(pretrained), path)
    loaded.classifier.load_state_dict(model.classifier.state_dict())

    # A plain BERT, which from_pretrained() loads without this library.
    export(model).save_pretrained(Path(folder) / "bert")
    plain = BertForSequenceClassification.from_pretrained(Path(folder) / "bert")

model.eval(), loaded.eval()
with torch.no_grad():
    trained = model(**batch).logits
    assert torch.equal(loaded(**batch).logits, trained)
    merge(model)  # one matrix product per layer, for inference
    assert torch.allclose(plain(**batch).logits, model(**batch).logits, atol=1e-5)
    change = (model(**batch).logits - trained).abs().max() / trained.abs().max()
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
