"""The order in which the SAE sees tokens: residuals of shuffled images fill a buffer, and its tokens are shuffled.

Order is a pure function of (seed, epoch, block), so a cursor of three integers is all a checkpoint must hold.
When the buffer holds the whole training set it is filled once and kept; otherwise each block is encoded anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from backend.errors import DataError

Encode = Callable[[Sequence[int]], Float[Tensor, "token d_model"]]
"""Residual tokens of the training images with these indices, in that order."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Cursor:
    """Where the stream stands: the next batch to deliver."""

    epoch: int = 0
    block: int = 0
    batch: int = 0


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
    ) -> None:
        self._encode = encode
        self._n_images = n_images
        self._images_per_block = max(1, min(n_images, buffer_tokens // patches_per_image))
        if min(n_images, self._images_per_block) * patches_per_image < batch_tokens:
            raise DataError(
                f"A batch of {batch_tokens} tokens does not fit into the buffer "
                f"({self._images_per_block} images of {patches_per_image} patches): lower [sae] batch_tokens, "
                "or raise buffer_tokens or [data] n_train_images."
            )
        self._batch_tokens = batch_tokens
        self._seed = seed
        self.cursor = cursor or Cursor()
        self._kept: Float[Tensor, "token d_model"] | None = None

    @property
    def n_blocks(self) -> int:
        """Blocks per epoch."""
        return -(-self._n_images // self._images_per_block)

    def batches(self) -> Iterator[Float[Tensor, "token d_model"]]:
        """Batches from the cursor on, forever; the cursor moves when the next batch is asked for."""
        while True:
            tokens = self._block()
            order = torch.from_numpy(self._random(1).permutation(tokens.shape[0]))
            n_batches = tokens.shape[0] // self._batch_tokens
            while self.cursor.batch < n_batches:
                start = self.cursor.batch * self._batch_tokens
                batch = tokens[order[start : start + self._batch_tokens]].float()
                self.cursor = Cursor(epoch=self.cursor.epoch, block=self.cursor.block, batch=self.cursor.batch + 1)
                yield batch
            self.cursor = self._next_block()

    def _next_block(self) -> Cursor:
        if self.cursor.block + 1 < self.n_blocks:
            return Cursor(epoch=self.cursor.epoch, block=self.cursor.block + 1)
        return Cursor(epoch=self.cursor.epoch + 1)

    def _block(self) -> Float[Tensor, "token d_model"]:
        if self.n_blocks == 1:
            if self._kept is None:
                self._kept = self._encode(range(self._n_images))
            return self._kept
        epoch_order = np.random.default_rng([self._seed, 0, self.cursor.epoch]).permutation(self._n_images)
        start = self.cursor.block * self._images_per_block
        return self._encode(epoch_order[start : start + self._images_per_block].tolist())

    def _random(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self._seed, purpose, self.cursor.epoch, self.cursor.block])
