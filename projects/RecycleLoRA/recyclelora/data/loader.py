"""Loaders whose samples depend only on seed, iteration and position in the global batch."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from detectron2.data import MapDataset, MetadataCatalog
from detectron2.utils import comm
from torch.utils.data import Dataset

from recyclelora.common.validation import check_integer

from .datasets import get_dataset
from .mapper import TestMapper
from .workers import BatchLoader

Mapper = Callable[[dict, np.random.Generator], dict]


class TrainDataset(Dataset):
    """Endless map-style dataset whose item n is the n-th sample of the training.

    Every epoch is a permutation of all records that (seed, epoch) determines. Every sample n has
    its own generator that (seed, n) determines. The samples do not depend on workers and ranks.
    Detectron2's ``TrainingSampler`` is not used because a resumed run would have to draw all
    earlier samples again.

    Parameters
    ----------
    records : sequence of dict
        The records of one or several datasets.
    mapper : callable
        Function from (record, generator) to a sample.
    seed : int
        The seed of order and augmentation.
    """

    def __init__(self, records: Sequence[dict], mapper: Mapper, seed: int) -> None:
        if not records:
            raise ValueError("expected at least one training image, got none; check the dataset")
        check_integer("seed", seed, most=2**63 - 1)
        self.records, self.mapper, self.seed = records, mapper, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def index(self, number: int) -> int:
        """Return the index of the record of a sample.

        Parameters
        ----------
        number : int
            The number of the sample in the training.

        Returns
        -------
        int
            The index.
        """
        epoch, position = divmod(number, len(self.records))
        if epoch != self._epoch:  # cached, because neighbouring samples share the permutation
            generator = np.random.default_rng([self.seed, epoch, 0])
            self._epoch, self._order = epoch, generator.permutation(len(self.records))
        return int(self._order[position])

    def __getitem__(self, number: int) -> dict:
        rng = np.random.default_rng([self.seed, number, 1])
        return self.mapper(self.records[self.index(number)], rng)


class _GlobalBatches:
    """Iterable of the sample numbers in this rank's part of every global batch."""

    def __init__(self, total: int, start: int, iterations: int | None) -> None:
        world, rank = comm.get_world_size(), comm.get_rank()
        check_integer("total_batch_size", total, least=1, most=65_536)
        if total % world:
            raise ValueError(
                f"total_batch_size must be a multiple of the number of processes, {world}, got "
                f"{total}; change the batch size or the number of GPUs"
            )
        self.total, self.start, self.iterations = total, start, iterations
        self.positions = range(rank * total // world, (rank + 1) * total // world)

    def __iter__(self) -> Iterator[list[int]]:
        for iteration in itertools.islice(itertools.count(self.start), self.iterations):
            yield [iteration * self.total + position for position in self.positions]


def build_train_loader(
    dataset: str | Sequence[str],
    mapper: Mapper,
    total_batch_size: int,
    seed: int,
    start_iteration: int = 0,
    iterations: int | None = None,
    num_workers: int | None = None,
    subset: int | None = None,
) -> BatchLoader:
    """Build a loader of training batches that can start at any iteration.

    Sample n = iteration * total_batch_size + position is the same for every number of workers and
    processes. A run that starts at iteration i therefore continues exactly like a run that was
    never stopped. Each process reads its part of the positions.

    Parameters
    ----------
    dataset : str or sequence of str
        The registered name of a dataset, or several names, whose images are pooled.
    mapper : callable
        Function from (record, generator) to a sample.
    total_batch_size : int
        The number of samples over all processes.
    seed : int
        The seed of order and augmentation.
    start_iteration : int
        The first iteration.
    iterations : int, optional
        The number of batches. By default there is no end.
    num_workers : int, optional
        The number of worker processes of this process; by default one per core and at most 8.
    subset : int, optional
        The number of images of each dataset to use, drawn with seed 0.

    Returns
    -------
    BatchLoader
        A loader that yields lists of samples.

    Raises
    ------
    FileNotFoundError, ValueError
        If an argument or a file is invalid. An error in a sample is raised when the training
        reaches its batch.
    """
    if iterations is not None:
        check_integer("the loader's iterations", iterations, least=1)
    names = [dataset] if isinstance(dataset, str) else list(dataset)
    records = [record for name in names for record in get_dataset(name).records(subset)]
    batches = _GlobalBatches(total_batch_size, start_iteration, iterations)
    samples = TrainDataset(records, mapper, seed)
    # A custom mapper may not define the size of its largest sample. It is then not checked.
    sample_bytes = getattr(mapper, "sample_bytes", 0)
    return BatchLoader(
        samples,
        batches,
        num_workers=num_workers,
        name="dataloader.train",
        batch_bytes=len(batches.positions) * sample_bytes,
        processes=comm.get_local_size(),
    )


class TestLoader:
    """Loader of this process's share of a dataset, one sample at a time.

    :func:`build_test_loader` creates it.

    Attributes
    ----------
    dataset_name : str
        The registered name.
    metadata : detectron2.data.catalog.Metadata
        The metadata of the dataset (``folding``, ``benchmark``, ``stuff_classes``, ...).
    records : sequence of dict
        The records of all samples.
    dataset : MapDataset
        All samples by index.
    indices : range
        The indices of this process's samples.
    batches : BatchLoader
        The loader of these samples, each as a batch of one.
    """

    __test__ = False  # prevents pytest from collecting the class

    def __init__(self, dataset_name: str, records: Sequence[dict], num_workers: int | None) -> None:
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.records = records
        self.dataset = MapDataset(records, TestMapper())
        self.indices = range(comm.get_rank(), len(records), comm.get_world_size())
        self.batches = BatchLoader(
            self.dataset,
            [[index] for index in self.indices],
            num_workers=num_workers,
            name=f"the test loader of '{dataset_name}'",
            # Each pixel takes three bytes in the image and one in the label.
            batch_bytes=4 * max((r["width"] * r["height"] for r in records), default=0),
            processes=comm.get_local_size(),
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict]:
        return itertools.chain.from_iterable(self.batches)


def build_test_loader(
    dataset: str, subset: int | None = None, seed: int = 0, num_workers: int | None = None
) -> TestLoader:
    """Build a loader that yields every image of a dataset once, each in one process.

    Parameters
    ----------
    dataset : str
        The registered name of the dataset.
    subset, seed : int
        The number of images to use, and the seed with which they are drawn.
    num_workers : int, optional
        The number of worker processes of this process; by default one per core and at most 8.

    Returns
    -------
    TestLoader
        A loader that yields the samples of :class:`TestMapper`.
    """
    return TestLoader(dataset, get_dataset(dataset).records(subset, seed), num_workers)
