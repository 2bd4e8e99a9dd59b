"""DINOv2 at patch 16, as the segmentors use it: the released sizes, nothing loaded yet."""

from detectron2.config import LazyCall as L

from recyclelora.backbone import DinoVisionTransformer

# Blocks 1/3, 1/2, 2/3 and all the way up make the pyramid: 7, 11, 15, 23 of ViT-L.
dinov2_s = L(DinoVisionTransformer)(
    img_size=512, patch_size=16, embed_dim=384, depth=12, num_heads=6, out_indices=[3, 5, 7, 11]
)
dinov2_b = L(DinoVisionTransformer)(
    img_size=512, patch_size=16, embed_dim=768, depth=12, num_heads=12, out_indices=[3, 5, 7, 11]
)
dinov2_l = L(DinoVisionTransformer)(
    img_size=512, patch_size=16, embed_dim=1024, depth=24, num_heads=16, out_indices=[7, 11, 15, 23]
)
