"""The programs of the package: name, configuration, summary and examples of each."""

from __future__ import annotations

from dataclasses import dataclass

from hblm.config.aggregate import AggregateConfig
from hblm.config.evaluate import EvaluateConfig
from hblm.config.prepare import PrepareConfig
from hblm.config.serve import ServeConfig
from hblm.config.sweep import SweepConfig
from hblm.config.train import TrainConfig

SWEPT = ("train",)  # programs whose runs a sweep file can cross


@dataclass(frozen=True)
class Program:
    """A program of the package: `python -m hblm.{name}`, with conf/{name}.yaml as its primary file."""

    name: str
    schema: type
    summary: str
    examples: tuple[str, ...]
    usage: str = "[GROUP=OPTION ...] [KEY=VALUE ...]"
    by_hydra: bool = True  # Hydra starts it, with its flags and -m


TRAIN = Program(
    name="train",
    schema=TrainConfig,
    summary="Train one model, test it, and write its checkpoint and result.",
    examples=(
        "python -m hblm.train experiment=quickstart",
        "python -m hblm.train dataset=wos direction=bottom_up",
        "python -m hblm.train dataset=docstrings encoder=minilm pooling=mean film=logit",
        "python -m hblm.train dataset=custom dataset.path=DIR encoder.model_name=FOLDER_OR_HUB_ID",
        "python -m hblm.train -m dataset=aapd,wos direction=top_down,bottom_up seed=1,2,3",
    ),
)

EVALUATE = Program(
    name="evaluate",
    schema=EvaluateConfig,
    summary="Score a trained checkpoint, or an ensemble of two; every setting comes from them.",
    examples=(
        "python -m hblm.evaluate checkpoint=outputs/checkpoints/NAME",
        "python -m hblm.evaluate checkpoint=DIR split=val threshold=0.4 consistency=cap",
        "python -m hblm.evaluate checkpoint=DIR joint_eval_view=all predictions=true",
        "python -m hblm.evaluate checkpoint=[TOP_DOWN_DIR,BOTTOM_UP_DIR] ensemble_weight=auto",
        "python -m hblm.evaluate checkpoint=DIR dataset.path=WHERE_THE_DATA_LIES_NOW",
        "python -m hblm.evaluate checkpoint=DIR dataset.path=OTHER_LABELLED_DATA other_data=true",
    ),
)

PREPARE = Program(
    name="prepare",
    schema=PrepareConfig,
    summary="Prepare a dataset: data/<name>/ with taxonomy, train/val/test, manifest.json and report.md.",
    examples=(
        "python -m hblm.prepare dataset=docstrings",
        "python -m hblm.prepare dataset=wos raw=DOWNLOADED_FOLDER_OR_ZIP",
        "python -m hblm.prepare dataset=rcv1v2 raw=FOLDER dataset.prepare.lyrl=OTHER_FOLDER",
        "python -m hblm.prepare dataset=custom raw=news.csv encoder=minilm",
        "python -m hblm.prepare dataset=custom raw=FOLDER dataset.prepare.labels=topic dataset.path=DIR",
        "python -m hblm.prepare dataset=aapd check=true",
    ),
)

AGGREGATE = Program(
    name="aggregate",
    schema=AggregateConfig,
    summary="Tables, tests and figures from any set of results; nothing is averaged over but seeds.",
    examples=(
        "python -m hblm.aggregate",
        "python -m hblm.aggregate results=outputs rows=[joint_variant,direction] columns=[dataset] "
        "metric=test.fused.macro_f1",
        "python -m hblm.aggregate metric=[test.micro_f1,test.macro_f1,test.violation_rate,seconds.train]",
        "python -m hblm.aggregate 'where=[dataset:wos,method:flat|dual]' compare=[flat,dual] figures=all",
        "python -m hblm.aggregate test=documents metric=test.fused.macro_f1",
        "python -m hblm.aggregate results=[outputs,/other/outputs] name=both frame=parquet",
    ),
)

SERVE = Program(
    name="serve",
    schema=ServeConfig,
    summary="Predict over HTTP: POST /predict, GET /health, /taxonomy, /metrics, /docs; see docs/serve.md.",
    examples=(
        "python -m hblm.serve checkpoint=outputs/checkpoints/NAME",
        "python -m hblm.serve checkpoint=DIR port=0 threshold=0.4 access_log=true",
        "python -m hblm.serve checkpoint=DIR host=0.0.0.0 queue=4096 max_texts=1024",
    ),
)

SWEEP = Program(
    name="sweep",
    schema=SweepConfig,
    summary="""Run a grid of training runs that resumes: plan, submit, status, watch, logs, cancel, retry.

  plan    the cells: done, running, pending, failed, and the hours left by the results at hand
  submit  check and freeze every cell, start them in the background, and return; again: go on
  status  the state of each cell; exit code 1 where a cell failed
  watch   progress until the end, then the table; exit code 1 where a cell is not done
  logs    the last lines of failed cells' logs, or of cell=NUMBER
  cancel  stop all cells, or cell=NUMBER
  retry   failed cells again, or those of cause=time,memory ...""",
    examples=(
        "python -m hblm.sweep plan sweep=main",
        "python -m hblm.sweep submit sweep=smoke",
        "python -m hblm.sweep submit sweep=main dataset=wos,aapd trainer.batch_size=16 devices=[0,1]",
        "python -m hblm.sweep watch sweep=main",
        "python -m hblm.sweep logs sweep=main cell=12",
        "python -m hblm.sweep retry sweep=main cause=time time=600",
    ),
    usage="VERB sweep=GRID [KEY=VALUE ...]; plan and submit take the keys of hblm.train as well",
    by_hydra=False,
)
