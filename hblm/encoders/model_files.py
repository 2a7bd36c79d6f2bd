"""Files of an encoder in a local folder: which are needed, their hashes, the shapes of weights. No torch."""

from __future__ import annotations

import functools
import json
import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from hblm.errors import CheckpointError, ConfigError
from hblm.files import require_file, sha256_once, sha256_text
from hblm.json_files import canonical_json

CONFIG, TOKENIZER, _TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"
# Files from which transformers builds a fast tokenizer; vocabularies only if tokenizer.json is missing.
_TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")
_VOCABULARY_FILES = ("*vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")

# Keys that cannot change a result, by file. A doubtful key is not listed: its values then only give separate
# runs, whereas a wrongly listed key would make different runs one.
_INERT = {
    CONFIG: (
        *("_name_or_path", "_commit_hash", "transformers_version"),  # provenance; overwritten or never read
        *("dtype", "torch_dtype"),  # of the stored weights; encoders are loaded in float32
    ),
    _TOKENIZER_CONFIG: (
        *("name_or_path", "tokenizer_file", "is_local", "local_files_only"),  # overwritten by loading
        "special_tokens_map_file",  # provenance; never read
        "chat_template",  # not used for documents
    ),
    # Documents are truncated to encoder.max_length and padded by `collate`. The directions of truncation and
    # padding, and the padding token, are used, so they are not listed.
    TOKENIZER: (
        *("truncation.max_length", "truncation.strategy", "truncation.stride"),
        *("padding.strategy", "padding.pad_to_multiple_of", "padding.pad_id", "padding.pad_type_id"),
    ),
}

_SINGLE, _SHARDED = "model.safetensors", "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")  # loading a pickle can run code
_POINTER = b"version https://git-lfs.github.com/spec/"


def acting_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an encoder's configuration without those that cannot change a result."""
    acting: dict[str, Any] = _without_inert(dict(values), CONFIG)
    return acting


def require_model(model_name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").exists() and not (folder / CONFIG).exists():
        raise ConfigError(
            f"encoder.model_name={model_name}: {folder} has an adapter without its base model; merge the two"
        )
    if not (folder / CONFIG).is_file():
        raise ConfigError(f"encoder.model_name={model_name}: {folder} has no config.json{_listing(folder)}")
    _weight_files(folder)
    for file in filter(Path.exists, folder.iterdir()):
        if not file.is_dir():
            require_file(file)  # transformers opens any file with a name that it knows
    for file in (folder / CONFIG, *_tokenizer_files(folder), *_weight_files(folder)):
        try:
            with file.open("rb") as stream:
                start = stream.read(len(_POINTER))
        except OSError as error:
            raise ConfigError(
                f"encoder.model_name={model_name}: {file} cannot be read: {error.strerror}"
            ) from None
        if start == _POINTER:
            raise ConfigError(
                f"encoder.model_name={model_name}: {file} is a Git LFS pointer, not the file itself; run "
                f"`git lfs pull` in {folder}"
            )


def _weight_files(folder: Path) -> list[Path]:
    """Return the files of the weights: one, or the shards of an index.

    Raises:
        ConfigError: there are none, or only pickles, or the index is damaged.
    """
    if (folder / _SINGLE).is_file():
        return [folder / _SINGLE]
    index = folder / _SHARDED
    if not index.is_file():
        pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
        if pickles:
            raise ConfigError(
                f"{folder}: its weights are pickles ({', '.join(pickles[:3])}), which may hold code and are "
                f"never loaded; give {_SINGLE}: where you trust them, transformers' save_pretrained writes it"
            )
        raise ConfigError(f"{folder}: no model weights ({_SINGLE} or {_SHARDED}){_listing(folder)}")
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        are_beside = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        are_beside = False
    if not are_beside or not names:
        raise ConfigError(
            f"{index}: not an index of *.safetensors files in the same folder; copy the model again"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder}: {_SHARDED} names {', '.join(missing)}, not there; copy them too")
    return [folder / name for name in names]


def weight_shapes(folder: Path | None, weights: Path | None) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of an encoder's stored tensors by name, from the headers of their files.

    Args:
        folder: the encoder's; None for a hub model, of which None is returned.
        weights: the weights of a whole checkpoint; None where the encoder's weights are in `folder`.

    Raises:
        SafetensorError, OSError: a file in the folder is damaged.
        CheckpointError: the weights of the checkpoint are damaged.
    """
    if folder is None:
        return None
    if weights is None:
        files = _weight_files(folder)
        return {name: shape for file in files for name, shape in _shapes_in(file).items()}
    try:
        shapes = _shapes_in(weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{weights}: cannot be read: {error}") from None
    prefix = "encoder."
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "np") as stored:
        return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118


def _listing(folder: Path) -> str:
    """Return the end of a message with the names in a folder."""
    names = sorted(path.name for path in folder.iterdir())
    return (
        f"; it holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "; it is empty"
    )


def weights_sha256(folder: Path) -> str:
    """Return the sha256 of the weights; of shards, that of their hashes in the order of their names."""
    hashes = [content_sha256(path) for path in _weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else sha256_text("\n".join(hashes))


def tokenizer_sha256(folder: Path) -> str:
    """Return the sha256 of the names and hashes of the tokenizer's files."""
    return sha256_text("\n".join(f"{file.name} {content_sha256(file)}" for file in _tokenizer_files(folder)))


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the tokenizer's files in the order of their names."""
    patterns = [*_TOKENIZER_FILES, *([] if (folder / TOKENIZER).is_file() else _VOCABULARY_FILES)]
    names = sorted(name for name in os.listdir(folder) if any(fnmatch(name, pattern) for pattern in patterns))
    return [folder / name for name in names if (folder / name).is_file()]


def content_sha256(path: Path) -> str:
    """Return a file's sha256; of JSON, that of its values without the inert keys."""
    stat = path.stat()
    return _hash_once(path.absolute(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, changed: int) -> str:
    """Hash a file once for each of its states: a gigabyte takes seconds, and each cell of a sweep asks."""
    if path.suffix == ".json":
        try:
            return sha256_text(canonical_json(_without_inert(json.loads(path.read_bytes()), path.name)))
        except (ValueError, RecursionError):
            pass  # loading the file reports what is wrong
    return sha256_once(path)


def _without_inert(tree: Any, name: str) -> Any:
    """Remove the inert keys from a JSON file's values."""
    for key in _INERT.get(name, ()):
        section, _, last = key.rpartition(".")
        node = tree.get(section) if section and isinstance(tree, dict) else tree
        if isinstance(node, dict):
            node.pop(last, None)
    return tree
