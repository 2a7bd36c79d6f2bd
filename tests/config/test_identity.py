"""Which keys act in a run, as declared beside each key: in run ids, in tables, in the making of a loss."""

from __future__ import annotations

import pytest
import torch

from hblm.config.identity import DECIDING, acting, arguments, identity_values, inert_keys
from hblm.config.schema import leaves
from hblm.config.train import TrainConfig
from hblm.engine import build
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
    nodes = torch.zeros(2, dtype=torch.int64)
    return build.loss(config, TAXONOMY, positives=nodes, n_documents=0, stops=nodes)


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
