"""Random points on masks: drawing, sampling, and selecting uncertain ones (PointRend)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def point_sample(maps: Tensor, coords: Tensor) -> Tensor:
    """Sample maps bilinearly at points; outside the maps the values are zero.

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
    grid = (2.0 * coords).sub_(1.0)[:, :, None]
    return F.grid_sample(maps, grid, align_corners=False).squeeze(3)


def image_generators(
    targets: Sequence[dict], device: torch.device
) -> list[torch.Generator] | list[None]:
    """Return one random generator per image, seeded by its target's "seed".

    The random points of an image then depend only on its own seed, so its loss does not depend on
    how the batch is split over ranks.

    Parameters
    ----------
    targets : Sequence[dict]
        The targets of the images.
    device : torch.device
        Device of the generators.

    Returns
    -------
    list[torch.Generator] | list[None]
        The generators. If no target has a seed, the list contains None, which selects the global
        generator.

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
    """Draw uniform points for the masks of every image.

    Parameters
    ----------
    counts : Sequence[int]
        Number of masks of each image.
    num_points : int
        Number of points per mask.
    device : torch.device
        Device of the points.
    generators : Sequence[torch.Generator | None]
        One per image, see `image_generators`. Without generators, one call of the global generator
        draws all points, as in the published code.

    Returns
    -------
    Tensor
        Points (sum(counts), num_points, 2) in 0..1.
    """
    if any(generator is None for generator in generators):
        return torch.rand(sum(counts), num_points, 2, device=device)
    points = torch.empty(sum(counts), num_points, 2, device=device)
    for part, generator in zip(points.split(list(counts)), generators, strict=True):
        part.uniform_(generator=generator)
    return points


@torch.no_grad()
def uncertain_points(
    logits: Tensor,
    counts: Sequence[int],
    generators: Sequence[torch.Generator | None],
    num_points: int,
    oversample_ratio: float,
    importance_sample_ratio: float,
) -> Tensor:
    """Select points where a mask is least certain, and add uniform ones (PointRend, section 3.1).

    From `num_points * oversample_ratio` uniform points, the `num_points * importance_sample_ratio`
    points with the smallest absolute logits are selected. The remaining points are new uniform
    ones.

    Parameters
    ----------
    logits : Tensor
        Mask logits (N, H, W), those of image 0 first.
    counts : Sequence[int]
        Number of masks of each image.
    generators : Sequence[torch.Generator or None]
        One per image, see `image_generators`.
    num_points : int
        Number of points per mask.
    oversample_ratio, importance_sample_ratio : float
        See above.

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
