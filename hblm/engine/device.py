"""The device, the precision and the trackers of a run, by accelerate."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import nn

from hblm.engine.scoring import Scoring
from hblm.errors import ConfigError
from hblm.process import place
from hblm.runs.environment import environment
from hblm.runs.paths import untaken

_TIMEOUT = timedelta(days=1)  # of other ranks while rank 0 prepares data or waits for another run


_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def accelerator(
    device: str,
    precision: str,
    *,
    fallback: str | None = None,
    trackers: Sequence[str] | None = None,
    project_dir: Path | None = None,
    run_name: str = "run",
) -> Accelerator:
    """Return the accelerator for a device and a precision.

    Args:
        device, precision: as configured.
        fallback: the precision to use where the device has no fp16.
        trackers: by name; they log under `project_dir`, TensorBoard to a folder named after the run.
        project_dir: of the trackers.
        run_name: the run's name.

    Raises:
        ConfigError: a device that is not available, fp16 without a GPU, a tracker that is not installed.
    """
    gpu = _uses_gpu(device)
    precision = _resolve(precision, gpu, fallback)
    _require_installed(trackers or ())
    AcceleratorState._reset_state(True)  # runs of one process may differ in precision and device
    try:
        return Accelerator(
            # without cpu=True accelerate starts no process group on a CPU
            cpu=device == "cpu" or (place().size > 1 and not gpu),
            mixed_precision={"fp32": "no"}.get(precision, precision),
            log_with=[
                _TensorBoard(untaken(Path(project_dir or ".") / run_name)) if name == "tensorboard" else name
                for name in trackers or ()
            ]
            or None,
            project_dir=project_dir,
            kwargs_handlers=[
                # a view of weight 0 leaves its branch without gradients
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=_TIMEOUT),
            ],
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"trackers={trackers} device={device} trainer.precision={precision}: {error}"
        ) from None


def torch_device(device: str) -> torch.device:
    """Return the device of this process for a configured one: auto, cpu, cuda or mps.

    Raises:
        ConfigError: the device is not available.
    """
    if not _uses_gpu(device):
        return torch.device("cpu")
    return torch.device("cuda" if torch.cuda.is_available() and device != "mps" else "mps")


def dtype_of(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of products for a configured precision: float32, bfloat16 or float16.

    Raises:
        ConfigError: fp16 without a GPU.
    """
    return _TYPES[_resolve(precision, device.type != "cpu", None, key="precision")]


def name_of(dtype: torch.dtype) -> str:
    """Return fp32, bf16 or fp16 for a type of products."""
    return next(name for name, each in _TYPES.items() if each == dtype)


def _uses_gpu(device: str) -> bool:
    """Return whether the configured device is a GPU, of NVIDIA or Apple, on this machine.

    Raises:
        ConfigError: the device is not available, or not for this number of processes.
    """
    here = place()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"device={device} is not available here; write device=auto or device=cpu")
    if device == "mps" and here.size > 1:
        raise ConfigError(
            "device=mps trains with one process; leave trainer.processes out, or write device=cpu"
        )
    if device == "cpu":
        return False
    if available["cuda"] and here.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{here.local_size} processes on this machine need a GPU each, and there are "
            f"{torch.cuda.device_count()}; lower trainer.processes"
        )
    return available["cuda"] or (available["mps"] and here.size == 1)


def _resolve(precision: str, gpu: bool, fallback: str | None, key: str = "trainer.precision") -> str:
    """Return the precision to use for a configured one: fp32, bf16 or fp16; `key` is named in a message.

    Raises:
        ConfigError: fp16 without a GPU and without `fallback`.
    """
    if precision == "fp16" and not gpu:
        if not fallback:
            raise ConfigError(f"{key}=fp16 needs a GPU, and there is none; write bf16, fp32 or auto")
        precision = fallback
    if precision == "auto":
        return "bf16" if has_fast_bf16(gpu) else "fp32"
    return precision


def _require_installed(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed, which accelerate would leave out without an error."""
    for tracker in trackers:
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"trackers=[{tracker}] is not installed: pip install {tracker}, or all with 'hblm[trackers]'"
            )


class _TensorBoard(TensorBoardTracker):  # type: ignore[misc]
    """A tracker with one folder for each run, which also has the run's settings.

    Accelerate's own tracker logs all runs of a project to one folder, as one curve, and their settings to
    other folders.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__(folder.name, folder.parent)

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Store the run's settings as its hyperparameters."""
        if place().rank == 0:
            self.writer.add_hparams(values, metric_dict={}, run_name=".")
            self.writer.flush()


def resolved_precision(accelerator: Accelerator) -> str:
    """Return the precision in use: fp32, bf16 or fp16."""
    return {"no": "fp32"}.get(accelerator.mixed_precision, str(accelerator.mixed_precision))


def seed_everything(seed: int, device: torch.device) -> None:
    """Seed all random generators, and use deterministic kernels on a GPU."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(device.type == "cuda", warn_only=True)


def has_fast_bf16(gpu: bool) -> bool:
    """Return whether this device multiplies bf16 natively.

    The environment variable HBLM_BF16=0 or 1 overrides the answer: tests use it.
    """
    if forced := os.environ.get("HBLM_BF16"):
        return forced == "1"
    if gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def device_name(device: torch.device) -> str:
    """Return a GPU's name, else cpu or mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment_entry(accelerator: Accelerator, scoring: Scoring) -> dict[str, Any]:
    """Return the result's entry of code, versions, device and precision."""
    device = accelerator.device
    return {
        **environment(),
        "device": device_name(device),
        "device_kind": device.type,
        "precision": resolved_precision(accelerator),
        "processes": accelerator.num_processes,
        "threads": torch.get_num_threads(),
        "eval_batch_size": scoring.batch_size,
    }


@contextlib.contextmanager
def untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Restore the random generators and the model's mode when the block is left."""
    training = model.training
    generators: list[Any] = [torch] if device.type == "cpu" else [torch, getattr(torch, device.type)]
    states = [generator.get_rng_state() for generator in generators]
    try:
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_rng_state(state)
        model.train(training)
