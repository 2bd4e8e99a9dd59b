"""The output folders of a command, and the config, command and result of each run."""

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
        The checkout, which contains the configs and in which runs start.
    scratch : Path, optional
        The folder for the results, and for all output without ``output``, of runs that are not the
        table's own; by default results go to ``results/`` of ``root``.
    output : Path, optional
        The folder for checkpoints and logs, by default ``scratch`` or ``output/`` of ``root``.
    overrides : sequence of str
        Overrides ``key=value`` for every run.
    num_gpus : int
        Number of GPUs of this machine for each run.

    Raises
    ------
    ValueError
        If there are overrides but no ``scratch``.
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
                f"with {overrides[0]} the runs differ from those of the table: give --scratch "
                "FOLDER for their output"
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
        """All tables of runs by name."""
        return all_tables(self.root)

    def row_of(self, run: Run) -> Row:
        """Return the row of a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        Row
            The row.
        """
        return self.tables[run.table].rows[run.row]

    def config_file(self, run: Run) -> str:
        """Return the config of a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        str
            A path relative to the checkout.
        """
        return self.row_of(run).config or self.tables[run.table].config

    def folder(self, run: Run) -> Path:
        """Return the output folder of a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        Path
            The folder.
        """
        return self.output / run.table / run.name

    def outputs(self, run: Run) -> tuple[Path, Path]:
        """Return the last checkpoint and the evaluation of a run, which exist after its end.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        tuple of Path
            ``iter_XXXXXXX.pth`` and ``domains.json`` in the folder of the run.
        """
        folder, iterations = self.folder(run), self.config_of(run).train.max_iter
        return folder / f"iter_{iterations:07d}.pth", folder / "domains.json"

    def overrides_of(self, run: Run) -> list[str]:
        """Return all overrides of the config that define a run, except that of its folder.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        list[str]
            Overrides ``key=value``.
        """
        return [*self.row_of(run).overrides, f"train.seed={run.seed}", *self.overrides]

    def config_of(self, run: Run) -> DictConfig:
        """Return the config of a run with its overrides.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        DictConfig
            The config.
        """
        cfg = LazyConfig.load(str(self.root / self.config_file(run)))
        return apply_overrides(cfg, self.overrides_of(run))

    def command(self, run: Run) -> list[str]:
        """Return the command that trains and evaluates a run in the checkout.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        list[str]
            The arguments of the command.
        """
        folder = self.folder(run)
        if folder.is_relative_to(self.root):
            folder = folder.relative_to(self.root)
        command = [*TRAIN, "--config-file", self.config_file(run), "--resume"]
        if self.num_gpus != 1:
            command += ["--num-gpus", str(self.num_gpus)]
        return [*command, f"train.output_dir={folder}", *self.overrides_of(run)]

    def result_of(self, run: Run) -> dict | None:
        """Return the result of a run.

        Parameters
        ----------
        run : Run
            The run.

        Returns
        -------
        dict or None
            The content of the result file, or None if the run has not ended.

        Raises
        ------
        ValueError
            If the result file was written by a run with other overrides.
        """
        file = run.result_file(self.results)
        if not file.is_file():
            return None
        result = read_json(file)
        if result["overrides"] != self.overrides_of(run):
            raise ValueError(
                f"expected in {file} the result of a run with {' '.join(self.overrides_of(run))}, "
                f"got {' '.join(result['overrides'])}: delete it or choose another --scratch"
            )
        return result


def datasets_of(cfg: DictConfig) -> list[str]:
    """Return the names of the registered datasets that a run reads.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.

    Returns
    -------
    list[str]
        The names.
    """
    source = cfg.dataloader.train.dataset
    sources = [source] if isinstance(source, str) else source
    targets = [loader.dataset for loader in cfg.dataloader.test.values() if loader]
    return [name for name in [*sources, *targets] if isinstance(name, str)]


def weights_of(node: object) -> Iterator[str]:
    """Return the pretrained weights in a node of a config.

    Parameters
    ----------
    node : object
        The node.

    Returns
    -------
    Iterator[str]
        Names or files.
    """
    if OmegaConf.is_list(node):
        node = dict(enumerate(node))
    if isinstance(node, Mapping | DictConfig):
        for key, value in node.items():
            if key == "weights" and isinstance(value, str):
                yield value
            yield from weights_of(value)


def missing_inputs(cfg: DictConfig) -> list[str]:
    """Return the datasets and weights that a run needs but this machine lacks.

    Parameters
    ----------
    cfg : DictConfig
        The config of the run.

    Returns
    -------
    list[str]
        Their names.
    """
    names = [name for name in datasets_of(cfg) if not get_dataset(name).is_available()]
    return names + [name for name in weights_of(cfg.model) if not weights_are_here(name)]
