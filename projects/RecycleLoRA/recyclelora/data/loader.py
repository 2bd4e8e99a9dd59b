"""Loaders whose samples depend on (seed, iteration, position in the global batch) alone."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
import torch
from detectron2.data import MetadataCatalog
from detectron2.utils import comm
from torch.utils.data import DataLoader, Dataset

from recyclelora.common.validation import check_integer

from .datasets import folder_of
from .mapper import TestMapper

Mapper = Callable[[dict, np.random.Generator], dict]


class TrainDataset(Dataset):
    """Map-style and endless: item n is the n-th sample ever trained on.

    Every epoch runs over a permutation of all records, fixed by (seed, epoch); sample n has its own
    generator, fixed by (seed, n). Neither worker nor rank enters.
    """

    def __init__(self, records: Sequence[dict], mapper: Mapper, seed: int) -> None:
        if not records:
            raise ValueError("expected at least one training image, got none; check the dataset")
        check_integer("seed", seed, most=2**63 - 1)
        self.records, self.mapper, self.seed = records, mapper, seed
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def index(self, number: int) -> int:
        """Which record sample ``number`` is made from."""
        epoch, place = divmod(number, len(self.records))
        if epoch != self._epoch:  # remembered, since neighbours share it; derived, so no state
            generator = np.random.default_rng([self.seed, epoch, 0])
            self._epoch, self._order = epoch, generator.permutation(len(self.records))
        return int(self._order[place])

    def __getitem__(self, number: int) -> dict:
        rng = np.random.default_rng([self.seed, number, 1])
        return self.mapper(self.records[self.index(number)], rng)


class _GlobalBatches:
    """Sample numbers of this rank's slice of every global batch."""

    def __init__(self, total: int, start: int, iterations: int | None) -> None:
        world, rank = comm.get_world_size(), comm.get_rank()
        check_integer("total_batch_size", total, least=1, most=65_536)
        if total % world:
            raise ValueError(
                f"total_batch_size must be a multiple of the {world} processes, got {total}; "
                "change the batch size or the number of GPUs"
            )
        self.total, self.start, self.iterations = total, start, iterations
        self.positions = range(rank * total // world, (rank + 1) * total // world)

    def __iter__(self) -> Iterator[list[int]]:
        iteration = self.start
        while self.iterations is None or iteration < self.start + self.iterations:
            yield [iteration * self.total + position for position in self.positions]
            iteration += 1


class _Guarded(Dataset):
    """Hands errors over as items: a worker would wrap their sentence into its own traceback."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> object:
        try:
            return self.dataset[index]
        except (OSError, ValueError) as error:
            return error


class TrainLoader:
    """Iterates over lists of samples; see ``build_train_loader``."""

    def __init__(self, dataset: TrainDataset, batches: Iterable[list[int]], num_workers: int):
        self.dataset = dataset
        self._loader = _data_loader(dataset, num_workers, batch_sampler=batches)

    def __iter__(self) -> Iterator[list[dict]]:
        for batch in _batches(self._loader):
            yield [_raise_errors(sample) for sample in batch]


def build_train_loader(
    dataset: str | Sequence[str],
    mapper: Mapper,
    total_batch_size: int,
    seed: int,
    start_iteration: int = 0,
    iterations: int | None = None,
    num_workers: int = 2,
    subset: int | None = None,
) -> TrainLoader:
    """Batches from ``start_iteration`` on, as lists of ``mapper``'s samples.

    Sample n = iteration * total_batch_size + position is the same for every number of workers and
    processes, so starting at iteration i goes on exactly as a run that never stopped. Each process
    gets its slice of the positions.

    Args:
        dataset: a registered name, or several, whose images are pooled.
        mapper: (record, generator) -> sample.
        total_batch_size: over all processes.
        seed: of order and augmentation.
        iterations: how many batches; None for no end.
        subset: use only this many seeded images of each dataset.

    Raises:
        FileNotFoundError, ValueError: one sentence that names the file and what to do; for a fault
            found while training, when the batch with it is reached.
    """
    if iterations is not None:
        check_integer("the loader's iterations", iterations, least=1)
    names = [dataset] if isinstance(dataset, str) else list(dataset)
    records = [record for name in names for record in folder_of(name).records(subset)]
    batches = _GlobalBatches(total_batch_size, start_iteration, iterations)
    return TrainLoader(TrainDataset(records, mapper, seed), batches, num_workers)


class TestDataset(Dataset):
    """All records of one dataset, read by number."""

    __test__ = False

    def __init__(self, records: Sequence[dict]) -> None:
        self.records, self.mapper = records, TestMapper()

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> dict:
        return self.mapper(self.records[index])


class TestLoader:
    """This process's share of a dataset, image by image; see ``build_test_loader``.

    Attributes:
        dataset_name: as registered.
        metadata: its Detectron2 metadata (``folding``, ``benchmark``, ``stuff_classes``, ...).
        dataset: all samples by number, for whoever needs a particular one.
        indices: the numbers of this process's samples.
    """

    __test__ = False

    def __init__(self, dataset_name: str, records: Sequence[dict], num_workers: int) -> None:
        self.dataset_name = dataset_name
        self.metadata = MetadataCatalog.get(dataset_name)
        self.dataset = TestDataset(records)
        self.indices = range(comm.get_rank(), len(records), comm.get_world_size())
        self._loader = _data_loader(
            self.dataset, num_workers, batch_sampler=[[index] for index in self.indices]
        )

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[dict]:
        for (sample,) in _batches(self._loader):
            yield _raise_errors(sample)


def build_test_loader(
    dataset: str, subset: int | None = None, seed: int = 0, num_workers: int = 2
) -> TestLoader:
    """Every image of a registered dataset once, each in exactly one process.

    Yields ``image`` (3, H, W) uint8 RGB, ``sem_seg`` (H, W) uint8 train ids at the label's own
    size, ``file_name``, ``image_id``, ``height``, ``width``.

    Args:
        dataset: a registered name.
        subset, seed: only this many images, drawn by the seed.
    """
    return TestLoader(dataset, folder_of(dataset).records(subset, seed), num_workers)


def _data_loader(
    dataset: Dataset, num_workers: int, batch_sampler: Iterable[list[int]]
) -> DataLoader:
    check_integer("num_workers", num_workers, most=512)
    return DataLoader(
        _Guarded(dataset),
        batch_sampler=batch_sampler,
        num_workers=num_workers,
        collate_fn=list,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )


def _begin_worker(_: int) -> None:
    # Workers are the parallelism; OpenCV's own pool would fight with it. 0, not 1: in a fork of a
    # process whose pool has run, 1 would wait for threads that are not here.
    cv2.setNumThreads(0)
    # A signal to a whole group of processes is for the main one, which still needs its workers to
    # end well: they listen to it alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_main_process, daemon=True).start()


def _obey_main_process() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != multiprocessing.parent_process().pid:
        pass
    os._exit(0)


def _batches(loader: DataLoader) -> Iterator[list]:
    """The loader's batches; of a worker that died one sentence, and that between two batches."""
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGCHLD)
    batches = iter(loader)
    if main and loader.num_workers > 0:
        # The loader's own handler would raise wherever the program happens to be. Without it the
        # loader still finds out while it waits.
        signal.signal(signal.SIGCHLD, handler or signal.SIG_DFL)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except (RuntimeError, OSError, EOFError) as error:  # the last two: while it sent a batch
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise ChildProcessError(
                f"a process that reads the data has died ({error}), perhaps of too little memory: "
                "use fewer of them (num_workers) or smaller crops; a training goes on with "
                "--resume from its last checkpoint"
            ) from error
        yield batch


def _raise_errors(sample: object) -> dict:
    if isinstance(sample, Exception):
        raise sample
    return sample
