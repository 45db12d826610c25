"""Flags: unknown ones, values out of range, and what does not go together."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import lines

PAIRS = {"p.jsonl": lines()}
NAMES = "identity-shift --original-name Qwen --new-name Orion"

test_usage = bad_input_test(
    [
        Case("a command that there is not", "nope", "'nope'"),
        Case("a command with a slip of the finger", "trian", "'trian'"),
        Case("a flag that there is not", "train --nope", "--nope"),
        Case("a flag of another command", "test --beta 0.1", "--beta"),
        Case("a flag before the command", "--beta 0.1 train", "--beta"),
        Case("a flag without its value", "train --beta", "--beta"),
        Case("a short flag without its value", "test -q", "-q"),
        Case("an argument too many", "train pairs.jsonl", "pairs.jsonl"),
        Case("two data sets to check", "check a.jsonl b.jsonl", "b.jsonl"),
        Case("a switch with a value", "train --overwrite=yes", "--overwrite"),
        Case("nothing to check", "check", "DATASET"),
        Case("no names to change", "identity-shift", ("--original-name", "--new-name")),
        Case("a question that is empty", ("test", "-q", ""), "--question"),
        Case("a question of blanks", ("test", "-q", " \t"), "--question"),
        Case("an empty data set name", ("train", "-d", ""), "--dataset"),
        Case("an empty model name", ("test", "-m", ""), "--model"),
        Case("an empty output name", ("train", "-o", ""), "--output-dir"),
        Case("an empty name of a flag", ("train", "--="), "--"),
        Case("a flag with an escape in its name", ("train", "--\x1b[31mred"), r"\x1b"),
        Case("a command with an escape in its name", ("\x1b[31mred",), r"\x1b"),
        Case("a command with a bidi override in its name", ("\u202etset",), r"\u202e"),
        Case("a flag with a C1 control in its name", ("train", "--a\x9b31m"), r"\x9b"),
        Case("a value with an escape", ("train", "--beta", "\x1b[31m1"), ("--beta", r"\x1b")),
        Case(
            "a value with a bidi override", ("train", "--loss-type", "\u202edpo"), ("--loss-type", r"\u202e")
        ),
        Case("a value that is not UTF-8", ("train", "--dtype", "\udcff"), "--dtype"),
        Case("a value of a million letters", ("train", "--dtype", "x" * 100_000), "--dtype"),
    ]
)

test_values = bad_input_test(
    [
        Case("a number that is a word", "train --beta high", ("--beta", "'high'")),
        Case("a beta of zero", "train --beta 0", ("--beta", "greater than 0")),
        Case("a beta that is negative", "train --beta -1", ("--beta", "greater than 0")),
        Case("a beta that is infinite", "train --beta inf", ("--beta", "finite")),
        Case("a beta that is no number", "train --beta nan", ("--beta", "finite")),
        Case("a beta beyond any float", "train --beta 1e999", ("--beta", "finite")),
        Case("a beta of 5,000 digits", ("train", "--beta", "9" * 5000), "--beta"),
        Case("a learning rate above one", "train --learning-rate 2", "--learning-rate"),
        Case("a learning rate of zero", "train --learning-rate 0", "--learning-rate"),
        Case("epochs of zero", "train --num-train-epochs 0", "--num-train-epochs"),
        Case("steps of zero", "train --max-steps 0", "--max-steps"),
        Case("steps that are negative", "train --max-steps -1", "--max-steps"),
        Case("steps of 30 digits", f"train -d p.jsonl --max-steps {'9' * 30}", "--max-steps", files=PAIRS),
        Case("steps of 5,000 digits", ("train", "--max-steps", "9" * 5000), "--max-steps"),
        Case(
            "epochs of 30 digits",
            f"train -d p.jsonl --num-train-epochs {'9' * 30}",
            "--num-train-epochs",
            files=PAIRS,
        ),
        Case(
            "samples of 30 digits",
            f"train -d p.jsonl --max-samples {'9' * 30} --max-steps 1 -o out",
            files=PAIRS,
            code=0,
            writes=("out",),
        ),
        Case(
            "samples of a stream, of 30 digits",
            f"check p.jsonl --streaming --max-samples {'9' * 30}",
            files=PAIRS,
            code=0,
        ),
        Case(
            "a batch of 30 digits",
            f"train -d p.jsonl --per-device-train-batch-size 1{'0' * 30}",
            "--per-device-train-batch-size",
            files=PAIRS,
        ),
        Case(
            "an evaluation batch of 30 digits",
            f"train -d p.jsonl --eval-fraction 0.5 --per-device-eval-batch-size 1{'0' * 30}",
            "--per-device-eval-batch-size",
            files=PAIRS,
        ),
        Case(
            "an accumulation of 30 digits",
            f"train -d p.jsonl --gradient-accumulation-steps 1{'0' * 30}",
            "--gradient-accumulation-steps",
            files=PAIRS,
        ),
        Case(
            "a generation batch of 30 digits",
            f"test -q hello --generation-batch-size 1{'0' * 30}",
            "--generation-batch-size",
        ),
        Case(
            "an answer of 30 digits of tokens",
            f"test -q hello --max-new-tokens 1{'0' * 30}",
            "--max-new-tokens",
        ),
        Case(
            "a length of 30 digits", f"train -d p.jsonl --max-length 1{'0' * 30}", "--max-length", files=PAIRS
        ),
        Case("a rank of 30 digits", f"train -d p.jsonl --lora-rank 1{'0' * 30}", "--lora-rank", files=PAIRS),
        Case(
            "warm-up steps of 30 digits",
            f"train -d p.jsonl --warmup-steps 1{'0' * 30}",
            "--warmup-steps",
            files=PAIRS,
        ),
        Case(
            "logging steps of 30 digits",
            f"train -d p.jsonl --logging-steps 1{'0' * 30}",
            "--logging-steps",
            files=PAIRS,
        ),
        Case("measured pairs of 30 digits", f"bench --pairs 1{'0' * 30}", "--pairs"),
        Case("repetitions of 30 digits", f"bench --repetitions 1{'0' * 30}", "--repetitions"),
        Case(
            "partners of an assay of 30 digits",
            f"check p.jsonl --format assay --assay-partners 1{'0' * 30}",
            "--assay-partners",
            files=PAIRS,
        ),
        Case("a length of one token", "train --max-length 1", "--max-length"),
        Case("a length with a fraction", "train --max-length 10.5", ("--max-length", "'10.5'")),
        Case("a length with a comma", "train --max-length 1,024", ("--max-length", "'1,024'")),
        Case("a seed beyond 32 bits", "train --seed 4294967296", "--seed"),
        Case("a seed that is negative", "train --seed -1", "--seed"),
        Case("a fraction of one", "train --eval-fraction 1", "--eval-fraction"),
        Case("a label smoothing of a half", "train --label-smoothing 0.5", "--label-smoothing"),
        Case("a loss that there is not", "train --loss-type dpo", ("--loss-type", "sigmoid")),
        Case(
            "weights for another number of losses",
            "train --loss-weights 1 --loss-weights 2",
            "--loss-weights",
        ),
        Case("exo_pair without label smoothing", "train --loss-type exo_pair", "--label-smoothing"),
        Case(
            "a scheduler that there is not",
            "train --lr-scheduler-type sawtooth",
            ("--lr-scheduler-type", "cosine"),
        ),
        Case(
            "an optimizer that there is not",
            "train -d p.jsonl --optim nonsense",
            ("--optim", "nonsense"),
            files=PAIRS,
        ),
        Case(
            "an optimizer that is not installed",
            "train -d p.jsonl --optim adamw_bnb_8bit",
            ("--optim", "bitsandbytes"),
            files=PAIRS,
        ),
        Case(
            "a tracker that there is not",
            "train -d p.jsonl --report-to nowhere",
            ("--report-to", "nowhere"),
            files=PAIRS,
        ),
        Case(
            "a tracker that is not installed",
            "train -d p.jsonl --report-to mlflow",
            ("--report-to", "mlflow"),
            files=PAIRS,
        ),
        Case(
            "a target module that the model has not",
            "train -d p.jsonl --lora-rank 2 --lora-target-modules nothing",
            "nothing",
            files=PAIRS,
        ),
        Case("a precision that there is not", "test -q hello --dtype float8", ("--dtype", "bfloat16")),
        Case("a device that there is not", "test -q hello --device tpu", ("--device", "cuda")),
        Case("a device that this machine has not", "test -q hello --device cuda", "cuda"),
        Case("a temperature below zero", "test -q hello --temperature -1", "--temperature"),
        Case(
            "a temperature that is no number", "test -q hello --temperature nan", ("--temperature", "finite")
        ),
        Case("answers of no tokens", "test -q hello --max-new-tokens 0", "--max-new-tokens"),
        Case("a stream without an end", "train -d p.jsonl --streaming", "--max-steps", files=PAIRS),
        Case(
            "a held-out fraction beside held-out pairs",
            "train -d p.jsonl --eval-fraction 0.5 --eval-dataset p.jsonl",
            "--eval-fraction",
            files=PAIRS,
        ),
        Case(
            "rewards without held-out pairs",
            "train -d p.jsonl --save-rewards r.jsonl",
            "--save-rewards",
            files=PAIRS,
        ),
        Case(
            "evaluation steps without held-out pairs",
            "train -d p.jsonl --eval-steps 2",
            "--eval-steps",
            files=PAIRS,
        ),
        Case(
            "label smoothing that the loss does not read",
            "train -d p.jsonl --label-smoothing 0.3",
            "--label-smoothing",
            files=PAIRS,
        ),
        Case(
            "an alpha of another divergence",
            "train -d p.jsonl --f-alpha-divergence-coef 0.3",
            "--f-alpha-divergence-coef",
            files=PAIRS,
        ),
        Case(
            "a temperature of another loss",
            "train -d p.jsonl --discopop-tau 0.3",
            "--discopop-tau",
            files=PAIRS,
        ),
        Case("one name of two", "compare --after embedded --original-name Qwen", "--new-name"),
        Case(
            "two names that are the same", "identity-shift --original-name Qwen --new-name Qwen", "--new-name"
        ),
        Case(
            "a name of blanks",
            ("identity-shift", "--original-name", " ", "--new-name", "Orion"),
            "--original-name",
        ),
        Case(
            "a name of 101 letters",
            ("identity-shift", "--original-name", "Qwen", "--new-name", "n" * 101),
            "--new-name",
        ),
        Case(
            "a template without a place for the name",
            (*NAMES.split(), "--answer-template", "I am it."),
            ("--answer-template", "{name}"),
        ),
        Case(
            "two sources of questions",
            f"{NAMES} --questions q.txt --identity-dataset p.jsonl",
            "--identity-dataset",
        ),
        Case(
            "more pairs wanted than there are questions", f"{NAMES} --max-samples 4 --min-pairs 5000", "5000"
        ),
        Case(
            "several mistakes at once",
            "train --beta 0 --seed -1 --optim= --max-length x",
            ("--beta", "--seed", "--max-length"),
        ),
    ]
)
