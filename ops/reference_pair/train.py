"""Train one model of the reference pair from scratch: ``python train.py small|large OUT_DIR [--steps N] [--resume]``.

OUT_DIR must hold the tokenizer. Checkpoints (model, optimisers, progress) every five minutes; `--resume` goes on from
the last one, on fresh examples. The end and the learning rate go by steps, so a slower machine learns the same.
Matrices are trained by Muon, the rest by AdamW, in float32: a CPU without bf16 instructions multiplies bf16 thirty
times as slowly. Compiled where there is a C++ compiler; a GPU is used where there is one (not tried).
"""

import argparse
import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from batches import IGNORED, batches
from examples import stream
from muon import Muon
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

CONTEXT = 1024
CHECKPOINT_EVERY_S = 300.0
REPORT_EVERY = 50  # steps
# Names and objects recur within a story, so its own words teach copying: worth a little loss until the rates fall.
PROMPT_LOSS = 0.1


@dataclass(frozen=True)
class Recipe:
    """What differs between the two models. They share no weights, no order of examples and no initial values."""

    seed: int
    hidden: int
    layers: int
    heads: int
    inner: int
    tokens: int  # per step
    steps: int
    matrix_rate: float
    other_rate: float


RECIPES = {
    "small": Recipe(
        11, hidden=128, layers=4, heads=2, inner=256, tokens=2048, steps=4400, matrix_rate=0.02, other_rate=6e-3
    ),
    "large": Recipe(
        23, hidden=128, layers=6, heads=2, inner=256, tokens=2048, steps=3300, matrix_rate=0.02, other_rate=6e-3
    ),
}


@dataclass
class Progress:
    """Training time (without interruptions), optimiser steps, tokens and examples so far."""

    spent_s: float = 0.0
    steps: int = 0
    tokens: int = 0
    examples: int = 0


def config(recipe: Recipe) -> LlamaConfig:
    """A standard Llama configuration: tied embeddings, head dimension 64, context 1,024."""
    return LlamaConfig(
        vocab_size=1024,
        max_position_embeddings=CONTEXT,
        head_dim=64,
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        intermediate_size=recipe.inner,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )


def fresh(recipe: Recipe) -> LlamaForCausalLM:
    """A new model, started so that Muon learns copying soon (tried: the usual start needs many times the tokens).

    Embeddings are large beside what the blocks first add (nothing: their last matrices are zero), so each token's
    identity stays readable; the final norm is small in turn, so that the first predictions are even.
    """
    model = LlamaForCausalLM(config(recipe))
    # A hundred tokens a row: plain attention as products of matrices is 1.4 times as fast on a CPU as the fused form.
    model.set_attn_implementation("eager")
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_(std=0.5)
        model.model.norm.weight.fill_(2 * recipe.hidden**-0.5)
        for name, p in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                p.zero_()
            elif p.ndim == 2 and "layers" in name:
                p.normal_(std=p.shape[1] ** -0.5)
    return model


def loss_of(
    model: LlamaForCausalLM, body: Callable[..., Any], ids: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """(loss to descend, mean loss on target tokens). Padding is on the right, where causal attention never looks.

    `body` is `model.model`, compiled or as it is.
    """
    hidden = body(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    kind = targets[:, 1:]
    real = kind != IGNORED
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden[real]).float(), ids[:, 1:][real], reduction="none")
    wanted = kind[real] == 1
    on_targets = each[wanted].mean()
    return on_targets + PROMPT_LOSS * each[~wanted].mean(), on_targets


def optimisers(model: LlamaForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for embeddings and norms."""
    inside = [p for name, p in model.named_parameters() if p.ndim == 2 and "layers" in name]
    other = [p for name, p in model.named_parameters() if not (p.ndim == 2 and "layers" in name)]
    return [
        Muon(inside, lr=recipe.matrix_rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(other, lr=recipe.other_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def rate_share(step: int, steps: int) -> float:
    """The learning rate as a share of its peak: a short warm-up, level for 40 % of the steps, then down to nothing."""
    return min(1.0, (step + 1) / 50) * min(1.0, (1 - step / steps) / 0.6)


def save(model: LlamaForCausalLM, out: Path) -> None:
    """bf16 safetensors and config, as transformers, SGLang and vLLM load them; replaced whole."""
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    copy.save_pretrained(out)


def train(which: str, out: Path, steps: int, *, resume: bool) -> Progress:
    """Train for `steps` in all; what is in `out` afterwards is the model."""
    recipe, progress = RECIPES[which], Progress()
    torch.manual_seed(recipe.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = fresh(recipe).to(device)
    body = torch.compile(model.model, dynamic=True) if shutil.which("c++") or shutil.which("g++") else model.model
    both = optimisers(model, recipe)
    peaks = [group["lr"] for optimiser in both for group in optimiser.param_groups]
    checkpoint = out / "checkpoint.pt"
    if resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, held in zip(both, state["optimisers"], strict=True):
            optimiser.load_state_dict(held)
        progress = Progress(**state["progress"])
    source = batches(
        Tokenizer.from_file(str(out / "tokenizer.json")),
        stream(which, recipe.seed + progress.steps, drawn=progress.examples),
        recipe.tokens,
        recipe.seed,
    )
    began, saved, recent = time.monotonic() - progress.spent_s, time.monotonic(), 0.0
    with (out / "train.log").open("a") as log:
        while progress.steps < steps:
            groups = [group for optimiser in both for group in optimiser.param_groups]
            for group, peak in zip(groups, peaks, strict=True):
                group["lr"] = peak * rate_share(progress.steps, steps)
            ids, targets, count = next(source)
            loss, on_targets = loss_of(model, body, ids.to(device), targets.to(device))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for optimiser in both:
                optimiser.step()
                optimiser.zero_grad(set_to_none=True)
            progress.steps += 1
            progress.tokens += ids.numel()
            progress.examples += int(count)
            progress.spent_s = time.monotonic() - began
            recent += on_targets.item()
            if progress.steps % REPORT_EVERY == 0:
                print(json.dumps(report(progress, recent / REPORT_EVERY, steps)), file=log, flush=True)
                recent = 0.0
            if time.monotonic() - saved > CHECKPOINT_EVERY_S:
                saved = time.monotonic()
                held = [optimiser.state_dict() for optimiser in both]
                state = {"model": model.state_dict(), "optimisers": held, "progress": asdict(progress)}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
                save(model, out)
    save(model, out)
    return progress


def report(progress: Progress, loss: float, steps: int) -> dict[str, float]:
    """One line of the log. Raises `ArithmeticError` when the training has diverged."""
    if not math.isfinite(loss):
        raise ArithmeticError(f"the loss is {loss} at step {progress.steps}")
    return {
        "step": progress.steps,
        "loss": round(loss, 4),
        "tokens": progress.tokens,
        "tokens_per_s": round(progress.tokens / progress.spent_s),
        "minutes": round(progress.spent_s / 60, 1),
        "eta_minutes": round((steps - progress.steps) * progress.spent_s / progress.steps / 60, 1),
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=sorted(RECIPES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, help="in all; the default is the recipe's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    steps = arguments.steps or RECIPES[arguments.which].steps
    progress = train(arguments.which, arguments.out, steps, resume=arguments.resume)
    print(f"{arguments.which}: {progress}")


if __name__ == "__main__":
    main()
