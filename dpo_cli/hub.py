"""The Hugging Face hub: one timeout, one table from what its client raises to words.

`HF_ENDPOINT`, `HF_HUB_OFFLINE` and the cache folder are read by `huggingface_hub` itself. Nothing here knows what a
model or a data set is beyond its name.
"""

from __future__ import annotations

import contextlib
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from dpo_cli.errors import DataError, ModelError, UserError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from huggingface_hub import DatasetInfo, HfApi

HUB_ID: Final = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
"""What a hub id looks like."""

HUB_TIMEOUT: Final = 3.0
"""Seconds until the hub counts as out of reach: a missing network often does not say so."""


@dataclass(frozen=True)
class _Kind:
    """How messages speak of a kind of repository: what it is, what was looked for locally, what to do without the hub."""

    error: type[UserError]
    noun: str
    local: str
    hint: str


_KINDS: Final = {
    "model": _Kind(
        ModelError,
        "model",
        "folder",
        "Give a folder with the model instead, or 'embedded', the small model that ships with dpo.",
    ),
    "dataset": _Kind(
        DataError,
        "data set",
        "file or folder",
        "Give a local file or folder instead. On a machine with a network: hf download {name} --repo-type dataset"
        " --local-dir DIR, then use DIR here.",
    ),
}
RepoType = Literal["model", "dataset"]


@dataclass(frozen=True)
class HubRepository:
    """A repository on the hub, as the user named it.

    Attributes:
        name: `owner/name`.
        repo_type: What it holds.
        revision: Branch, tag or commit; None for the main branch.
    """

    name: str
    repo_type: RepoType
    revision: str | None = None

    @property
    def local_way(self) -> str:
        """What to do without the hub, a sentence."""
        return _KINDS[self.repo_type].hint.format(name=self.name)

    def dataset_info(self) -> DatasetInfo:
        """Commit, files and card of a data set.

        Raises:
            DataError: There is no such data set or revision, or the hub cannot be reached.
        """
        return self._ask(lambda api: api.dataset_info(self.name, revision=self.revision, timeout=HUB_TIMEOUT))

    def files(self) -> list[str]:
        """The paths of all files of a data set."""
        found: list[str] = self._ask(
            lambda api: list(api.list_repo_files(self.name, repo_type=self.repo_type, revision=self.revision))
        )
        return found

    def fetch(self, file: str) -> Path:
        """One file, from the cache where it is there already."""
        from huggingface_hub import hf_hub_download

        with self.errors():
            return Path(
                hf_hub_download(
                    self.name,
                    file,
                    repo_type=self.repo_type,
                    revision=self.revision,
                    etag_timeout=HUB_TIMEOUT,
                )
            )

    def fetch_all(self, patterns: Sequence[str], *, ask: bool = True) -> Path:
        """The folder of all files that fit `patterns`; without the hub, or unless `ask`, as they were fetched earlier."""
        from huggingface_hub import snapshot_download

        with self.errors():
            return Path(
                snapshot_download(
                    self.name,
                    repo_type=self.repo_type,
                    revision=self.revision,
                    allow_patterns=list(patterns),
                    etag_timeout=HUB_TIMEOUT,
                    local_files_only=not (ask and self._reachable()),
                )
            )

    def _reachable(self) -> bool:
        """Whether the hub answers at all, be it with a refusal; a cached copy does without it."""
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError

        try:
            _within_timeout(
                lambda api: api.repo_info(self.name, repo_type=self.repo_type, timeout=HUB_TIMEOUT)
            )
        except HfHubHTTPError:
            return True
        except (OSError, HTTPError):
            return False
        return True

    def _ask(self, question: Callable[[HfApi], Any]) -> Any:  # noqa: ANN401 - the hub's answer
        with self.errors():
            return _within_timeout(question)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Turn what the hub's client raises into an error that says what to do."""
        try:
            yield
        except Exception as error:
            found = self._in_words(error)
            if found is None:
                raise
            raise found from error

    def _in_words(self, error: Exception) -> UserError | None:
        from httpx2 import HTTPError, InvalidURL
        from huggingface_hub import errors

        kind = _KINDS[self.repo_type]
        missing, hint = f"no such {kind.local} here", self.local_way
        # From the particular to the general: the first that fits is said.
        table: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str, str], ...] = (
            (
                errors.GatedRepoError,
                "is gated on the hub",
                "Ask for access on its page, then run `hf auth login`.",
            ),
            (errors.RevisionNotFoundError, f"has no revision {self.revision!r} on the hub", ""),
            (errors.RepositoryNotFoundError, f"{missing}, and no such {kind.noun} on the hub", hint),
            (errors.HFValidationError, f"{missing}, and not a valid name on the hub", ""),
            (errors.HfHubHTTPError, f"the hub refused: {first_line(error)}", hint),
            (InvalidURL, f"HF_ENDPOINT is not a usable address ({first_line(error)})", ""),
            ((OSError, HTTPError), f"{missing}, and the hub cannot be reached", hint),
        )
        found = next(((what, then) for kinds, what, then in table if isinstance(error, kinds)), None)
        return kind.error(f"{self.name}: {found[0]}.", hint=found[1]) if found else None


def _within_timeout(question: Callable[[HfApi], Any]) -> Any:  # noqa: ANN401 - the hub's answer
    """Ask the hub in a thread: looking up a name can hang for longer than any timeout that a request takes.

    Raises:
        TimeoutError: No answer in time.
    """
    from huggingface_hub import HfApi

    answer: list[Any] = []
    failure: list[BaseException] = []

    def work() -> None:
        try:
            answer.append(question(HfApi()))
        except BaseException as error:  # noqa: BLE001 - raised again below, in the thread that waits
            failure.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError
    return answer[0]
