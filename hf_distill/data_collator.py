"""Masked language modeling whose masks can be repeated: in another process, another batch, another run."""

import hashlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DataCollatorForLanguageModeling

from hf_distill.errors import ConfigurationError


_EVALUATION_EPOCH = -1
"""Stands for the epoch where masks do not follow it; training never has it."""

_DRAWS_PER_TOKEN = 3
"""Whether a token is predicted, what replaces it, and which random token that would be."""

_DRAW_SCALE = 2.0**-32


@dataclass
class DataCollatorForRowSeededMasking(DataCollatorForLanguageModeling):
    """Masked language modeling in which a row's masks depend on the seed, the epoch and the row's own tokens alone.

    Transformers' collator draws from one stream of random numbers, so a row's masks change with the rows before it,
    the batch size, the padding, the number of processes and workers, and after a resumed run. Here they do not, which
    makes such runs comparable, and makes teacher signals that were cached for one epoch and seed valid in all of them.
    The global random state is neither read nor advanced.

    Everything else is as in `DataCollatorForLanguageModeling`: a token that is not special is predicted with
    `mlm_probability`; of those, `mask_replace_prob` become the mask token and `random_replace_prob` a random one.
    Draws are independent, so a short row may get no mask at all, and rows with the same tokens get the same masks in
    the same epoch. Tokens equal to the padding token count as padding wherever they stand, and are never predicted.

    Call `set_epoch` when an epoch starts, before its data loader is iterated, or all epochs have the same masks; it
    reaches the workers of a data loader too, persistent ones included. For evaluation use `for_evaluation()`.

    Args:
        tokenizer: with a mask token.
        seed: any integer that fits in 64 bits.
        masks_follow_epoch: whether `set_epoch` changes the masks.

    Raises:
        ConfigurationError: if `mlm` is False, `whole_word_mask` is True, or `seed` is no such integer.
        ValueError: from Transformers, for a tokenizer without mask token or probabilities outside [0, 1].

    References:
        Devlin, Chang, Lee, Toutanova: BERT, 2019, https://arxiv.org/abs/1810.04805, section 3.1, for the 80/10/10.
    """

    mlm_probability: float = 0.15
    seed: int = 42
    masks_follow_epoch: bool = True

    def __post_init__(self) -> None:
        faults = []
        if not self.mlm:
            faults.append("mlm=False leaves nothing to mask. Use DataCollatorForLanguageModeling.")
        if self.whole_word_mask:
            faults.append(
                "whole_word_mask=True is not supported: words are told apart by offsets that not every row has. Use "
                "DataCollatorForLanguageModeling, or whole_word_mask=False."
            )
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not -(2**63) <= self.seed < 2**63:
            faults.append(f"seed must be an integer that fits in 64 bits, got {self.seed!r}.")
        if faults:
            raise ConfigurationError(" ".join(faults))
        super().__post_init__()  # type: ignore[no-untyped-call]
        self._shared_epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._shared_epoch.share_memory_()

    @property
    def epoch(self) -> int:
        """The epoch whose masks are drawn."""
        return int(self._shared_epoch)

    def set_epoch(self, epoch: int) -> None:
        """Draws the masks of `epoch` from now on, here and in the workers that hold this collator.

        Without effect on the masks if `masks_follow_epoch` is False.

        Raises:
            ConfigurationError: if `epoch` is no integer of at least 0.
        """
        if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
            raise ConfigurationError(f"epoch must be an integer of at least 0, got {epoch!r}.")
        self._shared_epoch.fill_(epoch)

    def for_evaluation(self) -> "DataCollatorForRowSeededMasking":
        """A copy whose masks are the same at every evaluation, and those of no epoch of training."""
        return replace(self, masks_follow_epoch=False)

    def create_rng(self) -> None:
        """Overrides the parent's, which would make a stream of random numbers from `seed`. There is none here."""

    def torch_mask_tokens(
        self, inputs: Any, special_tokens_mask: Any | None = None, offset_mapping: Any | None = None
    ) -> tuple[Any, Any]:
        """`numpy_mask_tokens` for tensors."""
        if isinstance(special_tokens_mask, torch.Tensor):
            special_tokens_mask = special_tokens_mask.numpy()
        masked, labels = self.numpy_mask_tokens(inputs.numpy(), special_tokens_mask)
        return torch.from_numpy(masked), torch.from_numpy(labels)

    def numpy_mask_tokens(
        self, inputs: Any, special_tokens_mask: Any | None = None, offset_mapping: Any | None = None
    ) -> tuple[Any, Any]:
        """Masked inputs, and labels that are -100 where nothing is predicted.

        Shapes: B batch, L tokens, padded on either side or both.

        Args:
            inputs: `(B, L)`, token ids.
            special_tokens_mask: `(B, L)`, 1 for tokens that are never predicted. None asks the tokenizer.
            offset_mapping: unused; the parent passes it.

        Returns:
            Two arrays `(B, L)` of the dtype of `inputs`, which is left as it was.
        """
        if special_tokens_mask is None:
            special_tokens_mask = [
                self.tokenizer.get_special_tokens_mask(row, already_has_special_tokens=True) for row in inputs.tolist()
            ]
        is_real = inputs != self.tokenizer.pad_token_id
        key = np.array(
            [self.seed, self.epoch if self.masks_follow_epoch else _EVALUATION_EPOCH], dtype="<i8"
        ).tobytes()
        draws = np.zeros((*inputs.shape, _DRAWS_PER_TOKEN), dtype=np.uint32)
        draws[is_real] = np.concatenate([_draws(key, row[real]) for row, real in zip(inputs, is_real, strict=True)])

        share = draws[..., :2] * _DRAW_SCALE
        is_predicted = (share[..., 0] < self.mlm_probability) & is_real & ~np.asarray(special_tokens_mask, dtype=bool)
        becomes_mask = is_predicted & (share[..., 1] < self.mask_replace_prob)
        becomes_random = is_predicted & ~becomes_mask
        becomes_random &= share[..., 1] < self.mask_replace_prob + self.random_replace_prob

        labels = np.where(is_predicted, inputs, -100)
        masked = inputs.copy()
        masked[becomes_mask] = self.tokenizer.mask_token_id
        masked[becomes_random] = draws[..., 2][becomes_random] % len(self.tokenizer)
        return masked, labels


def _draws(key: bytes, token_ids: NDArray[Any]) -> NDArray[np.uint32]:
    """Uniform 32-bit integers `(tokens, draws)` for one row without padding, the same on every machine."""
    source = hashlib.shake_128(key + token_ids.astype("<i8").tobytes())
    stream = source.digest(4 * _DRAWS_PER_TOKEN * len(token_ids))
    return np.frombuffer(stream, dtype="<u4").reshape(-1, _DRAWS_PER_TOKEN)
