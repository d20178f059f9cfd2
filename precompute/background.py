"""Work in a thread whose result is asked for later, and which can be stopped."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")


class Stopped(Exception):
    """Raised by the work itself when it sees that nobody wants its result any more."""


class Background(Generic[Result]):
    """Runs ``work`` in a thread, with as many compute threads as the caller has: float sums depend on their number.

    The caller's context goes with it: what memory has taught so far holds there too, and is said to the same listener.
    ``work`` is given a function that says whether to stop; at the end of the program the answer is yes.
    """

    def __init__(self, work: Callable[[Callable[[], bool]], Result]) -> None:
        self._stop = threading.Event()
        self._results: list[Result] = []
        self._errors: list[BaseException] = []
        run = contextvars.copy_context().run
        self._thread = threading.Thread(target=run, args=(self._run, work, torch.get_num_threads()))
        self._thread.start()

    def _run(self, work: Callable[[Callable[[], bool]], Result], n_threads: int) -> None:
        torch.set_num_threads(n_threads)
        try:
            self._results.append(work(self._should_stop))
        except Exception as error:  # noqa: BLE001 - whatever it is belongs to the thread that asks for the result
            self._errors.append(error)

    def _should_stop(self) -> bool:
        return self._stop.is_set() or not threading.main_thread().is_alive()

    def wait(self) -> None:
        """Until the work is done, however it ends."""
        self._thread.join()

    def result(self) -> Result:
        """The result. Raises what the work raised."""
        self._thread.join()
        if self._errors:
            raise self._errors[0]
        return self._results[0]

    def stop(self) -> None:
        """Ask the work to stop and wait until it has."""
        self._stop.set()
        self._thread.join()
