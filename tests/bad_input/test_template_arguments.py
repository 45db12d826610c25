"""`--template` and `--thinking`: what a chat template does not know, may not be told, or cannot do."""

from bad_input.harness import Case, bad_input_test
from bad_input.makers import CHATML, lines, model

SWITCHED = CHATML + "{% if enable_thinking is defined and not enable_thinking %}<think></think>{% endif %}"
DATED = (
    "{% if not date is defined %}{% set date = 'now' %}{% endif %}{{ date }}{% set mine = 1 %}{{ mine }}"
    + CHATML
)
FILES = {"model": model(template=SWITCHED), "p.jsonl": lines()}
PLAIN = {"model": model(template=CHATML), "p.jsonl": lines()}
ASK = "test -m model -q hello --max-new-tokens 3"


def told(name, flags, *says, files=FILES, command=ASK, **more):
    return Case(name, f"{command} {flags}", says, files=files, **more)


test_template_arguments = bad_input_test(
    [
        told("a variable that there is not", "--template enable_thinkin=false", "--template enable_thinkin",
             "did you mean enable_thinking?"),
        told("a variable where there are none", "--template day=1", "--template day", "no variables", files=PLAIN),
        told("a variable that the template sets itself", "--template mine=2", "--template mine", "It has date",
             files={"model": model(template=DATED)}),
        told("a variable that there is not, in check", "--template x=1", "--template x", command="check p.jsonl -m model"),
        told("a variable that there is not, in training", "--template x=1", "--template x",
             command="train -m model -d p.jsonl -o out"),
        told("a variable that there is not, in the main job", "--template x=1", "--template x",
             command="identity-shift -m model --original-name A --new-name B -o out"),
        told("a variable that there is not, in compare", "--template x=1", "--template x",
             command="compare --before model --after model -q hello"),
        told("the messages", "--template messages=[]", "--template", "messages is set by dpo itself"),
        told("where the answer begins", "--template add_generation_prompt=true", "add_generation_prompt is set by dpo"),
        told("tools", "--template tools=[]", "tools cannot be given here"),
        told("a template in the template", "--template chat_template=x", "give --chat-template"),
        told("a date", "--template enable_thinking=2024-05-01", "enable_thinking is date", "quotes"),
        told("a variable without a value", "--template enable_thinking", "'enable_thinking' is not key=value"),
        told("a name with an escape", "--template \x1b[31m=1", "--template", r"\x1b"),
        told("a secret", "--template enable_thinking=hf_" + "abcdefghijklmnopqrstuvwxyzABCDEFGH", "--template"),
        told("a switch that is set twice", "--thinking on --template enable_thinking=false", "--thinking on too"),
        told("a switch that no model has", "--thinking maybe", "--thinking", "keep"),
        told("no thinking to switch off", "--thinking off", "--thinking off", "no thinking to switch", files=PLAIN),
        told("no thinking to switch on", "--thinking on", "--thinking on", "no thinking to switch", files=PLAIN),
        told("no template to switch", "--thinking off", "no chat template",
             files={"model": model(files={"chat_template.jinja": None})}),
        told("a template that cannot be read", "--template x=1", "template",
             files={"model": model(template="{% for %}")}),
        told("a template that is a bomb for whoever reads it", "--template x=1", "template",
             files={"model": model(template="{{ 'a' * 10**10 }}{{ x }}")}, seconds=30),
        told("a table that is none", "-c t.toml", "t.toml: template", files=FILES | {"t.toml": "template = 3"}),
        told("a table with what is reserved", "-c t.toml", "t.toml: template", "tools",
             files=FILES | {"t.toml": "[template]\ntools = []"}),
        told("thinking kept where there is none", "--thinking keep", code=0, files=PLAIN),
        told("no thinking", "--thinking off", code=0),
        told("no thinking, as Python says it", "--template enable_thinking=False", code=0),
    ]
)  # fmt: skip
