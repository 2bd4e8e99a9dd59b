"""Small models of many families with random weights, which :mod:`benchmark.models` adapts."""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

PIXELS, CLASSES = 64, 40
NARROW = {"embed_dim": 192, "num_heads": 3, "depth": 3}  # settings for models of timm
SIZES = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
SMALL = {**SIZES, "intermediate_size": 256}
VISION = {**SMALL, "image_size": PIXELS, "patch_size": 16}
VOCABULARY = {"vocab_size": 100, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TEXT = {**SMALL, **VOCABULARY}
DECODER = {**TEXT, "num_key_value_heads": 2}
# Settings of encoders with a decoder, with the names of BART and of later models like it.
BOTH = {
    "d_model": 128,
    **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
    **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    **{f"{side}_ffn_dim": 256 for side in ("encoder", "decoder")},
}
RESNET = {"model_type": "resnet", "depths": [1, 1, 1, 1], "out_features": ["stage4"]}
SWIN = {"image_size": PIXELS, "embed_dim": 48, "depths": [1, 1], "window_size": 4}

Inputs = Callable[[], dict[str, Tensor]]


class Family(NamedTuple):
    """A family: its library, and a function that builds a model and the inputs of its call."""

    library: str
    build: Callable[[], tuple[nn.Module, dict[str, Tensor]]]


def of_timm(name: str, pixels: int = PIXELS, **settings: Any) -> Family:
    """Return the family of a timm model, given its name."""

    def build() -> tuple[nn.Module, dict[str, Tensor]]:
        timm = importlib.import_module("timm")
        model = timm.create_model(name, num_classes=CLASSES, **settings)
        return model, {"x": torch.randn(2, 3, pixels, pixels)}

    return Family("timm", build)


def of_torchvision(name: str, pixels: int = PIXELS, **settings: Any) -> Family:
    """Return the family of a torchvision model, given its name."""

    def build() -> tuple[nn.Module, dict[str, Tensor]]:
        models = importlib.import_module("torchvision.models")
        model = models.get_model(name, weights=None, num_classes=CLASSES, **settings)
        return model, {"x": torch.randn(2, 3, pixels, pixels)}

    return Family("torchvision", build)


def of_transformers(kind: str, inputs: Inputs, task: str = "Model", **settings: Any) -> Family:
    """Return the family of a transformers model, given its model type and its Auto class."""

    def build() -> tuple[nn.Module, dict[str, Tensor]]:
        transformers = importlib.import_module("transformers")
        config = transformers.AutoConfig.for_model(kind, **settings)
        return getattr(transformers, f"Auto{task}").from_config(config), inputs()

    return Family("transformers", build)


def torchvision_vit() -> tuple[nn.Module, dict[str, Tensor]]:
    """Build torchvision's ViT, which has no small variant with a name."""
    models = importlib.import_module("torchvision.models")
    model = models.VisionTransformer(PIXELS, 16, 2, 4, 128, 256, num_classes=CLASSES)
    return model, {"x": torch.randn(2, 3, PIXELS, PIXELS)}


def transformer() -> tuple[nn.Module, dict[str, Tensor]]:
    """Build PyTorch's own encoder and decoder."""
    model = nn.Transformer(128, 4, 2, 2, 256, batch_first=True)
    return model, {"src": torch.randn(2, 7, 128), "tgt": torch.randn(2, 5, 128)}


def words(length: int = 12) -> Tensor:
    """Return token ids without special tokens."""
    return torch.randint(10, 90, (2, length))


def text() -> dict[str, Tensor]:
    """Return inputs of a text encoder or decoder."""
    return {"input_ids": words()}


def text_to_text() -> dict[str, Tensor]:
    """Return inputs of an encoder with a decoder."""
    return {"input_ids": words(), "decoder_input_ids": words(8)}


def image() -> dict[str, Tensor]:
    """Return inputs of an image model."""
    return {"pixel_values": torch.randn(2, 3, PIXELS, PIXELS)}


def text_and_image() -> dict[str, Tensor]:
    """Return inputs of a model that compares texts with images."""
    return {**text(), **image()}


def sound() -> dict[str, Tensor]:
    """Return inputs of an encoder of waveforms."""
    return {"input_values": torch.randn(2, 4000)}


def spectrogram() -> dict[str, Tensor]:
    """Return inputs of Whisper."""
    return {"input_features": torch.randn(2, 80, 100), "decoder_input_ids": words(8)}


def image_and_points() -> dict[str, Tensor]:
    """Return inputs of Segment Anything."""
    return {**image(), "input_points": PIXELS * torch.rand(2, 1, 1, 2)}


VISION_FAMILIES: dict[str, Family] = {
    "ViT": of_timm("vit_tiny_patch16_224", img_size=PIXELS, depth=2),
    "DeiT, distilled": of_timm("deit_tiny_distilled_patch16_224", img_size=PIXELS, depth=2),
    "DINOv3": of_timm("vit_small_patch16_dinov3", img_size=PIXELS, depth=2),
    "SigLIP, image": of_timm("vit_base_patch16_siglip_224", img_size=PIXELS, **NARROW),
    "SAM, image": of_timm("samvit_base_patch16", img_size=PIXELS, **NARROW),
    "BEiT": of_timm("beit_base_patch16_224", img_size=PIXELS, **NARROW),
    "EVA-02": of_timm("eva02_tiny_patch14_224", pixels=56, img_size=56, depth=2),
    "CaiT": of_timm("cait_xxs24_224", img_size=PIXELS, depth=2),
    "XCiT": of_timm("xcit_nano_12_p16_224", img_size=PIXELS, depth=2),
    "MLP-Mixer": of_timm("mixer_s32_224", img_size=224, pixels=224),
    "PVT v2": of_timm("pvt_v2_b0"),
    "Hiera": of_timm("hiera_tiny_224", pixels=224, embed_dim=48),
    "ConvNeXt": of_timm("convnext_atto"),
    "ViT, in_proj_weight": Family("torchvision", torchvision_vit),
    "Swin": of_torchvision("swin_t"),
    "Swin V2": of_torchvision("swin_v2_t"),
    "MaxViT": of_torchvision("maxvit_t", pixels=224),
    "DINOv2": of_transformers("dinov2", image, **VISION),
    "MAE": of_transformers(
        "vit_mae",
        image,
        "ModelForPreTraining",
        **VISION,
        **{f"decoder_{key}": value for key, value in SMALL.items()},
    ),
    "SegFormer": of_transformers("segformer", image),
    "DETR": of_transformers(
        "detr",
        image,
        "ModelForObjectDetection",
        **BOTH,
        backbone=None,
        backbone_config=RESNET,
        use_timm_backbone=False,
        use_pretrained_backbone=False,
    ),
    "Mask2Former": of_transformers(
        "mask2former",
        image,
        "ModelForUniversalSegmentation",
        backbone_config={
            "model_type": "swin",
            **SWIN,
            "depths": [1, 1, 1, 1],
            "num_heads": [2, 2, 4, 4],
            "out_features": [f"stage{i}" for i in range(1, 5)],
        },
        feature_size=64,
        mask_feature_size=64,
        hidden_dim=128,
        encoder_feedforward_dim=256,
        encoder_layers=2,
        decoder_layers=3,
        num_attention_heads=4,
        dim_feedforward=256,
        num_queries=10,
    ),
    "Segment Anything": of_transformers(
        "sam",
        image_and_points,
        "ModelForMaskGeneration",
        vision_config={
            **VISION,
            "num_hidden_layers": 3,
            "output_channels": 64,
            "mlp_dim": 256,
            "global_attn_indexes": [1],
            "window_size": 2,
            "num_pos_feats": 32,
        },
        prompt_encoder_config={
            "hidden_size": 64,
            "image_size": PIXELS,
            "patch_size": 16,
            "image_embedding_size": PIXELS // 16,
        },
        mask_decoder_config={
            "hidden_size": 64,
            "mlp_dim": 128,
            "num_attention_heads": 4,
            "iou_head_hidden_dim": 64,
        },
    ),
}
TEXT_FAMILIES: dict[str, Family] = {
    "BERT": of_transformers("bert", text, "ModelForMaskedLM", **TEXT),
    "DeBERTa v2": of_transformers(
        "deberta-v2",
        text,
        "ModelForSequenceClassification",
        **TEXT,
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
    ),
    "ModernBERT": of_transformers("modernbert", text, "ModelForMaskedLM", **TEXT),
    "Longformer": of_transformers("longformer", text, **TEXT, attention_window=8),
    "GPT-2": of_transformers(
        "gpt2", text, "ModelForCausalLM", n_embd=128, n_layer=2, n_head=4, **VOCABULARY
    ),
    "Llama, tied": of_transformers(
        "llama", text, "ModelForCausalLM", **DECODER, tie_word_embeddings=True
    ),
    "Gemma 3": of_transformers("gemma3_text", text, "ModelForCausalLM", **DECODER, head_dim=32),
    "Qwen 3": of_transformers("qwen3", text, "ModelForCausalLM", **DECODER, head_dim=32),
    "Phi-3": of_transformers("phi3", text, "ModelForCausalLM", **DECODER),
    "Mixtral": of_transformers("mixtral", text, "ModelForCausalLM", **DECODER, num_local_experts=4),
    "DeepSeek V3": of_transformers(
        "deepseek_v3",
        text,
        "ModelForCausalLM",
        **TEXT,
        num_key_value_heads=4,
        q_lora_rank=64,
        kv_lora_rank=48,
        qk_rope_head_dim=16,
        v_head_dim=32,
        qk_nope_head_dim=32,
        n_routed_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=64,
        n_group=2,
        topk_group=1,
        first_k_dense_replace=1,
    ),
    "Mamba": of_transformers(
        "mamba", text, "ModelForCausalLM", **VOCABULARY, hidden_size=128, num_hidden_layers=2
    ),
    "Mamba 2": of_transformers(
        "mamba2",
        text,
        "ModelForCausalLM",
        **VOCABULARY,
        hidden_size=128,
        num_hidden_layers=2,
        num_heads=8,
        head_dim=32,
        state_size=16,
        n_groups=1,
    ),
    "T5": of_transformers(
        "t5",
        text_to_text,
        "ModelForSeq2SeqLM",
        **VOCABULARY,
        d_model=128,
        d_kv=32,
        d_ff=256,
        num_layers=2,
        num_heads=4,
    ),
    "BART": of_transformers("bart", text_to_text, "ModelForSeq2SeqLM", **BOTH, **VOCABULARY),
    "CLIP": of_transformers("clip", text_and_image, vision_config=VISION, text_config=TEXT),
    "SigLIP": of_transformers(
        "siglip", text_and_image, vision_config=VISION, text_config={**TEXT, "projection_size": 128}
    ),
    "Whisper": of_transformers(
        "whisper",
        spectrogram,
        "ModelForSpeechSeq2Seq",
        **BOTH,
        **VOCABULARY,
        max_source_positions=50,
        decoder_start_token_id=1,
    ),
    "wav2vec 2.0": of_transformers("wav2vec2", sound, **SMALL),
    "WavLM": of_transformers("wavlm", sound, **SMALL),
    "nn.Transformer": Family("torch", transformer),
}
FAMILIES: Mapping[str, Family] = VISION_FAMILIES | TEXT_FAMILIES
