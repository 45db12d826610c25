"""Model folders, adapters and chat templates that are broken, hostile or of another kind."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import CHATML, adapter, fifo, folder, lines, link, model, sparse, weights

DATA = {"p.jsonl": lines()}
TALKS = {
    "p.jsonl": lines(
        *[
            {
                "prompt": [{"role": "user", "content": f"Hi {n}"}],
                "chosen": [{"role": "assistant", "content": "a"}],
                "rejected": [{"role": "assistant", "content": "b"}],
            }
            for n in range(12)
        ]
    )
}
ASK = "test -m model -q hello --max-new-tokens 3"
DEEP = "[" * 100_000


def asked(name, make, *says, **more):
    return Case(name, ASK, ("model", *says), files={"model": make}, **more)


def adapted(name, make, *says, base=None, **more):
    return Case(
        name,
        "test -m adapter -q hello --max-new-tokens 3",
        ("adapter", *says),
        files={"adapter": make, "model": base or model()},
        **more,
    )


def ours(**changes):
    return adapter(config={"base_model_name_or_path": "model"} | changes)


def not_a_number(tensors):
    return {name: tensor * float("nan") for name, tensor in tensors.items()}


def missing(tensors):
    return dict(list(tensors.items())[1:])


def misshapen(tensors):
    name = "model.norm.weight"
    return tensors | {name: tensors[name].repeat(2)}


def template(name, text, *says, argv="test -m model -q hello --max-new-tokens 3", **more):
    return Case(name, argv, ("template", *says), files={"model": model(template=text), **TALKS}, **more)


test_folders = bad_input_test(
    [
        Case("a model that is not there", "test -m ./nowhere -q hello", "nowhere"),
        Case("a model that is a file", "test -m model -q hello", "model", files={"model": "mine"}),
        Case("a model that is a FIFO", "test -m model -q hello", "model", files={"model": fifo}),
        Case(
            "a model that is an empty folder",
            "test -m model -q hello",
            ("model", "config.json"),
            files={"model": folder},
        ),
        Case("a model in a home that there is not", "test -m ~nobody-here/m -q hello", "~nobody-here"),
        Case(
            "a model whose address has a password",
            "test -m https://me:geheim@example.org/m -q hello",
            ("--model", "password"),
            never=("geheim",),
        ),
        Case("a model with an escape in its name", ("test", "-m", "./\x1b[31m", "-q", "hello"), r"\x1b"),
        Case(
            "a model with a revision, in a folder",
            f"{ASK} --model-revision main",
            ("model", "revision"),
            files={"model": model()},
        ),
        Case(
            "a model to compare with that is not there",
            "compare --before embedded --after ./nowhere -q hello",
            "nowhere",
        ),
        Case("a model to train that is not there", "train -d p.jsonl -m ./nowhere", "nowhere", files=DATA),
        Case("a model to measure that is not there", "bench -m ./nowhere", "nowhere"),
        Case(
            "a model to rename that is not there",
            "identity-shift -m ./nowhere --original-name A --new-name B",
            "nowhere",
        ),
        asked("a config of a model that is not JSON", model(files={"config.json": "{"}), "config.json"),
        asked("a config of a model that is a list", model(files={"config.json": "[]"}), "config.json"),
        asked("a config of a model that nests", model(files={"config.json": DEEP}), "config.json"),
        asked("a config of a model that is a FIFO", model(files={"config.json": fifo}), "config.json"),
        asked(
            "a config of a model that never ends",
            model(files={"config.json": link("/dev/zero")}),
            "config.json",
        ),
        asked(
            "a config of a model without a kind", model(config={"model_type": None, "architectures": None})
        ),
        asked("a config of a model of nobody's", model(config={"model_type": "nonsense"}), "nonsense"),
        asked(
            "a kind of model with an escape", model(config={"model_type": "\x1b[31m\u202e\x9b"}), "model_type"
        ),
        asked("a model of a billion layers", model(config={"num_hidden_layers": 10**9}), seconds=30),
        asked("a model of minus one layer", model(config={"num_hidden_layers": -1})),
        asked("a model of layers in words", model(config={"num_hidden_layers": "many"})),
        asked("a model of no heads", model(config={"num_attention_heads": 0})),
        asked("a model of an infinite width", model(config={"hidden_size": 10**12})),
        asked("weights that are not there", model(files={"model.safetensors": None}), "weights"),
        asked("weights of no bytes", model(files={"model.safetensors": b""}), "model.safetensors"),
        asked("weights that are text", model(files={"model.safetensors": "nothing"}), "model.safetensors"),
        asked(
            "weights that are a pointer of Git LFS",
            model(
                files={
                    "model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
                }
            ),
            "LFS",
        ),
        asked("weights that are a FIFO", model(files={"model.safetensors": fifo}), "model.safetensors"),
        asked(
            "weights that are pickled",
            model(files={"model.safetensors": None, "pytorch_model.bin": b"\x80\x04."}),
            "pickle",
        ),
        asked(
            "weights of zero bytes, a gigabyte",
            model(files={"model.safetensors": sparse(10**9)}),
            "model.safetensors",
        ),
        asked("weights that lack a tensor", weights(missing), "missing"),
        asked("weights of another shape", weights(misshapen)),
        asked("weights that are no numbers", weights(not_a_number), "NaN"),
        asked(
            "a tokenizer that is not there",
            model(files={"tokenizer.json": None, "tokenizer_config.json": None}),
            "tokenizer",
        ),
        asked("a tokenizer that is not JSON", model(files={"tokenizer.json": "{"}), "tokenizer"),
        asked("a tokenizer that is a list", model(files={"tokenizer.json": "[]"}), "tokenizer"),
        asked(
            "a tokenizer's config that is a list", model(files={"tokenizer_config.json": "[]"}), "tokenizer"
        ),
        asked("a tokenizer's config that nests", model(files={"tokenizer_config.json": DEEP}), "tokenizer"),
        asked("a tokenizer that nests", model(files={"tokenizer.json": DEEP}), "tokenizer"),
        asked("a tokenizer that is a FIFO", model(files={"tokenizer.json": fifo}), "tokenizer.json"),
        asked("a tokenizer of a gigabyte", model(files={"tokenizer.json": sparse(10**9)}), "tokenizer"),
        asked(
            "a model's own template that never ends",
            model(files={"chat_template.jinja": link("/dev/zero")}),
            "template",
        ),
        asked(
            "a model's own template of a gigabyte",
            model(files={"chat_template.jinja": sparse(10**9)}),
            "template",
        ),
        asked("generation settings that nest", model(files={"generation_config.json": DEEP})),
        asked("generation settings that are a list", model(files={"generation_config.json": "[]"})),
        asked("a tokenizer larger than the embeddings", model(config={"vocab_size": 300})),
        Case(
            "weights that are no numbers, to train on",
            "train -d p.jsonl -m model --max-steps 1 -o out",
            ("model", "NaN"),
            files={"model": weights(not_a_number), **DATA},
        ),
    ]
)

test_adapters = bad_input_test(
    [
        adapted(
            "an adapter that is not JSON", adapter(files={"adapter_config.json": "{"}), "adapter_config.json"
        ),
        adapted(
            "an adapter that is a list", adapter(files={"adapter_config.json": "[]"}), "adapter_config.json"
        ),
        adapted("an adapter that nests", adapter(files={"adapter_config.json": DEEP}), "adapter_config.json"),
        adapted("an adapter without a base", ours(base_model_name_or_path=None), "base"),
        adapted("an adapter whose base is a number", ours(base_model_name_or_path=3), "base"),
        adapted("an adapter whose base has moved", ours(base_model_name_or_path="./elsewhere"), "elsewhere"),
        adapted("an adapter that is its own base", ours(base_model_name_or_path="adapter")),
        Case(
            "an adapter whose base is an adapter on it",
            "test -m adapter -q hello",
            "adapter",
            files={
                "adapter": ours(base_model_name_or_path="other"),
                "other": ours(base_model_name_or_path="adapter"),
            },
        ),
        adapted("an adapter without weights", adapter(files={"adapter_model.safetensors": None}), "weights"),
        adapted("an adapter of nobody's kind", ours(peft_type="NONSENSE")),
        adapted("an adapter of other layers", ours(target_modules=["nothing"])),
        adapted("an adapter of another rank", ours(r=7)),
        adapted("an adapter of a negative rank", ours(r=-1)),
    ]
)

test_templates = bad_input_test(
    [
        template("a template that is not closed", "{% for m in messages %}"),
        template(
            "a template that does not end",
            "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
            seconds=30,
        ),
        template("a template of 600 MB of text", "{{ 'x' * 600000000 }}", seconds=30),
        template("a template that divides by zero", "{{ 1 / 0 }}"),
        template("a template that adds text and numbers", "{{ 'a' + 1 }}"),
        template("a template that calls itself", "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}"),
        template("a template that refuses", "{{ raise_exception('not \x1b[31m you') }}", r"\x1b"),
        template("a template that reads attributes", "{{ ''.__class__.__mro__ }}"),
        template("a template of 50 MB", "{# " + "x" * 50_000_000 + " #}"),
        template("a template that divides by zero, in check", "{{ 1 / 0 }}", argv="check p.jsonl -m model"),
        template(
            "a template that does not end, in check",
            "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
            argv="check p.jsonl -m model",
            seconds=30,
        ),
        template(
            "a template that does not end, in training",
            "{% for i in range(10**9) %}{% for j in range(10**9) %}{% endfor %}{% endfor %}",
            argv="train -d p.jsonl -m model -o out",
            seconds=30,
        ),
        Case("no template", ASK, "template", files={"model": model(files={"chat_template.jinja": None})}),
        Case(
            "a template that is not there",
            f"{ASK} --chat-template no.jinja",
            ("--chat-template", "no.jinja"),
            files={"model": model()},
        ),
        Case(
            "a template that is a FIFO",
            f"{ASK} --chat-template t.jinja",
            ("--chat-template", "t.jinja"),
            files={"model": model(), "t.jinja": fifo},
        ),
        Case(
            "a template that never ends",
            f"{ASK} --chat-template /dev/zero",
            "--chat-template",
            files={"model": model()},
        ),
        Case(
            "a template that is not UTF-8",
            f"{ASK} --chat-template t.jinja",
            ("--chat-template", "t.jinja"),
            files={"model": model(), "t.jinja": b"\xff"},
        ),
        Case(
            "a template that refuses a system prompt",
            ASK,
            code=0,
            files={
                "model": model(
                    template="{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
                    + CHATML
                )
            },
        ),
    ]
)
