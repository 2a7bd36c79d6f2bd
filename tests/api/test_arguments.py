"""Arguments of functions: the values that were given, and the faults of a command line."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hypothesis import given
from hypothesis import strategies as st

from hblm.api.arguments import configuration, text_of_value, words_of
from hblm.cli.check import check
from hblm.cli.programs import TRAIN
from hblm.config.compose import parse
from hblm.errors import ConfigError

SCALARS = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9)
SCALARS |= st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


@given(SCALARS | st.lists(SCALARS, max_size=3))
def test_a_value_is_read_as_it_was_given(value):
    if "${" not in str(value):
        assert parse(f"seed={text_of_value(value)}").value() == value


@pytest.mark.parametrize("value", ["null", "True", "1e-3", "12", "a,b", "[x]", "a b", "é", "~", "x: y", ""])
def test_a_text_that_looks_like_another_value_stays_a_text(value):
    override = parse(f"name={text_of_value(value)}")
    assert override.value() == value
    assert not override.is_sweep_override()


def test_options_keys_and_groups_of_keys():
    words = words_of(
        ["film=logit", "data_dir=~/data"],
        {
            "encoder": "minilm",
            "trainer": {"epochs": 3, "learning_rate": np.float32(0.5)},
            "head.dropout": 0.25,
            "trackers": ("tensorboard",),
            "output_dir": Path("~/out put"),
            "seed": np.int64(7),
            "force": True,
            "init_from": None,
        },
    )
    home = os.path.expanduser("~")
    assert words == [
        *("film=logit", f"data_dir={home}/data", "encoder=minilm", "trainer.epochs=3"),
        *("trainer.learning_rate=0.5", "head.dropout=0.25", "trackers=[tensorboard]"),
        *(f'output_dir="{home}/out put"', "seed=7", "force=true", "init_from=null"),
    ]


@pytest.mark.parametrize("dataset", [Path("here/news"), SimpleNamespace(path=Path("here/news"))])
def test_a_dataset_may_be_a_prepared_folder(dataset):
    assert words_of([], {"dataset": dataset}) == ["dataset=custom", "dataset.path=here/news"]
    assert words_of([], {"dataset": "wos"}) == ["dataset=wos"]


def test_values_and_flags_that_are_no_arguments_are_refused():
    for value, why in ((object, "is a type"), (float("nan"), "not a finite number"), ({1}, "is a set")):
        with pytest.raises(ConfigError, match=rf"trainer.epochs=.* {why}"):
            words_of([], {"trainer": {"epochs": value}})
    for override in ("-m", "--help", 3):
        with pytest.raises(ConfigError, match="is no override"):
            words_of([override], {})


def test_faults_are_those_of_the_command_line_all_at_once():
    words = words_of(
        ["film=logt"], {"dataset": "wos", "trainer": {"epochs": "many"}, "foo": 3, "encoder": "tinny"}
    )
    with pytest.raises(ConfigError) as of_command_line:
        check(TRAIN, words)
    with pytest.raises(ConfigError) as of_function:
        configuration(TRAIN, words)
    assert str(of_function.value) == str(of_command_line.value)
    for fault in ("film=logt is not", "trainer.epochs=many is not", "foo=3 is not a key", "encoder=tinny"):
        assert fault in str(of_function.value)


def test_options_of_the_users_own_folder():
    Path("mine/trainer").mkdir(parents=True)
    Path("mine/trainer/short.yaml").write_text("epochs: 7\n")
    config = configuration(TRAIN, ["dataset=wos", "trainer=short"], config_dir="mine")
    assert config.trainer.epochs == 7


def test_composing_changes_nothing_of_the_process_and_works_in_threads():
    def state():
        handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        log = logging.getLogger()
        return [*sys.argv], Path.cwd(), [*log.handlers], log.level, handlers, GlobalHydra.instance().hydra

    before = state()
    with ThreadPoolExecutor(3) as pool:
        configs = pool.map(lambda seed: configuration(TRAIN, ["dataset=wos", f"seed={seed}"]), range(3))
        assert [config.seed for config in configs] == [*range(3)]
    assert state() == before


def test_the_functions_are_part_of_the_package_and_load_no_torch():
    code = "import sys, hblm; hblm.api.train, hblm.api.sweep; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
