"""Check of an encoder on two short documents, before it runs on real ones.

It measures on the loaded model whether the encoder takes text, honours the attention mask, lets a token
attend to later ones, and works in reduced precision. So no list of model families is needed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

import hblm
from hblm.encoders.encoder import embedding_rows
from hblm.engine.device import untouched
from hblm.engine.optimizer import trainable
from hblm.errors import ConfigError
from hblm.nn.classifier import Classifier

_TOKENS = 16  # of the longer document; the shorter one has half as many
# Relative to the largest state. In float32 families that honour the mask stay below 1e-6; those that do not
# are above 4e-4 (Nystromformer at width 16 with random weights).
_ROUNDING = 1e-4
_NOTHING = 1e-6  # relative to the largest value: equal rows of a batch may differ in their last bits
_PACKAGE = str(Path(hblm.__file__).parent)


class _Fault(Exception):
    """The exception that the model raised, in one line."""


@dataclass(frozen=True)
class EncoderCheck:
    """A model on its device, and how its documents are padded.

    Attributes:
        model: random generators, mode and gradients are unchanged afterwards.
        pad_id: the padding token.
        max_length: documents are truncated to this many tokens.
        model_name: the encoder's name, for messages.
        pooling: the option's name, for messages.
    """

    model: Classifier
    pad_id: int
    max_length: int
    model_name: str
    pooling: str

    def require_sound(self) -> None:
        """Refuse an encoder with meaningless scores, by three passes in eval mode and one in training.

        Raises:
            ConfigError: the model fails on two documents, has no state for each token, or attends to padding,
                or the pooled state depends only on a document's first token.
        """
        given, kind = f"encoder.model_name={self.model_name}", type(self.model.encoder).__name__
        longer, other = self._documents()
        shorter = longer[: max(1, len(longer) // 2)]
        try:
            with self._exact():
                together, alone = (self._pooled(each)[0][-1] for each in ([other, shorter], [shorter]))
                _, pooled = self._pooled([longer, torch.cat([longer[:1], other[1:]])])
        except _Fault as fault:
            raise ConfigError(
                f"{given}: {kind} fails on two documents: {fault}; give a text encoder such as "
                "FacebookAI/roberta-base"
            ) from fault.__cause__
        if not alone.isfinite().all():
            raise ConfigError(
                f"{given}: the states that {kind} computes are not all finite numbers; copy the model again"
            )
        difference = ((together[: len(alone)] - alone).abs().max() / alone.abs().max()).item()
        if not difference <= _ROUNDING:
            raise ConfigError(
                f"{given}: {kind} does not ignore padding: the states of a document alone and in a batch "
                f"differ by {difference:.1g} of the largest, so scores would depend on the batch; give an "
                "encoder that honours attention_mask, such as FacebookAI/roberta-base"
            )
        if (pooled[0] - pooled[1]).abs().max() <= _NOTHING * pooled.abs().max():
            raise ConfigError(
                f"{given} pooling={self.pooling}: in {kind} a token does not see the tokens after it, so the "
                "first token does not depend on the rest of a document; write pooling=last, mean or max"
            )
        if (raised := self.fault_under(contextlib.nullcontext)) is not None:
            raise ConfigError(f"{given}: {kind} fails in training: {raised}; give another encoder")

    def fault_under(self, autocast: Callable[[], AbstractContextManager[object]]) -> str | None:
        """Return the error of a training step, forward or backward; None if it works.

        Args:
            autocast: the accelerator's, which sets the precision.
        """
        longer, other = self._documents()
        try:
            trained = self.model.trainable
            with untouched(self.model, longer.device), torch.set_grad_enabled(trained):
                self.model.train()
                with autocast():
                    _, pooled = self._pooled([longer, other[: max(1, len(other) // 2)]])
                if not pooled.isfinite().all():
                    return "its states are not finite numbers"
                if trained:
                    with _model_faults():
                        torch.autograd.grad(pooled.sum(), list(trainable(self.model)), allow_unused=True)
        except _Fault as fault:
            return str(fault)
        return None

    def _documents(self) -> tuple[Tensor, Tensor]:
        """Return the ids of two documents of equal length that differ at every position."""
        rows = embedding_rows(self.model.encoder) or 1_000
        length = min(_TOKENS, self.max_length)
        # ordinary words are in the middle of a vocabulary; special and unused tokens are at its ends
        first = (torch.arange(length, device=next(self.model.parameters()).device) + rows // 2) % rows
        return first, (first + 1) % rows

    def _padded(self, documents: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return ids and attention mask of some documents."""
        ids = torch.nn.utils.rnn.pad_sequence(documents, batch_first=True, padding_value=self.pad_id)
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(each) for each in documents], True)
        return ids, mask

    def _pooled(self, documents: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the states of some documents, padded, and the pooled states."""
        ids, mask = self._padded(documents)
        with _model_faults():
            output = self.model.encoder(input_ids=ids, attention_mask=mask)
            states = getattr(output, "last_hidden_state", None)
        if not isinstance(states, Tensor) or states.shape[:2] != ids.shape:
            shape = tuple(states.shape) if isinstance(states, Tensor) else "none"
            raise _Fault(f"its states have the shape {shape}, and the tokens {tuple(ids.shape)}")
        return states, self.model.pooling(states, mask.bool()).float()

    @contextlib.contextmanager
    def _exact(self) -> Iterator[None]:
        """Set eval mode, without gradients and in full float32, for the block."""
        of_matmul = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = False
        try:
            with (
                untouched(self.model, next(self.model.parameters()).device),
                torch.no_grad(),
                torch.backends.cudnn.flags(allow_tf32=False),
            ):
                self.model.eval()
                yield
        finally:
            torch.backends.cuda.matmul.allow_tf32 = of_matmul


@contextlib.contextmanager
def _model_faults() -> Iterator[None]:
    """Raise a _Fault in place of an exception from the model's code; let exceptions of this package pass."""
    try:
        yield
    except Exception as error:  # code of models raises exceptions of any type
        last = error.__traceback__
        while last is not None and last.tb_next is not None:
            last = last.tb_next
        if last is None or last.tb_frame.f_code.co_filename.startswith(_PACKAGE):
            raise
        words = " ".join(str(error).split())[:300]
        raise _Fault(f"{type(error).__name__} {words}".strip()) from error
