"""Several short micro-batches of one optimizer step in one packed row.

With a batch of one and eight accumulated, weights would be read, cast and their gradients added eight times a step for
a hundred tokens each. Here the first of a group of micro-batches is scored together with the others, and each gets its
own scores back, cut from the graph. TRL computes loss, metrics and gradient of every micro-batch as it always does, down
to the scores; behind the last one these gradients go through the model at once. The mean is TRL's, whatever the loss.
"""

# ruff: noqa: ANN401 - trl's objects are Any to mypy

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from dpo_cli.engine.packing import IGNORED_LABEL

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOKENS = 1024
"""Tokens of a group, chosen and rejected rows together: a group takes no more memory than a pair of long texts."""

COLUMNS = {"input_ids", "attention_mask", "completion_mask", "ref_chosen_logps", "ref_rejected_logps"}
"""What a batch may hold to be scored together with others."""

FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs", "label_mask")
"""Scores `[2B, T - 1]` of TRL's output."""


class Accumulation:
    """The micro-batches of one optimizer step, in groups."""

    def __init__(self) -> None:
        self._groups: deque[list[dict[str, torch.Tensor]]] = deque()
        self._place = 0
        self._whole: Any = None
        self._leaves: dict[int, torch.Tensor] = {}

    def plan(self, batches: Sequence[Any]) -> None:
        """Group the micro-batches of the step that begins; what was left of another one is forgotten."""
        self._groups.clear()
        self._start_group()
        filled = 0
        for batch in batches:
            plain = isinstance(batch, dict) and set(batch) <= COLUMNS and "completion_mask" in batch
            size = int(batch["attention_mask"].sum()) if plain else TOKENS
            if not self._groups or filled + size > TOKENS:
                self._groups.append([])
                filled = 0
            self._groups[-1].append(batch)
            filled += size

    def scores(
        self, labels: torch.Tensor, score: Callable[[dict[str, torch.Tensor]], Any | None]
    ) -> Any | None:
        """What the micro-batch that is being trained on gets of its group's scores.

        Args:
            labels: `[2B, T]` of that micro-batch.
            score: Scores a whole group, given `input_ids`, `attention_mask` and `labels`; None if it cannot.

        Returns:
            TRL's `FusedCausalLMOutput` with log-probabilities that are leaves; None where it is alone.
        """
        if not self._groups or len(self._groups[0]) == 1:
            return None
        group = self._groups[0]
        if self._place == 0:
            self._whole = score(_joined(group, labels.device))
        if self._whole is None:
            return None
        rows, width = _rows(group, self._place), labels.shape[1] - 1
        own = {
            name: getattr(self._whole, name)[rows][:, :width].detach()
            for name in FIELDS
            if getattr(self._whole, name) is not None
        }
        self._leaves[self._place] = own["log_probs"].requires_grad_()
        return type(self._whole)(**own)

    def trained(self) -> None:
        """Go on to the next micro-batch; behind the last one of a group, send its gradients through the model."""
        if not self._groups:
            return
        group = self._groups[0]
        self._place += 1
        if self._place < len(group):
            return
        if self._leaves:
            scores = self._whole.log_probs
            gradient = torch.zeros_like(scores)
            for place, leaf in self._leaves.items():
                if leaf.grad is not None:
                    rows = torch.tensor(_rows(group, place), device=scores.device)
                    gradient[rows, : leaf.shape[1]] = leaf.grad
            scores.backward(gradient)
        self._groups.popleft()
        self._start_group()

    def _start_group(self) -> None:
        self._place, self._whole, self._leaves = 0, None, {}


def accumulate_together(trainer: Any) -> Accumulation | None:
    """Have a TRL trainer tell which micro-batches make up a step; None where each must go through the model alone.

    Args:
        trainer: A constructed `DPOTrainer`.
    """
    args = trainer.args
    alone = (
        args.gradient_accumulation_steps == 1
        or trainer.aux_loss_enabled  # a router's loss is about one micro-batch
        or getattr(args, "activation_offloading", False)  # it ends with a micro-batch's own backward pass
        or "lomo" in str(args.optim)  # it updates weights in the backward pass
    )
    if alone:
        return None
    accumulation = Accumulation()
    fetch, train = trainer.get_batch_samples, trainer.training_step

    def get_batch_samples(*arguments: Any, **named: Any) -> Any:
        batches, items = fetch(*arguments, **named)
        accumulation.plan(batches)
        return batches, items

    def training_step(*arguments: Any, **named: Any) -> Any:
        loss = train(*arguments, **named)
        accumulation.trained()
        return loss

    trainer.get_batch_samples, trainer.training_step = get_batch_samples, training_step
    return accumulation


def _rows(group: Sequence[dict[str, torch.Tensor]], place: int) -> list[int]:
    """Rows of one micro-batch among those of its group, chosen ones first in both."""
    pairs = [len(batch["input_ids"]) // 2 for batch in group]
    first = sum(pairs[:place])
    chosen = list(range(first, first + pairs[place]))
    return chosen + [sum(pairs) + row for row in chosen]


def _joined(group: Sequence[dict[str, torch.Tensor]], device: torch.device) -> dict[str, torch.Tensor]:
    """The batch that a collator would make of all pairs of a group; padding is masked and has no label."""
    longest = max(batch["input_ids"].shape[1] for batch in group)

    def join(name: str) -> torch.Tensor:
        padded = [
            torch.nn.functional.pad(batch[name].to(device), (0, longest - batch[name].shape[1])).chunk(2)
            for batch in group
        ]
        return torch.cat([chosen for chosen, _ in padded] + [rejected for _, rejected in padded])

    ids = join("input_ids")
    labels = ids.masked_fill(join("completion_mask") == 0, IGNORED_LABEL)
    return {"input_ids": ids, "attention_mask": join("attention_mask"), "labels": labels}
