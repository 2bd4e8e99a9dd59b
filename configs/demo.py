"""The demo: DINOv2-S is trained on drawn daytime streets and tested on other domains.

``make demo`` draws the streets first. If RECYCLELORA_DATA is set, the real images there are targets
too.
"""

from detectron2.config import LazyCall as L

from recyclelora.data import real_sets
from recyclelora.evaluation import native

from .common.data import folder, test_loader, train_loader
from .common.dinov2 import dinov2_s
from .common.optimizer import optimizer, schedule
from .common.recyclelora import model
from .common.train import train

train.update(output_dir="output/demo/run", max_iter=220, log_period=10, picture_period=100)
train.amp.dtype = "auto"
optimizer.lr = 5e-4  # five times the rate of the paper, because the run is short

model.backbone.module.update(module=dinov2_s, weights="dinov2_vits14_focus")
model.update(hidden_dim=128, enc_layers=2, enc_dim_feedforward=512)
model.update(dec_layers=3, dec_dim_feedforward=512, num_queries=40, num_points=3136)

streets = "${dataloader.streets}"
dataloader = dict(
    streets="output/demo/streets",
    train=train_loader(folder(streets, "day"), crop=256),
    test={
        **{
            f"streets {name}": test_loader(folder(streets, name))
            for name in ("day_val", "night", "fog", "rain")
        },
        **{name: test_loader(name, subset=20) for name in real_sets()},
    },
)
evaluation = dict(
    protocol=L(native)(long_side=512), checkpoint=None, save_predictions=None, temperature=None
)
