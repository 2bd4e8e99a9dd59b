"""A segmentor in operators that every exporter supports, for any batch size and image size.

Two parts use other operators than the model but compute the same values. Deformable attention reads
rows of the memory by index (ONNX's Gather), while the model calls ``grid_sample``. Users reported
that TensorRT computes GridSample wrongly without a message. The position embedding is resampled by
two small matrices of the grid's size, because an exporter would store the size of its example
image.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from recyclelora.backbone.pyramid import SCALES
from recyclelora.backbone.vision_transformer import VisionTransformer, patch_grid, patch_map
from recyclelora.mask2former import MaskFormer
from recyclelora.mask2former.ms_deform_attn import MSDeformAttn

_CUBIC = -0.75  # the coefficient of PyTorch's bicubic interpolation


class TraceableSegmentor(nn.Module):
    """Model from images to class scores and classes, for export.

    The input is (B, 3, H, W), RGB 0..255. The outputs are scores (B, C, H, W) and classes
    (B, H, W) uint8. The scores equal those of :meth:`MaskFormer.semantic_logits` up to rounding.

    Parameters
    ----------
    model : MaskFormer
        A model with merged weights, which is copied.
    half : bool
        Whether backbone and transformer decoder compute in float16. The following remain in
        float32: the pixel decoder, whose sampling positions need the precision, the mask and class
        probabilities, the images and the scores.
    """

    def __init__(self, model: MaskFormer, *, half: bool = False):
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_dtype = torch.float16 if half else torch.float32
        for module in self.model.modules():
            if isinstance(module, MSDeformAttn):
                module.attend = gathered_deform_attn
            if isinstance(module, VisionTransformer):
                module.position_embedding = _position_embedding(module)
                module.forward = _pyramid_of_even_maps(module)
        if half:
            predictor = self.model.sem_seg_head.predictor
            self.model.backbone.half()
            predictor.half()
            predictor.pe_layer = _Half(predictor.pe_layer)
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        model = self.model
        step = model.size_divisibility
        height, width = images.shape[-2:]
        rows, columns = (height + step - 1) // step, (width + step - 1) // step
        images = (images - model.pixel_mean) / model.pixel_std
        images = F.pad(images, (0, columns * step - width, 0, rows * step - height))
        head, dtype = model.sem_seg_head, self.half_dtype
        mask_features, _, maps = head.pixel_decoder.forward_features(
            model.backbone(images.to(dtype))
        )
        if dtype != torch.float32:
            maps = [_converted(level, dtype) for level in maps]
        found = head.predictor(maps, mask_features.to(dtype))
        masks = F.interpolate(
            found["pred_masks"].float(),
            size=(rows * step, columns * step),
            mode="bilinear",
            align_corners=False,
        )
        classes = found["pred_logits"].float().softmax(dim=-1)[..., :-1]
        scores = torch.einsum("bqc,bqhw->bchw", classes, masks.sigmoid())
        # An exporter cannot prove the limits of a slice for symbolic sizes.
        scores = scores.index_select(2, torch.arange(height, device=scores.device))
        scores = scores.index_select(3, torch.arange(width, device=scores.device))
        return scores, scores.argmax(dim=1).to(torch.uint8)


def _converted(level: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a map (N, C, H, W) of the encoder to tokens that are contiguous in memory.

    An exporter cannot prove how the strides of a map of symbolic size would be preserved.
    """
    tokens = level.flatten(2).transpose(1, 2).to(dtype)
    return tokens.transpose(1, 2).unflatten(2, level.shape[-2:])


class _Half(nn.Module):
    """Wrapper that converts the output of a module to float16."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x).half()


def gathered_deform_attn(
    value: Tensor,
    spatial_shapes: Sequence[tuple[int, int]],
    sampling_locations: Tensor,
    attention_weights: Tensor,
) -> Tensor:
    """Compute :func:`recyclelora.ops.ms_deform_attn` with row indices.

    Parameters
    ----------
    value, spatial_shapes, sampling_locations, attention_weights
        The arguments of that function.

    Returns
    -------
    Tensor
        The output of that function.

    Examples
    --------
    >>> value = torch.ones(1, 4 * 6 + 2 * 3, 8, 16)
    >>> where, weight = torch.full((1, 5, 8, 2, 4, 2), 0.5), torch.full((1, 5, 8, 2, 4), 1 / 8)
    >>> gathered_deform_attn(value, [(4, 6), (2, 3)], where, weight).shape
    torch.Size([1, 5, 128])
    """
    n, s, heads, d = value.shape
    q = sampling_locations.shape[1]
    table = value.reshape(n * s * heads, d)
    image = torch.arange(n, device=value.device)[:, None, None, None] * (s * heads)
    head = torch.arange(heads, device=value.device)[:, None]
    out, start = None, 0
    for level, (h, w) in enumerate(spatial_shapes):
        x = sampling_locations[:, :, :, level, :, 0] * w - 0.5
        y = sampling_locations[:, :, :, level, :, 1] * h - 0.5
        left, top = x.floor(), y.floor()
        weight = attention_weights[:, :, :, level]
        for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
            column, row = left + dx, top + dy
            share = (1 - (x - column).abs()) * (1 - (y - row).abs())
            inside = (column >= 0) & (column < w) & (row >= 0) & (row < h)
            share = torch.where(inside, share * weight, 0.0)
            position = row.clamp(0, h - 1).long() * w + column.clamp(0, w - 1).long()
            index = image + (start + position) * heads + head
            sampled = F.embedding(index, table)  # (N, Q, heads, P, d)
            part = (sampled * share[..., None]).sum(dim=3)
            out = part if out is None else out + part
        start = start + h * w
    return out.reshape(n, q, heads * d)


def _pyramid_of_even_maps(backbone: VisionTransformer) -> Callable[[Tensor], dict[str, Tensor]]:
    """Return the backbone's ``forward`` for maps of even sides, which are halved exactly.

    The sizes of the pyramid are then computed from the size of the image without rounding.
    """

    def forward(images: Tensor) -> dict[str, Tensor]:
        grid = patch_grid(images, backbone.patch_size)
        outputs = backbone._block_outputs(images, backbone.out_indices)
        pyramid = {}
        for tokens, (level, scale) in zip(outputs, SCALES.items(), strict=True):
            size = [side * int(scale) if scale >= 1 else side // int(1 / scale) for side in grid]
            feature = patch_map(tokens, grid)
            pyramid[level] = (
                feature
                if scale == 1
                else F.interpolate(feature, size=size, mode="bilinear", align_corners=False)
            )
        return pyramid

    return forward


def _position_embedding(backbone: VisionTransformer) -> Callable[[int, int], Tensor]:
    """Return a ``position_embedding(rows, columns)`` that is exact for symbolic sizes."""
    if backbone.interpolate_antialias:
        raise ValueError(
            "expected a backbone whose position embedding is resampled without antialiasing, got "
            "interpolate_antialias=True, which ONNX has no exact operator for"
        )
    grid, offset = backbone.patch_embed.grid, backbone.interpolate_offset

    def position_embedding(rows: int, columns: int) -> Tensor:
        embedding = backbone.pos_embed
        cls, patches = embedding.float().split([1, grid[0] * grid[1]], dim=1)
        sizes = [_as_tensor(size, embedding.device) for size in (rows, columns)]
        same = (sizes[0] == grid[0]) & (sizes[1] == grid[1])
        by_row, by_column = (
            _cubic_matrix(size, _count(size, embedding.device), old, same, offset)
            for size, old in zip((rows, columns), grid, strict=True)
        )
        resized = by_row @ patches[0].unflatten(0, grid).flatten(1)
        resized = resized.unflatten(1, (grid[1], -1))  # (rows, old columns, dim)
        resized = torch.bmm(by_column[None].expand(rows, -1, -1), resized)
        return torch.cat([cls, resized.flatten(0, 1)[None]], dim=1).to(embedding.dtype)

    return position_embedding


def _as_tensor(size: int, device: torch.device) -> Tensor:
    return _count(size, device)[-1]


def _count(size: int, device: torch.device) -> Tensor:
    """Return 1 .. size, whose last value is a tensor even if the size is symbolic."""
    return torch.arange(1, size + 1, dtype=torch.float32, device=device)


def _cubic_matrix(size: int, count: Tensor, old: int, same: Tensor, offset: float) -> Tensor:
    """Return the matrix (size, old) of PyTorch's bicubic interpolation along one axis."""
    step = torch.where(same, torch.ones_like(count[-1]), old / (count[-1] + offset))
    centre = (count - 0.5) * step - 0.5
    first = centre.floor()
    fraction = centre - first
    columns = torch.arange(old, dtype=torch.float32, device=count.device)
    matrix = None
    for shift in (-1, 0, 1, 2):
        weight = _cubic((fraction - shift).abs())
        place = (first + shift).clamp(0, old - 1)  # repeat the border
        part = (columns == place[:, None]) * weight[:, None]
        matrix = part if matrix is None else matrix + part
    return matrix


def _cubic(x: Tensor) -> Tensor:
    """Return Keys' convolution kernel at distances x from 0 to 2."""
    near = ((_CUBIC + 2) * x - (_CUBIC + 3)) * x * x + 1
    far = ((_CUBIC * x - 5 * _CUBIC) * x + 8 * _CUBIC) * x - 4 * _CUBIC
    return torch.where(x <= 1, near, far)
