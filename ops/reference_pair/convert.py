"""Ship one trained model: ``python convert.py TRAINED_DIR weights/small``.

Copies the Hugging Face form (bf16 safetensors, configuration, tokenizer) and writes CTranslate2's form beside it, in
`ctranslate2/`: float16 storage, which CTranslate2 widens to float32 on a CPU. Needs torch and transformers, once.
"""

import argparse
import functools
import json
import shutil
from pathlib import Path

from ctranslate2.converters import TransformersConverter
from ctranslate2.specs import transformer_spec
from tokenizer import PAD

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")


def ship(trained: Path, weights: Path) -> None:
    """Both forms of the model in `trained`, replaced whole in `weights`. Raises `OSError` if a file is missing."""
    weights.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        # Renamed into place, so that a server starting meanwhile never reads half a file.
        shutil.copyfile(trained / name, weights / f"{name}.part")
        (weights / f"{name}.part").chmod(0o644)
        (weights / f"{name}.part").replace(weights / name)
    engine = weights / "ctranslate2"
    _tell_head_dim(int(json.loads((weights / "config.json").read_text())["head_dim"]))
    TransformersConverter(str(weights)).convert(str(engine), quantization="float16", force=True)
    settings = json.loads((engine / "config.json").read_text())
    # The engine refuses null here. Prompts never start with a token of its own choosing, so any piece will do.
    settings["bos_token"] = settings["unk_token"] = PAD
    (engine / "config.json").write_text(json.dumps(settings, indent=2) + "\n")


def _tell_head_dim(head_dim: int) -> None:
    """Make the converter write heads of this size.

    CTranslate2 4.8.5's Llama loader doesn't pass on `head_dim`, and takes hidden size / heads. Where that differs
    (ours: 4 x 64 on a hidden size of 128) it loads without complaint and answers wrongly: log-probabilities were off
    by up to 3.4. With it they equal those of transformers (4e-5).
    """
    spec = transformer_spec.TransformerDecoderModelSpec
    spec.from_config = functools.partial(spec.from_config, head_dim=head_dim)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("trained", type=Path, help="the folder that train.py wrote")
    parser.add_argument("weights", type=Path, help="where the shipped forms go")
    arguments = parser.parse_args()
    ship(arguments.trained, arguments.weights)


if __name__ == "__main__":
    main()
