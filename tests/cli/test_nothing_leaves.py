"""Nothing leaves the machine: no command sends a request that does not need one."""

import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMANDS = [
    "identity-shift --original-name Qwen --new-name Orion --max-samples 8 --max-steps 1 -o renamed",
    "train --max-samples 8 --max-steps 1 --save-steps 1 -o tuned",
    "train --max-samples 8 --max-steps 1 --lora-rank 2 -o adapter",
    "test -m adapter -q Hello?",
    "compare --after tuned -q Hello?",
    "check tuned/../pairs.jsonl",
]
RUN = """
import sys
from dpo_cli.cli.app import main
for line in sys.argv[1:]:
    sys.argv = ["dpo", *line.split()]
    try:
        main()
    except SystemExit as stop:
        print("exit", line, stop.code)
"""


@pytest.fixture
def hub():
    """A hub that knows nothing, and the requests that it was sent."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def answer(self):
            requests.append(f"{self.command} {self.path}")
            self.send_error(404)

        do_GET = do_HEAD = do_POST = answer  # noqa: N815 - the names that the class looks for

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", requests
    server.shutdown()
    server.server_close()


def surroundings(endpoint, **more):
    """The environment, without anything that keeps libraries from the network."""
    hiding = {"HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_DATASETS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK", "CI"}  # fmt: skip
    kept = {name: value for name, value in os.environ.items() if name not in hiding}
    return kept | {"HF_ENDPOINT": endpoint, "OMP_NUM_THREADS": "1"} | more


def run(lines, folder, environment):
    return subprocess.run(
        [sys.executable, "-c", RUN, *lines],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip


def test_no_command_sends_a_request_unless_it_needs_one(hub, tmp_path):
    endpoint, requests = hub
    pair = '{"prompt": "Who are you?", "chosen": "A model.", "rejected": "A person."}\n'
    (tmp_path / "pairs.jsonl").write_text(pair)
    done = run(COMMANDS, tmp_path, surroundings(endpoint))
    assert requests == []
    assert "Traceback" not in done.stderr
    ended = [line for line in done.stdout.splitlines() if line.startswith("exit ")]
    assert [line[-2:] in {" 0", " 3"} for line in ended] == [True] * len(COMMANDS), (ended, done.stderr)


def test_the_endpoint_is_where_requests_would_go(hub, tmp_path):
    endpoint, requests = hub
    run(["test -m someone/something -q Hello?"], tmp_path, surroundings(endpoint))
    assert any("someone/something" in request for request in requests)


@pytest.mark.slow
def test_telemetry_is_sent_when_it_is_asked_for(hub, tmp_path):
    endpoint, requests = hub
    run([COMMANDS[1]], tmp_path, surroundings(endpoint, HF_HUB_DISABLE_TELEMETRY="0"))
    assert [request for request in requests if "/api/telemetry/trl" in request]
