"""Tunings of the page: generators tuned to photos, within a limit of memory."""

import collections
import itertools
import threading

from styleclip_jax.batch.tuned import TunedInMemory
from styleclip_jax.errors import UserError

GONE = "The generator tuned to this photo is no longer kept: upload the photo again"


class Tunings:
    """Tuned generators by their numbers, of which those used longest ago go first.

    A number is never given twice, and stands in the values of one visitor alone.
    """

    def __init__(self, max_bytes: int = 2**30) -> None:
        """Opens a store.

        Args:
          max_bytes: bytes of all tunings together. The last one is kept in any case.
        """
        self._max_bytes = max_bytes
        self._kept: collections.OrderedDict[int, TunedInMemory] = (
            collections.OrderedDict()
        )
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    def add(self, tuned: TunedInMemory) -> int:
        """Number of a tuning from now on."""
        with self._lock:
            number = next(self._numbers)
            self._kept[number] = tuned
            while len(self._kept) > 1 and self._size() > self._max_bytes:
                self._kept.popitem(last=False)
        return number

    def find(self, number: int) -> TunedInMemory:
        """Tuning of a number.

        Raises:
          UserError: it has gone.
        """
        with self._lock:
            if number not in self._kept:
                raise UserError(GONE)
            self._kept.move_to_end(number)
            return self._kept[number]

    def _size(self) -> int:
        return sum(tuned.num_bytes for tuned in self._kept.values())
