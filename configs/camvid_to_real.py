"""Real to real, with the budget of ``streets_to_real``: two daytime drives of CamVid to the others.

The sub adapter has rank 2, as in the paper's Table 8 for this setting.
"""

from .streets_to_real import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/camvid_to_real/recyclelora_seed0"
model.backbone.r_sub = 2

sources = ("camvid_0016E5", "camvid_0006R0")
dataloader["train"].dataset = list(sources)
for name in sources:
    dataloader["test"].pop(name, None)
