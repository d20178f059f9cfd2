"""The order in which the SAE sees tokens: residuals of shuffled images fill a buffer, and its tokens are shuffled.

Order is a pure function of (seed, epoch, block), so a cursor of three integers is all a checkpoint must hold.
When the buffer holds the whole training set it is filled once and kept; otherwise each block is encoded anew, with
``prefetch`` in a thread while training goes on with the one before: then two blocks are in memory, that is
2 x buffer_tokens x d_model x 2 bytes. Several processes share a block: each encodes every size-th of its images and
delivers, of every batch, the tokens it holds, so together they deliver what one process would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from backend.errors import DataError
from precompute.background import Background, Stopped
from precompute.processes import ALONE, Processes

Encode = Callable[[Sequence[int]], Iterator[tuple[Sequence[int], Float[Tensor, "image patch d_model"]]]]
"""Residuals of the training images with these indices, chunk by chunk: places in the list, and their residuals.
Unreadable images are left out."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cursor:
    """Where the stream stands: the next batch to deliver."""

    epoch: int = 0
    block: int = 0
    batch: int = 0

    @property
    def start_of_block(self) -> Cursor:
        """The first batch of the same block."""
        return Cursor(epoch=self.epoch, block=self.block)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Tokens of this process's images of one block."""

    tokens: Float[Tensor, "token d_model"]
    readable: Bool[np.ndarray, " image"]
    """For every image of the whole block, whether this process holds its tokens, in the block's order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One batch, or this process's part of it."""

    tokens: Float[Tensor, "token d_model"]
    n_tokens: int
    """Of the whole batch."""
    places: Int[Tensor, " token"]
    """Where in the whole batch these tokens stand."""


class TokenStream:
    """Endless batches of shuffled tokens. Those left over at the end of a block wait for a later epoch."""

    def __init__(
        self,
        encode: Encode,
        *,
        n_images: int,
        patches_per_image: int,
        buffer_tokens: int,
        batch_tokens: int,
        seed: int,
        cursor: Cursor | None = None,
        prefetch: bool = False,
        processes: Processes = ALONE,
        report_unreadable: Callable[[Sequence[int]], None] | None = None,
    ) -> None:
        """``report_unreadable`` is told the indices of unreadable images of every block that is delivered."""
        self._encode = encode
        self._n_images = n_images
        self._patches_per_image = patches_per_image
        self._images_per_block = max(1, min(n_images, buffer_tokens // patches_per_image))
        if min(n_images, self._images_per_block) * patches_per_image < batch_tokens:
            raise DataError(
                f"A batch of {batch_tokens} tokens does not fit into the buffer "
                f"({self._images_per_block} images of {patches_per_image} patches): lower [sae] batch_tokens, "
                "or raise buffer_tokens or [data] n_train_images."
            )
        self._batch_tokens = batch_tokens
        self._seed = seed
        self._processes = processes
        self._report_unreadable = report_unreadable
        self.cursor = cursor or Cursor()
        self.n_wanted: int | None = None
        """Batches that will still be asked for, if known: nothing is prefetched beyond them."""
        self._prefetch = prefetch
        self._ahead: tuple[Cursor, Background[Block]] | None = None
        self._kept: Block | None = None

    @property
    def n_blocks(self) -> int:
        """Blocks per epoch."""
        return -(-self._n_images // self._images_per_block)

    def batches(self) -> Iterator[Batch]:
        """Batches from the cursor on, forever; the cursor moves when the next batch is asked for."""
        while True:
            block = self._block()
            held = self._numbers_of(block)
            n_tokens = int(held.numel())
            order = torch.from_numpy(self._random(1).permutation(n_tokens))
            n_batches = n_tokens // self._batch_tokens
            self._start_ahead(n_batches - self.cursor.batch)
            while self.cursor.batch < n_batches:
                start = self.cursor.batch * self._batch_tokens
                rows = held[order[start : start + self._batch_tokens]]
                places = torch.nonzero(rows >= 0).squeeze(1)
                self.cursor = Cursor(epoch=self.cursor.epoch, block=self.cursor.block, batch=self.cursor.batch + 1)
                self.n_wanted = None if self.n_wanted is None else self.n_wanted - 1
                yield Batch(tokens=block.tokens[rows[places]], n_tokens=self._batch_tokens, places=places)
            del block
            self.cursor = self._after(self.cursor)

    def settle(self) -> None:
        """Wait until the block that is being prefetched is there."""
        if self._ahead is not None:
            self._ahead[1].wait()

    def close(self) -> None:
        """Stop prefetching."""
        if self._ahead is not None:
            self._ahead[1].stop()
            self._ahead = None

    def _after(self, cursor: Cursor) -> Cursor:
        if cursor.block + 1 < self.n_blocks:
            return Cursor(epoch=cursor.epoch, block=cursor.block + 1)
        return Cursor(epoch=cursor.epoch + 1)

    def _start_ahead(self, n_left: int) -> None:
        """Begin with the next block, unless it is known that this one is enough."""
        if self._prefetch and self.n_blocks > 1 and (self.n_wanted is None or self.n_wanted > n_left):
            following = self._after(self.cursor)
            self._ahead = (following, Background(lambda stopped: self._fill(following, stopped)))

    def _block(self) -> Block:
        if self._kept is not None:
            return self._kept
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0] == self.cursor.start_of_block:
            block = ahead[1].result()
        else:
            block = self._fill(self.cursor, lambda: False)
        if self.n_blocks == 1:
            self._kept = block
        return block

    def _images_of(self, cursor: Cursor) -> Sequence[int]:
        if self.n_blocks == 1:
            return range(self._n_images)
        epoch_order = np.random.default_rng([self._seed, 0, cursor.epoch]).permutation(self._n_images)
        start = cursor.block * self._images_per_block
        return epoch_order[start : start + self._images_per_block].tolist()

    def _fill(self, cursor: Cursor, stopped: Callable[[], bool]) -> Block:
        """Encode this process's images of a block into one buffer."""
        images = self._images_of(cursor)
        mine = range(self._processes.rank, len(images), self._processes.size)
        readable = np.zeros(len(images), dtype=bool)
        buffer: Tensor | None = None
        n_filled = 0
        for places, residuals in self._encode([images[place] for place in mine]):
            if stopped():
                raise Stopped
            tokens = residuals.flatten(0, 1)
            if buffer is None:
                buffer = torch.empty(len(mine) * self._patches_per_image, tokens.shape[1], dtype=tokens.dtype)
            buffer[n_filled : n_filled + tokens.shape[0]] = tokens
            n_filled += tokens.shape[0]
            readable[[mine[place] for place in places]] = True
        if buffer is None and self._processes.size == 1:
            raise DataError(f"None of {len(images)} training images can be read.")
        return Block(tokens=torch.empty(0, 0) if buffer is None else buffer[:n_filled], readable=readable)

    def _numbers_of(self, block: Block) -> Int[Tensor, " token"]:
        """For every token of the whole block, its row here, or -1 if another process holds it."""
        mine = torch.from_numpy(block.readable)
        readable = mine.to(torch.int32)
        self._processes.sum(readable)
        if self._report_unreadable is not None:
            images = self._images_of(self.cursor)
            self._report_unreadable([images[place] for place in torch.nonzero(readable == 0).flatten().tolist()])
        if not readable.any():
            raise DataError(f"None of {readable.numel()} training images can be read.")
        rows = torch.where(mine, mine.cumsum(0) - 1, -1)[readable > 0]
        numbers = rows[:, None] * self._patches_per_image + torch.arange(self._patches_per_image)
        return torch.where(rows[:, None] >= 0, numbers, -1).flatten()

    def _random(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, purpose, self.cursor.epoch, self.cursor.block])
