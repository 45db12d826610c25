"""What is in a data set, and what is wrong with it: the work behind `dpo check`, and the start of `dpo train`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dpo_cli.data.assay import ASSAY, ASSAY_TITLE
from dpo_cli.data.audit.findings import ADVICE, NO_TEMPLATE, Finding
from dpo_cli.data.audit.inspection import Inspector, drop_findings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dpo_cli.config import DataConfig
    from dpo_cli.data.accounting import Accounting
    from dpo_cli.data.assay import AssayAccounting
    from dpo_cli.data.shapes import Format
    from dpo_cli.data.tokens.view import TokenView
    from dpo_cli.errors import DpoError


@dataclass(frozen=True)
class DataReport:
    """What was found.

    Attributes:
        dataset: What the user called it.
        format: The layout's name, a key of `FORMATS`.
        title: What people call the layout.
        accounting: Where every row went.
        eval_accounting: The same for the held-out data set; None without one.
        assays: For tables of assay values, where their rows went; then the accounting above counts pairs.
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
    assays: tuple[AssayAccounting, ...]
    findings: list[Finding]
    lengths: dict[str, Any]
    view: TokenView | None
    problem: DpoError | None

    def to_json(self) -> dict[str, Any]:
        """For scripts: format, rows, findings, lengths."""
        rows = self.accounting
        content = {
            "format": self.format,
            "rows": {"read": rows.read, "kept": rows.kept, "dropped": rows.dropped},
            "findings": [finding.to_json() for finding in self.findings],
            "lengths": self.lengths,
        }
        if self.assays:
            content["assay"] = [table.to_json() for table in self.assays]
        return content


def build_report(
    inspector: Inspector,
    *,
    layout: Format,
    accountings: Sequence[Accounting],
    tables: Sequence[AssayAccounting],
    problem: DpoError | None,
    data: DataConfig,
) -> DataReport:
    """The result of an inspection, after all pairs have been seen.

    Args:
        inspector: Has seen the kept pairs.
        layout: Of the pairs.
        accountings: Where the rows of the data set went, and those of the held-out one if there is one.
        tables: Where the rows of tables of assay values went.
        problem: What already speaks against training.
        data: How strict to be.
    """
    findings = [finding for table in tables for finding in drop_findings(table.rows)]
    findings += inspector.findings(accountings[0])
    if problem is not None:
        findings.insert(
            0, Finding(NO_TEMPLATE, accountings[0].read, [], ADVICE[NO_TEMPLATE], problem.message)
        )
    for part in (*(table.rows for table in tables), *accountings):
        problem = problem or part.verdict(strict=data.strict, allow_drops=data.allow_drops)
    return DataReport(
        dataset=accountings[0].source,
        format=ASSAY if tables else layout.name,
        title=ASSAY_TITLE if tables else layout.title,
        accounting=accountings[0],
        eval_accounting=accountings[1] if len(accountings) > 1 else None,
        assays=tuple(tables),
        findings=findings,
        lengths=inspector.lengths.to_json(),
        view=inspector.view,
        problem=problem,
    )
