"""A program on a terminal of a given width."""

from __future__ import annotations

import os
import pty
import struct
import subprocess
import sys
import termios
from fcntl import ioctl

_OURS = ("COLUMNS", "LINES", "NO_COLOR", "TERM")


def on_terminal(columns, *arguments, environment=None):
    """Run Python with these arguments under a pseudo-terminal.

    Returns:
        What the terminal got, and the exit code.
    """
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    env = {key: value for key, value in os.environ.items() if key not in _OURS}
    env |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8"} | (environment or {})
    process = subprocess.Popen(
        [sys.executable, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=env
    )
    os.close(theirs)
    out = b""
    while True:
        try:
            block = os.read(ours, 65536)
        except OSError:  # the other side is closed
            break
        if not block:
            break
        out += block
    os.close(ours)
    return out.decode(errors="replace"), process.wait()
