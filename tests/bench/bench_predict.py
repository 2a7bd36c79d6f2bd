"""Measure prediction on texts of real lengths against the text-classification pipeline of transformers.

    python tests/bench/bench_predict.py --data data/docstrings_small [--texts 1000] [--nodes 300]
        [--tokens 128] [--rounds 3] [--precision auto] [--threads 2] [--profile]

Both have MiniLM and one output a node; weights above the encoder are not trained, which changes no time. Ours
also pays for the cascade. The pipeline gets its defaults (one text at a time), and texts sorted by length
with the best of several batch sizes. The variants take turns; the smallest time of each counts. With one
thread the times are CPU seconds, which other load on the machine changes least.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from hblm.config.stored_model import StoredModel
from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.encoders.encoder import load_encoder, save_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build
from hblm.inference.predictor import open_predictor
from hblm.runs.checkpoint import save_checkpoint
from hblm.taxonomy import Node, Taxonomy

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
BATCHES = (8, 16, 32, 64)


def made_taxonomy(nodes: int) -> Taxonomy:
    """Return a taxonomy of three levels."""
    made = [Node(f"{at}", f"node {at}", None) for at in range(max(1, nodes // 20))]
    made += [Node(f"{at}", f"node {at}", f"{at % len(made)}") for at in range(len(made), max(2, nodes // 4))]
    first = max(1, nodes // 20)
    middle = len(made) - first
    made += [Node(f"{at}", f"node {at}", f"{first + at % middle}") for at in range(len(made), nodes)]
    return Taxonomy(made)


def made_checkpoint(folder: Path, taxonomy: Taxonomy, tokens: int) -> Path:
    """Write a checkpoint with MiniLM, whose heads are not trained."""
    source = locate(MINILM)
    encoder, tokenizer = (
        load_encoder(source, dropout=None, gradient_checkpointing=False),
        load_tokenizer(source),
    )
    changed = {"dataset.name": "bench", "encoder.model_name": MINILM, "encoder.max_length": tokens}
    config = TrainConfig().having({**changed, "pooling.pooling": "mean", "trainer.precision": "fp32"})
    meta = {
        "run_id": "0" * 64,
        "name": "bench",
        "tag": "minilm",
        "training": "bench",
        "encoder": {},
        "dataset": {"name": "bench", "path": "none", "fingerprint": "none"},
        "precision": "fp32",
        "eval_batch_size": 64,
        "training_counts": build.TrainingCounts.none(taxonomy).to_json(),
    }
    save_checkpoint(
        folder / "bench",
        model=build.classifier(config, taxonomy, encoder),
        save_encoder=lambda place: save_encoder(place, encoder, tokenizer),
        config=config,
        taxonomy=taxonomy,
        meta=meta,
    )
    return folder / "bench"


def made_pipeline(nodes: int, tokens: int) -> transformers.Pipeline:
    """Return the pipeline of a model of the same size, with its own defaults otherwise."""
    folder = locate(MINILM).folder
    model = transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=nodes, problem_type="multi_label_classification"
    )
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, model_max_length=tokens)
    return transformers.pipeline(
        "text-classification", model=model, tokenizer=tokenizer, device="cpu", top_k=None
    )


def main() -> None:
    """Measure, and print rates and ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/docstrings_small"))
    parser.add_argument("--texts", type=int, default=1_000)
    parser.add_argument("--nodes", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    transformers.logging.set_verbosity_error()
    documents = itertools.islice(open_prepared(given.data).documents("train"), given.texts)
    texts = [document.text for document in documents]
    by_length = sorted(texts, key=len)
    with tempfile.TemporaryDirectory() as folder:
        place = made_checkpoint(Path(folder), made_taxonomy(given.nodes), given.tokens)
        predictor = open_predictor(StoredModel(checkpoint=[str(place)], precision=given.precision))
    if given.profile:
        with torch.profiler.profile() as profile:
            predictor.scores(texts)
        print(profile.key_averages().table(sort_by="self_cpu_time_total", row_limit=25))
        return
    pipe = made_pipeline(given.nodes, given.tokens)
    cut = {"truncation": True, "max_length": given.tokens}
    variants: dict[str, Callable[[], object]] = {
        "ours": lambda: predictor.scores(texts),
        "pipeline": lambda: pipe(texts, **cut),
    }
    for size in BATCHES:
        variants[f"sorted, batches of {size}"] = lambda size=size: pipe(by_length, batch_size=size, **cut)
    clock = time.process_time if given.threads == 1 else time.perf_counter
    times: dict[str, list[float]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, call in variants.items():
            started = clock()
            call()
            times[name].append(clock() - started)
    rates = {name: len(texts) / min(each) for name, each in times.items()}
    for name, rate in rates.items():
        print(f"{name:20s} {rate:8.1f} texts/s   ours / this {rates['ours'] / rate:5.2f}")


if __name__ == "__main__":
    main()
