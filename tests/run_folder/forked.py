"""The command in a forked child of an interpreter that has the libraries loaded: seconds saved for each run."""

from __future__ import annotations

import os
import signal
import traceback

import torch


def load_libraries():
    """Load everything once, for every child."""
    import matplotlib.figure  # noqa: F401


def dpo(arguments, cwd, before=lambda: None):
    """Run the command; its exit code (negative: a signal) and output."""
    from dpo_cli.cli import app

    with (cwd / "printed").open("wb") as file:
        child = os.fork()
        if child == 0:
            code = 99
            try:
                os.chdir(cwd)
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                app.sys.stdout, app.sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                app.sys.__stdout__, app.sys.__stderr__ = app.sys.stdout, app.sys.stderr
                app.sys.argv = ["dpo", *arguments]
                torch.set_num_threads(1)
                # As in a terminal: whoever started the tests may ignore it, and so would the child.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                before()
                app.main()
            except SystemExit as stop:
                code = stop.code
            except BaseException:  # noqa: BLE001 - a bug, whose traceback is what the test looks for
                traceback.print_exc(file=app.sys.stdout)
            app.sys.stdout.flush()
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return code, (cwd / "printed").read_text()


def at_stage(name, action):
    """Do something when a stage of the job begins."""

    def install():
        from dpo_cli.events import Stage
        from dpo_cli.report.live import LiveView

        seen = LiveView.__call__

        def call(view, event):
            if isinstance(event, Stage) and event == Stage(name, "started"):
                action()
            seen(view, event)

        LiveView.__call__ = call

    return install


def at_step(step, action):
    """Do something when a step of training is done, before anything is saved."""

    def install():
        from dpo_cli.training.callbacks import EventCallback

        def end(callback, args, state, control, **how):
            if state.global_step == step:
                action()

        EventCallback.on_step_end = end

    return install
