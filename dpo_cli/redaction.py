"""What a secret looks like: by the name of its setting, by its shape, by the environment that holds it.

Settings that hold one are refused (`config`), and whatever an error says is cleaned of them (`errors`, `cli.app`):
settings are written to files, files are shared, and a password that was printed once is no password any more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = "***"
"""What is printed in place of a secret."""

_SECRET_WORDS = frozenset({
    "password", "passwd", "passphrase", "secret", "secrets", "credential", "credentials", "apikey", "bearer",
})  # fmt: skip
_KEYS_THAT_ARE_SECRET = frozenset(
    {"api", "access", "private", "secret", "account", "auth", "license", "signing"}
)
_TOKENS_OF_TEXT = frozenset({
    "pad", "eos", "bos", "unk", "sep", "cls", "mask", "end", "start", "stop", "begin", "image", "audio", "video",
    "special", "next", "last", "first", "per", "im",
})  # fmt: skip
_ABOUT_A_SECRET = frozenset({"path", "file", "dir", "store", "name", "id", "url", "type", "length"})
"""Last words of a name that says where a secret is, and does not hold it."""

_VARIABLES = {
    "hub": "HF_TOKEN", "hf": "HF_TOKEN", "huggingface": "HF_TOKEN", "hugging": "HF_TOKEN",
    "wandb": "WANDB_API_KEY", "comet": "COMET_API_KEY", "mlflow": "MLFLOW_TRACKING_PASSWORD",
    "swanlab": "SWANLAB_API_KEY", "clearml": "CLEARML_API_SECRET_KEY", "openai": "OPENAI_API_KEY",
    "aws": "AWS_SECRET_ACCESS_KEY", "trackio": "HF_TOKEN",
}  # fmt: skip
"""A word in a setting's name, and the environment variable that the library in question reads."""


class Shape(NamedTuple):
    """A kind of secret that is known by how it looks: what it is, the variable to put it in, its pattern."""

    what: str
    variable: str
    pattern: re.Pattern[str]


def _shape(what: str, variable: str, pattern: str) -> Shape:
    return Shape(what, variable, re.compile(r"(?<![A-Za-z0-9])" + pattern))


_LONG_OR_MIXED = r"(?:[A-Za-z0-9]{20,}|(?=[a-z0-9]*[A-Z])(?=[A-Za-z]*[0-9])[A-Za-z0-9]{12,})"
"""Random characters: many, or fewer with both capitals and digits. A folder may be called `hf_models2026`."""

_NAMED_IN_A_URL = r"(?:[\w.-]{0,40}(?:token|password|passwd|secret|api[_-]?key|access[_-]?key|signature|credential)|sig|key|pwd)"

SHAPES = (
    _shape("a Hugging Face token", "HF_TOKEN", rf"(?:hf_{_LONG_OR_MIXED}|api_org_[A-Za-z0-9]{{20,}})"),
    _shape(
        "an API key",
        "OPENAI_API_KEY",
        rf"sk-(?:(?:proj|ant|or|svcacct|admin|lf)-[A-Za-z0-9_-]{{12,}}|{_LONG_OR_MIXED})",
    ),
    _shape("a Weights & Biases key", "WANDB_API_KEY", r"(?:wandb_v1_\w{20,}|local-[0-9a-f]{40})"),
    _shape("an AWS access key", "AWS_ACCESS_KEY_ID", r"A(?:KIA|SIA|BIA|CCA)[A-Z0-9]{16}"),
    _shape("a GitHub token", "GH_TOKEN", r"(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,})"),
    _shape("a GitLab token", "GITLAB_TOKEN", r"glpat-[\w-]{16,}"),
    _shape("a Slack token", "SLACK_TOKEN", r"xox[abeoprs]-[A-Za-z0-9-]{10,}"),
    _shape("a Google key", "GOOGLE_API_KEY", r"(?:AIza[\w-]{30,}|ya29\.[\w-]{20,})"),
    _shape(
        "an API key", "", r"(?:gsk_|r8_|npm_|nvapi-|xai-|dckr_pat_|pplx-|tvly-|pypi-|lsv2_pt_)[A-Za-z0-9_-]{20,}"
    ),
    _shape("a web token", "", r"eyJ[\w-]{8,400}\.eyJ[\w-]{8,}(?:\.[\w-]*)?"),
    _shape("a private key", "", r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[\s\S]{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----)?"),
    _shape("a token", "", r"[Bb]earer\s{1,4}[\w.~+/=-]{12,}"),
    _shape("a password in a URL", "", r"(?P<keep>https?://)[^\s/?#@]{1,200}(?=@)"),
    _shape("a password in a URL", "", r"(?P<keep>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s/?#@:]{0,100}:)[^\s/?#@]{1,200}(?=@)"),
    _shape("a secret in a URL", "", rf"(?P<keep>[A-Za-z][A-Za-z0-9+.-]{{0,20}}://\S{{0,400}}?[?&#;]{_NAMED_IN_A_URL}=)[^&\s#'\"]+"),
)  # fmt: skip
"""Secrets that are known by their looks; every repetition is bounded, a hostile text must not cost minutes.

Forty hexadecimal digits are a commit as well as a key, so they are not here.
"""

_ASSIGNED = re.compile(
    r"(?<![\w.-])(?P<name>[A-Za-z-][\w.-]{0,80})(?P<sign>[\"']?(?: ?= ?|:(?=\S)|: ?[\"'])[\"']?)(?P<value>[^\s\"',;&]+)"
)


_BY_NAME = "a secret"


class Secret(NamedTuple):
    """A secret that was found.

    Attributes:
        place: The key under which it is: `hub_token`, `a.b` in nested tables; empty for a bare text.
        what: What it is, with its article: "a Hugging Face token".
        variable: The environment variable to give it in; empty where none is known.
    """

    place: str
    what: str
    variable: str

    def sentence(self) -> str:
        """Why it is refused, and the way to give it; without the secret."""
        way = (
            f"set the environment variable {self.variable}" if self.variable else "put it in the environment"
        )
        if self.what.endswith("in a URL"):
            way = "remove it from the URL; use HF_TOKEN or ~/.netrc instead"
        verb = "is" if self.what == _BY_NAME else "contains"
        return f"{self.place} {verb} {self.what}, and settings are written to files: {way}".lstrip()


def is_secret_name(name: str) -> bool:
    """Whether a setting or variable of that name holds a secret: `hub_token` does, `pad_token` does not."""
    words = [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)]
    if not words or words[-1] in _ABOUT_A_SECRET:
        return False
    if _SECRET_WORDS & set(words):
        return True
    before = words[-2] if len(words) > 1 else ""
    if words[-1] == "key":
        return before in _KEYS_THAT_ARE_SECRET
    return words[-1] == "token" and before not in _TOKENS_OF_TEXT


def find_secret(value: object, place: str = "") -> Secret | None:
    """The first secret in a setting's value, by name or by shape, however deep.

    Args:
        value: A text, a table, a list, or anything else (which holds none unless its name says so).
        place: The key that the value stands under; empty where its name is known to be harmless.
    """
    return next(_secrets(value, place), None)


def _secrets(value: object, place: str) -> Iterator[Secret]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _secrets(f"{key}", "")
            yield from _secrets(inner, f"{place}.{key}" if place else f"{key}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        for inner in value:
            yield from _secrets(inner, place)
    elif value not in {None, "", False} and any(map(is_secret_name, place.split("."))):
        yield Secret(redact(place), _BY_NAME, _variable(place))
    elif isinstance(value, str) and (shape := find_shape(value)):
        yield Secret(redact(place), shape.what, shape.variable)


def find_shape(text: str) -> Shape | None:
    """The kind of secret that a text is or holds; None if it looks harmless."""
    return next((shape for shape in SHAPES if shape.pattern.search(text)), None)


def redact(text: str) -> str:
    """A text without secrets: those known by shape, by the name before them, and the values of the environment."""
    for value in _environment_secrets():
        text = text.replace(value, HIDDEN)
    for shape in SHAPES:
        text = shape.pattern.sub(lambda found: found.groupdict().get("keep", "") + HIDDEN, text)
    return _ASSIGNED.sub(_without_value, text)


def _without_value(found: re.Match[str]) -> str:
    return f"{found['name']}{found['sign']}{HIDDEN}" if is_secret_name(found["name"]) else found[0]


def _environment_secrets() -> list[str]:
    """Values of the environment that are secret, longest first; short ones and paths would blot out harmless text."""
    least = 8
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= least and is_secret_name(name) and not os.path.exists(value)  # noqa: PTH110 - Path.exists fails on what is too long
    }
    return sorted(values, key=len, reverse=True)


def _variable(place: str) -> str:
    words = re.findall(r"[a-z]+", place.lower())
    return next((_VARIABLES[word] for word in words if word in _VARIABLES), "")
