"""A table of bad inputs: a row is a command line, the files it meets, and what must come of it.

Every row, whatever it is about, must end in time and in little memory, with the exit code that it names; explain
itself in one message; leave every file as it was, outside of what it may write; and send no character to the
terminal, or into a text file, that acts instead of showing.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

Make = Callable[[Path], object]
"""Puts something at a path."""

FOLDER = Path(__file__).parent
MIB = 2**20
LONGEST_MESSAGE = 6000
"""Characters. A message that quotes a whole file explains nothing."""

# C0 without tab and newline, DEL, C1, and what turns a line around, hides or breaks it; carriage returns count.
ACTING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_LIBRARY_CACHES = ("torchinductor_root", "torchinductor_nobody", ".config", ".cache", "dpo-cli")
TEXT_FILES = {".toml", ".json", ".jsonl", ".md", ".html", ".txt", ".csv", ".jinja"}


@dataclass(frozen=True)
class Case:
    """A bad input.

    Attributes:
        name: What is wrong, as a sentence.
        argv: What stands after `dpo`.
        says: Words that the message must have; white space counts as one blank.
        code: The exit code.
        files: Path in the working folder to its bytes, its text, or a function that makes it.
        environment: Variables that are set, or with None taken away.
        stdin: What is typed.
        stdout: A path, such as /dev/full, that standard output goes to.
        stderr: The same for standard error.
        limits: `RLIMIT_...` to its value.
        writes: Paths in the working folder that may come, change or go.
        never: Words that must not stand in an output or in a written file.
        alone: A line of bash that runs the command, `"$@"`, in an interpreter of its own.
        seconds: The processor time that it may take, and half of the time by the clock.
        memory: The most memory, in MiB, that it may take beyond the libraries.
    """

    name: str
    argv: tuple[str, ...] | str
    says: tuple[str, ...] | str = ()
    code: int = 2
    files: dict[str, bytes | str | Make] = field(default_factory=dict)
    environment: dict[str, str | None] = field(default_factory=dict)
    stdin: bytes = b""
    stdout: str = ""
    stderr: str = ""
    limits: dict[str, int] = field(default_factory=dict)
    writes: tuple[str, ...] = ()
    never: tuple[str, ...] = ()
    alone: str = ""
    deleted_folder: bool = False
    seconds: float = 15
    memory: int = 700

    @property
    def words(self) -> list[str]:
        """The command line; a string is split at its blanks."""
        return self.argv.split() if isinstance(self.argv, str) else list(self.argv)


@dataclass(frozen=True)
class Outcome:
    """What became of a command: exit code, seconds, bytes of memory, and why it was killed."""

    code: int
    seconds: float
    memory: int
    killed: str


class Interpreter:
    """The process that forks the children; started when the first row needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Start it, unless it runs: libraries write to their caches when they are imported."""
        if self._process is not None and self._process.poll() is not None:
            self.stop()  # somebody has ended it; the row that it was running has failed
            self._process = None
        if self._process is None:
            self._process = self._start()

    def run(self, request: dict) -> Outcome:
        assert self._process
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        return Outcome(**json.loads(self._process.stdout.readline()))

    def _start(self) -> subprocess.Popen:
        with (self.folder / "interpreter.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, str(FOLDER / "zygote.py")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment(self.folder / "home"),
            )
        assert process.stdout
        said = process.stdout.readline()
        assert said == b"ready\n", (self.folder / "interpreter.log").read_text()
        return process

    def stop(self) -> None:
        if self._process is not None:
            self._process.communicate()


def environment(home: Path) -> dict[str, str]:
    """A small environment with nothing of the machine's in it but the way to its programs."""
    home.mkdir(exist_ok=True)
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TMPDIR": str(home),
        "LC_ALL": "C.UTF-8",
        "COLUMNS": "100",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "DPO_CLI_CACHE": str(home / "dpo-cache"),
        "PYTHONPATH": str(FOLDER.parents[1]),
    }


def run(case: Case, interpreter: Interpreter, place: Path) -> list[str]:
    """Run a row in a folder of its own and say what is not as it must be."""
    work, streams = place / "work", place / "streams"
    for folder in (work, streams):
        folder.mkdir(parents=True)
    for name, content in case.files.items():
        put(work / name, content)
    settings = environment(place / "home") | case.environment
    settings = {name: value for name, value in settings.items() if value is not None}
    (streams / "in").write_bytes(case.stdin)
    interpreter.start()
    before = {**snapshot(place, {"streams"}), **snapshot(interpreter.folder, {"interpreter.log"})}
    outputs = [Path(case.stdout or streams / "out"), Path(case.stderr or streams / "err")]
    outcome = (_alone if case.alone else _forked)(case, interpreter, work, settings, outputs, streams / "in")
    after = {**snapshot(place, {"streams"}), **snapshot(interpreter.folder, {"interpreter.log"})}
    texts = [
        path.read_bytes().decode("utf-8", "surrogateescape") if path.is_file() else "" for path in outputs
    ]
    return [
        *_about_outcome(case, outcome),
        *_about_message(case, *texts),
        *_about_files(case, place, before, after),
    ]


def put(path: Path, content: bytes | str | Make) -> None:
    """Make a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)


def _forked(
    case: Case, interpreter: Interpreter, work: Path, settings: dict, outputs: list[Path], typed: Path
) -> Outcome:
    written = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    deleted = work / "deleted"
    if case.deleted_folder:
        deleted.mkdir()
    return interpreter.run(
        {
            "argv": case.words,
            "folder": str(deleted if case.deleted_folder else work),
            "delete": [str(deleted)] if case.deleted_folder else [],
            "environment": settings,
            "limits": case.limits,
            "streams": [(str(typed), os.O_RDONLY), *((str(path), written) for path in outputs)],
            "seconds": case.seconds,
            "memory": case.memory * MIB,
        }
    )


def _alone(
    case: Case, interpreter: Interpreter, work: Path, settings: dict, outputs: list[Path], typed: Path
) -> Outcome:
    del interpreter
    began = time.monotonic()
    command = ["bash", "-c", case.alone, "bash", sys.executable, "-m", "dpo_cli", *case.words]
    with typed.open("rb") as stdin, outputs[0].open("ab") as stdout, outputs[1].open("ab") as stderr:
        child = subprocess.Popen(
            command, cwd=work, env=settings, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )
        try:
            code, killed = child.wait(8 * case.seconds), ""  # it has the libraries to load
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            code, killed = child.wait(), "time"
    return Outcome(code if code >= 0 else 128 - code, time.monotonic() - began, 0, killed)


def snapshot(folder: Path, without: set[str]) -> dict[str, str]:
    """Every path below a folder, and what is there: kind, rights, and a hash of what it holds."""
    found = {}
    for parent, folders, files in os.walk(folder):
        if Path(parent) == folder:
            folders[:] = [name for name in folders if name not in without]
            files[:] = [name for name in files if name not in without]
        for name in [*folders, *files]:
            path = Path(parent, name)
            state = path.lstat()
            what = f"{state.st_mode:o} {state.st_size if name in files else ''}"
            if path.is_symlink():
                what += f" -> {path.readlink()}"
            elif path.is_file() and os.access(path, os.R_OK):
                what += f" {state.st_mtime_ns} {_digest(path, state.st_size)}"
            found[str(path)] = what
    return found


def _digest(path: Path, size: int) -> str:
    return hashlib.blake2b(path.read_bytes()).hexdigest()[:16] if size < MIB else ""


def _about_outcome(case: Case, outcome: Outcome) -> list[str]:
    wrong = []
    if outcome.killed:
        wrong.append(
            f"killed: it took more {outcome.killed} than it may ({outcome.seconds:.1f} s, {outcome.memory / MIB:.0f} MiB)"
        )
    if outcome.code != case.code:
        wrong.append(f"exit code {outcome.code}, not {case.code}")
    return wrong


def _about_message(case: Case, stdout: str, stderr: str) -> list[str]:
    wrong = []
    told = " ".join(stderr.split())
    shown = f"\n--- stdout\n{stdout[-2000:]!r}\n--- stderr\n{stderr[-3000:]}\n---"
    if "Traceback (most recent" in stderr + stdout or '  File "' in stderr + stdout:
        wrong.append("a traceback")
    said = [case.says] if isinstance(case.says, str) else case.says
    wrong += [
        f"{words!r} is not said"
        for words in said
        if " ".join(words.split()) not in told + " " + " ".join(stdout.split())
    ]
    if found := ACTING.search(stdout + stderr):
        wrong.append(f"{found[0]!r} reaches the output")
    wrong += [f"{word!r} is said" for word in case.never if word in stdout + stderr]
    if case.code == 2 and case.says:
        # Typer's usage errors are boxes that have the word in their border.
        if len(re.findall(r"^(?:Error:|╭─ Error)", stderr, re.MULTILINE)) != 1:
            wrong.append("not one message")
        if len(stderr) > LONGEST_MESSAGE:
            wrong.append(f"a message of {len(stderr)} characters")
        # `dpo check` answers with what it found, on standard output, whatever the answer is.
        if stdout.strip() and not case.stdout and case.words[0] != "check":
            wrong.append("a result on standard output")
    return [f"{'; '.join(wrong)}{shown}"] if wrong else []


def _about_files(case: Case, place: Path, before: dict[str, str], after: dict[str, str]) -> list[str]:
    may = tuple(str(place / "work" / name) for name in case.writes)
    if (
        case.alone
    ):  # torch and matplotlib make caches where they are first imported, dpo one where there is no home
        may += tuple(str(place / "home" / name) for name in _LIBRARY_CACHES)
    if case.code != 2:
        may += (str(place / "home" / "dpo-cache"),)
    wrong: list[str] = []
    told = ""
    for path in sorted(before.keys() | after.keys()):
        if before.get(path) == after.get(path):
            continue
        allowed = any(path == name or path.startswith(name + os.sep) for name in may)
        if not allowed:
            if told and path.startswith(told + os.sep):
                continue
            told, verb = (
                path,
                "written" if path not in before else "deleted" if path not in after else "changed",
            )
            wrong.append(f"{path.removeprefix(str(place))} was {verb}")
        elif path in after and Path(path).suffix in TEXT_FILES and Path(path).is_file():
            text = Path(path).read_bytes().decode("utf-8", "surrogateescape")
            if found := ACTING.search(text):
                wrong.append(f"{found[0]!r} stands in {path}")
            wrong += [f"{word!r} stands in {path}" for word in case.never if word in text]
    return wrong


def bad_input_test(cases: list[Case]):
    """A test of every row of a table."""
    names = [case.name for case in cases]
    assert len(set(names)) == len(names), "two rows with one name"

    @pytest.mark.parametrize("case", cases, ids=names)
    def test(case, interpreter, tmp_path):
        __tracebackhide__ = True
        wrong = run(case, interpreter, tmp_path)
        if wrong:
            pytest.fail("\n".join(wrong), pytrace=False)

    return test
