"""What is in a data set, and what is wrong with it: the work behind `dpo check`, and the start of `dpo train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack, cast

from dpo_cli.data.audit.findings import ADVICE, NO_TEMPLATE, Finding
from dpo_cli.data.audit.inspection import Inspector
from dpo_cli.data.heldout import heldout_options
from dpo_cli.data.options import Options, open_reader
from dpo_cli.data.pairs import fingerprint
from dpo_cli.data.reader import PairReader
from dpo_cli.data.scan import Walk
from dpo_cli.data.tokens.tokenizer import PairTokenizer, TruncationMode, missing_template
from dpo_cli.events import OnEvent, ignore

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

    from dpo_cli.data.accounting import Accounting
    from dpo_cli.data.tokens.view import TokenView
    from dpo_cli.errors import DpoError


@dataclass(frozen=True)
class CheckResult:
    """What was found.

    Attributes:
        dataset: What the user called it.
        format: The layout's name, a key of `FORMATS`.
        title: What people call the layout.
        accounting: Where every row went.
        eval_accounting: The same for the held-out data set; None without one.
        findings: What to know, drops first.
        lengths: See `Lengths.to_json`.
        view: One pair as the model will see it; None without a tokenizer or without pairs.
        problem: Why it cannot be trained on as it is; None when it can.
    """

    dataset: str
    format: str
    title: str
    accounting: Accounting
    eval_accounting: Accounting | None
    findings: list[Finding]
    lengths: dict[str, Any]
    view: TokenView | None
    problem: DpoError | None

    def to_json(self) -> dict[str, Any]:
        """For scripts: format, rows, findings, lengths."""
        rows = self.accounting
        return {
            "format": self.format,
            "rows": {"read": rows.read, "kept": rows.kept, "dropped": rows.dropped},
            "findings": [finding.to_json() for finding in self.findings],
            "lengths": self.lengths,
        }


def check_pairs(
    dataset: str | Dataset | PairReader,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    truncation_mode: TruncationMode = "keep_start",
    on_event: OnEvent = ignore,
    **options: Unpack[Options],
) -> CheckResult:
    """Read a data set as training would, and say what is wrong with it.

    Memory does not grow with the size of the data, but for some 40 bytes a row.

    Args:
        dataset: A file, a folder, a hub id, a data set in memory, or a reader of one of these.
        tokenizer: The policy's; None leaves out what depends on it.
        max_length: Longest prompt plus completion in tokens; None cuts nothing.
        truncation_mode: Which end of a longer pair is kept.
        on_event: Called with `Progress`.
        **options: As the fields of `DataConfig`.

    Raises:
        DataError: The data set cannot be read, or has no known layout.
        ConfigError: There is no such format.
    """
    reader = dataset if isinstance(dataset, PairReader) else open_reader(dataset, options)
    tokens = None
    if tokenizer is not None:
        tokens = PairTokenizer(tokenizer, max_length=max_length, truncation_mode=truncation_mode)
    problem: DpoError | None = None
    first = next((row.pair for row in reader if row.pair is not None), None)
    if (
        tokens is not None
        and first is not None
        and first.conversational
        and not tokens.tokenizer.chat_template
    ):
        problem, tokens = missing_template(), None
    held_prompts: set[int] = set()
    held: Walk | None = None
    if held_name := options.get("eval_dataset"):
        part = cast("Options", heldout_options(reader.source.name, options))
        held = Walk(open_reader(held_name, part), tokens, on_event=on_event, stage="reading held-out pairs")
        held_prompts = {fingerprint(kept.pair.prompt) for kept in held}
    walk = Walk(reader, tokens, on_event=on_event)
    inspector = Inspector(tokens, held_prompts)
    for kept in walk:
        inspector.see(kept)
    return conclude(inspector, walk, held, problem, options)


def conclude(
    inspector: Inspector, walk: Walk, held: Walk | None, problem: DpoError | None, options: Options
) -> CheckResult:
    """The result of an inspection, after all pairs have been seen.

    Args:
        inspector: Has seen the kept pairs.
        walk: Has read them.
        held: Has read the held-out pairs; None without any.
        problem: What already speaks against training.
        options: How strict to be.
    """
    strict, allow_drops = options.get("strict", False), options.get("allow_drops", False)
    findings = inspector.findings(walk.accounting)
    if problem is not None:
        findings.insert(
            0, Finding(NO_TEMPLATE, walk.accounting.read, [], ADVICE[NO_TEMPLATE], problem.message)
        )
    for part in (walk, held):
        if problem is None and part is not None:
            problem = part.accounting.verdict(strict=strict, allow_drops=allow_drops)
    return CheckResult(
        dataset=walk.accounting.source,
        format=walk.format.name,
        title=walk.format.title,
        accounting=walk.accounting,
        eval_accounting=held.accounting if held is not None else None,
        findings=findings,
        lengths=inspector.lengths.to_json(),
        view=inspector.view,
        problem=problem,
    )
