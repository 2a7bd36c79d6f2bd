"""The device, the precision and the trackers of a run, by accelerate."""

from __future__ import annotations

import importlib.util
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import TensorBoardTracker
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

from hblm.engine.scoring import Scoring
from hblm.errors import ConfigError
from hblm.process import place
from hblm.runs.environment import environment
from hblm.runs.paths import untaken

_PATIENCE = timedelta(days=1)  # for the first process, which may prepare data or wait for another run


def accelerator(
    device: str,
    precision: str,
    *,
    fallback: str | None = None,
    trackers: list[str] | None = None,
    project_dir: Path | None = None,
    run_name: str = "run",
) -> Accelerator:
    """Return the accelerator for a device and a precision.

    Args:
        device, precision: as configured.
        fallback: the precision to take instead of one that this device does not have.
        trackers: by name; they log under `project_dir`, TensorBoard to a folder named after the run.
        project_dir: of the trackers.
        run_name: the run's.

    Raises:
        ConfigError: a device that is not there, fp16 without a GPU, a tracker that is not installed.
    """
    here = place()
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device, True):
        raise ConfigError(f"device={device} is not available here; write device=auto or device=cpu")
    if device == "mps" and here.size > 1:
        raise ConfigError(
            "device=mps trains with one process; leave trainer.processes out, or write device=cpu"
        )
    if here.size > 1:
        available["mps"] = False
    if device != "cpu" and available["cuda"] and here.local_size > torch.cuda.device_count():
        raise ConfigError(
            f"{here.local_size} processes on this machine need a GPU each, and there are "
            f"{torch.cuda.device_count()}; lower trainer.processes"
        )
    gpu = device != "cpu" and any(available.values())
    if precision == "fp16" and not gpu and fallback:
        precision = fallback
    if precision == "fp16" and not gpu:
        raise ConfigError("trainer.precision=fp16 needs a GPU, and there is none; write bf16, fp32 or auto")
    if precision == "auto":
        precision = "bf16" if _fast_bf16(gpu) else "fp32"
    for tracker in trackers or []:  # accelerate would go on without it
        if importlib.util.find_spec(tracker) is None:
            raise ConfigError(
                f"trackers=[{tracker}] is not installed: pip install {tracker}, or all with 'hblm[trackers]'"
            )
    AcceleratorState._reset_state(True)  # cells of one process may differ in precision and device
    try:
        return Accelerator(
            cpu=device == "cpu" or (here.size > 1 and not gpu),  # else accelerate sees no team on a CPU
            mixed_precision={"fp32": "no"}.get(precision, precision),
            log_with=[
                _TensorBoard(untaken(Path(project_dir or ".") / run_name)) if name == "tensorboard" else name
                for name in trackers or []
            ]
            or None,
            project_dir=project_dir,
            kwargs_handlers=[
                # a view of weight 0 leaves its branch without gradients
                DistributedDataParallelKwargs(find_unused_parameters=True),
                InitProcessGroupKwargs(timeout=_PATIENCE),
            ],
        )
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"trackers={trackers} device={device} trainer.precision={precision}: {error}"
        ) from None


class _TensorBoard(TensorBoardTracker):  # type: ignore[misc]
    """A folder a run, which holds its settings as well.

    Accelerate's own logs all runs of a project to one folder, as one curve, and their settings to others.
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
    """Make what follows a function of the seed; on a GPU this picks deterministic kernels."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(device.type == "cuda", warn_only=True)


def _fast_bf16(gpu: bool) -> bool:
    """Return whether this device multiplies bf16 natively.

    HBLM_BF16=0 or 1 answers in its place, so that tests can run as on another processor.
    """
    if forced := os.environ.get("HBLM_BF16"):
        return forced == "1"
    if gpu:
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def device_name(device: torch.device) -> str:
    """Return a GPU's name, else cpu or mps."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def environment_record(accelerator: Accelerator, scoring: Scoring) -> dict[str, Any]:
    """Return what the numbers were made with and on."""
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
