"""Question files: three formats, one shape, errors with file and line."""

import pytest

from dpo_cli.errors import DataError
from dpo_cli.text.questions import Question, read_questions


def write(folder, name, text):
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_text_file_is_a_question_a_line(tmp_path):
    path = write(tmp_path, "q.txt", "\ufeffWho are you?\r\n\n  What is 1 + 1?  \n")
    assert read_questions(path) == [Question("Who are you?"), Question("What is 1 + 1?")]


def test_json_lines_carry_groups_and_answers(tmp_path):
    path = write(
        tmp_path,
        "q.jsonl",
        '"Who?"\n\n{"question": "1 + 1?", "group": "sums", "answers": ["2", "two"]}\n{"question": "x", "answers": "y"}',
    )
    assert read_questions(str(path)) == [
        Question("Who?"),
        Question("1 + 1?", "sums", ("2", "two")),
        Question("x", answers=("y",)),
    ]


def test_toml_takes_texts_or_tables(tmp_path):
    assert read_questions(write(tmp_path, "a.toml", 'questions = ["Who?"]')) == [Question("Who?")]
    path = write(tmp_path, "b.TOML", '[[questions]]\nquestion = "1 + 1?"\ngroup = "sums"\nanswers = ["2"]\n')
    assert read_questions(path) == [Question("1 + 1?", "sums", ("2",))]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("q.txt", "\n \n", "no question"),
        ("q.jsonl", "", "no question"),
        ("q.toml", "", "no question"),
        ("q.csv", "x", r"\.csv"),
        ("q", "x", "nothing"),
        ("q.txt", b"ok\nok\n\xff\xfe", "line 3: not UTF-8"),
        ("q.jsonl", '"ok"\n{"question": ', "line 2: not JSON"),
        ("q.jsonl", "[" * 100_000, "line 1: not JSON"),
        ("q.jsonl", "3", "line 1.*not int"),
        ("q.jsonl", '{"question": "x", "answer": "y"}', "line 1: unknown key 'answer'"),
        ("q.jsonl", '{"question": "  "}', "question must"),
        ("q.jsonl", '{"question": "x", "group": 3}', "group must"),
        ("q.jsonl", '{"question": "x", "answers": [3]}', "answers must"),
        ("q.toml", "\nquestions = [1,,]", "not TOML.*line 2"),
        ("q.toml", "question = 'x'", "unknown key 'question'"),
        ("q.toml", "questions = 3", "must be a list"),
        ("q.toml", "questions = ['x', 3]", "question 2"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(tmp_path, name, text, says):
    path = write(tmp_path, name, text)
    with pytest.raises(DataError, match=says) as caught:
        read_questions(path)
    assert str(path) in caught.value.message


def test_a_missing_file_or_a_folder_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.txt: No such file"):
        read_questions(tmp_path / "gone.txt")
    (tmp_path / "d.txt").mkdir()
    with pytest.raises(DataError, match=r"d\.txt: Is a directory"):
        read_questions(tmp_path / "d.txt")
