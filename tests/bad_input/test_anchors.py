"""Pairs for a new name: prompts of anchors that are none, and settings that do not go together."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import fifo

NAMES = "identity-shift --original-name Qwen --new-name Orion"
FILE = f"{NAMES} --anchor-prompts mine.txt"

test_anchors = bad_input_test(
    [
        Case("a kind of pairs that there is not", f"{NAMES} --pairs-from mine", ("--pairs-from", "introductions")),
        Case("fewer anchors than none", f"{NAMES} --anchors -1", "--anchors"),
        Case("anchors that are a word", f"{NAMES} --anchors many", ("--anchors", "many")),
        Case("more anchors than prompts", f"{NAMES} --anchors 100000", ("--anchors 100,000", "--anchor-prompts")),
        Case("more anchors than prompts of one's own", f"{FILE} --anchors 3", "--anchors 3: there are prompts for 2",
             files={"mine.txt": "Sing.\nDance.\nsing.\n"}),
        Case("prompts and no anchors", f"{FILE} --anchors 0", ("--anchor-prompts", "--anchors 0"),
             files={"mine.txt": "Sing.\n"}),
        Case("prompts that are not there", FILE, "mine.txt"),
        Case("prompts that are none", FILE, "mine.txt", files={"mine.txt": "\n \n"}),
        Case("prompts in a table", FILE.replace("txt", "csv"), "mine.csv", files={"mine.csv": "a,b\n"}),
        Case("prompts that are not UTF-8", FILE, ("mine.txt", "UTF-8"), files={"mine.txt": b"Sing.\n\xff\n"}),
        Case("prompts that are a FIFO", FILE, "mine.txt", files={"mine.txt": fifo}),
        Case("prompts that ask who it is", FILE, ("--anchor-prompts", "identity question"),
             files={"mine.txt": "What is your name?\nWho are you?\n"}),
        Case("an answer template beside introductions", (*NAMES.split(), "--pairs-from", "introductions",
             "--answer-template", "I am {name}."), ("--answer-template", "--pairs-from")),
    ]
)  # fmt: skip
