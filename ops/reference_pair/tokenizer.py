"""The pair's own tokenizer: byte-level BPE of 1,024 pieces, common numbers whole, special tokens, a chat template.

Byte-level pieces cover every byte, so any text of any language can be encoded. Run: ``python tokenizer.py OUT_DIR``.
"""

import json
import sys
from pathlib import Path

from examples import stream
from problems import DAYS, OBJECTS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from cope.core.problem import Message

PIECES = 1024
PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = [PAD, END, USER, ASSISTANT, SYSTEM]
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] in ['system', 'developer'] %}{{ '<|system|>' }}"
    "{% elif message['role'] == 'assistant' %}{{ '<|assistant|>' }}"
    "{% else %}{{ '<|user|>' }}{% endif %}"
    "{{ message['content'] }}{{ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


# Never merged with their neighbours: numbers, marks, names, days, things. What lies between may become one piece.
WHOLE = rf" ?(?:On (?:{'|'.join(DAYS)})|{'|'.join(OBJECTS)}|[A-Z][a-z]*|\d+|[.,;:?!={{}}+*/\\()-]|\n)"
_MARKS = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT}


def prompt_text(messages: tuple[Message, ...]) -> str:
    """What the chat template makes of `messages` when an answer is asked for (equality is tested)."""
    return "".join(f"{_MARKS[m.role]}{m.content}{END}" for m in messages) + ASSISTANT


def train(examples: int = 20_000) -> Tokenizer:
    """A tokenizer trained on both models' texts, and on the licence for English words that the stories lack."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WHOLE), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES,
        special_tokens=SPECIAL,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    texts = []
    for which in ("small", "large"):
        source = stream(which, seed=0, drawn=10**9)
        for _ in range(examples):
            messages, target = next(source)
            texts += [messages[-1].content, target]
    # The stories use few words; plain English fills the remaining pieces, so that foreign prompts encode shorter.
    texts += (Path(__file__).parents[2] / "LICENSE").read_text().splitlines()
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def save(tokenizer: Tokenizer, folder: Path, *, context: int = 1024) -> None:
    """`tokenizer.json` and `tokenizer_config.json`, as transformers and SGLang read them."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": context,
        "pad_token": PAD,
        "eos_token": END,
        "bos_token": None,
        "unk_token": None,
        "additional_special_tokens": [USER, ASSISTANT, SYSTEM],
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


if __name__ == "__main__":
    save(train(), Path(sys.argv[1]))
