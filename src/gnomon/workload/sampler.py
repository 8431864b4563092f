"""Batches of samples of similar length in random order: Peng et al. 2022 (arXiv 2208.03646), made safe for training.

Sorting a whole epoch would tie the batch to the length, and lengths go with labels. So samples are shuffled, sorted
within windows of several batches, cut, and the batches shuffled again.
"""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler


class LengthAwareSampler(Sampler[list[int]]):
    """A batch sampler: `DataLoader(data, batch_sampler=LengthAwareSampler(lengths, 32), collate_fn=...)`.

    lengths: tokens of each sample. batch_size: samples in a batch at most. token_budget: tokens in a batch at most, an
    only sample excepted; padding counts where count_padding (a batch costs its longest sample times its size), else
    samples' own tokens alone (packed batches). window: how many batches' worth of samples are sorted together; 1 sorts
    nothing across batches, more means less padding and less random batches. drop_last: leave out batches that the end
    of the data, not the budget, cut short. seed, set_epoch: an epoch's batches depend on both and on nothing else.
    Raises ValueError naming the argument.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int | None = None,
        *,
        token_budget: int | None = None,
        count_padding: bool = True,
        window: int = 50,
        drop_last: bool = False,
        seed: int = 0,
    ) -> None:
        if batch_size is None and token_budget is None:
            raise ValueError("batch_size or token_budget must say how large a batch is; both are None")
        for name, value in (("batch_size", batch_size), ("token_budget", token_budget), ("window", window)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1; got {value}")
        negative = next((n for n in lengths if n < 0), None)
        if negative is not None:
            raise ValueError(f"lengths must not be negative; got {negative}")
        self.lengths = [int(n) for n in lengths]
        self.batch_size, self.token_budget, self.count_padding = batch_size, token_budget, count_padding
        self.window, self.drop_last, self.seed, self.epoch = window, drop_last, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Another order for each epoch. Raises ValueError for a negative one."""
        if epoch < 0:
            raise ValueError(f"epoch must not be negative; got {epoch}")
        self.epoch = epoch

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self._batches())

    def __len__(self) -> int:
        """Batches of this epoch; under a token budget they are counted by making them."""
        if self.token_budget is None and self.batch_size is not None:
            whole, rest = divmod(len(self.lengths), self.batch_size)
            return whole + bool(rest and not self.drop_last)
        return len(self._batches())

    def _batches(self) -> list[list[int]]:
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + self.epoch) % 2**63)
        order = torch.randperm(len(self.lengths), generator=generator).tolist()
        size = self._window_size()
        batches: list[list[int]] = []
        for start in range(0, len(order), size):
            # sorted() is stable: equal lengths stay in random order
            window = sorted(order[start : start + size], key=lambda i: self.lengths[i])
            cut = list(self._cut(window))
            if self.drop_last and start + size >= len(order) and cut and not self._is_full(cut[-1]):
                cut.pop()
            batches += cut
        shuffled = torch.randperm(len(batches), generator=generator).tolist()
        return [batches[i] for i in shuffled]

    def _window_size(self) -> int:
        """Samples in a window."""
        if self.batch_size is not None and self.token_budget is None:
            return self.window * self.batch_size
        mean = max(sum(self.lengths) / max(len(self.lengths), 1), 1)
        fitting = max(int((self.token_budget or 1) / mean), 1)
        return self.window * (fitting if self.batch_size is None else min(fitting, self.batch_size))

    def _cut(self, window: Sequence[int]) -> Iterator[list[int]]:
        batch: list[int] = []
        for i in window:
            if batch and not self._fits(batch, i):
                yield batch
                batch = []
            batch.append(i)
        if batch:
            yield batch

    def _fits(self, batch: Sequence[int], i: int) -> bool:
        if self.batch_size is not None and len(batch) >= self.batch_size:
            return False
        if self.token_budget is None:
            return True
        lengths = [self.lengths[j] for j in (*batch, i)]
        return (max(lengths) * len(lengths) if self.count_padding else sum(lengths)) <= self.token_budget

    def _is_full(self, batch: Sequence[int]) -> bool:
        """Could no further sample like the batch's last one join it?"""
        return not self._fits(batch, batch[-1])
