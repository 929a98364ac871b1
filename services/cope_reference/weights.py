"""A Llama checkpoint as NumPy arrays: `config.json` and `model.safetensors`, read without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
_DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "BF16": np.dtype("<u2")}


class UnsupportedModel(Exception):
    """The checkpoint is not of the one shape this engine runs. The message names what differs."""


@dataclass(frozen=True, slots=True)
class Layer:
    """One block. `qkv` is [hidden, 3·heads·head_dim], `gate_up` [hidden, 2·inner]: products done in one go."""

    attention_norm: Array
    qkv: Array
    out: Array
    mlp_norm: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True, slots=True)
class Weights:
    """A decoder-only Llama with as many key heads as query heads. `embedding` is [vocabulary, hidden]."""

    heads: int
    head_dim: int
    context: int
    epsilon: float
    rope_theta: float
    end_ids: frozenset[int]
    embedding: Array
    layers: tuple[Layer, ...]
    norm: Array
    unembedding: Array


def load_weights(folder: Path) -> Weights:
    """Read a checkpoint folder. Raises `UnsupportedModel` or `OSError`."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    if config.get("model_type") != "llama":
        raise UnsupportedModel(f"{folder}: model_type {config.get('model_type')!r} is not 'llama'")
    heads = int(config["num_attention_heads"])
    if int(config.get("num_key_value_heads", heads)) != heads:
        raise UnsupportedModel(f"{folder}: grouped key heads are not supported")
    tensors = read_safetensors(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    rope = config.get("rope_parameters") or {}
    end = config.get("eos_token_id")
    return Weights(
        heads=heads,
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        context=int(config["max_position_embeddings"]),
        epsilon=float(config["rms_norm_eps"]),
        rope_theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
        end_ids=frozenset([end] if isinstance(end, int) else end or []),
        embedding=embedding,
        layers=tuple(_layer(tensors, index) for index in range(int(config["num_hidden_layers"]))),
        norm=tensors["model.norm.weight"],
        unembedding=np.ascontiguousarray(tensors.get("lm_head.weight", embedding).T),
    )


def _layer(tensors: dict[str, Array], index: int) -> Layer:
    prefix = f"model.layers.{index}."

    def joined(*names: str) -> Array:
        return np.ascontiguousarray(np.concatenate([tensors[f"{prefix}{name}.weight"] for name in names]).T)

    return Layer(
        attention_norm=tensors[prefix + "input_layernorm.weight"],
        qkv=joined("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        out=joined("self_attn.o_proj"),
        mlp_norm=tensors[prefix + "post_attention_layernorm.weight"],
        gate_up=joined("mlp.gate_proj", "mlp.up_proj"),
        down=joined("mlp.down_proj"),
    )


def read_safetensors(path: Path) -> dict[str, Array]:
    """Every tensor as float32. The format: 8 bytes of header length, a JSON header, raw little-endian data."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    body = memoryview(data)[8 + length :]
    tensors: dict[str, Array] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        dtype = _DTYPES.get(entry["dtype"])
        if dtype is None:
            raise UnsupportedModel(f"{path}: {name} is of type {entry['dtype']}")
        first, last = entry["data_offsets"]
        raw = np.frombuffer(body[first:last], dtype=dtype).reshape(entry["shape"])
        # bfloat16 is the upper half of a float32.
        full = (raw.astype(np.uint32) << 16).view(np.float32) if entry["dtype"] == "BF16" else raw.astype(np.float32)
        tensors[name] = np.ascontiguousarray(full)
    return tensors
