"""Whatever bytes a file has, its reader gives what is in it or a `UserError`, and no other exception."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dpo_cli.config import CheckConfig, DPOTrainingConfig, load_settings
from dpo_cli.data.load import load_dpo_dataset
from dpo_cli.errors import UserError
from dpo_cli.text.questions import read_questions

# What parsers trip over, between pieces of what they expect.
ODD = (
    b"\0", b"\xff", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\xff\xfe", b"\x85", b"\r", b"\r\n", b"\n\n", b"\t", b"\x0c", b'"', b"'", b'"""',
    b"\\", b"\\ud800", b"\\u0000", b"\\x", b"[" * 3000, b"]", b"{" * 3, b'{"a":' * 1500, b"}", b",", b";", b":", b"=", b"#", b"null",
    b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"-0", b"0x", b"1979-13-32", b"true", b"[[", b"]]", b"a.b.c", b"\xe2\x80\xa8",
)  # fmt: skip
JSON = (
    b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n', b'{"prompt": [{"role": "user", "content": "a"}], ',
    b'"chosen": [{"role": "assistant", "content": "b"}], ', b'"rejected": [{"role": "assistant", "content": "c"}]}\n',
    b'{"chosen": "\\n\\nHuman: a\\n\\nAssistant: b", "rejected": "\\n\\nHuman: a\\n\\nAssistant: c"}\n', b'"tools": [3], ', b"[", b"]\n",
)  # fmt: skip
CSV = (
    b"prompt,chosen,rejected\n",
    b"a,b,c\n",
    b'"[{""role"": ""user""}]",b,c\n',
    b'"a\nb",c,d\n',
    b"a\tb\tc\n",
)
TOML = (
    b"beta = 0.1\n",
    b"[trl]\n",
    b"adam_beta1 = 0.8\n",
    b'loss_type = ["sigmoid"]\n',
    b"seed = ",
    b'dataset = "a"\n',
    b"[[x]]\n",
)
QUESTIONS = (
    b'"Who are you?"\n',
    b'{"question": "a", ',
    b'"group": "b", ',
    b'"answers": ["c"]}\n',
    b"questions = [",
    b"]\n",
    b"[[questions]]\n",
    b'question = "a"\n',
)


def files(pieces):
    """Bytes of nothing in particular, and pieces of a good file with odd ones among them."""
    mixed = st.lists(st.sampled_from(pieces) | st.sampled_from(ODD) | st.binary(max_size=4), max_size=12).map(
        b"".join
    )
    return st.binary(max_size=200) | mixed


def any_bytes(pieces):
    def decorate(test):
        limits = settings(
            max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
        )
        return limits(given(data=files(pieces))(test))

    return decorate


def read(reader, path, data):
    path.write_bytes(data)
    message = path.name
    try:
        reader(str(path))
    except UserError as error:
        message = str(error)
    assert path.name in message
    assert len(message) < 5000


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@any_bytes(JSON)
def test_json(tmp_path, suffix, data):
    read(load_dpo_dataset, tmp_path / f"pairs{suffix}", data)
    read(lambda path: load_dpo_dataset(path, allow_drops=True), tmp_path / f"pairs{suffix}", data)


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@any_bytes(CSV)
def test_csv(tmp_path, suffix, data):
    read(load_dpo_dataset, tmp_path / f"pairs{suffix}", data)
    read(lambda path: load_dpo_dataset(path, allow_drops=True), tmp_path / f"pairs{suffix}", data)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl.gz"])
@any_bytes((b"PAR1", b"ARROW1", b"\x1f\x8b\x08", *JSON[:1]))
def test_binary_files(tmp_path, suffix, data):
    read(load_dpo_dataset, tmp_path / f"pairs{suffix}", data)


def test_a_message_does_not_repeat_a_long_key(tmp_path):
    long = b"9" * 9000
    read(read_questions, tmp_path / "questions.toml", long + b' = "a"')
    read(read_questions, tmp_path / "questions.jsonl", b'{"' + long + b'": "a"}')
    read(lambda path: load_settings(CheckConfig, {}, path), tmp_path / "run.toml", long + b" = 1")


@pytest.mark.parametrize("command", [DPOTrainingConfig, CheckConfig])
@any_bytes(TOML)
def test_settings(tmp_path, command, data):
    read(lambda path: load_settings(command, {}, path), tmp_path / "run.toml", data)


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".toml"])
@any_bytes(QUESTIONS)
def test_questions(tmp_path, suffix, data):
    read(read_questions, tmp_path / f"questions{suffix}", data)
