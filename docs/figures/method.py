"""Draw the method's figure: how RecycleLoRA splits one linear weight.

Run ``python docs/figures/method.py`` to rewrite ``docs/method.png``. The heat maps are a real
decomposition of a small random weight, computed by ``recyclelora.rrqr``.
"""

from pathlib import Path

import matplotlib
import numpy as np
import torch

from recyclelora import rrqr

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.patches import FancyArrowPatch, Rectangle

MAJOR, MINOR, FROZEN = "#D55E00", "#0072B2", "#6B6B6B"  # Okabe-Ito: distinct for colour-blind eyes
D, K, R_MAIN, R_SUB = 12, 16, 4, 2


def small_weight() -> torch.Tensor:
    """Return a (12, 16) weight whose singular values decay."""
    generator = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(D, D, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(K, D, generator=generator, dtype=torch.float64)).Q
    return left @ torch.diag(0.75 ** torch.arange(D, dtype=torch.float64)) @ right.T


def matrix(ax, values: np.ndarray, corner: tuple[float, float], title: str) -> None:
    """Draw a matrix as cells of size 0.2 with its upper left corner at ``corner``."""
    rows, columns = values.shape
    x, y = corner
    limit = np.abs(values).max()
    ax.imshow(
        values,
        extent=(x, x + 0.2 * columns, y - 0.2 * rows, y),
        cmap="PuOr",
        vmin=-limit,
        vmax=limit,
        interpolation="nearest",
    )
    ax.add_patch(
        Rectangle((x, y - 0.2 * rows), 0.2 * columns, 0.2 * rows, fill=False, color="black", lw=0.8)
    )
    ax.text(x + 0.1 * columns, y + 0.16, title, ha="center", va="bottom", fontsize=10)


def frame(ax, corner: tuple[float, float], shape: tuple[int, int], color: str) -> None:
    """Draw a thick frame around ``shape`` cells below and right of ``corner``."""
    x, y = corner
    rows, columns = shape
    patch = Rectangle((x, y - 0.2 * rows), 0.2 * columns, 0.2 * rows, fill=False, color=color, lw=3)
    ax.add_patch(patch)


def arrow(ax, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    """Draw a curved arrow."""
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "color": color, "lw": 1.6}
    ax.add_patch(FancyArrowPatch(start, end, connectionstyle="arc3,rad=0.08", **style))


def draw(file: Path) -> None:
    """Write the figure to ``file``."""
    weight = small_weight()
    perm, q, _, _ = rrqr(weight, n_major=D, n_minor=0)
    r = q.T @ weight[:, perm]
    one_hot_main, one_hot_sub = np.zeros((R_MAIN, K)), np.zeros((R_SUB, K))
    one_hot_main[np.arange(R_MAIN), perm[D - R_MAIN : D]] = 1
    one_hot_sub[np.arange(R_SUB), perm[:R_SUB]] = 1

    figure, ax = plt.subplots(figsize=(11.5, 5.4))
    ax.set_axis_off()
    matrix(ax, weight[:, perm].numpy(), (0, 5), "$W_0 P$\npretrained, columns in pivot order")
    ax.text(3.5, 3.8, "=", fontsize=20, ha="center", va="center")
    matrix(ax, q.numpy(), (3.8, 5), "$Q$: directions,\nmajor to minor")
    matrix(ax, r.numpy(), (6.5, 5), "$R$: diagonal decays")
    frame(ax, (3.8, 5), (D, R_SUB), MAJOR)
    frame(ax, (3.8 + 0.2 * (D - R_MAIN), 5), (D, R_MAIN), MINOR)
    ax.text(10.1, 4.6, "rank-revealing QR\n$W_0 P = Q R$", fontsize=11, va="center")

    labels = (
        (0.0, FROZEN, "residual (frozen)", r"$W_0 - s\,(B_{main}A_{main} + B_{sub}A_{sub})$"),
        (4.4, MAJOR, "sub adapter, rank 4", "$B$: first columns of $Q$\nhalf the learning rate"),
        (9.0, MINOR, "main adapter, rank 32", "$B$: last columns of $Q$\nfull learning rate"),
    )
    for x, color, name, text in labels:
        ax.text(x, 1.55, name, fontsize=11, color=color, weight="bold")
        ax.text(x, 1.45, text, fontsize=9, va="top")
    residual = (weight - q[:, :R_SUB] @ torch.from_numpy(one_hot_sub)).numpy()
    matrix(ax, residual[:6], (0, 0.7), "")
    for x, factor, one_hot, color in (
        (4.4, q[:, :R_SUB], one_hot_sub, MAJOR),
        (9.0, q[:, -R_MAIN:], one_hot_main, MINOR),
    ):
        width = factor.shape[1]
        matrix(ax, factor.numpy()[:6], (x, 0.7), "")
        matrix(ax, one_hot, (x + 0.2 * width + 0.2, 0.7), "")
        frame(ax, (x, 0.7), (6, width), color)
        ax.text(x + 0.1 * width, -0.75, "$B$", ha="center", fontsize=10)
        ax.text(x + 0.2 * width + 1.8, -0.75, "$A$: one-hot rows", ha="center", fontsize=10)
    for x in (3.8, 8.4):
        ax.text(x, 0.1, "$+\\; s$", fontsize=16, ha="center", va="center")
    arrow(ax, (4.0, 2.55), (4.7, 1.9), MAJOR)
    arrow(ax, (5.9, 2.55), (9.4, 1.9), MINOR)
    ax.set_xlim(-0.1, 13.3)
    ax.set_ylim(-1.0, 5.9)
    figure.savefig(file, dpi=130, bbox_inches="tight", facecolor="white")
    plt.close(figure)


if __name__ == "__main__":
    draw(Path(__file__).parents[1] / "method.png")
