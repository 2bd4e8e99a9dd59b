"""Real to real, at the budget of ``streets_to_real``: from CamVid's two drives by day to the rest.

The sub adapter has rank 2, as the paper's Table 8 has it for this setting.
"""

from .streets_to_real import dataloader, evaluation, model, optimizer, schedule, train

train.output_dir = "output/camvid_to_real/recyclelora_seed0"
model.backbone.r_sub = 2

sources = ("camvid_0016E5", "camvid_0006R0")
dataloader["train"].dataset = list(sources)
for name in sources:
    dataloader["test"].pop(name, None)
