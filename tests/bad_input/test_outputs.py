"""Where results should go, and what stands there already."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import fifo, folder, lines, link

TRAIN = "train -d p.jsonl --max-steps 1"
DATA = {"p.jsonl": lines()}
OURS = "# Written by dpo train.\nbeta = 0.1\n"
COMPARE = "compare --before embedded --after embedded -q hello --max-new-tokens 2"
HELDOUT = f"{TRAIN} --eval-fraction 0.3 -o out"


def output(name, argv, *says, files=None, **more):
    return Case(name, argv, says, files=DATA | (files or {}), **more)


test_folders = bad_input_test(
    [
        output("an output that is a file", f"{TRAIN} -o out", "out", files={"out": "mine"}),
        output("an output below a file", f"{TRAIN} -o out/sub", "out/sub", files={"out": "mine"}),
        output("an output that is a FIFO", f"{TRAIN} -o out", "out", files={"out": fifo}),
        output("an output that is a device", f"{TRAIN} -o /dev/null", "/dev/null"),
        output("an output that is a dangling link", f"{TRAIN} -o out", "out", files={"out": link("nowhere")}),
        output("an output that is a link to itself", f"{TRAIN} -o out", "out", files={"out": link("out")}),
        output("an output that is the working folder", f"{TRAIN} -o . --overwrite", "."),
        output("an output above the working folder", f"{TRAIN} -o .. --overwrite", ".."),
        output("an output that is the root", f"{TRAIN} -o / --overwrite", "/"),
        output("an output of the kernel's", f"{TRAIN} -o /proc/out", "/proc/out"),
        output("an output in a home that there is not", f"{TRAIN} -o ~nobody-here/out", "~nobody-here"),
        output(
            "an output of somebody's files",
            f"{TRAIN} -o out --overwrite",
            "out",
            files={"out/thesis.md": "mine"},
        ),
        output(
            "an output of an earlier run",
            f"{TRAIN} -o out",
            "out",
            "--overwrite",
            files={"out/config.toml": OURS},
        ),
        output("an output that is the data", f"{TRAIN} -o p.jsonl --overwrite", "p.jsonl"),
        output(
            "an output that holds the data",
            "train -d out/p.jsonl --max-steps 1 -o out --overwrite",
            "out",
            files={"out/config.toml": OURS, "out/p.jsonl": lines()},
        ),
        output(
            "an output that holds the held-out data",
            f"{TRAIN} --eval-dataset out/q.jsonl -o out --overwrite",
            "out",
            files={"out/config.toml": OURS, "out/q.jsonl": lines()},
        ),
        output(
            "an output that holds the config",
            f"{TRAIN} -c out/run.toml -o out --overwrite",
            files={"out/config.toml": OURS, "out/run.toml": "beta = 0.1\n"},
            code=0,
            writes=("out", "out.kept"),
        ),
        output("an output with a name of 256 bytes", (*TRAIN.split(), "-o", "n" * 256), "nnnn"),
        output(
            "an output with a name of 250 bytes",
            (*TRAIN.split(), "-o", "n" * 250),
            "too long",
        ),
        output(
            "an output with a name of 85 letters of three bytes",
            (*TRAIN.split(), "-o", "你" * 85),
            "too long",
        ),
        output(
            "an output with a path of 5,000 bytes", (*TRAIN.split(), "-o", "/".join(["d"] * 2500)), "d/d/d"
        ),
        output(
            "an output with an escape in its name, and a file",
            (*TRAIN.split(), "-o", "\x1b[31m"),
            r"\x1b",
            files={"\x1b[31m": "mine"},
        ),
        output(
            "an output whose config is a folder",
            f"{TRAIN} -o out --overwrite",
            "out",
            files={"out/config.toml": folder},
        ),
        output(
            "an output whose config is a FIFO",
            f"{TRAIN} -o out --overwrite",
            "out",
            files={"out/config.toml": fifo},
        ),
        output(
            "a renaming into somebody's files",
            "identity-shift --original-name Qwen --new-name B -o out --overwrite",
            "out",
            files={"out/thesis.md": "mine"},
        ),
    ]
)

test_files = bad_input_test(
    [
        output("rewards over the data", f"{HELDOUT} --save-rewards p.jsonl", "--save-rewards", "p.jsonl"),
        output(
            "rewards over somebody's file",
            f"{HELDOUT} --save-rewards r.jsonl",
            "--save-rewards",
            "r.jsonl",
            files={"r.jsonl": "mine"},
        ),
        output("rewards over a folder", f"{HELDOUT} --save-rewards r", "--save-rewards", files={"r": folder}),
        output(
            "rewards in a folder that is not there",
            f"{HELDOUT} --save-rewards no/r.jsonl",
            "--save-rewards",
            "no",
        ),
        output("rewards in the output folder", f"{HELDOUT} --save-rewards out/r.jsonl", "--save-rewards"),
        output(
            "rewards into a FIFO",
            f"{HELDOUT} --save-rewards r.jsonl",
            "--save-rewards",
            files={"r.jsonl": fifo},
        ),
        output(
            "rewards through a dangling link",
            f"{HELDOUT} --save-rewards r.jsonl",
            "--save-rewards",
            files={"r.jsonl": link("no/where")},
        ),
        output("rewards of a name of 256 bytes", (*HELDOUT.split(), "--save-rewards", "n" * 256), "nnnn"),
        output(
            "a page over somebody's file",
            f"{COMPARE} --html r.html",
            "--html",
            "r.html",
            files={"r.html": "mine"},
        ),
        output("a page over a folder", f"{COMPARE} --html r", "--html", files={"r": folder}),
        output("a page in a folder that is not there", f"{COMPARE} --html no/r.html", "--html", "no"),
        output("a page into a FIFO", f"{COMPARE} --html r.html", "--html", files={"r.html": fifo}),
        output(
            "a page over the pairs that are compared",
            f"{COMPARE} --pairs p.jsonl --html p.jsonl",
            "--html",
            "p.jsonl",
        ),
        output("a page in a home that there is not", f"{COMPARE} --html ~nobody-here/r.html", "~nobody-here"),
    ]
)
