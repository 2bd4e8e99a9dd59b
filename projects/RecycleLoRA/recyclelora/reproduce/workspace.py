"""Where the runs of one command write, and the config, command and result of each run."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from detectron2.config import LazyConfig
from omegaconf import DictConfig, OmegaConf

from recyclelora.backbone.weights import weights_are_here
from recyclelora.config.overrides import apply_overrides
from recyclelora.data.datasets import get_dataset

from .formatting import read_json
from .published import Published, read_published
from .tables import Row, Run, Table, all_tables

TRAIN = ("python", "-m", "recyclelora.engine.train")


class Workspace:
    """The folders and settings that all runs of one command share.

    Parameters
    ----------
    root : Path
        The checkout: configs are read there, and runs start there.
    scratch : Path, optional
        The folder for the results, and for all output without ``output``, of runs that are not the
        table's own; by default results go to ``results/`` of ``root``.
    output : Path, optional
        The folder for checkpoints and logs, by default ``scratch`` or ``output/`` of ``root``.
    overrides : sequence of str
        ``key=value`` for every run.
    num_gpus : int
        Of this machine, for each run.

    Raises
    ------
    ValueError
        If there are overrides and no ``scratch``.
    """

    def __init__(
        self,
        root: Path,
        *,
        scratch: Path | None = None,
        output: Path | None = None,
        overrides: Sequence[str] = (),
        num_gpus: int = 1,
    ):
        if overrides and scratch is None:
            raise ValueError(
                f"{overrides[0]} makes these other runs than the table's: give --scratch FOLDER "
                "for what they write"
            )
        self.root = root.absolute()
        self.scratch = scratch
        self.output = (output or scratch or self.root / "output").absolute()
        self.results = (scratch or self.root).absolute() / "results"
        self.overrides = tuple(overrides)
        self.num_gpus = num_gpus

    @cached_property
    def published(self) -> Published:
        """The paper's tables as printed."""
        return read_published(self.root)

    @cached_property
    def tables(self) -> dict[str, Table]:
        """All tables of runs, by name."""
        return all_tables(self.root)

    def row_of(self, run: Run) -> Row:
        """The method of a run."""
        return self.tables[run.table].rows[run.row]

    def config_file(self, run: Run) -> str:
        """The config of a run, a path relative to the checkout."""
        return self.row_of(run).config or self.tables[run.table].config

    def folder(self, run: Run) -> Path:
        """The output folder of a run."""
        return self.output / run.table / run.name

    def overrides_of(self, run: Run) -> list[str]:
        """All overrides of the config that make it this run, except its folder."""
        return [*self.row_of(run).overrides, f"train.seed={run.seed}", *self.overrides]

    def config_of(self, run: Run) -> DictConfig:
        """The config of a run with its overrides."""
        cfg = LazyConfig.load(str(self.root / self.config_file(run)))
        return apply_overrides(cfg, self.overrides_of(run))

    def command(self, run: Run) -> list[str]:
        """The command that trains and evaluates a run, in the checkout."""
        folder = self.folder(run)
        if folder.is_relative_to(self.root):
            folder = folder.relative_to(self.root)
        command = [*TRAIN, "--config-file", self.config_file(run), "--resume"]
        if self.num_gpus != 1:
            command += ["--num-gpus", str(self.num_gpus)]
        return [*command, f"train.output_dir={folder}", *self.overrides_of(run)]

    def result_of(self, run: Run) -> dict | None:
        """The result of a run; None where it has not ended.

        Raises
        ------
        ValueError
            If the result file is of a run with other overrides.
        """
        file = run.result_file(self.results)
        if not file.is_file():
            return None
        result = read_json(file)
        if result["overrides"] != self.overrides_of(run):
            raise ValueError(
                f"{file} is of a run with {' '.join(result['overrides'])}, not with "
                f"{' '.join(self.overrides_of(run))}: delete it or choose another --scratch"
            )
        return result


def datasets_of(cfg: DictConfig) -> list[str]:
    """Names of the registered datasets that a run reads."""
    source = cfg.dataloader.train.dataset
    sources = [source] if isinstance(source, str) else source
    targets = [loader.dataset for loader in cfg.dataloader.test.values() if loader]
    return [name for name in [*sources, *targets] if isinstance(name, str)]


def weights_of(node: object) -> Iterator[str]:
    """Names or files of the pretrained weights in a node of a config."""
    if OmegaConf.is_list(node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping | DictConfig):
        for key, value in node.items():
            if key == "weights" and isinstance(value, str):
                yield value
            yield from weights_of(value)


def missing_inputs(cfg: DictConfig) -> list[str]:
    """Names of the datasets and weights that a run needs and this machine lacks."""
    names = [name for name in datasets_of(cfg) if not get_dataset(name).is_available()]
    return names + [name for name in weights_of(cfg.model) if not weights_are_here(name)]
