"""Train one model of the reference pair from scratch: ``python train.py small|large OUT_DIR [--minutes M] [--resume]``.

Checkpoints every five minutes (model, optimiser, position in the stream); `--resume` goes on from the last one. Loss is
on the targets only. On a CPU it uses bf16 autocast where the processor has it; with a GPU it uses that (not tried).
"""

import argparse
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from examples import Example, stream
from tokenizer import ASSISTANT, END, SYSTEM, USER
from tokenizers import Tokenizer
from transformers import LlamaConfig, LlamaForCausalLM

SHAPES = {
    "small": {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 384},
    "large": {"hidden_size": 192, "num_hidden_layers": 6, "num_attention_heads": 3, "intermediate_size": 512},
}
PEAK_RATE = {"small": 3e-3, "large": 2e-3}
CONTEXT = 1024
TOKENS_PER_BATCH = 12_288
POOL = 2_048
CHECKPOINT_EVERY_S = 300.0


def config(which: str) -> LlamaConfig:
    """A standard Llama configuration, tied embeddings, context 1,024."""
    return LlamaConfig(
        vocab_size=1024,
        max_position_embeddings=CONTEXT,
        head_dim=64,
        tie_word_embeddings=True,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        **SHAPES[which],
    )


def encode(tokenizer: Tokenizer, example: Example) -> tuple[list[int], int]:
    """Token ids of the whole conversation and where the target starts."""
    messages, target = example
    marks = {"system": SYSTEM, "developer": SYSTEM, "user": USER, "assistant": ASSISTANT}
    prompt = "".join(f"{marks[m.role]}{m.content}{END}" for m in messages) + ASSISTANT
    before = tokenizer.encode(prompt).ids
    return before + tokenizer.encode(target + END).ids, len(before)


def batches(tokenizer: Tokenizer, source: Iterator[Example]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Padded (ids, labels) of about `TOKENS_PER_BATCH` tokens: sorted by length within a pool, so little is padding."""
    generator = torch.Generator().manual_seed(0)
    while True:
        pool = sorted((encode(tokenizer, next(source)) for _ in range(POOL)), key=lambda e: len(e[0]))
        groups: list[list[tuple[list[int], int]]] = [[]]
        for item in pool:
            if groups[-1] and (len(groups[-1]) + 1) * len(item[0]) > TOKENS_PER_BATCH:
                groups.append([])
            groups[-1].append(item)
        for index in torch.randperm(len(groups), generator=generator).tolist():
            group = groups[index]
            width = max(len(ids) for ids, _ in group)
            ids = torch.zeros(len(group), width, dtype=torch.long)
            labels = torch.full((len(group), width), -100, dtype=torch.long)
            for row, (tokens, start) in enumerate(group):
                ids[row, : len(tokens)] = torch.tensor(tokens)
                labels[row, start : len(tokens)] = torch.tensor(tokens[start:])
            yield ids, labels


def loss_of(model: LlamaForCausalLM, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross-entropy on target tokens; the output layer is computed there only. Padding is on the right and causal
    attention never looks there, so no mask is needed."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    wanted = labels[:, 1:]
    mask = wanted != -100
    logits = model.lm_head(hidden[mask])
    return torch.nn.functional.cross_entropy(logits.float(), wanted[mask])


def save(model: LlamaForCausalLM, out: Path) -> None:
    """bf16 safetensors and config, as transformers, SGLang and vLLM load them; replaced whole."""
    copy = LlamaForCausalLM(model.config).to(torch.bfloat16)
    copy.load_state_dict(model.state_dict())
    copy.tie_weights()
    copy.save_pretrained(out)


def main() -> None:
    """Train until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=sorted(SHAPES))
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed({"small": 11, "large": 23}[arguments.which])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = Tokenizer.from_file(str(arguments.out / "tokenizer.json"))
    model = LlamaForCausalLM(config(arguments.which)).to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=PEAK_RATE[arguments.which], betas=(0.9, 0.98), weight_decay=0.05)
    checkpoint = arguments.out / "checkpoint.pt"
    spent = seen = step = 0
    spent = 0.0
    if arguments.resume and checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        spent, seen, step = state["spent"], state["seen"], state["step"]
    source = batches(tokenizer, stream(arguments.which, arguments.seed + step))
    budget = arguments.minutes * 60
    began, saved = time.monotonic() - spent, time.monotonic()
    log = (arguments.out / "train.log").open("a")
    while (elapsed := time.monotonic() - began) < budget:
        share = elapsed / budget
        rate = PEAK_RATE[arguments.which] * min(1.0, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimiser.param_groups:
            group["lr"] = rate
        ids, labels = next(source)
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = loss_of(model, ids.to(device), labels.to(device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        seen += ids.numel()
        if step % 20 == 0:
            elapsed = time.monotonic() - began
            line = {
                "step": step, "loss": round(loss.item(), 4), "tokens": seen, "tokens_per_s": round(seen / elapsed),
                "minutes": round(elapsed / 60, 1), "eta_minutes": round((budget - elapsed) / 60, 1),
            }  # fmt: skip
            print(json.dumps(line), file=log, flush=True)
        if time.monotonic() - saved > CHECKPOINT_EVERY_S:
            saved = time.monotonic()
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            torch.save({**state, "spent": saved - began, "seen": seen, "step": step}, checkpoint.with_suffix(".tmp"))
            checkpoint.with_suffix(".tmp").replace(checkpoint)
            save(model, arguments.out)
    save(model, arguments.out)
    print(f"{arguments.which}: {step} steps, {seen} tokens, {budget / 60:.0f} minutes, last loss {loss.item():.3f}")


if __name__ == "__main__":
    main()
