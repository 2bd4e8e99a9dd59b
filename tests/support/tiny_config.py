"""A config for tests: a random ViT of width 64 and depth 4, a small head, three domains."""

from detectron2.config import LazyCall as L

from recyclelora.evaluation import native

from ...configs.common.data import folder, test_loader, train_loader
from ...configs.common.dinov2 import dinov2_s
from ...configs.common.optimizer import optimizer, schedule
from ...configs.common.recyclelora import model
from ...configs.common.train import train

train.update(output_dir="output/tiny", max_iter=4, log_period=1, picture_period=2)
train.update(checkpoint_period=2, device="cpu", checkpoints_kept=3)

dinov2_s.update(img_size=64, embed_dim=64, depth=4, num_heads=2, out_indices=[0, 1, 2, 3])
model.backbone.module.update(module=dinov2_s, weights=None)
model.backbone.update(r_main=8, r_sub=2)
model.update(hidden_dim=32, nheads=2, enc_layers=1, enc_dim_feedforward=64)
model.update(dec_layers=2, dec_dim_feedforward=64, num_queries=20, num_points=128)

streets = "${dataloader.streets}"
dataloader = dict(
    streets="output/tiny/streets",
    train=train_loader(folder(streets, "day"), crop=64, batch=2),
    test=dict(
        day=test_loader(folder(streets, "day")),
        night=test_loader(folder(streets, "night"), subset=2),
    ),
)
dataloader["train"].num_workers = 0
for loader in dataloader["test"].values():
    loader.num_workers = 0
evaluation = dict(protocol=L(native)(long_side=96), save_predictions=None)
