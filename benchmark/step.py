#!/usr/bin/env python
"""Time a whole training step of the segmentor: ours against Hugging Face's with peft.

    python -m benchmark.step
    python -m benchmark.step --device cuda --backbone dinov2_l --head full --crop 512

Both get the same backbone weights, the same drawn streets, heads of the same size and AdamW. Before
anything is timed, the backbones must give the same features and the heads have as many parameters;
after, every loss must be finite and lower than at the start. The memory of each system is measured
in a process of its own.
"""

import argparse
import functools
import importlib.util
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from benchmark import measure
from benchmark.measure import PeakMemory, alternate, require, spread
from drawn_streets import draw_street
from recyclelora import adapt
from recyclelora.backbone import DinoVisionTransformer, presets
from recyclelora.mask2former import build_segmentor
from recyclelora.reproduce.environment import environment

BASELINE = "Hugging Face + peft"
OURS = {  # how ours is built
    "ours, dense": {"sparse_a": False, "checkpointing": False},
    "ours, sparse": {"sparse_a": True, "checkpointing": False},
    "ours, dense, checkpointing": {"sparse_a": False, "checkpointing": True},
}
SYSTEMS = (BASELINE, *OURS)
BACKBONES = {
    "tiny": {"embed_dim": 64, "depth": 6, "num_heads": 2},
    "dinov2_s": presets.VIT_S,
    "dinov2_b": presets.VIT_B,
    "dinov2_l": presets.VIT_L,
}
HEADS = {
    "tiny": {
        "hidden_dim": 32, "nheads": 2, "enc_layers": 1, "enc_dim_feedforward": 64,
        "dec_layers": 2, "dec_dim_feedforward": 64, "num_queries": 20, "num_points": 128,
    },
    "demo": {
        "hidden_dim": 128, "nheads": 8, "enc_layers": 2, "enc_dim_feedforward": 512,
        "dec_layers": 3, "dec_dim_feedforward": 512, "num_queries": 40, "num_points": 3136,
    },
    "full": {
        "hidden_dim": 256, "nheads": 8, "enc_layers": 6, "enc_dim_feedforward": 1024,
        "dec_layers": 9, "dec_dim_feedforward": 2048, "num_queries": 100, "num_points": 12544,
    },
}  # fmt: skip
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
NUM_CLASSES = 19
R_MAIN, R_SUB = 32, 4
MEMORY_STEPS = 3


class OurSegmentor(nn.Module):
    """`MaskFormer` on the adapted backbone, called as the baseline is."""

    def __init__(self, backbone: DinoVisionTransformer, *, head: dict[str, Any], sparse_a: bool):
        super().__init__()
        adapted = adapt(backbone, r_main=R_MAIN, r_sub=R_SUB, sparse_a=sparse_a)
        self.model = build_segmentor(adapted, NUM_CLASSES, **head)

    @property
    def backbone(self) -> nn.Module:
        return self.model.backbone

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """The weighted sum of all losses."""
        pairs = zip(images, labels, strict=True)
        samples = [{"image": image, "sem_seg": label} for image, label in pairs]
        return sum(self.model(samples).values())

    def features(self, images: Tensor) -> list[Tensor]:
        """The four maps that the head sees."""
        normalised = (images - self.model.pixel_mean) / self.model.pixel_std
        return list(self.backbone(normalised).values())


def build(system: str, args: argparse.Namespace) -> nn.Module:
    """A system in training mode; every one starts from the same backbone weights."""
    torch.manual_seed(0)
    options = dict(OURS.get(system, {}))
    backbone = DinoVisionTransformer(
        img_size=args.crop,
        patch_size=16,
        checkpointing=options.pop("checkpointing", False),
        **BACKBONES[args.backbone],
    )
    nn.init.normal_(backbone.pos_embed, std=0.02)
    head = HEADS[args.head]
    if system == BASELINE:
        # Only here: a process that measures the memory of ours does without these packages.
        from benchmark.hugging_face import HuggingFaceSegmentor

        model = HuggingFaceSegmentor(
            backbone, head=head, num_classes=NUM_CLASSES, r_main=R_MAIN, r_sub=R_SUB
        )
    else:
        model = OurSegmentor(backbone, head=head, **options)
    return model.to(args.device).train()


def streets(args: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """One batch of drawn streets: images (B, 3, H, W) and labels (B, H, W)."""
    drawn = [draw_street(0, i, height=args.crop, width=args.crop) for i in range(args.batch)]
    images = torch.stack([torch.from_numpy(image) for image, _ in drawn]).permute(0, 3, 1, 2)
    labels = torch.stack([torch.from_numpy(label) for _, label in drawn])
    return images.float().to(args.device), labels.long().to(args.device)


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW over what trains, at a high rate: a few steps must show that it learns."""
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-4)


def step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: tuple[Tensor, Tensor],
    precision: str,
    losses: list[Tensor],
) -> None:
    """One training step; its loss joins ``losses``."""
    dtype = PRECISIONS[precision]
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(batch[0].device.type, dtype, enabled=dtype != torch.float32):
        loss = model(*batch)
    loss.backward()
    optimizer.step()
    losses.append(loss.detach())


def parameters(model: nn.Module) -> dict[str, int]:
    """How many parameters train, in the adapters and in the head."""
    adapters = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"adapters": adapters, "head": trained - adapters}


def expected_adapters(model: nn.Module) -> int:
    """The count that ranks and the shapes of the adapted linear layers give."""
    rank, total = R_MAIN + R_SUB, 0
    for module in model.backbone.modules():
        if hasattr(module, "base_layer"):  # peft
            total += rank * sum(module.base_layer.weight.shape)
        elif hasattr(module, "lora_A_main"):
            out_features, in_features = module.residual.shape
            total += rank * (out_features + (rank if module.settings.sparse_a else in_features))
    return total


def check(models: dict[str, nn.Module], images: Tensor) -> dict[str, dict[str, int]]:
    """Same features, same head, the adapters that were asked for; returns the counts."""
    counts = {name: parameters(model) for name, model in models.items()}
    with torch.no_grad():
        reference = models[BASELINE].features(images)
        for name, model in models.items():
            adapters = expected_adapters(model)
            require(
                counts[name]["adapters"] == adapters and adapters > 0,
                f"{name} trains {counts[name]['adapters']:,} adapter parameters, not {adapters:,}",
            )
            require(
                counts[name]["head"] == counts[BASELINE]["head"],
                f"the head of {name} has {counts[name]['head']:,} parameters, that of {BASELINE} "
                f"{counts[BASELINE]['head']:,}",
            )
            for mine, theirs in zip(model.features(images), reference, strict=True):
                error = float((mine - theirs).abs().max() / theirs.abs().max())
                require(error < 1e-3, f"the features of {name} are off by {error:.1e}")
    return counts


def check_losses(losses: dict[str, list[float]], precision: str) -> None:
    """Every loss is finite, and the last ones are lower than the first."""
    for name, values in losses.items():
        finite = all(torch.isfinite(torch.tensor(values)))
        require(finite, f"a loss of {name} in {precision} is not finite: {values}")
        require(
            min(values[-2:]) < values[0],
            f"the loss of {name} in {precision} does not fall: {values[0]:.2f}, ..., "
            f"{values[-1]:.2f}",
        )


def memory(system: str, args: argparse.Namespace, precision: str, threads: int) -> dict[str, int]:
    """Bytes at the peak of some steps, in all and beyond the model; runs in a fresh process."""
    torch.set_num_threads(threads)
    model, batch = build(system, args), streets(args)
    optimizer, losses = optimizer_of(model), []
    with PeakMemory(args.device) as peak:
        for _ in range(MEMORY_STEPS):
            step(model, optimizer, batch, precision, losses)
    return {"peak_bytes": peak.peak, "step_bytes": peak.beyond}


def memory_apart(system: str, args: argparse.Namespace, precision: str) -> dict[str, int]:
    """:func:`memory` in a process that has done nothing else."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=spawn) as process:
        return process.submit(memory, system, args, precision, torch.get_num_threads()).result()


def time_precision(args: argparse.Namespace, precision: str) -> dict:
    """All systems at one precision."""
    print(f"{precision}: building and checking {len(SYSTEMS)} systems", flush=True)
    models, batch = {name: build(name, args) for name in SYSTEMS}, streets(args)
    counts = check(models, batch[0])
    losses: dict[str, list[Tensor]] = {name: [] for name in models}
    calls = {
        name: functools.partial(step, model, optimizer_of(model), batch, precision, losses[name])
        for name, model in models.items()
    }
    seconds = alternate(
        calls, rounds=args.rounds, warmup=2, device=args.device, what=f"{precision} steps"
    )
    numbers = {name: torch.stack(values).tolist() for name, values in losses.items()}
    check_losses(numbers, precision)
    del models, calls
    systems = {}
    for name in tqdm(SYSTEMS, desc=f"{precision} memory", unit="system"):
        systems[name] = {
            **spread(seconds[name]),
            **memory_apart(name, args, precision),
            "trained": counts[name],
            "losses": numbers[name],
        }
    for system in systems.values():
        system["speedup"] = systems[BASELINE]["median"] / system["median"]
    return {"precision": precision, "systems": systems}


def plot(result: dict) -> Figure:
    """Time and memory of a step."""
    figure = Figure(figsize=(10, 3.8), layout="constrained")
    runs = result["runs"]
    panels = (("median", 1, "seconds a step"), ("peak_bytes", 1e9, "peak memory, GB"))
    for axes, (key, unit, label) in zip(figure.subplots(1, 2), panels):
        for i, name in enumerate(SYSTEMS):
            places = [j + 0.2 * i for j in range(len(runs))]
            heights = [run["systems"][name][key] / unit for run in runs]
            axes.bar(places, heights, 0.2, color=measure.COLOURS[i], label=name)
        axes.set_xticks([j + 0.3 for j in range(len(runs))], [run["precision"] for run in runs])
        axes.set_ylabel(label)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), fontsize="small")
    settings = result["settings"]
    sizes = f"{settings['backbone']}, head {settings['head']}, "
    sizes += f"{settings['batch']} x {settings['crop']} x {settings['crop']} pixels"
    machine = result["environment"]["machine"]
    figure.suptitle(f"{sizes}; {machine}", fontsize="small")
    return figure


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = measure.parser_of(__doc__, "step", rounds=7)
    add = parser.add_argument
    add("--backbone", choices=BACKBONES, default="dinov2_s")
    add("--head", choices=HEADS, default="demo", help="demo: that of configs/demo.py")
    measure.add_crop(parser, 256)
    add("--batch", type=measure.count, default=4, help="images (default: 4)")
    add("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Time all of it, write the JSON and the plot."""
    args = parse(arguments)
    settings = measure.finish_options(args, "step")
    for package in ("peft", "transformers"):
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"{package} is missing: `pip install peft transformers` installs it")
    result = {
        "environment": environment(args.device),
        "settings": settings,
        "runs": [time_precision(args, precision) for precision in args.precisions],
    }
    measure.write_result(args.output, result)
    measure.write_figure(args.plot, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
