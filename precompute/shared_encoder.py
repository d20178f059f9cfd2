"""Several SAEs (hook points, widths, k, seeds) trained in one pass of the vision tower.

Each training runs in its own thread, with its own folder, as if alone, but one at a time: a thread goes on only while
the others wait. When all want a block of tokens, each distinct list of images is encoded once, up to the deepest
hook point asked for, and every training takes the residuals of its own. Trainings that want other images (another seed
or buffer, or resumed elsewhere) get what they want too; then there is less to share. While a block is handed out it is
in memory once for each training and once for each hook point.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TypeVar

import torch
from torch import Tensor, nn

from backend.errors import RecipeError
from backend.hooks import capture_hook_point
from backend.models.base import VisionTower
from backend.types import HookPoint, Split
from precompute.datasets import ImageSet, open_image_set
from precompute.encoding import encode_images, fixed_threads
from precompute.recipe import Recipe, Runtime
from precompute.stage import Progress
from precompute.subject import hook_point_of, open_tower, subject_science

Chunk = tuple[Sequence[int], Tensor]
"""Places in the list of images, and their residuals [image patch d_model] as bfloat16 on the CPU."""
Request = tuple[HookPoint, tuple[str, ...]]
Result = TypeVar("Result")


class SharedEncoder:
    """The vision tower of several trainings. Raises RecipeError if their subjects or training images differ."""

    def __init__(self, recipes: Sequence[Recipe], runtime: Runtime, progress: Progress) -> None:
        first = recipes[0]
        self._images: ImageSet = open_image_set(first, Split.TRAIN)
        for other in recipes[1:]:
            if subject_science(other)["fingerprint"] != subject_science(first)["fingerprint"]:
                raise RecipeError(f"{first.name} and {other.name} have different subjects: train them one by one.")
            if open_image_set(other, Split.TRAIN).fingerprint != self._images.fingerprint:
                raise RecipeError(f"{first.name} and {other.name} have different images: train them one by one.")
        self._tower = open_tower(max(recipes, key=lambda recipe: recipe.subject.layer), runtime)
        self._runtime, self._progress = runtime, progress
        self._turn = threading.Condition()
        self._n_members = len(recipes)
        self._asked: list[Request] = []
        self._answers: dict[Request, list[Chunk]] = {}
        self._n_untaken = 0
        self._round = 0
        self._failure: BaseException | None = None

    def tower(self, recipe: Recipe) -> VisionTower:
        """The tower cut at the recipe's hook point; its weights are there once."""
        return self._tower.cut_at(hook_point_of(recipe))

    def run(self, works: Sequence[Callable[[], Result]]) -> list[Result]:
        """The results of one piece of work per training, each in its thread. Raises the first one's error."""
        assert len(works) == self._n_members, "one piece of work for each recipe"

        def member(work: Callable[[], Result]) -> Result:
            with self._turn, fixed_threads(self._runtime.workers):
                try:
                    return work()
                finally:
                    self._leave()

        with fixed_threads(self._runtime.workers), ThreadPoolExecutor(len(works)) as pool:
            pending = [pool.submit(member, work) for work in works]
            try:
                return [one.result() for one in pending]
            except BaseException as error:
                self._failure = self._failure or error  # who asks next hears of it; who waits too
                raise

    def encode(self, point: HookPoint, image_ids: Sequence[str]) -> Iterator[Chunk]:
        """Residuals of these images at a hook point, once every training has said what it wants."""
        request = (point, tuple(image_ids))
        with self._turn:
            self._asked.append(request)
            asked_in = self._round
            self._serve_if_complete()
            while self._round == asked_in and self._failure is None:
                self._turn.wait()
            self.check()
            chunks = self._answers[request]
            self._n_untaken -= 1
            if self._n_untaken == 0:
                self._answers = {}
        yield from chunks

    def check(self) -> None:
        """Raise what ended another training, or the person's wish to stop; asked after every batch and step."""
        if self._failure is not None:
            raise self._failure

    def _leave(self) -> None:
        self._n_members -= 1
        if self._failure is not None:
            self._turn.notify_all()
        elif self._asked:
            self._serve_if_complete()

    def _serve_if_complete(self) -> None:
        if len(self._asked) < self._n_members:
            return
        try:
            for ids in dict.fromkeys(ids for _point, ids in self._asked):
                points = sorted({point for point, same in self._asked if same == ids}, key=lambda point: point.layer)
                self._encode_once(points, ids)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self._n_untaken = len(self._asked)
            self._asked = []
            self._round += 1
            self._turn.notify_all()

    def _encode_once(self, points: Sequence[HookPoint], ids: tuple[str, ...]) -> None:
        """One pass to the deepest of ``points``, whose check for NaN covers what lies before it."""
        deepest, shallower = points[-1], points[:-1]
        tower = self._tower.cut_at(deepest)
        passing = _keep_passing(tower, {point: self._tower.cut_at(point).hook_module for point in shallower})
        found: dict[HookPoint, list[Chunk]] = {point: [] for point in points}
        with self._progress.track("activations (images)", len(ids)) as advance:
            batch = self._runtime.images_per_batch
            for chunk in encode_images(tower, self._images, ids, images_per_batch=batch):
                for point, parts in passing.items():
                    found[point].append((chunk.positions, _stored(torch.cat(parts))))
                    parts.clear()
                found[deepest].append((chunk.positions, _stored(chunk.residuals)))
                self.check()
                advance(len(chunk.positions))
        self._answers.update({(point, ids): found[point] for point in points})


def _keep_passing(tower: VisionTower, modules: Mapping[HookPoint, nn.Module]) -> dict[HookPoint, list[Tensor]]:
    """Lists to which every ``tower.to_hook`` that succeeds adds what passed these blocks on its way.

    A call that runs out of memory, after which the images go in halves, adds nothing.
    """
    kept: dict[HookPoint, list[Tensor]] = {point: [] for point in modules}
    to_hook, n_prefix = tower.to_hook, tower.grid.n_prefix_tokens

    def keeping(pixel_values: Tensor) -> Tensor:
        with ExitStack() as stack:
            records = {
                point: stack.enter_context(capture_hook_point(module, n_prefix_tokens=n_prefix))
                for point, module in modules.items()
            }
            residuals = to_hook(pixel_values)
        for point, record in records.items():
            kept[point].append(record.captured[0])
        return residuals

    setattr(tower, "to_hook", keeping)  # noqa: B010 - of this one cut of the tower, which nobody else has
    return kept


def _stored(residuals: Tensor) -> Tensor:
    return residuals.float().to(torch.bfloat16).cpu()
