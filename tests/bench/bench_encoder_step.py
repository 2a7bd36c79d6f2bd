"""Measure a training step of MiniLM on a CPU: dropout, attention, precision, and a profile.

    python tests/bench/bench_encoder_step.py [--threads 2] [--tokens 128] [--rounds 5] [--profile]

The variants take turns, and the smallest time of each counts: other load on the machine changes it least.
With one thread, CPU seconds are the most reliable.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
import transformers
from torch import nn
from torch.profiler import ProfilerActivity, profile

from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import locate

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
DOCUMENTS = 32


def hblm_encoder(dropout: float) -> nn.Module:
    """Load what hblm trains."""
    return load_encoder(locate(MINILM), dropout=dropout, gradient_checkpointing=False).train()


def plain_encoder(dropout: float, attention: str) -> nn.Module:
    """Load what transformers would train."""
    folder = locate(MINILM).folder
    config = transformers.AutoConfig.from_pretrained(folder)
    config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
    encoder = transformers.AutoModel.from_pretrained(
        folder, config=config, dtype=torch.float32, attn_implementation=attention
    )
    encoder.pooler = None
    return encoder.train()


def training_step(encoder: nn.Module, tokens: int, precision: torch.dtype) -> Callable[[], None]:
    """Return a step over a batch of which the documents are between half and all of `tokens` long."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-5)
    ids = torch.randint(1000, 20_000, (DOCUMENTS, tokens))
    lengths = torch.randint(tokens // 2, tokens + 1, (DOCUMENTS, 1))
    mask = (torch.arange(tokens) < lengths).long()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        hidden.float().square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def main() -> None:
    """Print a line per variant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    makers = {
        "sdpa, no dropout": lambda: plain_encoder(0.0, "sdpa"),
        "eager, no dropout": lambda: plain_encoder(0.0, "eager"),
        "sdpa, dropout 0.1": lambda: plain_encoder(0.1, "sdpa"),
        "eager, dropout 0.1": lambda: plain_encoder(0.1, "eager"),
        "hblm, dropout 0.1": lambda: hblm_encoder(0.1),
    }
    steps = {
        (name, precision): training_step(maker(), options.tokens, precision)
        for name, maker in makers.items()
        for precision in (torch.float32, torch.bfloat16)
    }
    times: dict[tuple[str, torch.dtype], list[tuple[float, float]]] = {key: [] for key in steps}
    for _ in range(options.rounds + 1):
        for key, step in steps.items():
            wall, cpu = time.perf_counter(), time.process_time()
            step()
            times[key].append((time.perf_counter() - wall, time.process_time() - cpu))
    print(f"{options.threads} threads, {DOCUMENTS} documents of up to {options.tokens} tokens")
    for (name, precision), found in times.items():
        wall, cpu = (min(column) for column in zip(*found[1:], strict=True))
        print(
            f"{name:20} {str(precision).removeprefix('torch.'):9}"
            f"wall {wall:.3f} s  cpu {cpu:.3f} s  {DOCUMENTS / wall:6.1f} documents/s"
        )
    if options.profile:
        for key in (("sdpa, dropout 0.1", torch.float32), ("hblm, dropout 0.1", torch.bfloat16)):
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                steps[key]()
            print(*key)
            print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12))


if __name__ == "__main__":
    main()
