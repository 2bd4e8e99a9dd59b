"""One training iteration of the paper's model at full size, on the CPU: a script of its own,
because its peak memory is the result. Prints ``{"loss": ..., "peak_bytes": ...}``.

python tests/support/one_iteration.py IMAGES LABELS
"""

import json
import resource
import sys
from pathlib import Path

import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.engine import HookBase

from recyclelora.data import register_folder
from recyclelora.engine.bad_batches import BadBatches
from recyclelora.engine.trainer import Trainer

CONFIG = Path(__file__).parents[2] / "configs" / "recyclelora_dinov2l_g2cbm.py"


class Report(HookBase):
    """Store the loss that the step writes to the event storage."""

    def after_step(self):
        self.loss = self.trainer.storage.latest()["total_loss"][0]


def main():
    cfg = LazyConfig.load(str(CONFIG))
    cfg.model.backbone.module.weights = None
    name = register_folder("one_street", images=sys.argv[1], labels=sys.argv[2])
    cfg.dataloader.train.update(dataset=name, total_batch_size=1, num_workers=0)
    torch.manual_seed(0)
    model = instantiate(cfg.model)
    cfg.optimizer.params.model = model
    trainer = Trainer(
        model=model,
        loader=instantiate(cfg.dataloader.train),
        optimizer=instantiate(cfg.optimizer),
        schedule=instantiate(cfg.schedule),
        bad_batches=BadBatches(Path(sys.argv[1]).parent),
    )
    report = Report()
    trainer.register_hooks([report])
    trainer.train(0, 1)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB
    print(json.dumps({"loss": report.loss, "peak_bytes": peak}))


if __name__ == "__main__":
    main()
