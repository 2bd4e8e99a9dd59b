"""EVA-02-L with patches of 16 pixels for images of 512 pixels, as in Rein and later segmentors."""

from detectron2.config import LazyCall as L

from recyclelora.backbone import Eva02VisionTransformer, presets

eva02_l = L(Eva02VisionTransformer)(
    img_size=512,
    patch_size=16,
    checkpointing="${train.checkpointing}",
    **presets.VIT_L,
    mlp_ratio=8 / 3,
    out_indices=[7, 11, 15, 23],
)
