"""The environment, the streams, the limits and the terminal that a command runs in."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import lines

PAIRS = {"p.jsonl": lines()}
ASK = "test -q hello --max-new-tokens 3"
HOSTILE = "\x1b[31m\x9b31m\u202e\u2066name"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NO_HUB = {"HF_ENDPOINT": "nonsense", "HF_HUB_OFFLINE": None}
# A number that /etc/passwd does not know; what is read may be root's.
NOBODY = (
    "setpriv --reuid=12345 --regid=12345 --clear-groups --inh-caps=+dac_override --ambient-caps=+dac_override"
)

test_environment = bad_input_test(
    [
        Case(
            "a working folder that was deleted",
            ASK,
            "working folder",
            alone='mkdir d; cd d; rmdir ../d; "$@"',
        ),
        Case(
            "a working folder that was deleted, and data",
            "check /dev/null",
            "working folder",
            deleted_folder=True,
        ),
        Case("a working folder that was deleted, and help", "train --help", code=0, deleted_folder=True),
        Case("no home", ASK, code=0, environment={"HOME": None}),
        Case("a home that is not there", ASK, code=0, environment={"HOME": "/nowhere/at/all"}),
        Case("a home that is a file", ASK, code=0, environment={"HOME": "/etc/passwd"}),
        Case(
            "no home, and a path below it", "check ~/nofile.jsonl", "nofile.jsonl", environment={"HOME": None}
        ),
        Case(
            "no home and no name",
            ASK,
            code=0,
            environment={"HOME": None, "DPO_CLI_CACHE": None},
            alone='unshare --user "$@"',
        ),
        Case(
            "a user without a name and without a home",
            ASK,
            code=0,
            environment={"HOME": None, "DPO_CLI_CACHE": None},
            alone=f'{NOBODY} "$@"',
        ),
        Case(
            "an address of the hub that is none, and no need of it",
            ASK,
            code=0,
            environment=NO_HUB,
            alone='"$@"',
        ),
        Case(
            "the C locale without UTF-8, and data",
            "check p.jsonl",
            r"\xb7",
            code=0,
            files=PAIRS,
            environment=ASCII,
            alone='"$@"',
        ),
        Case(
            "the C locale without UTF-8, and a question of other letters",
            ("test", "-q", "größe"),
            "LC_ALL",
            environment=ASCII,
            alone='"$@"',
        ),
        Case(
            "an interpreter without docstrings, and data",
            "check p.jsonl",
            "PYTHONOPTIMIZE",
            files=PAIRS,
            environment={"PYTHONOPTIMIZE": "2"},
            alone='"$@"',
        ),
        Case(
            "the C locale, and a name of other letters",
            "train -d p.jsonl --max-steps 1 -o größe",
            code=0,
            files=PAIRS,
            writes=("größe",),
            environment={"LC_ALL": "C"},
            alone='"$@"',
        ),
        Case(
            "output in Latin-1",
            ("test", "-q", "h\u4f60llo", "--max-new-tokens", "3"),
            r"\u4f60",
            code=0,
            environment={"PYTHONIOENCODING": "latin-1"},
            alone='"$@"',
        ),
        Case(
            "an interpreter without docstrings",
            ASK,
            "PYTHONOPTIMIZE",
            environment={"PYTHONOPTIMIZE": "2"},
            alone='"$@"',
        ),
        Case(
            "an address of the hub that is none",
            "check some/data",
            "some/data",
            environment={"HF_ENDPOINT": "nonsense", "HF_HUB_OFFLINE": None},
            alone='"$@"',
        ),
        Case(
            "an address of the hub with a bracket too few",
            ASK,
            "HF_ENDPOINT",
            environment={"HF_ENDPOINT": "http://["},
            alone='"$@"',
        ),
        Case(
            "an address of the hub with a port too high",
            "check some/data",
            "HF_ENDPOINT",
            environment={"HF_ENDPOINT": "http://localhost:99999", "HF_HUB_OFFLINE": None},
            alone='"$@"',
        ),
        Case(
            "a timeout of the hub that is no number",
            ASK,
            "HF_HUB_ETAG_TIMEOUT",
            environment={"HF_HUB_ETAG_TIMEOUT": "soon"},
            alone='"$@"',
        ),
        Case(
            "an address of the hub that nobody answers",
            "check some/data",
            "some/data",
            environment={"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": None},
            alone='"$@"',
            seconds=40,
        ),
        Case(
            "a backend of dynamo that there is not",
            "train -d p.jsonl -o out",
            "ACCELERATE_DYNAMO_BACKEND",
            files=PAIRS,
            environment={"ACCELERATE_DYNAMO_BACKEND": "nonsense"},
        ),
        Case(
            "a precision of accelerate that there is not",
            "train -d p.jsonl -o out",
            "ACCELERATE_MIXED_PRECISION",
            files=PAIRS,
            environment={"ACCELERATE_MIXED_PRECISION": "nonsense"},
        ),
        Case(
            "a run on several machines",
            "train -d p.jsonl -o out",
            "WORLD_SIZE",
            files=PAIRS,
            environment={"WORLD_SIZE": "2"},
        ),
        Case(
            "a number of processes that is a word",
            "train -d p.jsonl --max-steps 1 -o out",
            "WORLD_SIZE",
            files=PAIRS,
            environment={"WORLD_SIZE": "many"},
        ),
        Case(
            "a backend of matplotlib that there is not",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS,
            environment={"MPLBACKEND": "nonsense"},
            alone='"$@"',
        ),
        Case(
            "a cache that is a file",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS | {"cache": "mine"},
            environment={"DPO_CLI_CACHE": "cache"},
        ),
        Case(
            "a cache that is not ours to write",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS,
            environment={"DPO_CLI_CACHE": "/proc/none"},
        ),
        Case("a temporary folder that is not there", ASK, code=0, environment={"TMPDIR": "/nowhere"}),
        Case(
            "a secret in the environment",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS,
            environment={"HF_TOKEN": "hf_abcdefghijklmnopqrstuvwxyz12345678"},
            never=("hf_abcdefgh",),
        ),
    ]
)

test_streams = bad_input_test(
    [
        Case("standard output that is full", ASK, "standard output", code=1, stdout="/dev/full"),
        Case(
            "standard output that is full, and a result as JSON",
            f"{ASK} --json",
            "standard output",
            code=1,
            stdout="/dev/full",
        ),
        Case("standard error that is full", ASK, code=0, stderr="/dev/full"),
        Case("standard error that is full, and a mistake", "train --beta 0", code=2, stderr="/dev/full"),
        Case("standard error that is full, and a slip of the finger", "nope", code=2, stderr="/dev/full"),
        Case(
            "training with standard error that is full",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS,
            stderr="/dev/full",
        ),
        Case("standard output that is closed", ASK, code=0, alone='"$@" >&-'),
        Case("standard error that is closed", "train --beta 0", alone='"$@" 2>&-'),
        Case(
            "training with every stream closed",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files=PAIRS,
            alone='"$@" <&- >&- 2>&-',
        ),
        Case("a conversation without standard input", "test -i", code=0, alone='"$@" <&-'),
        Case("a conversation that is over at once", "test -i", code=0),
        Case("a conversation of an empty line", "test -i", code=0, stdin=b"\n"),
        Case("a conversation that is not UTF-8", "test -i --max-new-tokens 3", code=0, stdin=b"h\xffllo\n"),
        Case("a conversation of zero bytes", "test -i --max-new-tokens 3", code=0, stdin=b"\0\0\n"),
        Case("a conversation with an escape", "test -i --max-new-tokens 3", code=0, stdin=b"\x1b[31mhello\n"),
        Case(
            "a conversation of a line of a megabyte",
            "test -i --max-new-tokens 3",
            "standard input",
            stdin=b"x " * 500_000,
        ),
    ]
)

test_limits = bad_input_test(
    [
        Case("an address space of 500 MB", ASK, "ulimit -v", alone='ulimit -v 500000; "$@"'),
        Case(
            "an address space of a gigabyte, and data",
            "check p.jsonl",
            "ulimit -v",
            files=PAIRS,
            alone='ulimit -v 1000000; "$@"',
        ),
        Case(
            "files of no more than 10 kB",
            "train -d p.jsonl --max-steps 1 -o out",
            "ulimit -f",
            files=PAIRS,
            limits={"RLIMIT_FSIZE": 10_000},
        ),
    ]
)

test_terminals = bad_input_test(
    [
        Case("a terminal of one column", "check p.jsonl", code=0, files=PAIRS, environment={"COLUMNS": "1"}),
        Case(
            "a terminal of one column, and a mistake",
            "train --beta 0 --nope",
            "--nope",
            environment={"COLUMNS": "1"},
        ),
        Case("a terminal of one column, and help", "train --help", code=0, environment={"COLUMNS": "1"}),
        Case(
            "a terminal of one column, and an escape",
            ("test", "-q", HOSTILE, "--max-new-tokens", "2"),
            code=0,
            environment={"COLUMNS": "1"},
        ),
        Case(
            "a terminal of one column, and an escape in a comparison",
            (
                "compare",
                "--before",
                "embedded",
                "--after",
                "embedded",
                "-q",
                HOSTILE,
                "--max-new-tokens",
                "2",
            ),
            code=0,
            environment={"COLUMNS": "1"},
        ),
        Case(
            "a terminal of one column, and training",
            "train -d p.jsonl --max-steps 1 -o out",
            code=0,
            files=PAIRS,
            writes=("out",),
            environment={"COLUMNS": "1"},
        ),
        Case("a terminal of no columns", ASK, code=0, environment={"COLUMNS": "0"}),
        Case("a terminal of minus five columns", ASK, code=0, environment={"COLUMNS": "-5"}),
        Case("a width that is a word", ASK, code=0, environment={"COLUMNS": "wide"}),
        Case("a width of 30 digits", "train --beta 0", "--beta", environment={"COLUMNS": "9" * 30}),
        Case(
            "a terminal that is forced",
            ("train", "--loss-type", HOSTILE),
            "--loss-type",
            environment={"TERM": "dumb"},
        ),
        Case(
            "hostile characters in every flag of train",
            ("train", "-d", "p.jsonl", "--max-steps", "1", "-o", "out", "--system-prompt", HOSTILE),
            code=0,
            files=PAIRS,
            writes=("out",),
        ),
        Case(
            "hostile characters in the data",
            "train -d p.jsonl --max-steps 1 --eval-fraction 0.3 -o out",
            code=0,
            files={
                "p.jsonl": lines(
                    *[{"prompt": f"{n} {HOSTILE}", "chosen": HOSTILE, "rejected": "b"} for n in range(12)]
                )
            },
            writes=("out",),
        ),
        Case(
            "hostile characters in the name of a file",
            ("train", "-d", f"{HOSTILE}.jsonl", "--max-steps", "1", "-o", "out"),
            code=0,
            files={f"{HOSTILE}.jsonl": lines()},
            writes=("out",),
        ),
        Case(
            "hostile characters in the name of the output",
            ("train", "-d", "p.jsonl", "--max-steps", "1", "-o", HOSTILE),
            code=0,
            files=PAIRS,
            writes=(HOSTILE,),
        ),
        Case(
            "hostile characters in the new name",
            ("identity-shift", "--original-name", "Qwen", "--new-name", HOSTILE),
            "--new-name",
        ),
        Case(
            "hostile characters in a comparison",
            (
                "compare",
                "--before",
                "embedded",
                "--after",
                "embedded",
                "-q",
                HOSTILE,
                "--max-new-tokens",
                "2",
                "--html",
                "r.html",
                "--json",
            ),
            code=0,
            writes=("r.html",),
        ),
    ]
)
