"""Folders of a model hub: getting one by its id, and writing one to upload."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hblm.errors import CheckpointError, ConfigError
from hblm.files import sha256_file
from hblm.inference.exports.model_card import model_card
from hblm.json_files import SEAL, sealed
from hblm.runs.checkpoint import (
    COPY_AGAIN,
    DECISIONS,
    ENCODER,
    META,
    ONNX,
    ONNX_DATA,
    SUMS,
    TAXONOMY,
    WEIGHTS,
    Checkpoint,
)

README = "README.md"
_PLACES = ("path", "model_name", "init_from", "taxonomy", "label_names")  # keys of hblm.json; and each *_dir
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", re.ASCII)
_FETCHED = (  # the files of a checkpoint and of an exported folder, and no other: no code, no pickle
    *(
        META,
        WEIGHTS,
        TAXONOMY,
        f"{ENCODER}/*.json",
        f"{ENCODER}/*.txt",
        f"{ENCODER}/*.model",
        DECISIONS,
    ),
    *(ONNX, ONNX_DATA, "config.json", "tokenizer.json", "tokenizer_config.json"),
)


def local_folder(folder_or_id: str, revision: str | None = None) -> Path:
    """Return a folder, or the local copy of a model on the hub, which is downloaded where it is not there.

    Args:
        folder_or_id: a folder, or owner/name, or owner/name@revision. A folder of that name comes first.
        revision: a branch, tag or commit of the hub; None for the newest.

    Raises:
        CheckpointError: the hub cannot be reached, or has no such model or revision.
        ConfigError: the name has a revision, and another argument gives one too.
    """
    folder = Path(folder_or_id)
    is_path = not _HUB_ID.fullmatch(folder_or_id) or folder_or_id.startswith(".")
    if is_path or folder.exists() or folder.parent.is_dir():  # a misspelt folder is not sought on the hub
        return folder
    import huggingface_hub
    import huggingface_hub.errors as hub

    name, _, inline = folder_or_id.partition("@")
    if revision and inline:
        raise ConfigError(
            f"revision={revision} and checkpoint={folder_or_id} give a revision each; leave one of them out"
        )
    wanted = revision or inline or None
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=wanted, allow_patterns=[*_FETCHED]))
    except hub.LocalEntryNotFoundError:  # a kind of FileNotFoundError, so it comes first
        why = "the hub cannot be reached, and the model is not in its local cache"
    except hub.GatedRepoError:
        why = "its owner grants access on request; ask on its page, then run `hf auth login`"
    except hub.RevisionNotFoundError:
        why = "the hub has the model, but no such revision; give one of its tags or commits"
    except (hub.RepositoryNotFoundError, hub.HFValidationError):
        why = "the hub has no such model, or it is a private one: run `hf auth login`"
    except (OSError, ValueError, RuntimeError) as error:
        why = f"cannot be downloaded: {' '.join(str(error).split()):.300}"
    raise CheckpointError(f"checkpoint={folder_or_id} is not a folder, and as a model on the hub: {why}")


def write_hub_folder(folder: Path, checkpoint: Checkpoint, result: Mapping[str, Any] | None) -> None:
    """Fill an empty folder with a copy of a checkpoint and a model card.

    hblm.json names folders of this machine, such as the dataset's: of each only the last part is kept.

    Args:
        folder: empty.
        checkpoint: the checkpoint.
        result: of its run, for the card; None where it is not there.

    Raises:
        CheckpointError: the weights are not those that were written.
    """
    sums = checkpoint.meta.get(SUMS)
    if sums is None:
        raise CheckpointError(
            f"{checkpoint.folder} has no sha256 of its files (an early version made it); train it again"
        )
    for name, expected in sums.items():
        target = folder / name
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.folder / name, target)
        if sha256_file(target) != expected:
            raise CheckpointError(f"{checkpoint.folder / name}: not the file that was written; {COPY_AGAIN}")
    decisions = checkpoint.folder / DECISIONS
    if decisions.is_file():
        shutil.copyfile(decisions, folder / decisions.name)
    write_meta(folder, {**checkpoint.meta, "export": {"to": "hub_folder"}})
    (folder / README).write_text(model_card(checkpoint, result), encoding="utf-8")


def write_meta(folder: Path, meta: Mapping[str, Any]) -> None:
    """Write hblm.json, sealed, without folders of this machine."""
    content = {name: value for name, value in without_places(meta).items() if name != SEAL}
    text = json.dumps(sealed(content), indent=1, ensure_ascii=False, allow_nan=False)
    (folder / META).write_text(text + "\n", encoding="utf-8")


def without_places(value: Any, key: str = "") -> Any:
    """Return JSON values in which each absolute path of a key for places is replaced by its last part."""
    if isinstance(value, dict):
        return {name: without_places(each, name) for name, each in value.items()}
    if isinstance(value, list):
        return [without_places(each, key) for each in value]
    is_place = isinstance(value, str) and (key in _PLACES or key.endswith("_dir"))
    if is_place and (value.startswith(("/", "~", "\\")) or re.match(r"[A-Za-z]:[\\/]", value)):
        return re.split(r"[\\/]", value.rstrip("\\/"))[-1] or "."
    return value
