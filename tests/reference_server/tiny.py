"""A tiny Llama with random weights, written by hand: no torch, a few kilobytes, made anew for each test run."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

PAD, END, USER, ASSISTANT, SYSTEM = "<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = [PAD, END, USER, ASSISTANT, SYSTEM]
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
HIDDEN, HEADS, HEAD_DIM, INNER, LAYERS, VOCABULARY = 24, 2, 8, 40, 2, 261


def write_tiny(folder: Path, *, context: int = 256, endless: bool = True, seed: int = 1, **config: Any) -> Path:
    """A model folder. `endless`: it never says the end mark by itself. `config` overrides entries of config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(
        json.dumps(
            {
                "model_type": "llama",
                "hidden_size": HIDDEN,
                "num_attention_heads": HEADS,
                "num_key_value_heads": HEADS,
                "head_dim": HEAD_DIM,
                "intermediate_size": INNER,
                "num_hidden_layers": LAYERS,
                "vocab_size": VOCABULARY,
                "max_position_embeddings": context,
                "rms_norm_eps": 1e-6,
                "rope_parameters": {"rope_theta": 10_000.0, "rope_type": "default"},
                "hidden_act": "silu",
                "eos_token_id": 1,
                **config,
            }
        )
    )
    tensors = random_tensors(seed)
    if endless:
        # All states have a positive first element, which no other token's row looks at.
        tensors["model.embed_tokens.weight"][:, 0] = 5.0
        tensors["lm_head.weight"][:, 0] = 0.0
        tensors["lm_head.weight"][: len(SPECIAL)] = 0.0
        tensors["lm_head.weight"][: len(SPECIAL), 0] = -40.0
    write_safetensors(folder / "model.safetensors", tensors)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={piece: i for i, piece in enumerate([*SPECIAL, *letters])}, merges=[]))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": TEMPLATE}))
    return folder


def random_tensors(seed: int) -> dict[str, NDArray[np.float32]]:
    """The weights by their published names."""
    rng = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (VOCABULARY, HIDDEN),
        "model.norm.weight": (HIDDEN,),
        "lm_head.weight": (VOCABULARY, HIDDEN),
    }
    for index in range(LAYERS):
        at = f"model.layers.{index}."
        for name in ("q_proj", "k_proj", "v_proj"):
            shapes[f"{at}self_attn.{name}.weight"] = (HEADS * HEAD_DIM, HIDDEN)
        shapes[f"{at}self_attn.o_proj.weight"] = (HIDDEN, HEADS * HEAD_DIM)
        shapes[f"{at}mlp.gate_proj.weight"] = shapes[f"{at}mlp.up_proj.weight"] = (INNER, HIDDEN)
        shapes[f"{at}mlp.down_proj.weight"] = (HIDDEN, INNER)
        shapes[f"{at}input_layernorm.weight"] = shapes[f"{at}post_attention_layernorm.weight"] = (HIDDEN,)
    return {
        name: (rng.normal(0.5 if "norm" in name else 0, 0.3, shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def write_safetensors(path: Path, tensors: dict[str, NDArray[np.float32]]) -> None:
    """The format by hand, in bfloat16 by cutting (the reader must widen it)."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    body = b""
    for name, tensor in tensors.items():
        cut = (np.ascontiguousarray(tensor).view(np.uint32) >> 16).astype("<u2")
        first = len(body)
        body += cut.tobytes()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [first, len(body)]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)


def plain_logits(folder: Path, tokens: list[int]) -> NDArray[np.float64]:
    """Llama as its paper writes it, in float64 and without a cache: logits after the last token."""
    data = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    t: dict[str, NDArray[np.float64]] = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name != "__metadata__":
            first, last = entry["data_offsets"]
            raw = np.frombuffer(data[8 + length + first : 8 + length + last], "<u2").astype(np.uint32) << 16
            t[name] = raw.view(np.float32).reshape(entry["shape"]).astype(np.float64)

    def norm(x: Any, name: str) -> Any:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * t[name]

    def turn(x: Any) -> Any:
        half = HEAD_DIM // 2
        angle = np.outer(np.arange(len(x)), 10_000.0 ** (-np.arange(half) / half))[:, None]
        a, b = x[..., :half], x[..., half:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), b * np.cos(angle) + a * np.sin(angle)], -1)

    x = t["model.embed_tokens.weight"][tokens]
    for index in range(LAYERS):
        at = f"model.layers.{index}."
        y = norm(x, at + "input_layernorm.weight")
        q, k, v = ((y @ t[f"{at}self_attn.{n}_proj.weight"].T).reshape(-1, HEADS, HEAD_DIM) for n in "qkv")
        scores = np.einsum("ihd,jhd->hij", turn(q), turn(k)) / np.sqrt(HEAD_DIM)
        scores[:, np.triu(np.ones((len(tokens),) * 2, dtype=bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(len(tokens), -1)
        x = x + mixed @ t[at + "self_attn.o_proj.weight"].T
        y = norm(x, at + "post_attention_layernorm.weight")
        gate, up = y @ t[at + "mlp.gate_proj.weight"].T, y @ t[at + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ t[at + "mlp.down_proj.weight"].T
    logits: NDArray[np.float64] = norm(x[-1], "model.norm.weight") @ t["lm_head.weight"].T
    return logits
