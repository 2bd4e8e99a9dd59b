"""Random points on masks: drawing, sampling, and choosing the uncertain ones (PointRend)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def point_sample(maps: Tensor, coords: Tensor) -> Tensor:
    """Bilinear values of maps at points; beyond the edge the maps are zero.

    Parameters
    ----------
    maps : Tensor
        (N, C, H, W).
    coords : Tensor
        (N, P, 2) as (x, y), 0..1 from edge to edge of the map.

    Returns
    -------
    Tensor
        (N, C, P).

    Examples
    --------
    >>> point_sample(torch.ones(1, 3, 4, 4), torch.full((1, 5, 2), 0.5)).shape
    torch.Size([1, 3, 5])
    """
    grid = (2.0 * coords - 1.0)[:, :, None]
    return F.grid_sample(maps, grid, align_corners=False).squeeze(3)


def image_generators(
    targets: Sequence[dict], device: torch.device
) -> list[torch.Generator] | list[None]:
    """One generator per image, seeded by its target's "seed"; Nones (global RNG) if none has one.

    An image's random points then depend on its own seed alone, so the loss of an image is the
    same however the batch is split over ranks.

    Raises
    ------
    ValueError
        If some targets have a "seed" and others do not.
    """
    seeds = [target.get("seed") for target in targets]
    if all(seed is None for seed in seeds):
        return [None] * len(seeds)
    if any(seed is None for seed in seeds):
        raise ValueError(
            f'expected a "seed" in every target of the batch or in none, got {seeds}; '
            "add the missing seeds or remove the others."
        )
    return [torch.Generator(device).manual_seed(int(seed)) for seed in seeds]


def draw_points(
    counts: Sequence[int],
    num_points: int,
    device: torch.device,
    generators: Sequence[torch.Generator | None],
) -> Tensor:
    """Uniform points for `counts[i]` masks of image i -> (sum(counts), num_points, 2), in 0..1.

    Without generators there is one call of the global RNG, as in the published code.
    """
    if any(generator is None for generator in generators):
        return torch.rand(sum(counts), num_points, 2, device=device)
    pairs = zip(counts, generators, strict=True)
    return torch.cat([torch.rand(n, num_points, 2, device=device, generator=g) for n, g in pairs])


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    counts: Sequence[int],
    generators: Sequence[torch.Generator | None],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Points where a mask is least decided, filled up with uniform ones (PointRend, section 3.1).

    Of `num_points * oversample_ratio` uniform points those `num_points * importance_sample_ratio`
    with the smallest |logit| are kept; the rest of `num_points` are drawn anew.

    Parameters
    ----------
    logits : Tensor
        (N, H, W), mask logits, those of image 0 first.
    counts : Sequence[int]
        How many of the N masks belong to each image.
    generators : Sequence[torch.Generator | None]
        One per image, from `image_generators`.

    Returns
    -------
    Tensor
        (N, num_points, 2) as (x, y) in 0..1.
    """
    num_uncertain = int(importance_sample_ratio * num_points)
    candidates = draw_points(counts, int(num_points * oversample_ratio), logits.device, generators)
    certainty = point_sample(logits[:, None], candidates).squeeze(1).abs()
    kept = certainty.topk(num_uncertain, dim=1, largest=False, sorted=False).indices
    points = candidates.gather(1, kept[..., None].expand(-1, -1, 2))
    if num_uncertain == num_points:
        return points
    rest = draw_points(counts, num_points - num_uncertain, logits.device, generators)
    return torch.cat([points, rest], dim=1)
