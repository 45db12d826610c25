"""One interpreter a worker."""

import pytest
from bad_input.harness import Interpreter


@pytest.fixture(scope="session")
def interpreter(tmp_path_factory):
    interpreter = Interpreter(tmp_path_factory.mktemp("interpreter"))
    yield interpreter
    interpreter.stop()
