"""Sweep files: axes, rules, refusals, and the cells; and composition by Composer and by Hydra."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from grids import write_grid

from hblm.cli import check, main
from hblm.cli.programs import TRAIN as TRAIN
from hblm.config.compose import Composer, compose
from hblm.config.grid import Cell, axes_of, cells_of, read_sweep
from hblm.config.groups import OptionGroups, read_yaml
from hblm.config.schema import read_tree
from hblm.config.sweep import Cluster
from hblm.config.train import Film, TrainConfig
from hblm.errors import ConfigError
from hblm.sweep.plan import make_plan

SHIPPED = sorted(OptionGroups().groups["sweep"])
SHARED = Composer("train", TrainConfig)  # of the shipped options, composed once each


def cells(*overrides: str, name: str = "tiny") -> list[str]:
    option_groups = OptionGroups("mine")
    sweep = read_sweep(name, option_groups)
    return [" ".join(cell.overrides) for cell in cells_of(sweep, axes_of(sweep, option_groups, overrides))]


def refusal(axes: dict[str, str], node: str = "") -> str:
    write_grid("data/x", axes, node)
    with pytest.raises(ConfigError) as caught:
        read_sweep("tiny", OptionGroups("mine"))
    return str(caught.value)


def test_axes_cross_and_the_last_one_varies_fastest():
    write_grid("data/x", {"film": "logit,none", "seed": "range(1,3)"})
    assert cells() == ["film=logit seed=1", "film=logit seed=2", "film=none seed=1", "film=none seed=2"]


def test_an_override_takes_the_place_of_its_axis():
    write_grid("data/x", {"film": "logit,none", "seed": "choice(1,2)"})
    assert cells("seed=7", "pooling=max,mean") == [
        f"film={film} seed=7 pooling={pooling}" for film in ("logit", "none") for pooling in ("max", "mean")
    ]


def test_a_glob_names_options():
    write_grid("data/x", {"film": "glob(*)"})
    assert cells() == ["film=logit", "film=multi_hot", "film=none", "film=sigmoid"]


def test_excluded_cells_are_left_out():
    write_grid(
        "data/x",
        {"method": "flat,dual", "film.film_scale": "0.2,1.0", "seed": "1,2,3"},
        "  exclude:\n    - {method: dual, seed: [1, 3]}\n    - {film.film_scale: 1.0, method: flat}",
    )
    assert cells() == [
        *(f"method=flat film.film_scale=0.2 seed={seed}" for seed in (1, 2, 3)),
        "method=dual film.film_scale=0.2 seed=2",
        "method=dual film.film_scale=1.0 seed=2",
    ]


def test_zipped_axes_advance_together():
    write_grid(
        "data/x", {"head": "mlp,linear", "seed": "1,2", "pooling": "max,mean"}, "  zip: [[seed, pooling]]"
    )
    assert cells() == [
        f"head={head} seed={seed} pooling={pooling}"
        for head in ("mlp", "linear")
        for seed, pooling in ((1, "max"), (2, "mean"))
    ]
    with pytest.raises(ConfigError, match="seed has 3, pooling has 2"):
        cells("seed=1,2,3")


@pytest.mark.parametrize(
    ("axes", "node", "expected"),
    [
        ({"seed": "[1,2,3]"}, "", "hydra.sweeper.params.seed is a YAML list"),
        ({"seed": "[1,2,3]"}, "", "write seed: 1,2,3"),
        ({"seed": "1,2"}, "  exlude: []", "sweep.exlude=[] is not a key; did you mean sweep.exclude?"),
        ({"seed": "1,2"}, "  exclude: [{sed: 1}]", "names sed, which is not an axis; did you mean seed?"),
        ({"seed": "1,2"}, "  exclude: [{seed: 3}]", "seed is never 3"),
        ({"seed": "1,2"}, "  exclude: [seed]", "is not a mapping such as"),
        ({"seed": "1,2"}, "  zip: [seed]", "is not a list of axes"),
        ({"seed": "1,2"}, "  zip: [[seed, hed]]", "names hed, which is not an axis"),
        ({"seed": "1,2"}, "  zip: [[seed, seed]]", "names seed twice"),
        ({"seed": "1,2"}, "  ensemble_weight: 0.5", "pairs cells by direction or method"),
        ({"seed": "1,(2"}, "", "cannot be read"),
    ],
)
def test_a_fault_of_a_sweep_file_is_named(axes, node, expected):
    found = refusal(axes, node)
    assert expected in found
    assert "tiny.yaml" in found


def require_sound(name: str, found: Iterable[Cell]) -> None:
    for cell in found:
        composed = SHARED.compose([f"sweep={name}", *cell.overrides])
        assert not composed.faults
        assert not composed.config.conflicts()
        # a benchmark's file says how its runs are trained; smoke has the quickstart's settings
        assert bool(composed.config.left_open) == (name == "smoke")
        assert composed.config.method == cell.values.get("method", composed.config.method)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.slow
def test_every_value_of_every_shipped_sweep_composes(name):
    """Cells that differ from the first on one axis."""
    option_groups = OptionGroups()
    sweep = read_sweep(name, option_groups)
    first, *others = cells_of(sweep, axes_of(sweep, option_groups))
    near = [cell for cell in others if len(set(cell.overrides) - set(first.overrides)) == 1]
    assert near
    require_sound(name, [first, *near])
    lines = sweep.file.read_text().splitlines()
    assert lines[0] == "# @package _global_"
    assert lines[1].startswith("# ")


@pytest.mark.slow
def test_every_cell_of_every_shipped_sweep_composes():
    option_groups = OptionGroups()
    for name in SHIPPED:
        sweep = read_sweep(name, option_groups)
        require_sound(name, cells_of(sweep, axes_of(sweep, option_groups)))


def test_the_main_table_is_what_the_project_compares():
    option_groups = OptionGroups()
    sweep = read_sweep("main", option_groups)
    assert len(list(cells_of(sweep, axes_of(sweep, option_groups)))) == 5 * 6 * 5


OWN = {  # options of a user's own, as files of --config-dir
    "film/strong": "film_scale: 0.5\n",
    "film/other": "propagation_method: logit\n",
    "trainer/two": "defaults: [small, _self_]\nepochs: 2\nbatch_size: null\n",
    "dataset/mine": "name: mine\npath: null\n",
    "dataset/bare": "name: bare\nprepare: {limit: 3, columns: {a: 1}}\n",
    "experiment/some": (
        "# @package _global_\ndefaults:\n  - override /film: strong\n"
        "head:\n  dropout: ${threshold}\ninit_from: ${output_dir}/x\n"
    ),
}


@pytest.fixture
def own() -> str:
    for name, content in OWN.items():
        file = Path("mine", f"{name}.yaml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return "mine"


KEYS = ["seed=3", "threshold=0.25", "output_dir=z", "data_dir=d", "trainer.epochs=3", "trainer.epochs=null"]
KEYS += ["film.film_scale=0.7", "film.detach_parent_signal=false", "head.dropout=0.3", "trackers=[mlflow]"]
KEYS += ["dataset.name=y", "dataset.path=p", "trackers=[]", "init_from='a b'", "seed=abc"]
KEYS += ["cache_dir=${data_dir}/c"]
BASES = [["dataset=wos", "method=dual"], ["dataset=mine", "film=strong"], ["dataset=custom", "trainer=two"]]
BASES += [["dataset=bare", "experiment=some"], ["dataset=custom", "experiment=recommended", "film=other"]]
BASES += [["dataset=bare", "dataset.prepare={limit: 4}"], ["dataset=bare", "+dataset.prepare.columns.b=2"]]


@pytest.mark.parametrize("base", BASES, ids=" ".join)
def test_keys_set_after_composition_are_as_those_that_hydra_sets(base, own):
    """The short way of a grid's cells and Hydra's own agree, in values and in faults."""
    search_path = OptionGroups(own).search_path
    composer = Composer("train", TrainConfig, search_path)
    keys = random.Random(" ".join(base)).sample(KEYS, 8)
    fast = composer.compose([*base, *keys])
    whole = composer._hydra((*base, *keys))
    assert fast.config == whole.config
    assert {str(fault) for fault in fast.faults} == {str(fault) for fault in whole.faults}
    assert fast.choices == whole.choices


def trained_with(*argv: str) -> TrainConfig:
    """Return the configuration that the program gets from Hydra."""
    seen: list[TrainConfig] = []
    main.run_program(TRAIN, seen.append, ["--config-dir", "mine", *argv])
    (config,) = seen
    return config


GIVEN = [
    "dataset=custom",
    "dataset.path=data/x",
    "film=strong",
    "film.detach_parent_signal=false",
    "device=cpu",
]


def test_check_plan_and_run_compose_alike(own, learnable):
    """A user's option with one key: its other keys are the defaults, and can be set."""
    check.check(TRAIN, ["--config-dir", own, *GIVEN])
    write_grid("data/x", {"film": "strong", "film.detach_parent_signal": "true,false"})
    plan = make_plan("tiny", [], own, prepare=False)
    config = trained_with(*GIVEN)
    assert config.film == Film(film_scale=0.5, detach_parent_signal=False)
    assert [cell.config.film for cell in plan.cells] == [Film(film_scale=0.5), config.film]
    composed = Composer("train", TrainConfig, OptionGroups(own).search_path).compose(GIVEN)
    assert composed.config == config
    assert trained_with(*GIVEN, "film.film_scale=0.6").film.film_scale == 0.6


@pytest.mark.parametrize(
    ("content", "given", "expected"),
    [
        ("film_scale: 0.5", "film.film_scale=abc", ["film.film_scale=abc is not a number of at least 0"]),
        ("film_scale: 0.5", "film=nne", ["film=nne is not one of "]),
        (
            "film_scal: 1\ndetach_parent_signal: 3",
            "seed=1",
            [
                "film/strong.yaml: film.detach_parent_signal=3 is not true or false",
                "film/strong.yaml: film.film_scal=1 is not a key; did you mean film.film_scale?",
            ],
        ),
        (
            "film_scale: 0.5",
            "film.film_scal=1",
            ["film.film_scal=1 is not a key; did you mean film.film_scale?"],
        ),
    ],
)
def test_all_faults_of_an_option_of_ones_own_are_named(own, content, given, expected):
    Path("mine/film/strong.yaml").write_text(content)
    chosen = [] if given.startswith("film=") else ["film=strong"]
    faults = refused_by_train("dataset=wos", *chosen, given).splitlines()
    assert len(faults) == len(expected)
    assert all(fault.startswith(text) for fault, text in zip(faults, expected, strict=True))


def test_a_key_that_an_option_leaves_open_is_required(own):
    """The default of the dataclass must not take the place of ???."""
    for name, content in {"encoder/open": "model_name: ???", "dataset/open": "converter: custom"}.items():
        Path(f"mine/{name}.yaml").parent.mkdir(exist_ok=True)
        Path(f"mine/{name}.yaml").write_text(content)
    missing = refused_by_train("dataset=wos", "encoder=open")
    assert missing == "encoder.model_name= is required with encoder=open"
    check.check(TRAIN, ["--config-dir", "mine", "dataset=wos", "encoder=open", "encoder.model_name=tiny"])
    assert "dataset.path=DIR" in refused_by_train("dataset=open")


def test_composing_does_not_mix_cells_up():
    composer = Composer("train", TrainConfig)
    configs = [composer.compose(["dataset=wos", f"seed={seed}"]).config for seed in (1, 2)]
    assert [config.seed for config in configs] == [1, 2]
    assert composer.compose(["dataset=wos"]).config.seed == 1


def refused_by_train(*argv: str) -> str:
    with pytest.raises(ConfigError) as caught:
        check.check(TRAIN, ["--config-dir", "mine", *argv])
    return str(caught.value)


def test_hydras_multirun_takes_a_sweep_file():
    write_grid("data/x", {"method": "flat,dual", "seed": "1,2"})
    check.check(TRAIN, ["--config-dir", "mine", "-m", "sweep=tiny"])


def test_a_sweep_file_without_m_is_refused():
    write_grid("data/x", {"seed": "1,2"})
    assert "add -m, or write: python -m hblm.sweep submit sweep=tiny" in refused_by_train("sweep=tiny")


@pytest.mark.parametrize("node", ["exclude: [{seed: 1}]", "zip: [[seed, pooling]]"])
def test_what_hydras_sweeper_cannot_do_is_refused(node):
    write_grid("data/x", {"seed": "1,2", "pooling": "max,mean"}, f"  {node}")
    message = refused_by_train("-m", "sweep=tiny")
    assert f"sweep.{node.partition(':')[0]}, which -m cannot do" in message
    assert "python -m hblm.sweep submit sweep=tiny" in message


def test_a_wrong_value_on_a_files_axis_is_found_before_the_start():
    write_grid("data/x", {"method": "flat,duel"})
    assert "duel" in refused_by_train("-m", "sweep=tiny")


@pytest.mark.parametrize(
    ("axes", "expected"),
    [
        ({"sed": "1,2,3"}, "hydra.sweeper.params.sed: sed=1,2,3 is not a key; did you mean seed?"),
        ({"trainer.epoch": "1,2"}, "did you mean trainer.epochs?"),
        ({"methd": "flat,dual"}, "did you mean method?"),
        ({"method": "flat,duel"}, "method=duel is not one of"),
        ({"trainer.epochs": "1,0"}, "trainer.epochs=0 is out of range"),
        ({"predictions": "true,false"}, "predictions= is a key of hblm.evaluate"),
    ],
)
@pytest.mark.slow
def test_a_wrong_axis_is_one_fault_with_its_file_key_and_proposal(
    axes: dict[str, str], expected: str
) -> None:
    write_grid("data/x", {**axes, "pooling": "max,mean"})
    with pytest.raises(ConfigError) as planned:
        make_plan("tiny", [], "mine", prepare=False)
    for message in (str(planned.value), refused_by_train("-m", "sweep=tiny")):
        (fault,) = message.splitlines()
        key = next(iter(axes))
        assert fault.startswith(f"{Path('mine/sweep/tiny.yaml').resolve()}: hydra.sweeper.params.{key}: ")
        assert expected in fault


def test_a_fault_of_many_cells_is_named_once() -> None:
    write_grid(
        "data/x", {"seed": "1,2,3", "trainer.gradient_accumulation": "1,64", "trainer.batch_size": "8"}
    )
    with pytest.raises(ConfigError) as planned:
        make_plan("tiny", [], "mine", prepare=False)
    (fault,) = str(planned.value).splitlines()
    assert fault.startswith(
        "seed=1 trainer.gradient_accumulation=64 and 2 more: trainer.gradient_accumulation=64"
    )


@pytest.mark.slow
def test_a_method_that_a_file_contradicts_is_refused():
    write_grid("data/x", {"method": "flat,top_down", "film": "none,sigmoid"})
    faults = refused_by_train("-m", "sweep=tiny").splitlines()
    assert [line.partition(":")[0] for line in faults] == [
        "method=flat contradicts film=sigmoid",
        "method=top_down contradicts film=none",
    ]
    write_grid("data/x", {"method": "independent,bottom_up"})
    file = Path("mine/sweep/tiny.yaml")
    file.write_text(file.read_text().replace("defaults:", "defaults:\n  - override /film: none"))
    (fault,) = refused_by_train("-m", "sweep=tiny").splitlines()
    assert fault.startswith("method=bottom_up contradicts sweep=tiny: ")


def test_the_launcher_preset_is_submitits():
    cfg = compose("train", ["dataset=wos", "hydra/launcher=slurm"])
    assert cfg.hydra.launcher._target_.endswith("SlurmLauncher")
    assert cfg.hydra.launcher.max_num_timeout == 3


@pytest.mark.parametrize(
    "file", sorted(OptionGroups().groups["cluster"].values()), ids=lambda file: file.stem
)
def test_a_shipped_cluster_has_known_keys(file):
    assert not read_tree(read_yaml(file), Cluster)[1]
    assert file.read_text().startswith("# ")


@pytest.mark.parametrize(
    "values",
    ["range(0,1e9)", "range(0,1000000000)", "range(0,10,1e-9)", "range(0,inf)", "sort(range(0,1e9))"],
)
def test_an_axis_is_refused_by_its_length_before_it_is_made(values):
    assert "at most 10,000 can be run" in refusal({"seed": values})
    write_grid("data/x", {"seed": "1,2"})
    with pytest.raises(ConfigError, match="values; at most 10,000 can be run"):
        cells(f"seed={values}")


def test_a_grid_is_refused_by_the_number_of_its_cells():
    write_grid("data/x", {"seed": "range(0,9000)", "film": "logit,none", "trainer.epochs": "range(1,101)"})
    with pytest.raises(ConfigError, match=r"1,800,000 cells \(9,000 seed x 2 film x 100 trainer.epochs\)"):
        cells()


BOMB = "".join(f"x{at}: &x{at} [{', '.join(f'*x{at - 1}' for _ in range(9)) or 1}]\n" for at in range(1, 10))
ODD_YAML = {
    "nested deeply": "sweep: " + "[" * 100_000,
    "nested by indentation": "".join(f"{' ' * at}a:\n" for at in range(900)),
    "references that unfold": "x0: &x0 1\n" + BOMB,
    "a reference to itself": "sweep: &a [*a]\n",
    "a tag that makes objects": "sweep: !!python/object/apply:os.system [echo]\n",
    "a tab": "sweep:\n\ttable: 1\n",
    "a list": "- 1\n",
    "a number of 5,000 digits": "sweep: " + "9" * 5_000,
    "not UTF-8": b"sweep: \xff",
    "too large": "# " + "x" * 2_000_000,
    "a date that is none": "sweep: 2026-99-99",
}


@pytest.mark.parametrize("kind", ODD_YAML)
@pytest.mark.parametrize("group", ["sweep", "cluster", "film"])
def test_an_odd_yaml_file_is_one_message(kind, group):
    file = Path("mine") / group / "odd.yaml"
    file.parent.mkdir(parents=True)
    content = ODD_YAML[kind]
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    groups = OptionGroups("mine")  # a sweep can be cancelled while a file is edited
    with pytest.raises(ConfigError, match=r"odd.yaml cannot be read: "):
        _ = groups.groups


def test_what_is_modest_in_yaml_is_read():
    file = Path("mine/film/some.yaml")
    file.parent.mkdir(parents=True)
    file.write_text("a: &a {b: 1}\nc: [*a, *a]\n")
    assert read_yaml(file) == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 1}]}
    file.write_text("")
    assert read_yaml(file) == {}
