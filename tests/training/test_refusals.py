"""What stops a run before it begins, in words; and what is a bug of ours and keeps its traceback."""

import json
import shutil
import sys

import pytest
from datasets import Dataset
from tiny_models import CHATML, make_model, make_tokenizer
from training.runs import settings

from dpo_cli.config import IdentityShiftConfig
from dpo_cli.engine import trainer as engine_trainer
from dpo_cli.errors import ConfigError, ModelError
from dpo_cli.jobs.identity_shift import identity_shift
from dpo_cli.jobs.train import train
from dpo_cli.training import policy
from dpo_cli.training.trainer import DPOTrainerWrapper


def test_settings_that_trl_refuses_are_a_mistake_of_the_user(tiny_model, pairs, tmp_path):
    # Ours refuse this before TRL does: it stands for what only TRL knows.
    refused = {"f_divergence_type": "js_divergence", "loss_type": ("nca_pair",)}
    config = settings(tmp_path / "out").model_copy(update=refused)
    with pytest.raises(ConfigError, match="f_divergence_type"):
        DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config).train()


def broken(*_, **__):
    msg = "a bug"
    raise ValueError(msg)


def test_an_error_of_our_own_is_no_mistake_of_the_user(tiny_model, pairs, tmp_path, monkeypatch):
    monkeypatch.setattr(engine_trainer, "ReferenceCache", broken)
    config = settings(tmp_path / "out")
    with pytest.raises(ValueError, match="a bug"):
        DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config).train()


@pytest.fixture
def endless_model(tmp_path):
    """A model whose tokenizer can pad and has no token to end a text with."""
    from transformers import PreTrainedTokenizerFast

    tokenizer = make_tokenizer()
    make_model(tokenizer).save_pretrained(tmp_path / "endless")
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, pad_token="<|endoftext|>")
    bare.chat_template = CHATML
    bare.save_pretrained(tmp_path / "endless")
    return tmp_path / "endless"


def test_plain_text_needs_a_token_to_end_it_with(endless_model, tmp_path, monkeypatch):
    monkeypatch.setattr(policy, "load_model", broken)  # it is said before weights are loaded
    plain = Dataset.from_list([{"prompt": "one", "chosen": " two", "rejected": " three"}] * 4)
    config = settings(tmp_path / "out")
    with pytest.raises(ModelError, match="no eos_token, which plain-text completions") as error:
        DPOTrainerWrapper(str(endless_model), train_dataset=plain, training_config=config).train()
    assert "tokenizer_config.json" in error.value.hint
    assert not (tmp_path / "out").exists()


def test_conversations_end_as_their_template_says(endless_model, pairs, tmp_path):
    config = settings(tmp_path / "out", max_steps=1)
    assert (
        DPOTrainerWrapper(str(endless_model), train_dataset=pairs, training_config=config).train().steps == 1
    )


MODEL_WITH_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM


class OwnConfig(LlamaConfig):
    model_type = "own-llama"


class OwnForCausalLM(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_a_stream_can_train_a_model_that_brings_its_code(tiny_model, pairs, tmp_path, monkeypatch):
    """With a stream TRL loads the reference by itself, and must be told to trust the code too."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder = tmp_path / "own"
    shutil.copytree(tiny_model, folder)
    (folder / "modeling_own.py").write_text(MODEL_WITH_CODE)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": "own-llama",
        "architectures": ["OwnForCausalLM"],
        "auto_map": {
            "AutoConfig": "modeling_own.OwnConfig",
            "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    told = settings(tmp_path / "out", streaming=True, trust_remote_code=True, max_steps=1)
    trainer = DPOTrainerWrapper(str(folder), train_dataset=pairs.to_iterable_dataset(), training_config=told)
    assert trainer.train().steps == 1


@pytest.mark.parametrize("name", ["WORLD_SIZE", "OMPI_COMM_WORLD_SIZE"])
def test_several_processes_are_refused(tiny_model, pairs, tmp_path, monkeypatch, name):
    config = settings(tmp_path / "out")
    monkeypatch.setattr("dpo_cli.jobs.prepare.locate_policy", broken)  # nothing is read before
    monkeypatch.setenv(name, "2")
    for run in (
        lambda: DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config),
        lambda: train(config),
        lambda: identity_shift(
            IdentityShiftConfig(original_name="A", new_name="B", output_dir=str(tmp_path / "out"))
        ),
    ):
        with pytest.raises(ConfigError, match=f"{name} is 2: dpo trains in one process"):
            run()
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setenv(name, "1")
    DPOTrainerWrapper(str(tiny_model), train_dataset=pairs, training_config=config)


@pytest.mark.parametrize(
    ("name", "message"), [("tensorbord", "is not a known tracker"), ("clearml", "clearml is not installed")]
)
def test_a_tracker_that_is_not_there_is_said_before_anything_is_read(
    tmp_path, pairs, name, message, monkeypatch
):
    monkeypatch.setattr("dpo_cli.training.trackers.find_spec", lambda _: None)
    for run in (
        lambda: train(settings(tmp_path / "out", model="nothing", dataset="nothing", report_to=(name,))),
        lambda: identity_shift(
            IdentityShiftConfig(
                model="nothing",
                original_name="A",
                new_name="B",
                report_to=(name,),
                output_dir=str(tmp_path / "out"),
            )
        ),
        lambda: DPOTrainerWrapper(
            "nothing", train_dataset=pairs, training_config=settings(tmp_path, report_to=(name,))
        ),
    ):
        with pytest.raises(ConfigError, match=message):
            run()


def test_the_trackers_are_those_of_transformers():
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    from dpo_cli.training.trackers import TRACKERS

    assert TRACKERS.keys() <= INTEGRATION_TO_CALLBACK.keys()
