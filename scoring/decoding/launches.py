"""Steps of decoding on a GPU: launched kernel by kernel, or as CUDA graphs where those are measured to be faster.

A step of a few hundred rows is done sooner than a CPU has launched its kernels. A graph launches them at once, but only
for arrays of the sizes and places that it was made with. Both ways run the same kernels on arrays of the same sizes:
the clock decides about seconds, not about tokens.
"""

import logging
import time
from collections.abc import Callable, Hashable
from functools import partial

import torch
from torch import Tensor

from record.errors import one_line

log = logging.getLogger(__name__)
# Calls that launch kernel by kernel before a graph is tried: libraries set themselves up in the first.
TIMED = 2

Arrays = tuple[Tensor, ...]


class Launches:
    """Decides on its first calls which way is faster, and keeps to it.

    `graphs` is whether graphs are; None until that is measured.
    """

    def __init__(self) -> None:
        self.graphs: bool | None = None if torch.cuda.is_available() else False
        self.calls, self.seconds = 0, 0.0
        self.kept: dict[Hashable, tuple[Arrays, Callable[[], None]]] = {}
        self.storage: Hashable = None
        self.pool = None

    def run(self, step: Callable[..., None], arrays: Arrays, times: int, storage: Hashable, sizes: Hashable) -> Tensor:
        """The tokens of so many steps, (rows, times).

        Parameters:
            step: changes what is in the arrays into what the next step starts from; the first array, (rows,), then has
                the tokens.
            storage: where all else lies that it reads and writes: a graph holds only as long as that stays.
            sizes: what tells graphs on the same storage apart.
        """
        self.calls += 1
        launch = partial(step, *arrays)
        if self.calls > TIMED and self.graphs is not False:
            arrays, launch = self._graph(step, arrays, storage, sizes) or (arrays, launch)
        begun = time.perf_counter()
        tokens = []
        for _ in range(times):
            launch()
            tokens.append(arrays[0].clone())
        written = torch.stack(tokens, 1).cpu()
        took = time.perf_counter() - begun
        if self.calls <= TIMED:
            self.seconds = took
        elif self.graphs is None:
            self.graphs = took < self.seconds
        return written

    def _graph(
        self, step: Callable[..., None], arrays: Arrays, storage: Hashable, sizes: Hashable
    ) -> tuple[Arrays, Callable[[], None]] | None:
        """A graph's own arrays, with what is in these, and its launch; None where none can be made."""
        if storage != self.storage:
            self.kept.clear()
            self.storage = storage
        if sizes not in self.kept:
            own = tuple(array.clone() for array in arrays)
            try:
                self.kept[sizes] = own, self._capture(partial(step, *own))
            except RuntimeError as error:
                # A driver, a layer or the memory may not allow it; launching kernel by kernel is as right.
                log.warning("decoding goes on without CUDA graphs, as none can be made: %s", one_line(str(error), 200))
                self.graphs = False
                return None
        own, _ = self.kept[sizes]
        for array, new in zip(own, arrays, strict=True):
            array.copy_(new)
        return self.kept[sizes]

    def _capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.pool = self.pool or torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.pool, capture_error_mode="thread_local"):
            step()
        return graph.replay
