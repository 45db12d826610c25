"""Compare two models, and ask one: what is asked when nothing is said, and of whom."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dpo_cli.config import (
    EMBEDDED,
    AskConfig,
    CompareConfig,
    DataConfig,
    DPOTrainingConfig,
    IdentityShiftConfig,
    IdentityVerdict,
    Truncation,
    user_path,
)
from dpo_cli.config.sources import flag_name
from dpo_cli.errors import ConfigError, DataError, ModelError
from dpo_cli.events import Noted, OnEvent, OnProgress, ignore
from dpo_cli.jobs.stages import Stages
from dpo_cli.models.locate import LocatedModel, is_adapter, locate_model
from dpo_cli.models.positions import length_within_positions
from dpo_cli.run_folder.files import is_ours, recorded_settings
from dpo_cli.text.questions import (
    LONGEST_QUESTION,
    Question,
    read_questions,
    shipped_questions,
    too_long,
)
from dpo_cli.text.strict import SURROGATE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.evaluation.compare import Comparison
    from dpo_cli.evaluation.examination import AskSettings, Examination
    from dpo_cli.evaluation.scores import Answer

    Run = DPOTrainingConfig | IdentityShiftConfig
    Loaded = tuple[PreTrainedModel, PreTrainedTokenizerBase]

LAST_RUN = "./dpo_output"
"""Where `train` and `identity-shift` write unless told otherwise."""

OF_A_RENAME = tuple(name for name in IdentityVerdict.model_fields if name != "max_ordinary_drop")
"""Thresholds for figures that are measured of a model with a new name only."""

FIRST_QUESTIONS = 6
"""Questions that `dpo test` asks when none is given."""


def recorded_run(model: str) -> Run | None:
    """The settings of the run that wrote a model's folder; None if dpo did not write it.

    Raises:
        ConfigError: If the `config.toml` that dpo wrote there holds wrong settings now, each named.
        ModelError: If the model's name cannot be one of a folder.
    """
    folder = user_path(model, ModelError)
    return recorded_settings(folder) if is_ours(folder) else None


def ask(config: AskConfig, on_event: OnEvent = ignore) -> tuple[str, list[Answer]]:
    """Ask one model.

    Returns:
        The model's name, and its answers in the order of the questions.

    Raises:
        UserError: If the model or the questions file is wrong.
    """
    name = model_to_test(config)
    questions = (
        _given(config.question, config.questions) or shipped_questions("identity_heldout")[:FIRST_QUESTIONS]
    )
    located = locate_model(name, revision=config.model_revision, base=config.base)
    stages = Stages(on_event)
    with stages.stage("loading the model"):
        from dpo_cli.evaluation.examination import answer_questions
        from dpo_cli.jobs.asking import (
            ask_settings,
            note_cut_thinking,
            note_system_prompt,
            note_whole_batches,
        )
        from dpo_cli.models.loading import load_located

        loaded = load_located(located, **_loading(config, recorded_run(name)), on_event=on_event)
    note_system_prompt(loaded[1], config, on_event)
    if len(questions) > 1:
        note_whole_batches(loaded[0], on_event)
    with stages.stage("asking"):
        answers = answer_questions(*loaded, questions, ask_settings(config), on_progress=stages.progress)
    note_cut_thinking(answers, on_event)
    return name, answers


def model_to_test(config: AskConfig) -> str:
    """The model that was named, else the last run's, else the embedded one."""
    return config.model or (LAST_RUN if Path(LAST_RUN).is_dir() else EMBEDDED)


def compare(config: CompareConfig, on_event: OnEvent = ignore) -> Comparison:
    """Compare two models, loaded one after the other.

    What is not said is taken from the run that wrote `after`: the base and its revision, the names, the held-out pairs
    and how they are read and cut, beta.

    Raises:
        UserError: If a model, the questions or the pairs are wrong.
    """
    after = config.after or LAST_RUN
    if config.after is None and not Path(LAST_RUN).is_dir():
        raise ConfigError(
            f"--after: is required, because {LAST_RUN} does not exist",
            hint="Train first, or name two models.",
        )
    run = recorded_run(after)
    new_model = locate_model(after, base=config.base if is_adapter(after) else None)
    old_model = _before(config, run, new_model)
    before = old_model.name
    old, new = _names(config, run)
    questions = _given(config.question, config.questions) or _general(old)
    heldout = _heldout(config, run, after)
    _everything_counts(config, names=old is not None, pairs=heldout is not None)
    said = run if run is not None else config
    beta = config.beta if "beta" in config.model_fields_set else said.beta
    max_length = config.max_length if "max_length" in config.model_fields_set else said.max_length

    stages = Stages(on_event)
    with stages.stage("loading the libraries"):
        from dpo_cli.evaluation.scores import Rename
        from dpo_cli.jobs.asking import (
            ask_settings,
            note_cut_thinking,
            note_system_prompt,
            note_whole_batches,
            thresholds_of,
        )
        from dpo_cli.models.loading import load_located
        from dpo_cli.models.memory import LESS_TO_ASK, out_of_memory_in_words
    pairs = _pairs(heldout)
    if pairs:
        given = "max_length" in config.model_fields_set
        for model in (old_model, new_model):
            max_length = length_within_positions(max_length, model, given=given, on_event=on_event)

    told: set[str] = set()

    def load(name: str) -> Loaded:
        located = old_model if name == before else new_model
        how = _loading(config, run) | (_template_before(config, run, new_model) if name == before else {})
        loaded = load_located(located, **how, on_event=on_event)
        if name not in told:  # the model before is loaded again, to read the answers of the model after
            told.add(name)
            note_system_prompt(loaded[1], config, on_event)
            note_whole_batches(loaded[0], on_event)
        return loaded

    with stages.stage("comparing"), out_of_memory_in_words(LESS_TO_ASK):
        comparison = run_comparison(
            before,
            after,
            questions,
            load=load,
            settings=ask_settings(
                config, Truncation(max_length, run.truncation_mode if run is not None else "keep_start")
            ),
            pairs=pairs,
            names=Rename(old, new) if old and new else None,
            beta=beta,
            thresholds=thresholds_of(config),
            on_progress=stages.progress,
        )
    for side in zip(*comparison.answers, strict=True):
        note_cut_thinking(side, on_event)
    if not comparison.same_tokens:
        on_event(
            Noted(
                "The models have different tokenizers, so the divergence, which compares token by token,"
                " is not computed"
            )
        )
    elif not any(row.name == "divergence" for row in comparison.scores):
        on_event(
            Noted(
                "The divergence is not computed: the models' outputs have different sizes, or there are no answers."
            )
        )
    if comparison.margins is not None and (left_out := comparison.margins.left_out):
        on_event(
            Noted(
                f"{left_out:,} of {len(pairs):,} held-out pairs are not scored:"
                f" training would drop them, or truncation leaves nothing of them within --max-length {max_length:,} (see dpo check)"
            )
        )
    return comparison


def run_comparison(
    before: str,
    after: str,
    questions: Sequence[Question],
    *,
    load: Callable[[str], Loaded],
    settings: AskSettings | None = None,
    pairs: Sequence[Mapping[str, Any]] = (),
    on_progress: OnProgress | None = None,
    **judging: Any,  # noqa: ANN401 - handed through to compare_examinations
) -> Comparison:
    """Load one model, ask it, let it go; then the other; then compare.

    Args:
        before: The model before.
        after: The model after.
        questions: What to ask.
        load: Turns a model's name into the model and its tokenizer.
        settings: How to ask.
        pairs: Held-out preference pairs in TRL's layout.
        on_progress: Called with (questions answered, all), for each model.
        **judging: `names`, `beta` and `thresholds` of `compare_examinations`.

    Raises:
        ModelError: A model cannot be loaded, or has no chat template.
        DataError: Pairs are given, and none has anything to score.
    """
    from dpo_cli.evaluation.compare import compare_examinations
    from dpo_cli.evaluation.damage import read_back
    from dpo_cli.evaluation.examination import AskSettings, examine

    def examined(name: str, first: Examination | None) -> Examination:
        return examine(
            load(name),
            questions,
            name=name,
            settings=settings,
            pairs=pairs,
            before=first,
            on_progress=on_progress,
        )

    first = examined(before, None)
    _release_memory()
    second = examined(after, first)
    _release_memory()
    if judging.get("names") is not None:
        second = read_back(load(before)[0], first, second, batch_size=(settings or AskSettings()).batch_size)
        _release_memory()
    return compare_examinations(first, second, **judging)


def _release_memory() -> None:
    """Give memory back before the other model is loaded: cycles first, then the device's cache."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _given(texts: tuple[str, ...], file: str | None) -> list[Question]:
    if any(not text.strip() for text in texts):
        raise DataError("--question: is empty")
    for text in texts:
        if len(text) > LONGEST_QUESTION:
            raise DataError(f"--question: {too_long(text)}")
        if SURROGATE.search(text):
            raise DataError("--question: is not UTF-8")
    return [Question(text) for text in texts] + (read_questions(file) if file else [])


def _before(config: CompareConfig, run: Run | None, after: LocatedModel) -> LocatedModel:
    """The model before: the one that was named, else what the run trained, else an adapter's base, else itself."""
    if config.before is not None:
        return locate_model(config.before, base=config.base if is_adapter(config.before) else None)
    if run is None:
        return after.base or after
    base = (config.base or run.base) if is_adapter(run.model) else None
    try:
        # A folder may be a stranger's: what its settings name is not fetched for it.
        return locate_model(run.model, revision=run.model_revision, base=base, fetch=False)
    except ModelError as error:
        raise ModelError(
            f"{after.name} was trained from {error.message}", hint="Name the model before with --before."
        ) from None


def _names(config: CompareConfig, run: Run | None) -> tuple[str | None, str | None]:
    old, new = config.original_name, config.new_name
    if (old is None) != (new is None):
        raise ConfigError("--original-name and --new-name: give both or neither")
    if old is None and isinstance(run, IdentityShiftConfig):
        return run.original_name, run.new_name
    return old, new


def _general(old_name: str | None) -> list[Question]:
    ordinary = shipped_questions("ordinary")
    return [*shipped_questions("identity_heldout"), *ordinary] if old_name else ordinary


def _everything_counts(config: CompareConfig, *, names: bool, pairs: bool) -> None:
    """Refuse what is said of names or of pairs where there are none."""
    without = {
        "held-out pairs, see --pairs": () if pairs else ("beta", "max_length"),
        "the names, see --new-name": () if names else OF_A_RENAME,
    }
    told = [
        f"{flag_name(name)}: has no effect without {what}"
        for what, settings in without.items()
        for name in settings
        if getattr(config, name) != type(config).model_fields[name].default
    ]
    if told:
        raise ConfigError("\n".join(told))


def _pairs(data: DataConfig | None) -> list[dict[str, Any]]:
    """The held-out pairs; may be none."""
    if data is None:
        return []
    from dpo_cli.data.load import load_pairs

    return list(load_pairs(data).train)


def _heldout(config: CompareConfig, run: Run | None, after: str) -> DataConfig | None:
    """The held-out pairs that were named, else those of the run, read as the run read them."""
    from dpo_cli.jobs.train import shipped_pairs

    if config.pairs is not None or not isinstance(run, DPOTrainingConfig):
        return DataConfig(dataset=config.pairs) if config.pairs is not None else None
    if run.eval_dataset is None:
        # The command writes what it read beside the model; the Python wrapper is given pairs, and does not.
        of_shipped = run.dataset is None and (Path(after).expanduser() / "data.json").is_file()
        return DataConfig(dataset=shipped_pairs("heldout")) if of_shipped else None
    return run.heldout


def of_tokenizer(config: CompareConfig | AskConfig, run: Run | None) -> dict[str, Any]:
    """The keywords of `load_tokenizer`: what is not said of thinking and template is as in the run."""
    said = config.of_tokenizer
    if run is not None:
        said |= {
            name: getattr(run, name)
            for name in ("thinking", "template")
            if name not in config.model_fields_set
        }
    return said


def _template_before(config: CompareConfig, run: Run | None, after: LocatedModel) -> dict[str, Any]:
    """The template that the model before was asked with in the run: one that was given, as it is or as it was saved."""
    if run is None or run.chat_template is None or config.chat_template is not None:
        return {}
    given = run.chat_template
    gone = given != "chatml" and not user_path(given, ModelError).is_file()
    return {"chat_template": str(after.folder / "chat_template.jinja") if gone else given}


def _loading(config: CompareConfig | AskConfig, run: Run | None) -> dict[str, Any]:
    return {"dtype": config.dtype, "device": config.device, **of_tokenizer(config, run)}
