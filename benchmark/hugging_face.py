"""The baseline without this project: a segmentor from Hugging Face of the same size as ours.

It is Hugging Face's Mask2Former on its Dinov2, with two LoRA adapters by peft. Both packages are
required: ``pip install peft transformers``.
"""

import re
from types import SimpleNamespace
from typing import Any

import peft
import torch
from torch import Tensor, nn
from transformers import Dinov2Backbone, Dinov2Config, Mask2FormerConfig
from transformers import Mask2FormerForUniversalSegmentation as Mask2Former
from transformers.utils import logging

from recyclelora.backbone import DinoVisionTransformer, feature_pyramid

logging.set_verbosity_error()  # suppresses the message that Dinov2 is an untested backbone

PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# The names of one block's parameters, from ours to theirs. qkv is split into three.
NAMES = {
    "cls_token": "embeddings.cls_token",
    "pos_embed": "embeddings.position_embeddings",
    "mask_token": "embeddings.mask_token",
    r"patch_embed\.proj": "embeddings.patch_embeddings.projection",
    r"blocks\.(\d+)": r"encoder.layer.\1",
    r"attn\.proj": "attention.o_proj",
    r"ls(\d)\.gamma": r"layer_scale\1.lambda1",
    r"^norm\.": "layernorm.",
}


class PyramidOfDinov2(nn.Module):
    """Their backbone followed by our pyramid, because Mask2Former expects strides 4, 8, 16, 32."""

    def __init__(self, backbone: nn.Module, channels: list[int]):
        super().__init__()
        self.backbone, self.channels = backbone, channels

    def forward(self, images: Tensor) -> SimpleNamespace:
        levels = feature_pyramid(self.backbone(images).feature_maps)
        return SimpleNamespace(feature_maps=list(levels.values()))


class HuggingFaceSegmentor(nn.Module):
    """Model from images (B, 3, H, W), RGB 0..255, and label maps (B, H, W) to the loss.

    Parameters
    ----------
    backbone : DinoVisionTransformer
        Our backbone without adapters. Theirs gets the same weights.
    head : dict
        Keyword arguments of ``recyclelora.mask2former.build_segmentor``.
    num_classes : int
        The number of classes without "no object". Larger labels are ignored.
    r_main, r_sub : int
        The ranks of the two adapters.
    """

    def __init__(
        self,
        backbone: DinoVisionTransformer,
        *,
        head: dict[str, Any],
        num_classes: int,
        r_main: int,
        r_sub: int,
    ):
        super().__init__()
        config = _config(backbone, head, num_classes)
        self.model = Mask2Former(config)
        theirs = self.model.model.pixel_level_module.encoder
        theirs.load_state_dict(_their_weights(backbone))
        adapted = _with_adapters(theirs, r_main, r_sub)
        self.backbone = PyramidOfDinov2(adapted, theirs.channels)
        self.model.model.pixel_level_module.encoder = self.backbone
        self.num_classes = num_classes
        self.register_buffer("mean", torch.tensor(PIXEL_MEAN).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(PIXEL_STD).view(3, 1, 1))

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return the weighted sum of all losses."""
        classes = [label.unique() for label in labels]
        classes = [present[present < self.num_classes] for present in classes]
        masks = [
            (label == present[:, None, None]).float() for label, present in zip(labels, classes)
        ]
        normalised = (images - self.mean) / self.std
        return self.model(normalised, mask_labels=masks, class_labels=classes).loss.sum()

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the four feature maps that the head receives."""
        return self.backbone((images - self.mean) / self.std).feature_maps

    def merged(self) -> "HuggingFaceSegmentor":
        """Merge the adapters by peft and return the model."""
        self.backbone.backbone.merge_adapter()
        return self

    def semantic_logits(self, images: Tensor) -> Tensor:
        """Return class scores (B, num_classes, H, W), as its image processor computes them."""
        found = self.model((images - self.mean) / self.std)
        masks = nn.functional.interpolate(
            found.masks_queries_logits.float(),
            size=images.shape[-2:],
            mode="bilinear",
            align_corners=False,
        )
        classes = found.class_queries_logits.float().softmax(dim=-1)[..., :-1]
        return torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())


def _config(backbone: DinoVisionTransformer, head: dict, num_classes: int) -> Mask2FormerConfig:
    width, patch = backbone.embed_dim, backbone.patch_size
    dinov2 = Dinov2Config(
        hidden_size=width,
        num_hidden_layers=len(backbone.blocks),
        num_attention_heads=backbone.blocks[0].attn.num_heads,
        image_size=patch * backbone.patch_embed.grid[0],
        patch_size=patch,
        out_features=[f"stage{index + 1}" for index in backbone.out_indices],
        apply_layernorm=False,
    )
    return Mask2FormerConfig(
        backbone_config=dinov2,
        num_labels=num_classes,
        feature_size=head["hidden_dim"],
        mask_feature_size=head["hidden_dim"],
        hidden_dim=head["hidden_dim"],
        num_attention_heads=head["nheads"],
        encoder_layers=head["enc_layers"],
        encoder_feedforward_dim=head["enc_dim_feedforward"],
        decoder_layers=head["dec_layers"] + 1,  # includes the prediction before the first layer
        dim_feedforward=head["dec_dim_feedforward"],
        num_queries=head["num_queries"],
        train_num_points=head["num_points"],
    )


def _their_weights(backbone: DinoVisionTransformer) -> dict[str, Tensor]:
    state = {}
    for name, tensor in backbone.state_dict().items():
        for ours, theirs in NAMES.items():
            name = re.sub(ours, theirs, name)
        if ".attn.qkv." in name:
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                state[name.replace("attn.qkv", f"attention.{part}_proj")] = rows
        else:
            state[name] = tensor
    return state


def _with_adapters(backbone: Dinov2Backbone, r_main: int, r_sub: int) -> nn.Module:
    """Add two active adapters to every linear layer, freeze the rest and scale as in our layer."""
    linears = [name for name, module in backbone.named_modules() if isinstance(module, nn.Linear)]
    ranks = {"main": r_main, "sub": r_sub}
    configs = {
        name: peft.LoraConfig(r=rank, lora_alpha=rank / (r_main + r_sub), target_modules=linears)
        for name, rank in ranks.items()
    }
    adapted = peft.get_peft_model(backbone, configs["main"], "main")
    adapted.add_adapter("sub", configs["sub"])
    adapted.base_model.set_adapter(list(ranks))
    return adapted
