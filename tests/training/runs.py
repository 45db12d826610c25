"""Quick settings and a pair for runs of a tiny model."""

from dpo_cli.config import DPOTrainingConfig
from dpo_cli.models.loading import load_model_and_tokenizer


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
