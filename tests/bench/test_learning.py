"""The bench of methods, label texts and conditional losses: its grid, its lines, its table."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import learning
import learning_lines
import learning_table
import made_results
import pytest
from learning_lines import Line, Variant
from scipy import stats

from hblm.config.grid import axes_of, cells_of, read_sweep
from hblm.config.groups import OptionGroups
from hblm.engine.metrics import FREQUENCIES
from hblm.errors import DataError
from hblm.sweep.launchers.local_files import WorkerFiles
from hblm.sweep.launchers.registry import open_sweep
from hblm.sweep.plan import make_plan

AAPD = learning.SETTINGS[0]
TINY = dataclasses.replace(
    AAPD, seeds=2, conditional="focal", max_length=32, epochs=1, label_texts=False, model="tiny"
)


def line(
    method: str = "flat", seed: int = 1, micro: float = 0.5, macro: float = 0.3, **values: object
) -> Line:
    """Return a made line; its run id follows from what it is."""
    plain = Line(
        *("aapd", "tuned", method, "prior", "bce", False, seed, f"{method}{seed}", "d" * 16),
        *(micro, macro, None, 0.25, 0.75, 0.6, 0.4, 3, 12.5, "cpu", "bf16", "c" * 12),
    )
    return plain._replace(**values)


@pytest.fixture
def three_methods(monkeypatch):
    """Leave out the other methods and the variants of the crossed ones: each takes Hydra 0.2 s."""
    for module in (learning, learning_lines):
        monkeypatch.setattr(module, "METHODS", ("flat", "independent", "dual"))
    monkeypatch.setattr(learning, "CROSSED", ())


@pytest.fixture
def tiny(learnable, tmp_path, monkeypatch, three_methods) -> learning.Bench:
    """Return a bench of one small setting whose data are there, in a folder of its own."""
    monkeypatch.setattr(learning, "SETTINGS", (TINY,))
    bench = learning.Bench(tmp_path / "place", tmp_path / "lines.csv", None)
    bench.folder(TINY).parent.mkdir(parents=True)
    bench.folder(TINY).symlink_to(learnable)
    return bench


def finish(cell: learning.Cell, micro: float = 0.5) -> None:
    """Write a result as this cell's run would."""
    record = made_results.result(cell.variant.method, cell.seed, micro=micro, run_id=cell.run.id)
    made_results.write(cell.run.output_dir, cell.run.name, record)


def test_what_is_compared():
    variants = AAPD.variants()
    assert len(variants) == len(set(variants)) == 24
    full = itertools.product(learning.CROSSED, ("prior", "label_text"), ("bce", "conditional"), (False, True))
    assert {Variant(*each) for each in full} <= {*variants}
    assert {(each.method, each.output_init) for each in variants if each.loss == "bce"} == {
        *itertools.product(learning_lines.METHODS, ("prior", "label_text"))
    }
    without = next(each for each in learning.SETTINGS if not each.label_texts).variants()
    assert len(without) == 8
    assert {(each.output_init, each.label_documents) for each in without} == {("prior", False)}


@pytest.mark.parametrize("setting", learning.SETTINGS, ids=lambda each: each.name)
def test_every_setting_crosses_to_its_variants_seed_by_seed(setting, tmp_path):
    bench = learning.Bench(tmp_path, tmp_path / "lines.csv", 3)
    bench._write("one", learning.grid(setting, tmp_path, bench.seeds(setting)))
    catalogue = OptionGroups(str(bench.grids))
    sweep = read_sweep("one", catalogue)
    cells = [cell.values for cell in cells_of(sweep, axes_of(sweep, catalogue))]
    found = [(int(cell["seed"]), learning.variant_of(cell)) for cell in cells]
    assert {*found} == {*itertools.product((1, 2, 3), setting.variants())}
    assert [seed for seed, _ in found] == sorted(seed for seed, _ in found)


@pytest.mark.slow
def test_the_plan_is_the_grid_with_the_budget_written_out(tiny):
    cells = tiny.plan(TINY)
    assert [cell.seed for cell in cells] == [1] * 3 + [2] * 3
    assert {cell.variant for cell in cells} == {*TINY.variants()}
    assert len({cell.run.id for cell in cells}) == 6
    config = make_plan("tuned_aapd", [], str(tiny.grids), prepare=False).cells[0].config
    assert (config.pooling.pooling, config.trainer.epochs) == ("mean", 1)
    assert (config.trainer.learning_rate, config.trainer.head_learning_rate) == (1e-4, 2e-3)
    assert config.encoder.trainable
    assert not config.trainer.keep_checkpoint


@pytest.mark.slow
def test_a_run_whose_line_is_there_is_not_run_again(tiny, monkeypatch):
    """Also where its result is gone."""
    cells = tiny.plan(TINY)
    for cell in (cells[0], cells[1], cells[-1]):
        finish(cell)
    assert [found.run for found in tiny.harvest({TINY: cells})] == sorted(
        (each.run.id[:16] for each in (cells[0], cells[1], cells[-1])),
        key=[cell.run.id[:16] for cell in sorted(cells, key=lambda each: (*each.variant, each.seed))].index,
    )
    for file in (tiny.place / "results").iterdir():
        file.unlink()
    submitted = {}

    def submit(sweep, jobs, plans):
        plan = make_plan(sweep, [], str(tiny.grids), prepare=False)
        submitted[sweep] = [cell.run.id for cell in plan.cells]
        return True

    monkeypatch.setattr(tiny, "_submit", submit)
    assert tiny.run({TINY: cells}, None)
    assert submitted == {
        "tuned_aapd_seed1": [cell.run.id for cell in cells[2:3]],
        "tuned_aapd_seed2": [cell.run.id for cell in cells[3:-1]],
    }


@pytest.mark.slow
def test_a_setting_with_all_its_lines_starts_nothing(tiny, monkeypatch):
    cells = tiny.plan(TINY)
    for cell in cells:
        finish(cell)
    monkeypatch.setattr(tiny, "_submit", lambda *_: pytest.fail("nothing is left to run"))
    assert tiny.run({TINY: cells}, None)
    assert len(learning_lines.read_lines(tiny.file)) == 6


@pytest.mark.slow
def test_a_set_that_is_missing_is_named_and_the_others_go_on(tiny, monkeypatch, capsys):
    other = dataclasses.replace(TINY, dataset="amazon531", encoder="frozen")
    monkeypatch.setattr(learning, "SETTINGS", (other, TINY))
    monkeypatch.setattr(learning, "SHARED", Path("nowhere"))
    for cell in tiny.plan(TINY):
        finish(cell)
    places = ["--place", str(tiny.place), "--lines", str(tiny.file)]
    assert learning.main(["harvest", *places, "--seeds", "1"]) == 1
    printed = capsys.readouterr().out
    assert "frozen.amazon531 is left out: " in printed
    assert "amazon531 is not there yet; run prepares it" in printed
    assert learning.main(["run", *places]) == 1
    assert "frozen.amazon531 is left out: nowhere/amazon531 is not there" in capsys.readouterr().out
    assert len(learning_lines.read_lines(tiny.file)) == 6


@pytest.mark.slow
def test_harvest_says_what_is_done_and_which_lines_are_of_other_runs(tiny, capsys):
    cells = tiny.plan(TINY)
    finish(cells[0])
    learning_lines.write_lines(tiny.file, [line("dual", 2, run="0" * 16)])
    assert learning.main(["harvest", "--place", str(tiny.place), "--lines", str(tiny.file)]) == 0
    printed = capsys.readouterr().out
    assert "1 new lines, 2 in all" in printed
    assert "tuned.aapd: 1 of 6 runs are done; 1 lines are of other data, settings or formulas" in printed


def test_an_earlier_sweep_is_deleted_unless_it_is_active(tmp_path):
    sweep = open_sweep(tmp_path, "one")
    learning._forget(sweep)  # there is none
    sweep.write_submission({"cells": []})
    with WorkerFiles(sweep.folder).lock():
        learning._forget(sweep)
        assert sweep.exists()
    learning._forget(sweep)
    assert not sweep.exists()


@pytest.mark.slow
def test_a_set_is_prepared_where_its_raw_data_are(tmp_path, monkeypatch, three_methods):
    """Made documents, by a real preparation."""
    raw = tmp_path / "raw" / "amazon531"
    raw.mkdir(parents=True)
    (raw / "amazon.taxonomy").write_text("Root\tfruit\nfruit\tapple\tpear\n")
    for split in ("train", "val", "test"):
        rows = [{"token": ["red", "round", str(at)], "label": ["fruit", "apple"]} for at in range(4)]
        rows.append({"token": ["long", split], "label": ["fruit", "pear"]})
        (raw / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(learning, "SHARED", raw.parent)
    bench = learning.Bench(tmp_path / "place", tmp_path / "lines.csv", None)
    setting = dataclasses.replace(TINY, dataset="amazon531")
    assert bench.prepare(setting, make=True)
    assert len(bench.plan(setting)) == 6


def test_the_line_of_a_result():
    record = made_results.result("dual", 3, "aapd", micro=0.8, macro=0.7)
    record["test"]["fused"]["by_frequency"] = [
        {"train_documents": "0", "nodes": 9, "macro_f1": 0.0},
        {"train_documents": "10-99", "nodes": 4, "macro_f1": 0.5},
        {"train_documents": "100-999", "nodes": 3, "macro_f1": 0.6},
        {"train_documents": "1000+", "nodes": 1, "macro_f1": 1.0},
    ]
    made = learning_lines.line_of("frozen.aapd", Variant("dual", "label_text"), 3, record)
    assert (made.setting, made.variant, made.seed) == ("frozen.aapd", Variant("dual", "label_text"), 3)
    assert (made.run, made.data) == (record["run_id"][:16], record["dataset"]["fingerprint"][:16])
    assert (made.test_micro, made.test_macro, made.val_micro, made.val_macro) == (0.8, 0.7, 0.79, 0.69)
    assert (made.macro_1_9, made.macro_10_99, made.macro_100) == (None, 0.5, 0.7)
    assert (made.best_epoch, made.seconds, made.device, made.precision) == (3, 60.5, "cpu", "fp32")
    assert made.commit == "c" * 12


def test_no_bucket_of_a_result_lies_in_two_bins():
    starts = {low for low, _ in learning_lines.BINS}
    assert starts <= {*FREQUENCIES}
    assert {high + 1 for _, high in learning_lines.BINS if high is not None} <= {*FREQUENCIES}


def test_lines_are_read_as_they_were_written(tmp_path):
    lines = learning_lines.merge(
        [], [line("top_down", 2, label_documents=True), line("flat", 10), line("flat", 9)]
    )
    file = tmp_path / "lines.csv"
    assert learning_lines.read_lines(file) == []
    learning_lines.write_lines(file, lines)
    assert learning_lines.read_lines(file) == lines
    assert [(each.method, each.seed) for each in lines] == [("flat", 9), ("flat", 10), ("top_down", 2)]


def test_a_new_line_is_one_line_of_a_diff_and_replaces_its_older_run():
    old = [line("flat", seed) for seed in (1, 3)]
    more = learning_lines.merge(old, [line("flat", 2)])
    assert [each for each in more if each in old] == old
    again = line("flat", 2, run="other", micro=0.9)
    assert [each.run for each in learning_lines.merge(more, [again])] == ["flat1", "other", "flat3"]
    assert len(learning_lines.merge(more, [line("flat", 2, data="e" * 16)])) == 4


@pytest.mark.parametrize(
    ("number", "text", "message"),
    [(0, "method,seed", ":1: the columns are not"), (2, "<<<<<<< HEAD", ":3: '<<<<<<< HEAD' is not a line")],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path, number, text, message, capsys):
    file = tmp_path / "lines.csv"
    learning_lines.write_lines(file, [line("flat", 1), line("flat", 2)])
    rows = file.read_text().splitlines()
    rows[number] = text
    file.write_text("\n".join(rows))
    with pytest.raises(DataError, match=message):
        learning_lines.read_lines(file)
    assert learning.main(["table", "--lines", str(file)]) == 2
    assert message in capsys.readouterr().err


def made_runs() -> list[Line]:
    """Return five seeds: top_down far ahead of independent, bottom_up ahead by chance, one run of dual."""
    noise = (0.001, -0.002, 0.0005, 0.002, -0.001)
    lines = []
    for seed, chance in enumerate(noise, 1):
        base = 0.6 + 0.01 * seed
        lines += [line("flat", seed, base - 0.1 + chance, base - 0.3)]
        lines += [line("independent", seed, base, base - 0.2)]
        lines += [line("top_down", seed, base + 0.05 + chance, base - 0.1 - chance)]
        lines += [line("bottom_up", seed, base + chance, base - 0.2 + chance)]
    return [*lines, line("dual", 1, 0.9, 0.9)]


def by_variant(lines: list[Line]) -> dict[Variant, dict[int, Line]]:
    found: dict[Variant, dict[int, Line]] = {}
    for each in lines:
        found.setdefault(each.variant, {})[each.seed] = each
    return found


def test_differences_are_paired_by_seed_and_adjusted_by_holm():
    lines = made_runs()
    found = learning_table.compare(by_variant(lines), Variant("independent"), "test_micro")
    assert {variant.method for variant in found} == {"flat", "top_down", "bottom_up"}  # dual shares one seed
    micro = {
        name: [each.test_micro for each in lines if each.method == name] for name in learning_lines.METHODS
    }
    p = {
        name: stats.ttest_rel(micro[name], micro["independent"]).pvalue
        for name in ("flat", "top_down", "bottom_up")
    }
    order = sorted(p, key=p.__getitem__)
    holm, largest = {}, 0.0
    for at, name in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - at) * p[name]))
        holm[name] = largest
    for variant, one in found.items():
        assert one.p == pytest.approx(p[variant.method], rel=1e-4)
        assert one.p_adjusted == pytest.approx(holm[variant.method], rel=1e-4)
        interval = stats.ttest_rel(micro[variant.method], micro["independent"]).confidence_interval()
        assert one.size[1:3] == pytest.approx(interval, abs=1e-9)
    assert {variant.method for variant, one in found.items() if one.is_better} == {"top_down"}
    assert found[Variant("flat")].p_adjusted < 0.05  # and worse


def test_differences_without_spread():
    equal = by_variant(
        [line(method, seed, 0.5 + seed / 10) for method in ("flat", "dual") for seed in (1, 2, 3)]
    )
    (one,) = learning_table.compare(equal, Variant("flat"), "test_micro").values()
    assert (one.size.difference, one.p, one.is_better) == (0, 1, False)


def test_the_table_says_means_differences_and_what_is_significant(tmp_path, capsys):
    file = tmp_path / "lines.csv"
    lines = [*made_runs(), line("flat", 1, encoder="frozen")]
    learning_lines.write_lines(file, learning_lines.merge([], lines))
    assert learning.main(["table", "--lines", str(file), "--only", "tuned.aapd"]) == 0
    printed = capsys.readouterr().out
    rows = {row.split("|")[1].strip(" `"): row for row in printed.splitlines() if row.startswith("| `")}
    assert [*rows] == ["flat", "independent", "top_down", "bottom_up", "dual"]
    assert "| 5 | 63.0 / 43.0 | - / 25.0 / 75.0 |" in rows["independent"]
    assert "**+5.0 [" in rows["top_down"]
    assert "+0.0 [" in rows["bottom_up"]
    assert rows["dual"].endswith("| 1 | 90.0 / 90.0 | - / 25.0 / 75.0 |  |  |  |  |")
    (verdict,) = (row for row in printed.splitlines() if row.startswith("tuned.aapd: "))
    over_independent, over_flat = verdict.split(" Significantly better than `flat` ")
    assert over_independent.endswith(
        "than `independent` in micro-F1 `top_down`; in macro-F1 `top_down`; in neither `flat`, `bottom_up`."
    )
    assert "in neither none" in over_flat
    assert "An exact permutation test, without the t test's normality, needs 7 seeds here." in printed
    assert "Runs differ" not in printed
    assert "frozen" not in printed


def test_tables_keep_data_apart_and_say_what_runs_differ_in():
    lines = [line("flat", 1), line("flat", 2, device="NVIDIA H100"), line("flat", 1, data="e" * 16)]
    printed = learning_table.markdown(lines)
    assert f"**tuned.aapd, data {'d' * 16}**" in printed
    assert f"**tuned.aapd, data {'e' * 16}**" in printed
    assert "Runs differ in device: NVIDIA H100, cpu." in printed
    assert "No variant shares two seeds with `independent`." in printed


def test_a_variant_is_named_by_what_differs():
    assert Variant("top_down").name == "top_down"
    assert Variant("top_down", "label_text", "conditional", True).name == (
        "top_down + label_text + conditional + label documents"
    )


@pytest.mark.long
def test_a_bench_of_tiny_runs_goes_on_from_its_lines(tiny, tmp_path, monkeypatch, capfd):
    """Real runs in processes of their own."""
    monkeypatch.setenv("HBLM_DEVICES", str(tmp_path / "devices"))  # leases of its own
    monkeypatch.setattr(learning_lines, "METHODS", ("flat", "independent"))
    monkeypatch.setattr(learning, "METHODS", ("flat", "independent"))
    monkeypatch.setattr(learning, "CROSSED", ())
    places = ["--place", str(tiny.place), "--lines", str(tiny.file)]
    assert learning.main(["run", *places, "--seeds", "1"]) == 0
    first = learning_lines.read_lines(tiny.file)
    assert [(each.method, each.seed) for each in first] == [("flat", 1), ("independent", 1)]
    assert all(0 <= each.test_micro <= 1 for each in first)
    results = [json.loads(file.read_text()) for file in (tiny.place / "results").glob("*.json")]
    assert {each.run for each in first} == {record["run_id"][:16] for record in results}
    (tiny.place / "results").rename(tmp_path / "gone")
    assert learning.main(["run", *places]) == 0
    assert [(each.method, each.seed) for each in learning_lines.read_lines(tiny.file)] == [
        *(("flat", 1), ("flat", 2), ("independent", 1), ("independent", 2))
    ]
    assert len([*(tiny.place / "results").glob("*.json")]) == 2  # the other seed's
    assert learning.main(["table", *places]) == 0
    assert "`independent` | 2 |" in capfd.readouterr().out
