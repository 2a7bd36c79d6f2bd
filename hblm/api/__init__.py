"""The programs as functions for Python: they return typed results and raise `hblm.errors.HblmError`."""

from hblm.api.evaluation import evaluate as evaluate
from hblm.api.preparation import prepare as prepare
from hblm.api.results import EvaluateResult as EvaluateResult
from hblm.api.results import PrepareResult as PrepareResult
from hblm.api.results import SweepCell as SweepCell
from hblm.api.results import SweepResult as SweepResult
from hblm.api.results import TrainResult as TrainResult
from hblm.api.sweeps import plan_sweep as plan_sweep
from hblm.api.sweeps import sweep as sweep
from hblm.api.sweeps import sweep_status as sweep_status
from hblm.api.training import train as train
