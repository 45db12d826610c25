"""Stored reference log-probabilities: found again exactly when nothing that determines them has changed."""

import copy
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from engine.parity import make_model, pairs, scaled, tokenizer, train
from peft import LoraConfig, get_peft_model
from transformers import LlamaForCausalLM
from trl import DPOConfig
from trl.trainer.dpo_trainer import DataCollatorForPreference

from dpo_cli.batches import batches_by_length
from dpo_cli.engine import packed_forward
from dpo_cli.engine import reference_cache as reference
from dpo_cli.engine import trainer as engine_trainer
from dpo_cli.engine.reference_cache import (
    ReferenceCache,
    Truncation,
    model_key,
    pair_key,
    reference_weights,
)
from dpo_cli.engine.trainer import SharedPrefixTrainer
from dpo_cli.errors import ConfigError, TrainingError

pytestmark = pytest.mark.filterwarnings("ignore:The `'keep_end'` truncation mode:FutureWarning")


class Ready(SharedPrefixTrainer):
    def _prepare_dataset(self, dataset, *args, **kwargs):
        return dataset


class Session:
    """Builds trainers that share one cache folder."""

    def __init__(self, folder):
        self.folder, self.notices = folder, []
        self.model = make_model("llama")

    def trainer(
        self,
        rows=None,
        *,
        eval_rows=None,
        model=None,
        peft_config=None,
        engine="shared-prefix",
        on_reference=None,
        data_collator=None,
        **settings,
    ):
        defaults = {
            "output_dir": str(self.folder / "out"), "per_device_train_batch_size": 4, "max_steps": 2, "report_to": "none",
            "save_strategy": "no", "bf16": False, "use_cpu": True, "activation_checkpointing": False, "max_length": None,
            "precompute_ref_log_probs": True, "disable_tqdm": True, "dataloader_pin_memory": False,
        }  # fmt: skip
        return Ready(
            model=copy.deepcopy(self.model) if model is None else model,
            args=DPOConfig(**{**defaults, **settings}),
            train_dataset=Dataset.from_list(pairs() if rows is None else rows),
            eval_dataset=None if eval_rows is None else Dataset.from_list(eval_rows),
            processing_class=tokenizer(),
            peft_config=peft_config,
            data_collator=data_collator,
            engine=engine,
            cache_folder=self.folder / "cache",
            notice=self.notices.append,
            on_reference=on_reference,
        )

    def computed(self, *args, **kwargs):
        return self.trainer(*args, **kwargs).references_computed


@pytest.fixture
def session(tmp_path):
    return Session(tmp_path)


COUNT = len(pairs())


@pytest.mark.parametrize(
    "other",
    [
        {"beta": 0.9}, {"learning_rate": 1e-2}, {"loss_type": ["ipo"]}, {"seed": 7}, {"max_steps": 9},
        {"per_device_train_batch_size": 2}, {"max_length": 500}, {"label_smoothing": 0.1, "loss_type": ["robust"]},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_matter_finds_the_stored_values(session, other):
    assert session.computed() == COUNT
    assert session.computed(**other) == 0


def test_another_order_another_choice_and_lora_of_any_rank_find_them_too(session):
    first = session.trainer()
    rows = pairs()
    assert session.computed(rows[::-1]) == 0
    assert session.computed(rows[3:7]) == 0
    assert session.computed(rows + pairs(2, seed=77)) == 2
    for rank in (2, 4):
        lora = session.trainer(rows, peft_config=LoraConfig(r=rank, target_modules="all-linear"))
        assert lora.references_computed == 0
        assert lora.train_dataset["ref_chosen_logps"][:] == first.train_dataset["ref_chosen_logps"][:]


@pytest.mark.parametrize(
    "other",
    [
        {"ld_alpha": 0.5},
        {"max_length": 9},
        {"max_length": 9, "truncation_mode": "keep_end"},
        {"bf16": True},
        {"engine": "trl"},
    ],
    ids=str,
)
def test_what_matters_does_not(session, other):
    rows = [row for row in pairs() if len(row["prompt_ids"]) < 9 and len(row["chosen_ids"]) > 9]
    assert session.computed(rows) == len(rows) > 1
    assert session.computed(rows, **other) == len(rows)
    assert session.computed(rows, **other) == 0


@pytest.mark.parametrize("change", ["weights", "config", "transformers", "trl", "engine version", "TF32"])
def test_another_model_or_version_does_not(session, change, monkeypatch):
    assert session.computed() == COUNT
    if change == "weights":
        with torch.no_grad():
            session.model.model.norm.weight[3] += 1e-6
    if change == "config":
        session.model.config.rms_norm_eps = 1e-5
    if change in ("transformers", "trl"):
        monkeypatch.setattr(getattr(engine_trainer, change), "__version__", "5.99.0")
    if change == "TF32":
        monkeypatch.setattr(engine_trainer, "matmul_precision", lambda _: "tf32")
    if change == "engine version":
        monkeypatch.setattr(engine_trainer, "ENGINE_VERSION", 99)
    assert session.computed() == COUNT


def test_one_other_token_is_one_other_pair(session):
    rows = pairs()
    session.trainer(rows)
    rows[4]["rejected_ids"][0] = 3 if rows[4]["rejected_ids"][0] != 3 else 4
    assert session.computed(rows) == 1


def test_where_the_completion_starts_is_part_of_a_pair():
    whole, split = Truncation(None), {"prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4]}
    moved = {"prompt_ids": [1], "chosen_ids": [2, 3], "rejected_ids": [2, 4]}
    assert pair_key(split, whole) != pair_key(moved, whole)
    # A cut that does not reach the row is no difference; one that does is.
    assert pair_key(split, whole) == pair_key(split, Truncation(3)) != pair_key(split, Truncation(2))
    assert pair_key(split, Truncation(2)) != pair_key(split, Truncation(2, "keep_end"))


def test_the_values_are_those_trl_computes(session, tmp_path):
    ours = session.trainer(ld_alpha=0.3)
    theirs, _, _ = train(
        copy.deepcopy(session.model),
        pairs(),
        tmp_path,
        engine=False,
        precompute_ref_log_probs=True,
        ld_alpha=0.3,
        max_steps=1,
    )
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert ours.train_dataset[column][:] == pytest.approx(theirs.train_dataset[column][:], rel=1e-5)


def test_an_adapter_that_is_trained_further_is_its_own_reference(session):
    base = session.computed()
    adapted = get_peft_model(
        copy.deepcopy(session.model), LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    )
    assert base == COUNT
    again = copy.deepcopy(adapted)
    assert session.computed(model=adapted) == COUNT
    assert session.computed(model=again) == 0


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    path.write_bytes(
        {
            "bit": content[:-60] + bytes([content[-60] ^ 1]) + content[-59:],
            "cut": content[: len(content) // 2],
            "empty": b"",
            "text": b"{}",
        }[how]
    )


@pytest.mark.parametrize("how", ["bit", "cut", "empty", "text"])
def test_a_damaged_file_is_computed_again_and_said(session, how):
    right = session.trainer().train_dataset["ref_chosen_logps"][:]
    (file,) = (session.folder / "cache").rglob("*.safetensors")
    damage(file, how)
    again = session.trainer()
    assert again.references_computed == COUNT
    assert again.train_dataset["ref_chosen_logps"][:] == right
    assert "damaged" in session.notices[0]
    assert session.computed() == 0


def test_a_folder_that_cannot_be_written_costs_only_the_cache(session):
    (session.folder / "cache").write_text("a file where the folder should be")
    assert session.computed() == COUNT
    assert any("not cached" in notice for notice in session.notices)


def load_class(folder):
    """The model class of a folder, as transformers loads code that comes with a model."""
    name = "transformers_modules.toy.modeling_toy"
    spec = importlib.util.spec_from_file_location(name, folder / "modeling_toy.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.Toy


def test_other_code_of_a_model_that_brings_its_own_does_not(session, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers_modules.toy.modeling_toy", None)
    code = tmp_path / "modeling_toy.py"
    code.write_text(
        "from transformers import LlamaForCausalLM\n\n"
        "class Toy(LlamaForCausalLM):\n"
        "    def factor(self):\n"
        "        from .scale import FACTOR\n"
        "        return FACTOR\n"
    )
    (tmp_path / "scale.py").write_text("FACTOR = 1\n")
    bare = LlamaForCausalLM(session.model.config)
    assert reference.model_code(bare) is None
    session.model.__class__ = load_class(tmp_path)
    assert session.computed() == COUNT
    assert session.computed() == 0
    (tmp_path / "scale.py").write_text("FACTOR = 2\n")
    assert session.computed() == COUNT
    code.write_text(code.read_text() + "\n# changed\n")
    assert session.computed() == COUNT
    lora = LoraConfig(r=2, target_modules="all-linear")
    assert session.computed(peft_config=lora) == 0


def test_pairs_are_counted_once(session):
    first = session.trainer(pairs() + pairs())
    assert (first.references_computed, first.references_found) == (COUNT, 0)
    again = session.trainer(pairs() + pairs())
    assert (again.references_computed, again.references_found) == (0, COUNT)


def test_held_out_pairs_do_not_hash_the_weights_again(session, monkeypatch):
    right, calls = engine_trainer.model_key, []
    monkeypatch.setattr(engine_trainer, "model_key", lambda *args: calls.append(1) or right(*args))
    trainer = session.trainer(eval_rows=pairs(3, seed=5), eval_strategy="steps", eval_steps=1)
    assert trainer.references_computed == COUNT + 3
    assert len(calls) == 1


def test_what_an_interrupted_run_has_computed_is_kept(session, monkeypatch):
    monkeypatch.setattr(engine_trainer, "REFERENCE_PAIRS", 4)

    def interrupt(done, _):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.trainer(on_reference=interrupt)
    assert session.computed() == COUNT - 8


@pytest.mark.parametrize(("seconds", "kept"), [(-1.0, [4, 8, 12]), (180.0, [0, 0, 0])])
def test_references_are_kept_while_they_are_computed(session, monkeypatch, seconds, kept):
    monkeypatch.setattr(engine_trainer, "REFERENCE_PAIRS", 4)
    monkeypatch.setattr(engine_trainer, "SAVE_SECONDS", seconds)
    on_disk = []

    def look(*_):
        files = list((session.folder / "cache").rglob("*.safetensors"))
        on_disk.append(sum(len(ReferenceCache(f.stem, session.folder / "cache").load()) for f in files))

    session.trainer(on_reference=look)
    assert on_disk == kept
    assert session.computed() == 0


def test_several_processes_are_refused_in_words(session, monkeypatch):
    monkeypatch.setattr(Accelerator, "num_processes", property(lambda _: 2))
    with pytest.raises(ConfigError, match="one process"):
        session.trainer()


def test_a_reference_that_is_not_finite_stops_the_run(session):
    with torch.no_grad():
        session.model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(TrainingError, match="not finite"):
        session.trainer(engine="trl")


def test_no_second_model_is_kept(session):
    trainer = session.trainer()
    assert trainer.ref_model is None
    assert trainer.engine == "shared-prefix"


def test_the_key_takes_in_every_weight():
    model = make_model("llama")
    key = model_key(reference_weights(model), {}, {})
    for parameter in model.parameters():
        with torch.no_grad():
            parameter.view(-1)[-1] += 1
        changed = model_key(reference_weights(model), {}, {})
        assert changed != key
        key = changed


@pytest.mark.parametrize(("tokens", "most"), [(1, 9), (40, 3), (10_000, 256)])
def test_groups_cover_everything_once_within_the_limits(tokens, most):
    lengths = np.random.default_rng(0).integers(1, 30, 50).tolist()
    groups = batches_by_length(lengths, most, tokens // 2, longest_first=True)
    assert sorted(i for group in groups for i in group) == list(range(50))
    for group in groups:
        assert len(group) == 1 or (
            len(group) <= most and 2 * len(group) * max(lengths[i] for i in group) <= tokens
        )


class Cutting(DataCollatorForPreference):
    """A collator of the user's own: it cuts rows, and leaves every second completion token out of the loss."""

    def torch_call(self, examples):
        batch = super().torch_call(
            [{name: ids[:9] if name.endswith("_ids") else ids for name, ids in e.items()} for e in examples]
        )
        batch["completion_mask"][:, ::2] = 0
        return batch


def test_a_collator_of_the_users_own_finds_nothing_stored_and_stores_nothing(session, tmp_path):
    rows = [row for row in pairs() if len(row["prompt_ids"]) > 3]
    session.computed(rows)
    files = {f: f.read_bytes() for f in (session.folder / "cache").rglob("*.safetensors")}
    ours = session.trainer(rows, data_collator=Cutting(pad_token_id=0), per_device_train_batch_size=3)
    theirs, _, _ = train(
        copy.deepcopy(session.model), rows, tmp_path, engine=False, precompute_ref_log_probs=True, max_steps=1,
        data_collator=Cutting(pad_token_id=0), per_device_train_batch_size=3,
    )  # fmt: skip
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert ours.train_dataset[column][:] == pytest.approx(theirs.train_dataset[column][:], rel=1e-5)
    assert {f: f.read_bytes() for f in (session.folder / "cache").rglob("*.safetensors")} == files
    assert session.notices == [
        "Reference log-probabilities are not cached: Cutting decides what the model is shown."
    ]


def test_trls_collator_with_a_length_of_its_own_is_part_of_a_pair(session):
    rows = [row for row in pairs() if len(row["prompt_ids"]) < 9 and len(row["chosen_ids"]) > 9]
    assert session.computed(rows) == len(rows)
    cut = {"data_collator": DataCollatorForPreference(pad_token_id=0, max_length=9)}
    assert session.computed(rows, **cut) == len(rows)
    assert session.computed(rows, **cut) == session.computed(rows, max_length=9) == 0


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_references_that_depend_on_the_batch_are_those_of_trls_batches(kind, session, tmp_path):
    session.model = scaled(kind)
    rows = pairs()
    ours = session.trainer(rows)
    theirs, _, _ = train(
        copy.deepcopy(session.model), rows, tmp_path, engine=False, precompute_ref_log_probs=True, max_steps=1
    )
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert ours.train_dataset[column][:] == pytest.approx(theirs.train_dataset[column][:], rel=1e-5)
    assert "beyond 24 tokens" in session.notices[0]
    short = [
        row
        for row in rows
        if len(row["prompt_ids"]) + max(map(len, (row["chosen_ids"], row["rejected_ids"]))) <= 24
    ]
    assert session.computed(short) == len(short) > 1
    assert session.computed(short) == 0


@pytest.mark.filterwarnings("ignore:Careful, disabling adapter layers")
def test_references_that_training_has_moved_are_not_stored_as_the_untrained_models(session):
    """With `bias="all"` LoRA trains the biases of the base, which its reference shares."""
    session.model = make_model("llama", attention_bias=True)
    lora = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj"], bias="all")
    trainer = session.trainer(peft_config=lora, learning_rate=0.1, max_steps=4)
    held_out = Dataset.from_list(pairs(3, seed=5))
    before = session.trainer(pairs(3, seed=5), peft_config=None).train_dataset["ref_chosen_logps"][:]
    trainer.train()
    found = []
    trainer.evaluation_loop = lambda loader, *_, **__: (
        found.append(loader.dataset["ref_chosen_logps"][:]) or Nothing()
    )
    trainer.evaluate(held_out)
    assert found[0] != pytest.approx(before, rel=1e-3)
    again = session.trainer(pairs(3, seed=5), peft_config=copy.deepcopy(lora))
    assert again.train_dataset["ref_chosen_logps"][:] == before


class Nothing:
    metrics, num_samples = {}, 3


def test_the_key_names_the_engine_that_computed(session, monkeypatch):
    """A reference that TRL's forward computed in the middle of a run is no value of the engine's."""
    right, seen = packed_forward.PackedForward.reason_against, []

    def sometimes(self, args, kwargs, labels):
        if self.counts.on_handover is not None and len(kwargs["input_ids"]) == 8:
            seen.append(1)
        return "an odd batch" if len(seen) % 2 else right(self, args, kwargs, labels)

    monkeypatch.setattr(engine_trainer, "REFERENCE_PAIRS", 4)
    monkeypatch.setattr(packed_forward.PackedForward, "reason_against", sometimes)
    trainer = session.trainer()
    by_trl = 4 * trainer.forwards.handed_over["an odd batch"]
    assert 0 < by_trl < COUNT
    monkeypatch.undo()
    assert session.computed() == by_trl
    assert session.computed(engine="trl") == COUNT - by_trl


def test_a_forward_that_turns_out_wrong_leaves_nothing_under_the_engines_key(session, monkeypatch):
    monkeypatch.setattr(packed_forward, "first_difference", lambda *_: "the first batch differed")
    trainer = session.trainer()
    assert (trainer.engine, trainer.references_computed) == ("trl", COUNT)
    monkeypatch.undo()
    assert session.computed() == COUNT
    assert session.computed(engine="trl") == 0
