"""Settings as TOML: the file of `--config`, the `[trl]` table, and the preset of a model."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import fifo, folder, lines, link, model, sparse

PAIRS = {"p.jsonl": lines()}


def config(text, *says, name, **more):
    return Case(
        name, "train -c run.toml -o out", ("run.toml", *says), files={"run.toml": text, **PAIRS}, **more
    )


def trl(item, *says, **more):
    """A value of the table `--trl`, named by what it is."""
    key, _, value = item.partition("=")
    return Case(
        f"--trl {key}={value[:40]}",
        ("train", "-d", "p.jsonl", "-o", "out", "--trl", item),
        (key, *says),
        files=PAIRS,
        **more,
    )


def preset(content, *says, name, **more):
    return Case(
        name,
        "train -d p.jsonl -m model -o out",
        ("preset.toml", *says),
        files={"model": model(files={"preset.toml": content}), **PAIRS},
        **more,
    )


test_config = bad_input_test(
    [
        Case("a config that is not there", "train -c nofile.toml", "nofile.toml"),
        Case("a config in a folder that is not there", "train -c no/file.toml", "no/file.toml"),
        Case("a config that is a folder", "train -c run.toml", "run.toml", files={"run.toml": folder}),
        Case("a config that is a FIFO", "train -c run.toml", "run.toml", files={"run.toml": fifo}),
        Case("a config that never ends", "train -c /dev/zero", "/dev/zero"),
        Case("a config that is random", "train -c /dev/urandom", "/dev/urandom"),
        Case(
            "a config that is a dangling link",
            "train -c run.toml",
            "run.toml",
            files={"run.toml": link("nowhere")},
        ),
        Case(
            "a config that is a link to itself",
            "train -c run.toml",
            "run.toml",
            files={"run.toml": link("run.toml")},
        ),
        Case("a config with a NUL in its name", ("train", "-c", "a\udc80b.toml"), ".toml"),
        Case("a config with a name of 300 letters", ("train", "-c", "n" * 300), "n" * 40),
        Case("a config in a home that there is not", "train -c ~nobody-here/run.toml", "~nobody-here"),
        Case("a config with an empty name", ("train", "-c", ""), "--config"),
        Case("a config with an escape in its name", ("train", "-c", "\x1b[31m.toml"), r"\x1b"),
        config("beta = ", name="a config with half a line"),
        config("beta = 0.1\nbeta = 0.2\n", "line 2", name="a config with a key twice"),
        config(b"beta = \xff", "UTF-8", name="a config that is not UTF-8"),
        config("beta = 0.1".encode("utf-16"), "UTF-8", name="a config in UTF-16"),
        config(b"\x00\x01\x02", name="a config of control bytes"),
        config("a = " + "[" * 20_000, name="a config of 20,000 brackets"),
        config("beta = " + "9" * 5000, "digits", name="a config with a number of 5,000 digits"),
        config("a" * 100_000 + " = 1", "larger than", name="a config with a key of 100,000 letters"),
        config(".".join("a" * 30_000) + " = 1", name="a config with a key of 30,000 parts"),
        Case("a config of 100 MB", "train -c run.toml", "run.toml", files={"run.toml": sparse(100_000_000)}),
        Case(
            "a config of 20 MB of comments",
            "train -c run.toml",
            "run.toml",
            files={"run.toml": "# nothing\n" * 2_000_000},
        ),
        config(
            "learning_rte = 1", "learning_rte", "learning_rate", name="a config with a slip of the finger"
        ),
        config("zzz = 1", "zzz", name="a config with a key of nobody's"),
        config('"\\u001b[31m" = 1', r"\x1b", name="a config with an escape in a key"),
        config('"\\u202e" = 1', r"\u202e", name="a config with a bidi override in a key"),
        config('loss_type = "\\u009b31m"', r"\x9b", name="a config with a C1 control in a value"),
        config('beta = "high"', "beta", name="a config with a number that is text"),
        config("beta = true", "beta", name="a config with a number that is a switch"),
        config("overwrite = 1", "overwrite", name="a config with a switch that is a number"),
        config("beta = inf", "beta", "finite", name="a config with infinity"),
        config("dataset = 3", "dataset", name="a config with a path that is a number"),
        config("dataset = []", "dataset", name="a config with a path that is a list"),
        config("seed = 2024-01-01", "seed", name="a config with a number that is a date"),
        config("loss_type = []", "loss_type", name="a config without a loss"),
        config("trl = 3", "trl", name="a config whose table is a number"),
        config("[[trl]]\na = 1", "trl", name="a config with a list of tables"),
        config("[beta]\na = 1", "beta", name="a config with a number that is a table"),
        config("[trl]\nnonsense = 1", "trl", "nonsense", name="a config with a field that TRL has not"),
        config("[trl]\nbeta = 0.1", "beta", name="a config with a setting of ours among TRL's"),
        config('dataset = "a\\u0000b"', "dataset", name="a config with a NUL in a path"),
        config("beta = 0\nseed = -1\nnope = 3", "beta", "seed", "nope", name="a config with three mistakes"),
        Case(
            "a config of another command",
            "test -c run.toml",
            ("run.toml", "beta"),
            files={"run.toml": "beta = 0.1\n"},
        ),
        Case(
            "a config for compare with a wrong rate",
            "compare -c run.toml",
            ("run.toml", "min_new_name"),
            files={"run.toml": "min_new_name = 2\n"},
        ),
        Case(
            "a config for check with a wrong length",
            "check -c run.toml p.jsonl",
            ("run.toml", "max_length"),
            files={"run.toml": "max_length = 1\n", **PAIRS},
        ),
        Case(
            "a config for bench with no pairs",
            "bench -c run.toml",
            ("run.toml", "pairs"),
            files={"run.toml": "pairs = 0\n"},
        ),
        Case(
            "a config for identity-shift without names",
            "identity-shift -c run.toml",
            "--original-name",
            files={"run.toml": "beta = 0.1\n"},
        ),
    ]
)

test_trl = bad_input_test(
    [
        trl("nonsense", "key=value"),
        trl("=3", "trl"),
        trl("nonsense=3", "DPOConfig"),
        trl("beta=0.1", "is a dpo setting"),
        trl("resume_from_checkpoint=x", "no effect"),
        trl("adam_beta1=5"),
        trl("adam_epsilon=-1"),
        trl("optim_args=zz"),
        trl("dataloader_num_workers=-1"),
        trl("lr_scheduler_kwargs=3"),
        trl("accelerator_config=nofile"),
        trl("eval_on_start=true"),
        trl("use_liger_kernel=true", "liger"),
        trl("push_to_hub=true"),
        trl("fsdp=full_shard"),
        trl("deepspeed=nofile.json"),
        trl("bf16=maybe"),
        trl("torch_compile=maybe"),
        trl("neftune_noise_alpha=x"),
        trl("save_strategy=sometimes"),
        trl("logging_strategy=sometimes"),
        trl("hub_strategy=sometimes"),
        trl("warmup_ratio=5"),
        trl("max_steps=3", "is a dpo setting"),
        trl("adam_beta1=" + "[" * 5000),
        trl("dataset_num_proc=-3"),
        trl("gradient_checkpointing_kwargs=3"),
        trl("tf32=maybe"),
        trl("group_by_length=3"),
        trl("parallelism_config=3"),
        trl("ref_model_init_kwargs=3"),
        trl("precompute_ref_log_probs=maybe"),
        trl("sync_ref_model=maybe"),
        trl("ddp_timeout=soon"),
        trl("output_dir=elsewhere", "is a dpo setting"),
        trl("logging_dir=elsewhere"),
        trl("hub_token=hf_abcdefghijklmnopqrstuvwxyzabcdefgh", "HF_TOKEN", never=("hf_abcdefgh",)),
        trl("hub_model_id=hf_abcdefghijklmnopqrstuvwxyzabcdefgh", never=("hf_abcdefgh",)),
        trl("adam_beta1=hf_abcdefghijklmnopqrstuvwxyzabcdefgh", never=("hf_abcdefgh",)),
        trl("run_name=https://me:geheim@example.org/x", never=("geheim",)),
    ]
)

test_preset = bad_input_test(
    [
        preset("nonsense", name="a preset that is not TOML"),
        preset(b"\xff", name="a preset that is not UTF-8"),
        preset("a = " + "[" * 20_000, name="a preset of 20,000 brackets"),
        preset("[train]\nseed = " + "9" * 5000, name="a preset with a number of 5,000 digits"),
        preset("train = 3", "train", name="a preset whose table is a number"),
        preset("[train]\nlora = 3", "lora", name="a preset whose LoRA table is a number"),
        preset("[train]\noutput_dir = 'x'", "output_dir", name="a preset that says where to write"),
        preset(
            "[train]\ntrust_remote_code = true", "trust_remote_code", name="a preset that trusts its code"
        ),
        preset("[train]\nnonsense = 1", "nonsense", name="a preset with a key of nobody's"),
        preset("[train]\nbeta = 'high'", "beta", name="a preset with a number that is text"),
        preset("[train]\nbeta = -1", "beta", name="a preset with a value out of range"),
        preset("[train]\n'\\u001b[31m' = 1", name="a preset with an escape in a key"),
        Case(
            "a preset that is a FIFO is no preset",
            "train -d p.jsonl -m model --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files={"model": model(files={"preset.toml": fifo}), **PAIRS},
        ),
        Case(
            "a preset that never ends is no preset",
            "train -d p.jsonl -m model --max-steps 1 -o out",
            code=0,
            writes=("out",),
            files={"model": model(files={"preset.toml": link("/dev/zero")}), **PAIRS},
        ),
        preset(sparse(50_000_000), name="a preset of 50 MB"),
    ]
)
