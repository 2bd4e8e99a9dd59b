"""DINOv2-S is trained only on drawn streets and tested on photographs.

``tools/reproduce.py --table streets_to_real`` draws the streets and runs this config and its
baselines. The targets are all sets in RECYCLELORA_DATA, with 100 seeded images of each.
"""

from detectron2.config import LazyCall as L

from recyclelora.data import REAL_SETS, real_sets
from recyclelora.evaluation import native

from .common.data import folder, test_loader, train_loader
from .common.dinov2 import dinov2_s
from .common.optimizer import optimizer, schedule
from .common.recyclelora import model
from .common.train import train

train.update(output_dir="output/streets_to_real/recyclelora_seed0", max_iter=300)
train.update(log_period=20, checkpoint_period=50, picture_period=150)
train.amp.dtype = "auto"
optimizer.lr = 5e-4  # five times the rate of the paper, because the run is short

model.backbone.module.update(module=dinov2_s, weights="dinov2_vits14_focus")
model.update(hidden_dim=128, enc_layers=2, enc_dim_feedforward=512)
model.update(dec_layers=3, dec_dim_feedforward=512, num_queries=40, num_points=3136)
model.head_seed = "${train.seed}"  # so that the initial head does not depend on the adapters

# All kinds of light and weather, because rendering other conditions costs nothing.
streets = "${dataloader.streets}"
kinds = ("day", "textures", "dusk", "night", "fog", "rain", "snow")
dataloader = dict(
    streets="output/streets_to_real/streets",
    train=train_loader(*(folder(streets, kind) for kind in kinds), crop=256),
    subset=100,  # seeded images of each set; null selects all
    test={
        name: test_loader(name, subset="${dataloader.subset}") for name in real_sets() or REAL_SETS
    },
)
evaluation = dict(
    protocol=L(native)(long_side=512), checkpoint=None, save_predictions=None, temperature=None
)
