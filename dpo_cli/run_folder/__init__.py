"""The folder of a run: claimed by one process, filled beside its place, put there whole, never at a user's expense."""

from dpo_cli.run_folder.disk import disk_in_words, require_room, write_file
from dpo_cli.run_folder.files import MARK, history_text, write_settings
from dpo_cli.run_folder.folder import TRIAL, OutputFolder
from dpo_cli.run_folder.places import result_file

__all__ = [
    "MARK",
    "TRIAL",
    "OutputFolder",
    "disk_in_words",
    "history_text",
    "require_room",
    "result_file",
    "write_file",
    "write_settings",
]
