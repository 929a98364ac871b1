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
    """One block. `qkv` is [hidden, 3·heads·head_dim], `gate_up` [hidden, 2·inner]: products done in one go.

    The weights of the norm before them, and attention's scale for q, are multiplied into them.
    """

    qkv: Array
    out: Array
    gate_up: Array
    down: Array


@dataclass(frozen=True, slots=True)
class Weights:
    """A decoder-only Llama with as many key heads as query heads. `embedding` is [vocabulary, hidden].

    `unembedding` is the way back, [hidden, vocabulary], with the last norm's weights multiplied in.
    """

    heads: int
    head_dim: int
    context: int
    epsilon: float
    rope_theta: float
    end_ids: frozenset[int]
    embedding: Array
    layers: tuple[Layer, ...]
    unembedding: Array


def load_weights(folder: Path) -> Weights:
    """Read a checkpoint folder. Raises `UnsupportedModel` or `OSError`."""
    config: dict[str, Any] = json.loads((folder / "config.json").read_text())
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    heads = config.get("num_attention_heads")
    for what, found, runs in (
        ("model_type", config.get("model_type"), "llama"),
        ("num_key_value_heads", config.get("num_key_value_heads", heads), heads),
        ("hidden_act", config.get("hidden_act", "silu"), "silu"),
        ("attention_bias", config.get("attention_bias", False), False),
        ("mlp_bias", config.get("mlp_bias", False), False),
        ("rope_type", rope.get("rope_type", "default"), "default"),
    ):
        if found != runs:
            raise UnsupportedModel(f"{folder}: {what} is {found!r}; this engine runs {runs!r} only")
    try:
        return _weights(config, float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0), folder)
    except KeyError as missing:
        raise UnsupportedModel(f"{folder}: {missing} is missing") from None


def _weights(config: dict[str, Any], rope_theta: float, folder: Path) -> Weights:
    heads = int(config["num_attention_heads"])
    tensors = read_safetensors(folder / "model.safetensors")
    embedding = tensors["model.embed_tokens.weight"]
    head_dim = int(config.get("head_dim") or config["hidden_size"] // heads)
    end = config.get("eos_token_id")
    return Weights(
        heads=heads,
        head_dim=head_dim,
        context=int(config["max_position_embeddings"]),
        epsilon=float(config["rms_norm_eps"]),
        rope_theta=rope_theta,
        end_ids=frozenset([end] if isinstance(end, int) else end or []),
        embedding=embedding,
        layers=tuple(_layer(tensors, index, head_dim) for index in range(int(config["num_hidden_layers"]))),
        unembedding=_after_norm(tensors["model.norm.weight"], tensors.get("lm_head.weight", embedding)),
    )


def _layer(tensors: dict[str, Array], index: int, head_dim: int) -> Layer:
    def tensor(name: str) -> Array:
        return tensors[f"model.layers.{index}.{name}.weight"]

    queries = tensor("self_attn.q_proj") * np.float32(head_dim**-0.5)
    return Layer(
        qkv=_after_norm(tensor("input_layernorm"), queries, tensor("self_attn.k_proj"), tensor("self_attn.v_proj")),
        out=np.ascontiguousarray(tensor("self_attn.o_proj").T),
        gate_up=_after_norm(tensor("post_attention_layernorm"), tensor("mlp.gate_proj"), tensor("mlp.up_proj")),
        down=np.ascontiguousarray(tensor("mlp.down_proj").T),
    )


def _after_norm(norm: Array, *matrices: Array) -> Array:
    """Matrices [out, in] side by side as one [in, sum of outs], the preceding norm's weights multiplied in."""
    return np.ascontiguousarray(np.concatenate(matrices).T * norm[:, None])


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
