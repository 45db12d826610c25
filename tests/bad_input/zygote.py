"""One interpreter with every library loaded, which forks a child for each `dpo` command that it is told to run.

Loading torch, transformers and TRL takes seconds, a fork milliseconds. A child is as near to a process of its own as a
fork can be: own descriptors, folder, environment, limits and process group.
Requests and answers are lines of JSON on standard input and output.
"""

import atexit
import contextlib
import gc
import importlib
import json
import os
import pkgutil
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import NoReturn

_LIBRARIES = (
    "accelerate", "datasets", "jinja2.sandbox", "matplotlib.pyplot", "pandas", "peft", "pyarrow.parquet", "scipy.stats",
    "tokenizers", "torch", "transformers", "transformers.models.llama.modeling_llama", "trl",
)  # fmt: skip
_TICK = 0.02  # seconds between two looks at a child


def serve() -> None:
    """Answer requests until there are none; in a child, return with everything set for the command to run."""
    for name in _LIBRARIES:
        importlib.import_module(name)
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    assert AutoModelForCausalLM, AutoTokenizer
    assert DPOConfig, DPOTrainer
    import dpo_cli

    for module in pkgutil.walk_packages(dpo_cli.__path__, "dpo_cli."):
        if ".embedded." not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()  # a child's collector leaves these pages shared
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(2, 1)
    answers.write(b"ready\n")
    answers.flush()
    while line := requests.readline():
        request = json.loads(line)
        child = os.fork()
        if child == 0:
            os.close(requests.fileno())
            os.close(answers.fileno())
            become(request)
            return
        answers.write(json.dumps(watch(child, request["seconds"], request["memory"])).encode() + b"\n")
        answers.flush()
    os._exit(0)


def become(request: dict) -> None:
    """Make this child what the request says."""
    os.setpgid(0, 0)
    for number, (path, flags) in enumerate(request["streams"]):
        os.dup2(os.open(path, flags, 0o600), number)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    for name, value in request["limits"].items():
        resource.setrlimit(getattr(resource, name), (value, value))
    for deleted in request["delete"]:
        Path(deleted).rmdir()
    sys.argv = ["dpo", *request["argv"]]


def watch(child: int, seconds: float, memory: int) -> dict:
    """Wait for a child, and kill it when it takes more processor seconds, twice as many by the clock, or more memory.

    Memory is in bytes, beyond what the child began with.
    """
    began, before, peak, killed = time.monotonic(), resident(os.getpid()), 0, ""
    while True:
        done, status, _ = os.wait4(child, os.WNOHANG)
        if done:
            break
        peak = max(peak, resident(child) - before)
        if not killed:
            late = worked(child) > seconds or time.monotonic() - began > 2 * seconds
            killed = "time" if late else "memory" if peak > memory else ""
            if killed:
                os.killpg(child, signal.SIGKILL)
        time.sleep(_TICK)
    took = time.monotonic() - began
    with contextlib.suppress(ProcessLookupError):  # whatever it started and left behind
        os.killpg(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(status)
    return {"code": code if code >= 0 else 128 - code, "seconds": took, "memory": peak, "killed": killed}


def worked(process: int) -> float:
    """Processor seconds that a process has used."""
    try:
        numbers = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:  # it has just ended
        return 0.0
    return (int(numbers[11]) + int(numbers[12])) / os.sysconf("SC_CLK_TCK")


def resident(process: int) -> int:
    """Bytes of memory that a process holds."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0
    return pages * resource.getpagesize()


def end(code: object) -> NoReturn:
    """End as an interpreter does, without its taking apart of every library, which would be the longest part."""
    if isinstance(code, str):
        sys.stderr.write(f"{code}\n")
    number = code if isinstance(code, int) else 0 if code is None else 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            number = 120  # as Python has it
    os._exit(number & 0xFF)


if __name__ == "__main__":
    serve()
    from dpo_cli.cli.app import main

    try:
        main()
    except SystemExit as stop:
        end(stop.code)
    except BaseException:  # noqa: BLE001 - as the interpreter does
        sys.excepthook(*sys.exc_info())
        end(1)
