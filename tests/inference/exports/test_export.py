"""Exports: what they refuse, and the files and scores of exported folders."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from programs import checkpoint_of, compose, edit, evaluation, run

from hblm.config.export import ExportConfig
from hblm.config.stored_model import StoredModel
from hblm.data.dataset import open_prepared
from hblm.errors import CheckpointError, ConfigError, DataError
from hblm.inference.exports import export, onnx, onnx_int8
from hblm.inference.exports.onnx import path_names
from hblm.inference.inputs import with_fuse_weights
from hblm.inference.predictor import Member, is_as_trained, open_members, open_predictor
from hblm.inference.stored_decisions import decisions_of
from hblm.runs.checkpoint import Checkpoint, open_checkpoint
from hblm.runs.decisions import read_decisions, write_decisions
from hblm.taxonomy import Node, Taxonomy


def exported(checkpoint: Path | str, *overrides: str, to: str = "onnx") -> Path:
    """Export a checkpoint to the folder `exported`."""
    export.run(compose("export", ExportConfig, f"checkpoint={checkpoint}", f"to={to}", *overrides))
    config = compose("export", ExportConfig, f"checkpoint={checkpoint}", f"to={to}", *overrides)
    return export.output_of(config, open_members(config.models))


def scores(place: Path | list[Path], texts: list[str], **keys) -> np.ndarray:
    places = [str(each) for each in (place if isinstance(place, list) else [place])]
    return open_predictor(StoredModel(checkpoint=places, device="cpu", **keys)).scores(texts)


@pytest.fixture
def texts(learnable) -> list[str]:
    test = [document.text for document in open_prepared(learnable).documents("test")]
    return [*test, "", "A " * 400]  # no token, and more tokens than the model takes


def test_labels_are_paths_of_names_and_each_is_unique():
    nodes = [Node("s", "Science", None), Node("p", "Physics", "s"), Node("p2", "Physics", "s")]
    assert path_names(Taxonomy(nodes)) == ["Science", "s > p", "s > p2"]
    odd = [Node("x", "A > B", None), Node("y", "A", None), Node("z", "B", "y")]
    assert path_names(Taxonomy(odd)) == ["x", "A", "y > z"]
    hostile = [Node("y > z", "Q", None), Node("w", "Q", None), Node("v", "y > z", None)]
    assert path_names(Taxonomy(hostile)) == ["y > z", "w", "v"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["to=onnx", "result=x.json"], "result=x.json acts with to=hub_folder"),
        (["to=hub_folder", "int8=true"], "int8= acts with to=onnx"),
        (["to=hub_folder", "joint_eval_view=td"], "joint_eval_view= acts with to=onnx"),
        (["to=onnx", "dataset.path=x"], "dataset.path=x acts with int8=true"),
        (["to=onnx", "ensemble_weight=0.5"], "acts between two checkpoints"),
        (["to=pickle"], "is not one of onnx, hub_folder"),
    ],
)
def test_keys_that_contradict_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        compose("export", ExportConfig, "checkpoint=x", *arguments)


def test_an_output_that_is_there_is_kept(trained):
    Path("there").mkdir()
    Path("there/mine.txt").write_text("kept")
    for force, message in (
        ("false", "there exists; write force=true"),
        ("true", "is not an exported folder"),
    ):
        with pytest.raises(ConfigError, match=message):
            exported(checkpoint_of(trained), "output=there", f"force={force}", to="hub_folder")
    assert Path("there/mine.txt").read_text() == "kept"
    exported(checkpoint_of(trained), "output=new", to="hub_folder")
    Path("new/LICENSE").write_text("")
    exported(checkpoint_of(trained), "output=new", "force=true", to="hub_folder")
    assert not Path("new/LICENSE").exists()


@pytest.mark.parametrize("place", ["", "hub"])
def test_a_checkpoint_is_never_replaced(trained, tmp_path, place):
    own, other = (shutil.copytree(checkpoint_of(trained), tmp_path / name) for name in ("own", "other"))
    for force in ("false", "true"):
        with pytest.raises(ConfigError, match=r"is the checkpoint .*, or lies in it"):
            exported(own, f"output={own / place}", f"force={force}", to="hub_folder")
    with pytest.raises(ConfigError, match="is not an exported folder"):
        exported(own, f"output={other}", "force=true", to="hub_folder")
    for folder in (own, other):
        assert (
            open_checkpoint(folder).meta["run_id"] == open_checkpoint(checkpoint_of(trained)).meta["run_id"]
        )


def test_a_missing_package_is_named(trained, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install 'hblm\[onnx\]'"):
        exported(checkpoint_of(trained), "output=new")
    assert not Path("new").exists()


def test_a_result_of_another_training_is_refused(trained):
    other = Path(shutil.copy(trained, "other.json"))
    edit(other, training="another")
    with pytest.raises(DataError, match="not the result of the training"):
        exported(checkpoint_of(trained), "output=new", f"result={other}", to="hub_folder")
    edit(other, kind="evaluation", training=json.loads(trained.read_text())["training"])
    with pytest.raises(DataError, match="is the result of an evaluation"):
        exported(checkpoint_of(trained), "output=new", f"result={other}", to="hub_folder")


def test_a_checkpoint_at_the_root_of_the_file_system_has_no_result_beside_it():
    at_root = SimpleNamespace(folder=Path("/model"), meta={"name": "x", "training": "y"})
    assert export._result_of(at_root, None) is None


FIXTURE = Path(__file__).parents[2] / "fixtures/0.2.0/outputs/checkpoints"


def as_exported(checkpoint: Checkpoint, *weights: list[float] | None, **entries) -> Checkpoint:
    """Return a checkpoint as its exported folder opens, with these weights of views of its members."""
    record = {"to": "onnx", "view": "fused", "threshold": 0.5, **entries}
    record["members"] = [{"tri_fuse": each} for each in weights or [None]]
    return replace(checkpoint, meta={**checkpoint.meta, "export": record})


def test_decisions_hold_for_one_model_with_its_own_weights_of_views():
    (folder,) = FIXTURE.glob("*_tri_*")
    checkpoint = open_checkpoint(folder)
    own = Member(checkpoint, checkpoint.config, "fused", 1.0)
    other = replace(own, config=with_fuse_weights(checkpoint.config, {"tri_fuse_td": 9.0}))
    assert [is_as_trained(each) for each in ([own], [other], [own, own])] == [True, False, False]
    for weights, expected in (
        ([[1.0, 1.0, 1.0]], True),
        ([None], True),
        ([[9.0, 0.0, 0.0]], False),
        ([None, None], False),
    ):
        member = Member(as_exported(checkpoint, *weights), checkpoint.config, "fused", 1.0)
        assert is_as_trained([member]) == expected, weights


def test_decisions_are_copied_where_they_hold(kept, tmp_path):
    checkpoint = open_checkpoint(checkpoint_of(kept))
    member = Member(checkpoint, checkpoint.config, "single", 1.0)
    record = {"to": "onnx", "view": "single", "loss": None}
    copies = {}
    for name, precision, members in (
        ("exact", "fp32", [member]),
        ("small", "int8", [member]),
        ("both", "fp32", [member, member]),
    ):
        (tmp_path / name).mkdir()
        onnx._write_record(tmp_path / name, checkpoint, members, {**record, "precision": precision})
        copies[name] = read_decisions(replace(checkpoint, folder=tmp_path / name))
    original = read_decisions(checkpoint)["single"]
    assert original.conformal is not None
    assert copies == {
        "exact": {"single": original},
        "small": {"single": replace(original, conformal=None)},
        "both": {},
    }


def test_an_exported_folder_uses_the_decisions_of_its_own_view(kept, tmp_path):
    checkpoint = replace(as_exported(open_checkpoint(checkpoint_of(kept)), view="td"), folder=tmp_path)
    single = read_decisions(open_checkpoint(checkpoint_of(kept)))["single"]
    views = {"fused": single, "td": replace(single, everywhere=0.125)}
    write_decisions(tmp_path, checkpoint.meta["training"], views)
    predictor = SimpleNamespace(checkpoints=(checkpoint,), view="td")
    assert decisions_of(predictor).everywhere == 0.125
    (tmp_path / "decisions.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"no decisions.json with view td; .* \(with joint_eval_view=td\)"
    ):
        decisions_of(replace_place(predictor))
    (tmp_path / "decisions.json").write_text("{}")
    with pytest.raises(
        CheckpointError, match="run hblm evaluate tune=node on the checkpoint that it was made"
    ):
        read_decisions(checkpoint)


def replace_place(predictor: SimpleNamespace) -> SimpleNamespace:
    """Return a predictor whose dataset is not at its recorded place."""
    (checkpoint,) = predictor.checkpoints
    meta = {**checkpoint.meta, "dataset": {**checkpoint.meta["dataset"], "path": "/nowhere"}}
    return SimpleNamespace(checkpoints=(replace(checkpoint, meta=meta),), view=predictor.view)


def test_eight_bits_of_a_graph_whose_weights_lie_in_another_file(tmp_path, monkeypatch):
    """As those above 2 GB do: a graph names the file of its weights, so that it keeps its name."""
    import onnx as onnx_format
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    entry = node.metadata_props.add()
    entry.key, entry.value = "pkg.torch.onnx.name_scopes", "['models.0.encoder.layer']"
    places = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 64]) for name in ("x", "y")]
    graph = helper.make_graph([node], "g", places[:1], places[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    fp32, int8 = tmp_path / "fp32" / "model.onnx", tmp_path / "model.onnx"
    fp32.parent.mkdir()
    external = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 0}
    onnx_format.save_model(model, fp32, **external)
    monkeypatch.setattr(onnx_int8, "_LARGEST", fp32.stat().st_size)  # the graph alone fits
    onnx_int8.quantise(fp32, int8)
    shutil.rmtree(fp32.parent)
    assert (tmp_path / "model.onnx.data").exists()
    session = onnxruntime.InferenceSession(int8, providers=["CPUExecutionProvider"])
    (given,) = session.run(None, {"x": np.ones((1, 64), np.float32)})
    np.testing.assert_allclose(given, 64, rtol=0.02)


@pytest.fixture(scope="session")
def onnx_tri(tri, made_once) -> Path:
    """Return the exported folder of the joint model; tests only read it."""

    def make(folder: Path) -> None:
        exported(checkpoint_of(tri), f"output={folder / 'model'}")

    return made_once("onnx-tri", make) / "model"


@pytest.mark.slow
def test_an_exported_folder_gives_the_models_scores(onnx_tri, tri, texts):
    np.testing.assert_allclose(
        scores(onnx_tri, texts), scores(checkpoint_of(tri), texts, precision="fp32"), atol=2e-6
    )


@pytest.mark.slow
def test_the_folder_is_a_plain_classifier(onnx_tri, tri, texts):
    """Only onnxruntime and transformers, as a stranger would, without truncation."""
    import onnxruntime
    import transformers

    config = json.loads((onnx_tri / "config.json").read_text())
    labels = path_names(open_checkpoint(checkpoint_of(tri)).taxonomy)
    assert config["id2label"] == {str(at): label for at, label in enumerate(labels)}
    assert config["label2id"] == {label: at for at, label in enumerate(labels)}
    assert config["problem_type"] == "multi_label_classification"
    assert (config["model_type"], config["architectures"]) == ("bert", ["BertForSequenceClassification"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(onnx_tri)
    assert tokenizer.model_max_length == 32
    session = onnxruntime.InferenceSession(onnx_tri / "model.onnx", providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "attention_mask"]
    expected = scores(checkpoint_of(tri), texts, precision="fp32")
    for batch in (texts, texts[:1], texts[-1:]):
        inputs = tokenizer(batch, padding=True, return_tensors="np", verbose=False)
        (logits,) = session.run(["logits"], dict(inputs))
        odds = np.log(expected) - np.log1p(-expected)
        rows = [texts.index(text) for text in batch]
        np.testing.assert_allclose(logits, odds[rows], atol=1e-4)


@pytest.mark.slow
def test_an_exported_folder_only_predicts_as_it_is(onnx_tri, tri, tmp_path):
    for keys, message in (
        ({"backend": "torch"}, "is an exported folder; leave backend= out"),
        ({"joint_eval_view": "td"}, "joint_eval_view= was decided when"),
        ({"tri_fuse_td": 2.0}, "tri_fuse_td= was decided when"),
        ({"precision": "bf16"}, "acts with backend=torch"),
        ({"device": "mps"}, "this onnxruntime has no such device"),
    ):
        with pytest.raises(ConfigError, match=message):
            open_predictor(StoredModel(checkpoint=[str(onnx_tri)], **keys))
    with pytest.raises(CheckpointError, match="is an exported model, which predicts and nothing else"):
        open_checkpoint(onnx_tri)
    copy = shutil.copytree(onnx_tri, tmp_path / "copy")
    with (copy / "model.onnx").open("ab") as file:
        file.write(b" ")
    with pytest.raises(CheckpointError, match=r"model\.onnx: not the file that was written"):
        open_predictor(StoredModel(checkpoint=[str(copy)]))
    (copy / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not the file that was written"):
        open_predictor(StoredModel(checkpoint=[str(copy)]))


@pytest.mark.long
@pytest.mark.skipif("HBLM_OPTIMUM_PYTHON" not in os.environ, reason="HBLM_OPTIMUM_PYTHON names no Python")
def test_the_folder_works_in_a_pipeline_of_another_environment(onnx_tri, tri, texts):
    """HBLM_OPTIMUM_PYTHON is the Python of an environment with optimum-onnx and transformers<4.58."""
    labels = path_names(open_checkpoint(checkpoint_of(tri)).taxonomy)
    expected = [
        dict(zip(labels, map(float, row), strict=True))
        for row in scores(checkpoint_of(tri), texts, precision="fp32")
    ]
    Path("expected.json").write_text(json.dumps({"texts": texts, "scores": expected}))
    script = Path(__file__).with_name("check_pipeline.py")
    python = os.environ["HBLM_OPTIMUM_PYTHON"]
    subprocess.run([python, script, onnx_tri, "expected.json"], check=True)


KINDS = {  # loss and film that read products along the path, and every pooling
    "conditional": ("loss=conditional", "direction=bottom_up", "film=logit", "pooling=last"),
    "softmax": ("loss=conditional_softmax", "film=multi_hot", "pooling=mean", "head=residual_mlp"),
    "dual": ("joint_variant=dual", "film.propagation_space=parent_space", "encoder.trainable=false"),
}


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_model_is_exported(kind, one_path):
    checkpoint = checkpoint_of(run(one_path, "trainer.epochs=2", *KINDS[kind]))
    texts = [document.text for document in open_prepared(one_path).documents("test")]
    folder = exported(checkpoint)
    assert folder.parent.name == "exports"
    np.testing.assert_allclose(scores(folder, texts), scores(checkpoint, texts, precision="fp32"), atol=2e-6)


@pytest.mark.long
def test_an_ensemble_is_one_graph(pair, texts):
    td, bu = pair
    folder = exported(f"[{td},{bu}]", "ensemble_weight=0.2", "output=both")
    expected = scores([td, bu], texts, ensemble_weight=0.2, precision="fp32")
    np.testing.assert_allclose(scores(folder, texts), expected, atol=2e-6)


@pytest.mark.long
def test_eight_bits_change_little_and_the_loss_is_recorded(trained, texts):
    folder = exported(checkpoint_of(trained), "int8=true", "output=small", "threshold=0.55")
    given, exact = scores(folder, texts), scores(checkpoint_of(trained), texts, precision="fp32")
    assert 0 < np.abs(given - exact).max() < 0.2
    record = json.loads((folder / "hblm.json").read_text())["export"]
    assert record["precision"] == "int8"
    assert record["largest_difference"] < 1e-4  # of the graph before
    assert (record["threshold"], record["loss"]["threshold"]) == (0.55, 0.55)
    of_run = evaluation(checkpoint_of(trained), "split=val", "threshold=0.55")["val"]["single"]["overall"]
    fp32 = record["loss"]["scores"]["fp32"]
    assert fp32 == {key: pytest.approx(of_run[key]) for key in ("micro_f1", "macro_f1")}
    assert set(record["loss"]["scores"]["int8"]) == {"micro_f1", "macro_f1"}
    assert sorted(path.name for path in folder.iterdir()) == [
        *(
            "config.json",
            "hblm.json",
            "model.onnx",
            "taxonomy.json",
            "tokenizer.json",
            "tokenizer_config.json",
        )
    ]
