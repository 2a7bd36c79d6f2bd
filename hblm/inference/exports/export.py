"""`python -m hblm.export`: a stored model as an ONNX folder, or as a folder for a model hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hblm.config.export import ExportConfig
from hblm.console import log
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.files import new_folder, remove_stale
from hblm.inference.exports.hub import write_hub_folder
from hblm.inference.inputs import home_of
from hblm.json_files import read_object
from hblm.runs import paths
from hblm.runs.checkpoint import META, Checkpoint

if TYPE_CHECKING:
    from hblm.inference.predictor import Member


def run(config: ExportConfig) -> None:
    """Write the folder, under a temporary name until it is whole.

    Raises:
        CheckpointError: a checkpoint is damaged, or is an exported folder already, or two do not match.
        ConfigError: a key does not apply to these checkpoints, the output folder is there, or a package that
            writes ONNX is not installed.
        DataError: the result to describe is damaged, or of another training.
    """
    from hblm.inference.predictor import open_members  # loads torch, which takes seconds

    members = open_members(config.models)
    for member in members:
        if member.checkpoint.is_onnx:
            raise CheckpointError(
                f"{member.checkpoint.folder} is an exported folder; give the checkpoint of it"
            )
    output = output_of(config, members)
    _require_free(output, [member.checkpoint for member in members], force=config.force)
    paths.require_writable(output.parent)
    remove_stale(output.parent)
    if config.to == "hub_folder":
        checkpoint = members[0].checkpoint
        result = _result_of(checkpoint, config.result)
        with new_folder(output) as folder:
            write_hub_folder(folder, checkpoint, result)
        print(f"hub folder  {output}")
        print(f"upload it   hf upload OWNER/NAME {output}")
        return
    _require_onnx()
    from hblm.inference.exports.onnx import write_onnx_folder

    log.info("tracing the model takes a minute or more")
    with new_folder(output) as folder:
        write_onnx_folder(folder, config, members)
    print(f"onnx        {output}")
    print(f"try it      python -m hblm.predict checkpoint={output} input=FILE")


def output_of(config: ExportConfig, members: list[Member]) -> Path:
    """Return the folder to write: OUT/exports/NAME-onnx for OUT/checkpoints/NAME, else under ./outputs."""
    if config.output is not None:
        return Path(config.output)
    first = members[0].checkpoint
    kind = {"onnx": "onnx-int8" if config.int8 else "onnx", "hub_folder": "hub"}[config.to]
    several = f"-and-{len(members) - 1}-more" if len(members) > 1 else ""
    return home_of(first.folder) / "exports" / f"{first.meta['name']}{several}-{kind}"


def _require_free(output: Path, checkpoints: Sequence[Checkpoint], *, force: bool) -> None:
    """Refuse an output folder that is there, and even with `force` one that no export wrote.

    Raises:
        ConfigError: with what to write instead.
    """
    for folder in (checkpoint.folder for checkpoint in checkpoints):
        if output.resolve().is_relative_to(folder.resolve()):
            raise ConfigError(
                f"output={output} is the checkpoint {folder}, or lies in it; write another output=FOLDER"
            )
    if not output.exists():
        return
    if not force:
        raise ConfigError(f"{output} exists; write force=true to replace it, or output=FOLDER")
    if not _is_exported(output) or (output / ".git").exists():
        raise ConfigError(f"{output} is not an exported folder, and is not replaced; write output=FOLDER")


def _is_exported(folder: Path) -> bool:
    """Return whether an export wrote a folder."""
    try:
        return "export" in read_object(folder / META)
    except (OSError, ValueError):
        return False


def _result_of(checkpoint: Checkpoint, given: str | None) -> Mapping[str, Any] | None:
    """Return the result of a checkpoint's run; None, with a warning, where it is not beside the checkpoint.

    Raises:
        DataError: the given file is missing, damaged, of another training, or an evaluation's.
    """
    name = f"{checkpoint.meta['name']}.json"
    file = Path(given) if given else home_of(checkpoint.folder) / "results" / name
    try:
        content = read_object(file)
    except FileNotFoundError:
        if given:
            raise DataError(f"result={given} does not exist") from None
        log.warning("the model card has no scores: there is no %s; result=FILE names the run's result", file)
        return None
    except ValueError as error:
        raise DataError(f"{file}: {error}") from None
    if content.get("kind") in ("evaluation", "ensemble"):
        raise DataError(f"{file} is the result of an evaluation; give that of the run: result=FILE")
    if content.get("training") != checkpoint.meta["training"]:
        raise DataError(
            f"{file} is not the result of the training that made {checkpoint.folder}; give result="
        )
    return content


def _require_onnx() -> None:
    """Refuse to start without the packages that write and check ONNX.

    Raises:
        ConfigError: one of them is not installed.
    """
    import importlib.util

    names = ("onnx", "onnxruntime", "onnxscript")
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"to=onnx needs {', '.join(missing)}: pip install 'hblm[onnx]'")
