"""Adapt a decoder like Llama whose output layer shares its weight with the token embedding.

    python examples/hugging_face_llama.py

`adapt` adds adapters to the output layer and does not change the embedding. A later call of
`tie_weights()` has no effect. The weights are random, so that nothing is downloaded. Use
``from_pretrained`` for pretrained weights. The script needs ``pip install transformers``.
"""

import copy
import tempfile
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, load_adapters, merge, save_adapters

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64,
    hidden_size=128,
    intermediate_size=256,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    tie_word_embeddings=True,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
pretrained = copy.deepcopy(model)
starts = torch.randint(3, 40, (16, 1))
ids = starts + torch.arange(12)  # each token is one more than the token before

with torch.no_grad():
    before = model(ids).logits
adapt(model, r_main=32, r_sub=4)
model.tie_weights()
with torch.no_grad():
    change = (model(ids).logits - before).abs().max() / before.abs().max()
print(f"relative change of the outputs by adapt(): {change:.1e}")

main, sub = adapter_parameters(model)
optimizer = torch.optim.AdamW(
    [{"params": main.values(), "lr": 1e-2}, {"params": sub.values(), "lr": 5e-3}], weight_decay=0.0
)
model.train()
losses = []
for _ in range(25):
    loss = model(ids, labels=ids).loss
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
    trained = model(ids).logits
    assert torch.equal(loaded(ids).logits, trained)
    merge(model)  # one matrix product per layer, for inference
    change = (model(ids).logits - trained).abs().max() / trained.abs().max()
    text = model.generate(torch.tensor([[20, 21, 22]]), max_new_tokens=5, do_sample=False)
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
print(f"continuation of 20, 21, 22: {text[0, 3:].tolist()}")
