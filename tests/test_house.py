"""The house as its imports draw it: layers, and which library may be known where."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hblm

PACKAGE = Path(hblm.__file__).parent
CHECKOUT = PACKAGE.parent
LAYERS = [
    {"", "version", "stopping", "errors", "taxonomy", "document", "artifacts", "locks"},
    {
        "schema",
        "config",
        "catalogue",
        "hints",
        "compose",
        "cli",
        "terminal",
        "runs",
        "record",
        "pretrained",
        "auto",
        "notes",
    }
    | {
        "corpus.write",
        "corpus.prepared",
        "corpus.docstrings",
        "corpus.expect",
        "corpus.survey",
        "corpus.report",
    }
    | {
        "corpus.raw",
        "corpus.texts",
        "corpus.trees",
        "corpus.spool",
        "corpus.split",
        "corpus.options",
        "corpus.clean",
    }
    | {"corpus.tables", "corpus.columns", "corpus.cells", "corpus.signs", "corpus.books", "corpus.sheets"}
    | {"corpus.pool", "corpus.stories", "corpus.articles", "tables.collect"}
    | {"corpus.columnar", "corpus.confined", "corpus.hygiene", "corpus.objects"}
    | {
        "tables.table",
        "tables.significance",
        "tables.pivot",
        "tables.metric",
        "tables.marks",
        "tables.standing",
        "tables.documents",
    }
    | {
        "tables.references",
        "tables.explain",
        "tables.render",
        "tables.page",
        "tables.figures",
        "tables.panels",
    }
    | {"processes", "sweep.grid", "sweep.ledger", "sweep.sound", "sweep.devices", "sweep.show"},
    {
        "corpus.cache",
        "corpus.batches",
        "nn.encoder",
        "nn.pooling",
        "nn.link",
        "nn.film",
        "nn.heads",
        "nn.dropout",
    },
    {"nn.cascade", "nn.joint", "conditional", "loss", "metrics", "thresholds", "predictions"},
    {"nn.classifier", "optim", "checkpoint"},
    {"team", "score", "embeddings", "fit", "probe", "trial", "ensemble", "build", "initial"},
    {"stored", "request", "train", "member", "evaluate", "prepare", "aggregate"}
    | {"sweep.plan", "sweep.slurm", "sweep.cell", "sweep.pool", "sweep.__main__"},
]
ONLY_IN = {
    "hydra": {"compose", "cli", "stored", "sweep.grid", "sweep.plan", "sweep.__main__"},
    "omegaconf": {"schema", "compose", "cli", "stored"},
    "transformers": {"nn.encoder", "corpus.batches", "optim"},
}


def name_of(file: Path) -> str:
    parts = list(file.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}
EMPTY = {"nn", "corpus", "tables", "sweep"}  # package docstrings


def imports(name: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(name: str) -> set[str]:
    """Return the modules of the package that a module imports, `hblm` itself left out."""
    return {
        module.removeprefix("hblm.")
        for module in imports(name)
        if module.startswith("hblm.") and module.removeprefix("hblm.") in FILES.keys() - EMPTY
    }


def layer_of(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def test_every_file_has_a_layer_and_every_layer_its_files():
    assert set().union(*LAYERS) == FILES.keys() - EMPTY


def test_imports_point_down_or_sideways():
    for name in FILES.keys() - EMPTY - {""}:  # which lends names of other layers when they are asked for
        for used in own(name):
            assert layer_of(used) <= layer_of(name), f"{name} imports {used}, which lies above it"


def test_no_circles():
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for used in own(name):
                visit(used, (*trail, name))
            done.add(name)

    for name in FILES.keys() - EMPTY:
        visit(name, ())


@pytest.mark.parametrize("library", ONLY_IN)
def test_a_library_is_known_where_it_belongs(library):
    users = {name for name in FILES if any(module.split(".")[0] == library for module in imports(name))}
    assert users <= ONLY_IN[library]


def test_nothing_below_build_sees_a_configuration_but_checkpoint():
    for layer in LAYERS[2:5]:
        for name in layer - {"checkpoint"}:
            assert "config" not in own(name), name


@pytest.mark.parametrize("program", ["train", "evaluate", "prepare", "aggregate", "sweep.__main__"])
def test_a_program_starts_without_torch(program):
    """So that a finished run, a fault or --help answers at once."""
    code = f"import sys, hblm.{program}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_package_itself_loads_nothing_of_weight():
    code = "import sys, hblm; sys.exit(bool({'torch', 'pandas', 'numpy', 'hydra'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_converters_folder_shadows_no_module():
    scripts = list((CHECKOUT / "datasets").glob("*.py"))
    assert scripts
    for script in scripts:
        assert script.stem != "__init__", "it would shadow the Hugging Face library"
        assert script.stem not in sys.stdlib_module_names
    assert not (CHECKOUT / "datasets.py").exists()


def test_tests_that_train_are_marked():
    """.ci/run runs them under both precisions that trainer.precision=auto can mean on a CPU."""
    tests = CHECKOUT / "tests"
    if not tests.is_dir():
        pytest.skip("not a checkout")
    for file in tests.rglob("test_*.py"):
        text = file.read_text(encoding="utf-8")
        if re.search(r"from programs import .*\brun\b", text):
            assert "pytest.mark.trains" in text, file.name
