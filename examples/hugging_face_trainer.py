"""Adapt Hugging Face's DINOv2 and train it with its Trainer, with a learning rate for each adapter.

    python examples/hugging_face_trainer.py

The weights are random, so that nothing is downloaded. Use ``from_pretrained`` for pretrained
weights. The script needs ``pip install transformers accelerate``.
"""

import copy
import tempfile
from pathlib import Path

import torch
from transformers import Dinov2Config, Dinov2ForImageClassification, Trainer, TrainingArguments

from recyclelora import adapt
from recyclelora.adapters import adapter_parameters, load_adapters, merge, save_adapters

torch.manual_seed(0)
config = Dinov2Config(
    image_size=56,
    patch_size=14,
    hidden_size=96,
    num_hidden_layers=3,
    num_attention_heads=3,
    num_labels=4,
)
model = Dinov2ForImageClassification(config).eval()
pretrained = copy.deepcopy(model)

# Random images. The class is the brightest quarter.
labels = torch.arange(32) % 4
images = torch.randn(32, 3, 56, 56)
for image, label in zip(images, labels):
    row, column = divmod(int(label), 2)
    image[:, 28 * row : 28 * row + 28, 28 * column : 28 * column + 28] += 1
dataset = [{"pixel_values": image, "labels": int(label)} for image, label in zip(images, labels)]

# Four outputs are fewer than r_main + r_sub, so the whole classifier is trained.
with torch.no_grad():
    before = model(images).logits
adapt(model, r_main=32, r_sub=4, exclude="classifier")
model.classifier.requires_grad_(True)
with torch.no_grad():
    change = (model(images).logits - before).abs().max() / before.abs().max()
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
with tempfile.TemporaryDirectory() as folder:
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=folder,
            max_steps=20,
            per_device_train_batch_size=16,
            logging_steps=1,
            save_strategy="no",  # save_adapters() below writes a much smaller file
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        ),
        train_dataset=dataset,
        optimizers=(optimizer, None),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    print(f"loss: {losses[0]:.3f} at the first step, {losses[-1]:.3f} after {len(losses)} steps")

    path = Path(folder) / "adapters.safetensors"
    save_adapters(model, path)
    print(f"adapter file: {path.stat().st_size / 1e6:.1f} MB")
    loaded = load_adapters(pretrained, path)
    loaded.classifier.load_state_dict(model.classifier.state_dict())

model.eval(), loaded.eval()
with torch.no_grad():
    trained = model(images).logits
    assert torch.equal(loaded(images).logits, trained)
    merge(model)  # one matrix product per layer, for inference
    change = (model(images).logits - trained).abs().max() / trained.abs().max()
print("the loaded model computes the same outputs")
print(f"relative change of the outputs by merge(): {change:.1e}")
