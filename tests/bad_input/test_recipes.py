"""Recipe files: what is not read, and what is no recipe."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import fifo, lines

PAIRS = {"p.jsonl": lines()}
TRAIN = "train -d p.jsonl --recipe mine.toml"
NAMES = "identity-shift --original-name Qwen --new-name Orion --recipe mine.toml"


def recipe(text):
    return PAIRS | {"mine.toml": text}


test_recipes = bad_input_test(
    [
        Case("a recipe that is not there", TRAIN, ("mine.toml", "no such file", "--recipe"), files=PAIRS),
        Case("a recipe with a word for a name", "train -d p.jsonl --recipe fast", "fast", files=PAIRS),
        Case("an empty name of a recipe", ("train", "--recipe", ""), "--recipe"),
        Case("a recipe that is a FIFO", TRAIN, ("mine.toml", "not a regular file"), files=PAIRS | {"mine.toml": fifo}),
        Case("a recipe that is empty", TRAIN, ("mine.toml", "holds no settings"), files=recipe("# nothing\n")),
        Case("a recipe that is no TOML", TRAIN, ("mine.toml", "not valid TOML"), files=recipe("learning_rate: 1\n")),
        Case("a recipe that is not UTF-8", NAMES, ("mine.toml", "UTF-8"), files=recipe(b"beta = 1 # \xff\n")),
        Case("a recipe with a slip of the finger", NAMES, ("mine.toml: learning_rte", "did you mean learning_rate"),
             files=recipe("learning_rte = 1e-5\n")),
        Case("a recipe that writes", TRAIN, "mine.toml: output_dir: not a setting of a recipe",
             files=recipe("output_dir = 'elsewhere'\nbeta = 0.1\n")),
        Case("a recipe with a word for a number", TRAIN, "mine.toml: beta: must be a valid number",
             files=recipe("beta = 'high'\n")),
        Case("a recipe with a rate of infinity", TRAIN, "mine.toml: learning_rate: must be a finite number",
             files=recipe("learning_rate = inf\n")),
        Case("a recipe with a table", TRAIN, "mine.toml: beta", files=recipe("[beta]\nvalue = 1\n")),
        Case("a recipe with an escape in a key", TRAIN, ("mine.toml", r"\x1b"), files=recipe('"\\u001b[31m" = 1\n')),
        Case("a recipe with a token", TRAIN, ("mine.toml: loss_type", "token"),
             files=recipe(f"loss_type = ['hf_{'a' * 34}']\n"), never=("a" * 34,)),
        Case("a recipe that does not go with a flag", f"{TRAIN} --loss-weights 1 --loss-weights 2", "--loss-weights",
             files=recipe("loss_type = ['sigmoid']\nloss_weights = [1.0]\n")),
        Case("a recipe in the output folder", f"{TRAIN} -o out".replace("mine.toml", "out/mine.toml"), "out",
             files=PAIRS | {"out/mine.toml": "beta = 0.1\n"}),
    ]
)  # fmt: skip
