"""Quick settings and a pair for runs of a tiny model."""

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.models.loading import load_model_and_tokenizer
from dpo_cli.models.locate import locate_model


def pair(number):
    return {
        "prompt": [{"role": "user", "content": f"one two {number}"}],
        "chosen": [{"role": "assistant", "content": "I am Deep Qwen."}],
        "rejected": [{"role": "assistant", "content": f"I am Qwen {number}."}],
    }


def settings(folder, **changes):
    quick = {
        "output_dir": str(folder),
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 1,
        "learning_rate": 1e-3,
        "dtype": "float32",
    }
    return DPOTrainingConfig(**(quick | changes))


def weights(folder):
    return load_model_and_tokenizer(str(folder), dtype="float32")[0].state_dict()


def training_of(model, pairs, config, *, policy=None, **more):
    """What the wrapper and the jobs train with, on a policy in memory."""
    from dpo_cli.training.loop import Training
    from dpo_cli.training.policy import load_policy

    located = locate_model(str(model))
    return Training(policy or load_policy(located, config, device="cpu"), located, config, pairs, **more)
