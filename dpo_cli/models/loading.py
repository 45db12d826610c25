"""Load a model and its tokenizer: embedded, folder, LoRA adapter or hub id.

Heavy: imports torch and transformers; import it when a model is really wanted.
"""

from __future__ import annotations

import contextlib
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import logging as transformers_logging

from dpo_cli.config import user_path
from dpo_cli.errors import ModelError, first_line, quoted
from dpo_cli.events import Noted, OnEvent, ignore
from dpo_cli.models.adapters import with_adapters
from dpo_cli.models.devices import choose_device, choose_dtype
from dpo_cli.models.fingerprint import changed_base
from dpo_cli.models.finite import not_finite_weights
from dpo_cli.models.folder import check_tokenizer, quantisation, read_object
from dpo_cli.models.locate import LocatedModel, locate_model
from dpo_cli.models.templates import LONGEST_TEMPLATE, Chat, render_chats
from dpo_cli.models.thinking import set_options

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from dpo_cli.models.thinking import Thinking

NOTHING: Mapping[str, Any] = MappingProxyType({})

_REFUSALS = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    ImportError,
    SafetensorError,
    StrictDataclassError,
)
"""What transformers raises for a folder that it cannot use; its files are whatever somebody put there."""

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""The ChatML template, for `--chat-template chatml`."""
_FLOATS = {"F64", "F32", "F16", "BF16"}


def load_model_and_tokenizer(
    model_name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    revision: str | None = None,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    thinking: Thinking | None = None,
    template: Mapping[str, Any] = NOTHING,
    base: str | None = None,
    on_event: OnEvent = ignore,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model, ready to be asked or trained, and its tokenizer.

    Args:
        model_name: "embedded", a folder, a LoRA adapter's folder (its base is loaded too), or a hub id.
        dtype: "float32", "bfloat16", "float16", or "auto": bfloat16 where the device multiplies it fast
            and the model is large enough to gain from it.
        device: "auto" (CUDA, then MPS, then CPU), "cpu", "cuda", "cuda:N" or "mps".
        revision: Branch, tag or commit of a hub id.
        trust_remote_code: Run Python code that comes with the model.
        chat_template: "chatml" or the path of a Jinja file, used instead of the model's own.
        thinking: "on" or "off" has the chat template ask for thinking before the answer, or for none; "keep" counts
            thinking as part of an answer. None leaves it to the template, and thinking out of the answer.
        template: Further variables for the chat template, in every text that is rendered with this tokenizer.
        base: The model that an adapter sits on, instead of the one that it names.
        on_event: Told where an adapter sits on other weights than it was trained on.

    Returns:
        The model in evaluation mode on `device` (a `PeftModel` for an adapter), and its tokenizer.

    Raises:
        ModelError: If there is no such model, or its files cannot be used.
        ConfigError: If the chat template has no such variable, or no thinking to switch.
    """
    located = locate_model(model_name, revision=revision, base=base)
    return load_located(
        located,
        dtype=dtype,
        device=device,
        trust_remote_code=trust_remote_code,
        chat_template=chat_template,
        thinking=thinking,
        template=template,
        on_event=on_event,
    )


def load_located(
    located: LocatedModel,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    on_event: OnEvent = ignore,
    **of_template: Any,  # noqa: ANN401 - as load_tokenizer
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_model_and_tokenizer`, of a model whose files are found already."""
    tokenizer = load_tokenizer(located, trust_remote_code=trust_remote_code, **of_template)
    model = load_model(
        located, dtype=dtype, device=device, trust_remote_code=trust_remote_code, on_event=on_event
    )
    require_embeddings(located.name, model, tokenizer)
    return model, tokenizer


def require_embeddings(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Raises:
        ModelError: If there is such a token.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    token, last = max(tokenizer.get_vocab().items(), key=lambda item: item[1])
    if last >= rows:
        raise ModelError(
            f"{name}: its tokenizer counts to {last:,} ({quoted(token)}), and the model has embeddings for {rows:,} tokens",
            hint="Take the tokenizer that the model was trained with, or enlarge the model: "
            "model.resize_token_embeddings(len(tokenizer)).",
        )


def load_tokenizer(
    located: LocatedModel,
    *,
    trust_remote_code: bool = False,
    chat_template: str | None = None,
    thinking: Thinking | None = None,
    template: Mapping[str, Any] = NOTHING,
) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model; an adapter without one has its base's.

    Raises:
        ModelError: If there is none, or the chat template is no readable file.
        ConfigError: As `set_options` of `models.thinking`.
    """
    folder = located.folder
    if located.base and not (folder / "tokenizer_config.json").is_file():
        return load_tokenizer(
            located.base,
            trust_remote_code=trust_remote_code,
            chat_template=chat_template,
            thinking=thinking,
            template=template,
        )
    check_tokenizer(located.name, folder)
    try:
        with _quiet_transformers():
            tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except _REFUSALS as error:
        raise ModelError(f"{located.name}: its tokenizer cannot be loaded ({_reason(error)})") from error
    if chat_template is not None:
        tokenizer.chat_template = read_chat_template(chat_template)
    set_options(tokenizer, located.name, thinking, template)
    return tokenizer


def read_chat_template(choice: str) -> str:
    """The template named "chatml", or the text of a Jinja file.

    Raises:
        ModelError: If it is neither.
    """
    if choice == "chatml":
        return CHATML
    path = user_path(choice, ModelError)
    hint = "Give 'chatml' or the path of a Jinja file."
    if path.exists() and not path.is_file():
        raise ModelError(f"--chat-template {choice}: is not a file", hint=hint)
    try:
        with path.open("rb") as file:
            text = file.read(4 * LONGEST_TEMPLATE + 1)
        if len(text) <= 4 * LONGEST_TEMPLATE:  # UTF-8 has up to four bytes a character
            return text.decode("utf-8").replace("\r\n", "\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(
            f"--chat-template {choice}: cannot be read ({first_line(error)})", hint=hint
        ) from None
    raise ModelError(
        f"--chat-template {choice}: has more than the {LONGEST_TEMPLATE:,} characters allowed", hint=hint
    )


def load_model(
    located: LocatedModel,
    *,
    dtype: str = "auto",
    device: str = "auto",
    trust_remote_code: bool = False,
    trainable: bool = False,
    on_event: OnEvent = ignore,
) -> PreTrainedModel:
    """Load the weights of a model, and of the adapter on top of it if it is one.

    Args:
        located: The model.
        dtype: As in `load_model_and_tokenizer`.
        device: As in `load_model_and_tokenizer`.
        trust_remote_code: Run Python code that comes with the model.
        trainable: Leave the weights of an adapter open to training.
        on_event: Told where an adapter sits on other weights than it was trained on.

    Raises:
        ModelError: If files are damaged, tensors are missing or no numbers, or the architecture is unknown.
    """
    where = choose_device(device)
    folder = located.weights.folder
    quantised = quantisation(read_object(located.weights.name, folder / "config.json")) is not None
    files = _check_files(located.weights.name, folder, quantised=quantised)
    chosen = choose_dtype(dtype, where, parameters=sum(_parameters(file) for file in files))
    model = _from_folder(located.weights.name, folder, chosen, trust_remote_code=trust_remote_code)
    if located.base:
        if changed := changed_base(located):
            on_event(Noted(changed))
        model = with_adapters(model, located, trainable=trainable)
    if ruined := not_finite_weights(model.named_parameters()):
        raise ModelError(
            f"{located.name}: {ruined}: it can neither answer nor be trained",
            hint="Download it again, or use weights from before training diverged.",
        )
    return model.to(where).eval()


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Keep what transformers logs, with words from the model's files, from the terminal."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)


def _from_folder(name: str, folder: Path, dtype: torch.dtype, *, trust_remote_code: bool) -> PreTrainedModel:
    try:
        with _quiet_transformers():
            model, info = AutoModelForCausalLM.from_pretrained(
                str(folder),
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
    except _REFUSALS as error:
        if "ignore_mismatched_sizes" in str(error):  # it points to a table that goes to the log
            raise ModelError(
                f"{name}: cannot be loaded: config.json describes weights of other shapes than the files hold",
                hint="Take both from the same model.",
            ) from error
        hint = (
            "Give --trust-remote-code if you trust its authors." if "trust_remote_code" in str(error) else ""
        )
        raise ModelError(f"{name}: cannot be loaded ({_reason(error)})", hint=hint) from error
    absent = sorted(info["missing_keys"])
    if absent:
        raise ModelError(
            f"{name}: {len(absent)} weights are missing, {absent[0]} first; they would be random",
            hint="Is it a language model with its head, and was it saved completely?",
        )
    _tidy_generation_config(model)
    return model


def _reason(error: Exception) -> str:
    """What is wrong, in a line; of a configuration that was refused, the reason and not who refused it."""
    cause = error.__cause__ if isinstance(error, StrictDataclassError) else None
    return first_line(cause or error)


def _check_files(name: str, folder: Path, *, quantised: bool = False) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                kinds = {tensors.get_slice(key).get_dtype() for key in tensors.keys()}  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError) as error:
            raise ModelError(
                f"{name}: {file.name} is damaged ({first_line(error)})",
                hint="Download or save the model again.",
            ) from None
        if not quantised and not kinds & _FLOATS:
            raise ModelError(
                f"{name}: {file.name} holds whole numbers ({', '.join(sorted(kinds))}) and config.json no quantization_config",
                hint="Give the model that it was made from.",
            )
    return files


def _parameters(file: Path) -> int:
    with safe_open(file, framework="pt") as tensors:
        return sum(torch.Size(tensors.get_slice(key).get_shape()).numel() for key in tensors.keys())  # noqa: SIM118 - not a dict


def _tidy_generation_config(model: PreTrainedModel) -> None:
    """Replace a configuration that transformers would refuse to save; how we ask comes from elsewhere."""
    own = model.generation_config
    try:
        own.validate(strict=True)
    except ValueError:
        model.generation_config = GenerationConfig(
            bos_token_id=own.bos_token_id, eos_token_id=own.eos_token_id, pad_token_id=own.pad_token_id
        )


def end_of_turn_ids(model: Any, tokenizer: PreTrainedTokenizerBase) -> list[int]:  # noqa: ANN401 - a model or a PeftModel
    """Ids of the tokens that end an answer: the model's, the tokenizer's, and the chat template's own.

    A template may end a turn with another token than the tokenizer calls end of sequence; a model trained
    on that template then never stops for the latter. One that refuses a turn of the assistant's ends none.
    """
    configured = model.generation_config.eos_token_id
    ids = {tokenizer.eos_token_id} | set(configured if isinstance(configured, list) else [configured])
    if tokenizer.chat_template:
        said = "\ue000"
        turn = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
        [text] = render_chats(tokenizer, [Chat(turn)])
        end = text.rpartition(said)[2].strip() if isinstance(text, str) and said in text else ""
        known = tokenizer.convert_tokens_to_ids(end) if end else None
        if isinstance(known, int) and known != tokenizer.unk_token_id:
            ids.add(known)
    return sorted(i for i in ids if i is not None)
