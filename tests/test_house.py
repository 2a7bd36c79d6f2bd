"""The rules of the house: which folder may import which, and where a library is known."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from pathlib import Path

import pytest

import hblm

PACKAGE = Path(hblm.__file__).parent
CHECKOUT = PACKAGE.parent
PROGRAMS = {"train", "evaluate", "export", "prepare", "aggregate", "sweep.__main__"}
# A file imports its own folder and those before it; "" is the ground floor, the files beside the programs.
FOLDERS = ("", "config", "encoders", "nn", "data", "runs", "cli", "engine", "inference", "tables", "sweep")
FOLDERS = (*FOLDERS, "api")
LIBRARIES = {  # library -> the folders and files that may import it
    "hydra": {"config", "cli", "sweep"},
    "omegaconf": {"config", "cli", "sweep"},
    "transformers": {"encoders", "data.tokens"},
}


def _name_of(file: Path) -> str:
    parts = file.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = {_name_of(file): file for file in sorted(PACKAGE.rglob("*.py"))}
MODULES = {name for name, file in FILES.items() if file.name != "__init__.py"}


@functools.cache
def _imported_by(name: str) -> set[str]:
    """Return what a file imports, also inside functions and by importlib: modules, and names in them."""
    found = set()
    for node in ast.walk(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: a relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            assert isinstance(node.args[0], ast.Constant), f"{name}: an import by a computed name"
            found.add(str(node.args[0].value))
    return found


USES = {name: {each.removeprefix("hblm.") for each in _imported_by(name)} & MODULES for name in MODULES}


def _folder_of(name: str) -> str:
    return name.partition(".")[0] if "." in name else ""


def test_a_file_imports_only_its_own_folder_and_those_before_it():
    assert {_folder_of(name) for name in FILES} == set(FOLDERS)
    for name in MODULES - PROGRAMS:
        for used in USES[name]:
            own, other = FOLDERS.index(_folder_of(name)), FOLDERS.index(_folder_of(used))
            assert other <= own, f"{name} imports {used}; {_folder_of(used)}/ comes after"


def test_nothing_imports_a_program():
    assert PROGRAMS <= MODULES
    for name in MODULES:
        assert not USES[name] & PROGRAMS, name


def test_no_circles():
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, f"a circle: {' -> '.join([*trail, name])}"
        if name not in done:
            for used in USES[name]:
                visit(used, (*trail, name))
            done.add(name)

    for name in MODULES:
        visit(name, ())


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_known_where_it_belongs(library):
    for name in MODULES:
        if library in {each.partition(".")[0] for each in _imported_by(name)}:
            assert {name, _folder_of(name)} & LIBRARIES[library], f"{name} imports {library}"


def test_models_and_data_see_no_run_configuration():
    """engine/build.py makes objects of it; what they are made of takes plain arguments."""
    for name in MODULES:
        if _folder_of(name) in ("nn", "encoders"):
            assert not any(used.startswith("config.") for used in USES[name]), name


def test_every_module_says_in_one_line_what_it_holds():
    for name, file in FILES.items():
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        assert text, f"{name} has no docstring"
        assert text.splitlines()[0].endswith("."), name


def test_a_program_starts_without_torch():
    """So that a finished run, a fault or --help answers at once."""
    code = f"""
import importlib, sys
for program in {sorted(PROGRAMS, key=("train", "evaluate").__contains__, reverse=True)}:
    importlib.import_module(f"hblm.{{program}}")
    heavy = {{"torch", "transformers"}} | ({{"pandas"}} if program in ("train", "evaluate") else set())
    assert not heavy & set(sys.modules), program
"""
    subprocess.run([sys.executable, "-c", code], check=True)


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
