#!/usr/bin/env python
"""Time a whole training step of the segmentor: ours against Hugging Face's with peft.

    python -m benchmark.step
    python -m benchmark.step --device cuda --backbone dinov2_l --head full --crop 512

Both get the same backbone weights, the same drawn streets, heads of the same size and AdamW. Before
the timing, the backbones must give the same features and the heads must have as many parameters.
After it, every loss must be finite and lower than at the start. The memory of each system is
measured in a process of its own.
"""

import argparse
import functools
import importlib.util

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn
from tqdm import tqdm

from benchmark import measure, segmentor
from benchmark.measure import R_MAIN, R_SUB, alternate, require, spread
from benchmark.segmentor import VARIANTS, optimizer_of, step, streets
from recyclelora.engine.memory import PeakMemory
from recyclelora.reproduce.environment import environment

BASELINE = "Hugging Face + peft"
OURS = {f"ours, {name}": VARIANTS[name] for name in ("dense", "sparse", "dense, checkpointing")}
SYSTEMS = (BASELINE, *OURS)
MEMORY_STEPS = 3


def build(system: str, args: argparse.Namespace) -> nn.Module:
    """Return a system in training mode; all start from the same backbone weights."""
    torch.manual_seed(0)
    variant = OURS.get(system, {"checkpointing": False})
    backbone = segmentor.build_backbone(
        args.backbone, args.crop, checkpointing=variant["checkpointing"]
    )
    nn.init.normal_(backbone.pos_embed, std=0.02)
    head = segmentor.head_sizes(args.head)
    if system == BASELINE:
        # The import is here so that a process that measures the memory of ours does not run it.
        from benchmark.hugging_face import HuggingFaceSegmentor

        classes = segmentor.NUM_CLASSES
        model = HuggingFaceSegmentor(
            backbone, head=head, num_classes=classes, r_main=R_MAIN, r_sub=R_SUB
        )
    else:
        model = segmentor.OurSegmentor(backbone, head=head, sparse_a=variant["sparse_a"])
    return model.to(args.device).train()


def parameters(model: nn.Module) -> dict[str, int]:
    """Return the numbers of trained parameters, in the adapters and in the head."""
    adapters = sum(p.numel() for p in model.backbone.parameters() if p.requires_grad)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return {"adapters": adapters, "head": trained - adapters}


def expected_adapters(model: nn.Module) -> int:
    """Return the number that follows from the ranks and the shapes of the adapted layers."""
    rank, total = R_MAIN + R_SUB, 0
    for module in model.backbone.modules():
        if hasattr(module, "base_layer"):  # a layer of peft
            total += rank * sum(module.base_layer.weight.shape)
        elif hasattr(module, "lora_A_main"):
            out_features, in_features = module.residual.shape
            total += rank * (out_features + (rank if module.settings.sparse_a else in_features))
    return total


def check(models: dict[str, nn.Module], images: Tensor) -> dict[str, dict[str, int]]:
    """Compare features, head sizes and numbers of adapter parameters, and return the numbers."""
    counts = {name: parameters(model) for name, model in models.items()}
    # On a GPU, PyTorch computes convolutions in TF32 by default.
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
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
    """Raise an error unless all losses are finite and the last ones are lower than the first."""
    for name, values in losses.items():
        measure.require_finite(values, f"{name} in {precision}")
        require(
            min(values[-2:]) < values[0],
            f"the loss of {name} in {precision} does not fall: {values[0]:.2f}, ..., "
            f"{values[-1]:.2f}",
        )


def memory(system: str, args: argparse.Namespace, precision: str) -> dict[str, int]:
    """Return the peak bytes of some steps, in total and beyond the model."""
    model, batch = build(system, args), streets(args)
    optimizer, losses = optimizer_of(model), []
    with PeakMemory(args.device) as peak:
        for _ in range(MEMORY_STEPS):
            step(model, optimizer, batch, precision, losses)
    return {"peak_bytes": peak.peak, "step_bytes": peak.beyond}


def time_precision(args: argparse.Namespace, precision: str) -> dict:
    """Check, time and measure all systems at one precision."""
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
    torch.cuda.empty_cache()  # for the processes that measure the memory
    systems = {}
    for name in tqdm(SYSTEMS, desc=f"{precision} memory", unit="system"):
        systems[name] = {
            **spread(seconds[name]),
            **measure.in_new_process(memory, name, args, precision),
            "trained": counts[name],
            "losses": numbers[name],
        }
    for system in systems.values():
        system["speedup"] = systems[BASELINE]["median"] / system["median"]
    return {"precision": precision, "systems": systems}


def plot(result: dict) -> Figure:
    """Draw the time and the memory of a step."""
    settings, runs = result["settings"], result["runs"]
    title = (
        f"{settings['backbone']}, head {settings['head']}, {settings['batch']} x "
        f"{settings['crop']} x {settings['crop']} pixels; {result['environment']['machine']}"
    )
    panels = (("median", 1, "seconds a step"), ("peak_bytes", 1e9, "peak memory, GB"))
    labels = [run["precision"] for run in runs]
    return measure.plot_bars([run["systems"] for run in runs], labels, panels, title)


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = measure.parser_of(__doc__, "step", rounds=7)
    parser.add_argument("--backbone", choices=segmentor.BACKBONES, default="dinov2_s")
    segmentor.add_segmentor_options(parser, head="demo", crop=256)
    measure.add_count(parser, "--batch", 4, "images")
    known = segmentor.PRECISIONS
    parser.add_argument("--precisions", nargs="+", choices=known, default=list(known))
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    """Time every precision, and write the JSON and the plot."""
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
    measure.write_results(args, result, plot(result))


if __name__ == "__main__":
    measure.exit_with_sentence(main)
