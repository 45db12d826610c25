"""Question files, and questions on the command line."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import fifo, folder, link, sparse


def asked(name, file, content, *says, **more):
    return Case(name, ("test", "--questions", file), (file, *says), files={file: content}, **more)


test_questions = bad_input_test(
    [
        Case("questions that are not there", "test --questions q.txt", "q.txt"),
        Case("questions in a folder that is not there", "test --questions no/q.txt", "no/q.txt"),
        Case("questions in a home that there is not", "test --questions ~nobody-here/q.txt", "~nobody-here"),
        Case("questions with an empty name", ("test", "--questions", ""), "--questions"),
        Case(
            "questions that never end", "test --questions q.txt", "q.txt", files={"q.txt": link("/dev/zero")}
        ),
        Case("questions with a name of 300 letters", ("test", "--questions", "n" * 300 + ".txt"), "nnnn"),
        Case("questions with an escape in the name", ("test", "--questions", "\x1b[31m.txt"), r"\x1b"),
        asked("questions that are a FIFO", "q.txt", fifo),
        asked("questions that are a folder", "q.txt", folder),
        asked("questions of another kind", "q.csv", "a\n"),
        asked("no questions", "q.txt", "\n\n"),
        asked("no questions in TOML", "q.toml", "questions = []"),
        asked("questions that are not UTF-8", "q.txt", b"a\nb\n\xff", "line 3"),
        asked("questions in UTF-16", "q.txt", "a".encode("utf-16"), "UTF-8"),
        asked("questions of 200 MB", "q.txt", sparse(200_000_000)),
        asked("a question of a megabyte", "q.txt", "word " * 200_000),
        asked("a question that is not JSON", "q.jsonl", '"a"\nnope\n', "line 2"),
        asked("a question that is a number", "q.jsonl", "3", "line 1"),
        asked("a question that is null", "q.jsonl", '{"question": null}', "line 1", "question"),
        asked("a question of blanks", "q.jsonl", '{"question": "  "}', "line 1", "question"),
        asked("a question with a key of nobody's", "q.jsonl", '{"question": "a", "wat": 1}', "line 1", "wat"),
        asked(
            "a question with a key that stands twice",
            "q.jsonl",
            '{"question": "a", "question": "b"}',
            "line 1",
            "question",
        ),
        asked("a question with half a surrogate pair", "q.jsonl", '{"question": "a\\ud800"}', "line 1"),
        asked(
            "a question with a group that is a number",
            "q.jsonl",
            '{"question": "a", "group": 3}',
            "line 1",
            "group",
        ),
        asked(
            "a question with answers that are numbers",
            "q.jsonl",
            '{"question": "a", "answers": [1]}',
            "line 1",
            "answers",
        ),
        asked("a question that nests 100,000 deep", "q.jsonl", '{"question": ' + "[" * 100_000, "line 1"),
        asked(
            "a question with a number of 5,000 digits",
            "q.jsonl",
            '{"question": ' + "9" * 5000 + "}",
            "line 1",
        ),
        asked("questions in TOML that is none", "q.toml", "questions = ["),
        asked("questions in TOML of 20,000 brackets", "q.toml", "questions = " + "[" * 20_000),
        asked("questions in TOML with a number of 5,000 digits", "q.toml", "questions = " + "9" * 5000),
        asked("questions in TOML that are a number", "q.toml", "questions = 3", "questions"),
        asked("questions in TOML with another key", "q.toml", "question = ['a']", "question"),
        asked("questions in TOML that are numbers", "q.toml", "questions = [1]", "question 1"),
        Case(
            "questions to compare with that are not there",
            "compare --before embedded --after embedded --questions q.txt",
            "q.txt",
        ),
        Case(
            "questions to rename with that are not there",
            "identity-shift --original-name A --new-name B --questions q.txt",
            "q.txt",
        ),
        Case(
            "questions to rename with that are too few",
            "identity-shift --original-name Qwen --new-name B --questions q.txt",
            "at least 8",
            files={"q.txt": "Who are you?\n"},
        ),
        Case("a question of a megabyte on the command line", ("test", "-q", "x " * 60_000), "--question"),
        Case("a question that is not UTF-8", ("test", "-q", "a\udcff"), "--question"),
        Case(
            "a question with an escape",
            ("test", "-q", "\x1b[31mhello", "--max-new-tokens", "4"),
            r"\x1b",
            code=0,
        ),
        Case(
            "a question with a bidi override",
            ("test", "-q", "\u202ehello", "--max-new-tokens", "4", "--json"),
            r"\u202e",
            code=0,
        ),
    ]
)
