"""The model card of a checkpoint: README.md of its folder on a model hub, written from its run's result."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from hblm.json_files import canonical_json
from hblm.runs.checkpoint import Checkpoint
from hblm.version import __version__

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+", re.ASCII)
_METRICS = (("micro_f1", "micro-F1"), ("macro_f1", "macro-F1"))
_SETTINGS = ("film", "head", "loss", "pooling", "direction", "joint_variant", "trainer")


def model_card(checkpoint: Checkpoint, result: Mapping[str, Any] | None) -> str:
    """Return README.md: a YAML header for the hub, then what the model is, its scores, limits and use.

    Args:
        checkpoint: the model.
        result: of its run; without it the card has no scores.
    """
    scores = None if result is None else result["test"].get(checkpoint.config.joint_variant.monitored)
    parts = [
        _header(checkpoint, scores),
        _introduction(checkpoint, result),
        _use(checkpoint),
        _scores(scores),
        _settings(checkpoint, result),
        _limits(checkpoint),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _header(checkpoint: Checkpoint, scores: Mapping[str, Any] | None) -> str:
    """Return the YAML header; texts are in JSON, which is YAML for any name."""
    name, dataset = checkpoint.meta["name"], checkpoint.meta["dataset"]["name"]
    lines = [
        "library_name: hblm",
        "pipeline_tag: text-classification",
        "tags: [hblm, hierarchical-text-classification, multi-label-classification]",
    ]
    base = checkpoint.config.encoder.model_name
    if _HUB_ID.fullmatch(base):
        lines.append(f"base_model: {canonical_json(base)}")
    if scores is not None:
        metrics = [
            {"type": "f1", "name": f"test {title}", "value": round(scores["overall"][key], 4)}
            for key, title in _METRICS
        ]
        entry = {
            "task": {"type": "text-classification"},
            "dataset": {"name": dataset, "type": dataset, "split": "test"},
            "metrics": metrics,
        }
        lines.append(f"model-index: {canonical_json([{'name': name, 'results': [entry]}])}")
    return "\n".join(["---", *lines, "---"])


def _introduction(checkpoint: Checkpoint, result: Mapping[str, Any] | None) -> str:
    meta, taxonomy = checkpoint.meta, checkpoint.taxonomy
    sizes = " + ".join(str(len(level)) for level in taxonomy.levels)
    text = (
        f"# {meta['name']}\n\nA hierarchical text classifier: for a text, the nodes of a label tree with "
        f"{len(taxonomy)} nodes on {len(taxonomy.levels)} levels ({sizes}), each with a score. Encoder: "
        f"`{checkpoint.config.encoder.model_name}`. Dataset: `{meta['dataset']['name']}`"
    )
    counts = meta.get("training_counts")
    documents = (result or {}).get("dataset", {}).get("documents") or {}
    if documents:
        text += f" ({', '.join(f'{count:,} {split}' for split, count in documents.items())} documents)"
    elif counts:
        text += f" ({counts['documents']:,} training documents)"
    return f"{text}. Trained with hblm {_version(result)}, seed {checkpoint.config.seed}."


def _version(result: Mapping[str, Any] | None) -> str:
    return str((result or {}).get("environment", {}).get("versions", {}).get("hblm", __version__))


def _use(checkpoint: Checkpoint) -> str:
    threshold = checkpoint.config.threshold
    return f"""## Use

```python
import hblm

model = hblm.load("OWNER/NAME")  # this page's name, or a folder
model.predict(["a text"])
```

```
python -m hblm.predict checkpoint=OWNER/NAME input=texts.csv output=labels.jsonl
```

A node is predicted from a score of {threshold} on. A predicted node brings its ancestors
(`consistency=raise`). The weights are safetensors, the other files JSON: loading runs no code from here."""


def _scores(scores: Mapping[str, Any] | None) -> str:
    if scores is None:
        return "## Scores\n\nThe run's result was not at hand when this card was written."
    rows = [("all", scores["overall"]), *((str(row["level"]), row) for row in scores["per_level"])]
    lines = ["| level | micro-F1 | macro-F1 | labels |", "|---|---|---|---|"]
    for level, row in rows:
        micro, macro = (f"{100 * row[key]:.2f}" for key, _ in _METRICS)
        lines.append(f"| {level} | {micro} | {macro} | {row['support']:,} |")
    note = "Macro-F1 is the mean over all nodes, 0 for a node without support and prediction."
    return "\n".join(["## Scores on the test split", "", *lines, "", note])


def _settings(checkpoint: Checkpoint, result: Mapping[str, Any] | None) -> str:
    choices = checkpoint.config.choices()
    chosen = ", ".join(f"{group}={choices[group]}" for group in _SETTINGS if choices.get(group))
    trainer = checkpoint.config.trainer
    lines = [
        "## Settings",
        "",
        f"- {chosen}",
        f"- learning rate {trainer.learning_rate:g}, batch size {trainer.batch_size}, at most "
        f"{trainer.epochs} epochs" + (f", best epoch {result['best_epoch']}" if result else ""),
        f"- encoder {'trained' if checkpoint.config.encoder.trainable else 'frozen'}, run id "
        f"`{checkpoint.meta['run_id'][:16]}`; `hblm.json` has every setting",
    ]
    return "\n".join(lines)


def _limits(checkpoint: Checkpoint) -> str:
    lines = [
        f"- A text is cut to {checkpoint.config.encoder.max_length} tokens.",
        "- The labels are those of the tree in `taxonomy.json`; a text on another subject gets some too.",
        "- Scores hold for texts like those of the dataset. Other languages and styles were not tested.",
        *_rare(checkpoint),
        "- This page states no licence. The dataset and the encoder have licences of their own.",
    ]
    return "\n".join(["## Limits", "", *lines])


def _rare(checkpoint: Checkpoint) -> list[str]:
    counts = checkpoint.meta.get("training_counts")
    if not counts:
        return []
    few = sum(count < 10 for count in counts["positives"])
    share = f"{few:,} of {len(checkpoint.taxonomy):,} nodes"
    return (
        [f"- {share} have fewer than 10 training documents; their predictions are unreliable."] if few else []
    )
