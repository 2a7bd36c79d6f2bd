"""Which keys act in a run, as declared beside each key: in run ids, in tables, in the making of a loss."""

from __future__ import annotations

import hashlib
import random

import pytest

from hblm.config.identity import DECIDING, acting, arguments, identity_values, inert_keys, names_of
from hblm.config.schema import leaves
from hblm.config.train import TrainConfig
from hblm.engine import build
from hblm.json_files import canonical_json
from hblm.nn.losses import LOSSES, FocalLoss
from hblm.taxonomy import Node, Taxonomy

COLUMNS = {leaf.rules["option_of"] or leaf.name: leaf for leaf in leaves(TrainConfig)}
TAXONOMY = Taxonomy([Node("a", "A", None), Node("b", "B", "a")])


@pytest.mark.parametrize("leaf", leaves(TrainConfig), ids=lambda leaf: leaf.name)
def test_what_a_key_depends_on_is_a_key_and_a_value_of_it(leaf):
    for column, values in (*leaf.rules["acts"].items(), *leaf.rules["inert"].items()):
        assert column in DECIDING
        rules, default = COLUMNS[column].rules, COLUMNS[column].default
        assert set(values) <= set(rules["choices"] or (True, False))
        assert rules["choices"] or isinstance(default, bool)


def test_tables_leave_out_the_keys_that_do_not_act():
    focal = TrainConfig().having({"loss.loss": "focal", "direction.cascade_direction": "bottom_up"})
    method, inert = acting({"loss": "focal", "direction": "bottom_up"})
    assert method == focal.method == "bottom_up"
    assert inert == inert_keys(focal)
    assert "loss.tau" in inert
    assert "loss.gamma" not in inert
    method, inert = acting({"joint_variant": "dual"})
    assert method == "dual"
    assert {"direction", "joint_variant.joint_loss_mix"} <= inert  # by the group's name, as in tables
    assert "joint_variant.joint_loss_td" not in inert


def test_what_a_loss_is_made_with_are_the_keys_that_act():
    assert {name: set(arguments(TrainConfig().having({"loss.loss": name}), "loss")) for name in LOSSES} == {
        "bce": {"level_reduction"},
        "focal": {"level_reduction", "gamma"},
        "conditional_softmax": {"tau"},
        "conditional": set(),
    }


def made(config: TrainConfig) -> object:
    return build.loss(config, TAXONOMY, build.TrainingCounts.none(TAXONOMY))


def test_a_new_loss_cannot_share_a_key_without_being_named_beside_it(monkeypatch):
    """Otherwise two values of the key would be one run: the second would count as done."""
    monkeypatch.setitem(LOSSES, "new", FocalLoss)
    two, six = (TrainConfig().having({"loss.loss": "new", "loss.gamma": gamma}) for gamma in (2.0, 6.0))

    def name_it_beside(key: str) -> None:
        acts = COLUMNS[key].rules["acts"]
        monkeypatch.setitem(acts, "loss", (*acts["loss"], "new"))

    name_it_beside("loss.level_reduction")
    with pytest.raises(TypeError, match="gamma"):
        made(two)
    name_it_beside("loss.gamma")
    assert made(six).gamma == 6.0
    assert identity_values(two) != identity_values(six)
    assert identity_values(six)["loss.gamma"] == 6.0
    assert "loss.gamma" not in acting({"loss": "new"})[1]


def test_a_new_option_has_the_keys_that_only_others_leave_out():
    scales = [{"film.propagation_method": "new", "film.film_scale": scale} for scale in (0.3, 0.4)]
    first, second = (identity_values(TrainConfig().having(values)) for values in scales)
    assert first != second


VALUES = {  # of each key that is in run ids: the default, and others
    "seed": (1, 2),
    "threshold": (0.5, 0.3),
    "dataset_fraction": (1.0, 0.5),
    "init_from": (None, "checkpoint"),
    "encoder.model_name": ("FacebookAI/roberta-large", "tiny"),
    "encoder.max_length": (512, 128),
    "encoder.trainable": (True, False),
    "encoder.gradient_checkpointing": (False, True),
    "encoder.dropout": (None, 0.2),
    "encoder.project_embedding": (True, False),
    "encoder.projection_dim": (None, 8),
    "encoder.projection_dropout": (0.1, 0.3),
    "pooling.pooling": ("cls", "mean", "last", "max"),
    "direction.cascade_direction": ("top_down", "bottom_up"),
    "film.propagation_method": ("sigmoid", "multi_hot", "logit", "none"),
    "film.propagation_space": ("child_space", "parent_space"),
    "film.film_scale": (0.2, 1.0),
    "film.detach_parent_signal": (True, False),
    "head.classification_head_type": ("mlp", "wide_mlp", "residual_mlp", "linear"),
    "head.dropout": (0.1, 0.3),
    "head.output_init": ("prior", "default", "label_text"),
    "head.label_text_gain": (6.0, 3.0),
    "loss.loss": ("bce", "focal", "conditional_softmax", "conditional"),
    "loss.level_reduction": ("nodes", "levels"),
    "loss.gamma": (2.0, 0.5),
    "loss.tau": (1.0, 0.5),
    "joint_variant.joint_variant": ("none", "dual", "tri_head_diffcat"),
    "joint_variant.joint_objective": ("full", "aux_only"),
    "joint_variant.joint_eval_view": ("fused", "td", "bu", "mix", "all"),
    "joint_variant.joint_loss_fused": (0.0, 0.5),
    "joint_variant.joint_loss_td": (0.5, 0.2),
    "joint_variant.joint_loss_mix": (1.0, 0.3),
    "joint_variant.tri_fuse_mix": (1.0, 0.3),
    "trainer.learning_rate": (3e-5, 1e-4),
    "trainer.head_learning_rate": (None, 3e-5, 2e-3),
    "trainer.epochs": (65, 3),
    "trainer.weight_decay": (0.01, 0.0),
    "trainer.label_documents": (False, True),
    "trainer.processes": (1, 2),
}


def test_the_identity_of_known_configurations_stays():
    """With another digest, stored results count as other runs: raise SCHEMA_VERSION with it."""
    draw, digest = random.Random(7), hashlib.sha256()
    for _ in range(1000):
        config = TrainConfig()
        config.dataset.name = "wos"
        for name, values in VALUES.items():
            node, _, last = name.rpartition(".")
            setattr(getattr(config, node) if node else config, last, values[draw.randrange(len(values))])
        values = identity_values(config)
        digest.update(canonical_json([values, names_of(config, values, "0" * 64, "tiny")]).encode())
    assert digest.hexdigest()[:16] == "655dc00054eee5a5"
