"""From what a user calls a model to a folder on this machine: embedded, folder, adapter, hub id.

Everything after this works on folders. Nothing here imports torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import EMBEDDED, PRESET_SETTINGS, SETTINGS_BYTES, parse_toml, read_bounded, user_path
from dpo_cli.errors import ModelError, first_line
from dpo_cli.hub import HUB_ID, HubRepository
from dpo_cli.models.folder import (
    READ,
    check_files,
    check_model_folder,
    need_weights,
    read_object,
    refuse_training,
)
from dpo_cli.redaction import find_secret

if TYPE_CHECKING:
    from dpo_cli.config import ModelConfig


@dataclass(frozen=True)
class LocatedModel:
    """A model on this machine.

    Attributes:
        name: What the user called it.
        folder: Its files.
        base: For a LoRA adapter, the model that it sits on.
        revision: Branch, tag or commit of a hub model, as it was asked for; None for its main branch, and for a folder.
    """

    name: str
    folder: Path
    base: LocatedModel | None = None
    revision: str | None = None

    @property
    def weights(self) -> LocatedModel:
        """The model whose full weights are loaded: itself, or the base of an adapter."""
        return self.base.weights if self.base else self


@dataclass(frozen=True)
class _Options:
    """How a model is looked for; `above` are the adapters that it is a base of."""

    base: str | None = None
    fetch: bool = True
    above: tuple[Path, ...] = ()


def locate_model(
    name: str, *, revision: str | None = None, base: str | None = None, fetch: bool = True
) -> LocatedModel:
    """Find a model's files, fetching them from the hub when `name` is a hub id.

    Args:
        name: "embedded", a folder with a model or a LoRA adapter, or a hub id.
        revision: Branch, tag or commit; only for hub ids.
        base: The model that an adapter sits on, instead of the one that it names.
        fetch: Ask the hub for what is not on this machine.

    Raises:
        ModelError: If it is not there, holds no safetensors weights, or the hub cannot be reached.
    """
    located = _locate(name, revision, _Options(base, fetch))
    if base is not None and located.base is None:
        raise ModelError(f"--base: {name} is not an adapter", hint="Leave it out.")
    return located


def is_adapter(name: str) -> bool:
    """Whether a name is that of a folder with an adapter."""
    return name != EMBEDDED and (user_path(name, ModelError) / "adapter_config.json").exists()


def _locate(name: str, revision: str | None, options: _Options) -> LocatedModel:
    if secret := find_secret(name):
        raise ModelError(f"the name of a model {secret.sentence()}")
    if name == EMBEDDED:
        return LocatedModel(name, Path(__file__).parent / "embedded")
    path = user_path(name or "no name given", ModelError)
    if path.is_dir():
        if revision is not None:
            raise ModelError(f"{name}: is a folder and has no revisions", hint="Remove the revision.")
        try:
            return _in_folder(name, path, None, options)
        except OSError as error:
            raise ModelError(f"{name}: cannot be read ({error.strerror or first_line(error)})") from error
    if path.exists():
        raise ModelError(
            f"{name}: is a file, not a model folder", hint="Give the folder that holds config.json."
        )
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"{name or path}: no such folder", hint="Give a folder with a model, a hub id, or 'embedded'."
        )
    return _in_folder(
        name, HubRepository(name, "model", revision).fetch_all(READ, ask=options.fetch), revision, options
    )


def locate_policy(config: ModelConfig, name: str | None = None) -> LocatedModel:
    """Find the model that is going to be trained.

    Args:
        config: Which model.
        name: Another name than the configuration's.

    Raises:
        ModelError: As `locate_model`, or if its weights are quantised.
    """
    located = locate_model(name or config.model, revision=config.model_revision, base=config.base)
    weights = located.weights
    refuse_training(weights.name, read_object(weights.name, weights.folder / "config.json"))
    return located


def model_folders(located: LocatedModel) -> list[Path]:
    """Every folder that a model is read from: an adapter's, and its base's."""
    return [located.folder, *(model_folders(located.base) if located.base else [])]


def read_preset(located: LocatedModel, job: str, *, lora: bool) -> tuple[dict[str, Any], str]:
    """Read the settings that a model's folder recommends for a job.

    `preset.toml` holds a table a job and in it, optionally, a table `lora` that goes on top. It may hold
    `PRESET_SETTINGS` and nothing else: it comes from whoever made the model.

    Returns:
        Field name to value (empty without a preset), and the file's name for messages.

    Raises:
        ModelError: If the file cannot be read, or says what is not a model's to say.
    """
    file = located.weights.folder / "preset.toml"
    if not file.is_file():
        return {}, ""
    try:
        document = parse_toml(read_bounded(file, limit=SETTINGS_BYTES))
    except ValueError as error:
        raise ModelError(f"{file}: cannot be read ({error})", hint=_NO_PRESET) from None
    table = _preset_table(document, job, f"{file}: [{job}]")
    on_top = _preset_table(table, "lora", f"{file}: [{job}.lora]")
    settings = {key: value for key, value in table.items() if key != "lora"}
    for where, part in ((job, settings), (f"{job}.lora", on_top)):
        if refused := sorted(part.keys() - PRESET_SETTINGS):
            raise ModelError(
                f"{file}: [{where}]: {', '.join(refused)}: a preset may only set how a model is trained",
                hint=_NO_PRESET,
            )
    return (settings | on_top if lora else settings), str(file)


_NO_PRESET = (
    "Do you trust this model? To continue without it, remove it from the file, or the file from the folder."
)


def _preset_table(document: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    table = document.get(key, {})
    if not isinstance(table, dict):
        raise ModelError(f"{where}: must be a table of settings, not {type(table).__name__}", hint=_NO_PRESET)
    return table


def _in_folder(name: str, folder: Path, revision: str | None, options: _Options) -> LocatedModel:
    if (folder / "adapter_config.json").exists():
        check_files(name, folder)
        need_weights(name, folder, "adapter_model*.safetensors")
        return LocatedModel(name, folder, _base_of_adapter(name, folder, options), revision)
    check_model_folder(name, folder)
    return LocatedModel(name, folder, revision=revision)


def _base_of_adapter(name: str, folder: Path, options: _Options) -> LocatedModel:
    config = read_object(name, folder / "adapter_config.json")
    named, revision = config.get("base_model_name_or_path"), config.get("revision")
    if options.base is not None:
        named, revision = options.base, None
    if not isinstance(named, str) or not named or not isinstance(revision, str | None):
        raise ModelError(
            f"{name}: adapter_config.json names no base model", hint="Name it with --base MODEL."
        )
    if folder.resolve() in options.above:
        raise ModelError(f"{name}: is an adapter on itself", hint="Name its base with --base MODEL.")
    below = _Options(None, options.fetch, (*options.above, folder.resolve()))
    try:
        return _locate(named, revision, below)
    except ModelError as error:
        hint = error.hint if options.base else f"{error.hint} If it has moved, name it with --base.".strip()
        raise ModelError(f"{name}: its base model: {error.message}", hint=hint) from None
