"""Settings: one declaration each, merged raw, validated once, frozen.

`settings` and `commands` declare them, `sources` reads TOML and flags and names where a mistake came from,
`trl_table` knows TRL's own fields. Nothing here imports torch.
"""

from dpo_cli.config.commands import (
    AskConfig,
    BenchConfig,
    CheckConfig,
    CompareConfig,
    DPOTrainingConfig,
    IdentityShiftConfig,
    IdentityVerdict,
    ResumeConfig,
)
from dpo_cli.config.files import SETTINGS_BYTES, UnreadableError, parse_toml, read_bounded
from dpo_cli.config.paths import user_path
from dpo_cli.config.recipes import Recipe
from dpo_cli.config.settings import (
    EMBEDDED,
    OF_TOKENIZER,
    PRESET_SETTINGS,
    DataConfig,
    GenerationConfig,
    ModelConfig,
    OptimizationConfig,
    Settings,
    Truncation,
    TruncationMode,
    setting_of,
)
from dpo_cli.config.sources import apply_preset, load_settings, settings_from, to_toml

__all__ = [
    "EMBEDDED",
    "OF_TOKENIZER",
    "PRESET_SETTINGS",
    "SETTINGS_BYTES",
    "AskConfig",
    "BenchConfig",
    "CheckConfig",
    "CompareConfig",
    "DPOTrainingConfig",
    "DataConfig",
    "GenerationConfig",
    "IdentityShiftConfig",
    "IdentityVerdict",
    "ModelConfig",
    "OptimizationConfig",
    "Recipe",
    "ResumeConfig",
    "Settings",
    "Truncation",
    "TruncationMode",
    "UnreadableError",
    "apply_preset",
    "load_settings",
    "parse_toml",
    "read_bounded",
    "setting_of",
    "settings_from",
    "to_toml",
    "user_path",
]
