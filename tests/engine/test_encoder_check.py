"""What is tried before training: a document's scores depend on all of it, and on nothing else."""

from __future__ import annotations

import collections
import functools
import json
import re
import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from families import small, small_or_none, text_families
from programs import compose, run

from hblm.config.train import TrainConfig
from hblm.data.dataset import open_prepared
from hblm.data.tokens import tokenise
from hblm.encoders.encoder import load_encoder
from hblm.encoders.pretrained import locate
from hblm.encoders.tokenizer import load_tokenizer
from hblm.engine import build
from hblm.engine.encoder_check import EncoderCheck
from hblm.errors import ConfigError
from hblm.nn.pooling import POOLINGS
from hblm.runs import paths

# each counts positions, hides padding or orders tokens in another way
FAMILIES = ["bert", "deberta-v2", "gpt2", "llama", "mamba", "roberta", "t5", "xlnet"]
MORE = ["albert", "big_bird", "bloom", "deberta", "distilbert", "electra", "modernbert", "mpnet", "opt"]
MORE += ["squeezebert", "xlm"]
DECODERS = ["bloom", "gpt2", "llama", "mamba", "opt"]
READS_PADDING = ["convbert", "fnet", "nystromformer", "yoso"]


@functools.cache
def configuration(pooling: str = "mean") -> TrainConfig:
    given = ("dataset=wos", "loss=bce", f"pooling={pooling}", "head.output_init=prior")
    return compose("train", TrainConfig, *given)


@pytest.fixture
def model_of(learnable, tmp_path):
    """Return a maker: the whole model around a family's small encoder, stored and loaded."""

    def make(model_type: str, pooling: str = "mean"):
        torch.manual_seed(0)
        folder = tmp_path / model_type
        if not folder.exists():
            transformers.AutoModel.from_config(small(model_type)).save_pretrained(folder)
            tokenizer = load_tokenizer(locate("tiny"))
            tokenizer.padding_side = "left"
            tokenizer.save_pretrained(folder)
        encoder = load_encoder(locate(str(folder)), dropout=0.0, gradient_checkpointing=False)
        return build.classifier(configuration(pooling), open_prepared(learnable).taxonomy, encoder)

    return make


def trial(model, pooling="mean", **options) -> EncoderCheck:
    return EncoderCheck(
        model, **{"pad_id": 0, "max_length": 32, "model_name": "x", "pooling": pooling, **options}
    )


@pytest.mark.parametrize(
    "family", [*FAMILIES, *(pytest.param(family, marks=pytest.mark.slow) for family in MORE)]
)
def test_a_document_alone_is_the_document_in_a_batch(family, model_of, learnable):
    """Whichever side the tokenizer would pad, in every pooling that the trial lets pass."""
    model = model_of(family).eval()
    tokenizer = load_tokenizer(locate("tiny"))
    tokenizer.padding_side = "left"
    prepared = open_prepared(learnable)
    split = tokenise(prepared, tokenizer, max_length=32, cache_dir=Path("cache"))["train"]
    counts = build.TrainingCounts.of(split, prepared.taxonomy)
    made = build.scoring(
        configuration(), prepared.taxonomy, tokenizer, counts, threshold=0.5, batch_size=8, num_workers=0
    )
    chosen = np.array([split.lengths.argmax(), split.lengths.argmin(), 3, 5])
    for name, pooling in POOLINGS.items():
        model.pooling = pooling()
        with torch.no_grad():
            together = model.pool(**made.collate(split, chosen).inputs)
            alone = torch.cat([model.pool(**made.collate(split, chosen[[row]]).inputs) for row in range(4)])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
        is_refused = name == "cls" and family in DECODERS
        assert (len(alone.unique(dim=0)) < 4) == is_refused
        refusal = pytest.raises(ConfigError, match=r"=cls: .* write pooling=last")
        with refusal if is_refused else nullcontext():
            trial(model, name).require_sound()


def test_a_decoder_by_its_configuration(tmp_path, learnable):
    """BERT, whose configuration may make it one."""
    size = small("bert").to_dict()
    for is_decoder in (False, True):
        encoder = transformers.BertModel(transformers.BertConfig(**{**size, "is_decoder": is_decoder}))
        model = build.classifier(configuration("cls"), open_prepared(learnable).taxonomy, encoder)
        made = trial(model, "cls")
        with pytest.raises(ConfigError, match="pooling=last") if is_decoder else nullcontext():
            made.require_sound()


@pytest.mark.parametrize("family", READS_PADDING)
@pytest.mark.slow
def test_a_model_that_reads_padding_is_refused(family, model_of):
    with pytest.raises(ConfigError, match=r"encoder.model_name=x: \w+ does not ignore padding"):
        trial(model_of(family)).require_sound()


@pytest.mark.parametrize("family", ["vit", "clip", "bart", "whisper"])
def test_what_takes_no_text_is_one_message(family, model_of):
    with pytest.raises(ConfigError, match=r"^[^\n]+ such as FacebookAI/\S+$"):
        trial(model_of(family)).require_sound()


@pytest.mark.parametrize(("family", "fault"), [("deberta", "BFloat16"), ("bert", None), ("gpt2", None)])
def test_a_model_that_fails_in_bf16_is_noticed(family, fault, model_of):
    model = model_of(family)
    before = torch.get_rng_state()
    found = trial(model).fault_under(lambda: torch.autocast("cpu", torch.bfloat16))
    assert (found is None) == (fault is None)
    assert fault is None or fault in found
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fault_of_ours_is_no_message(model_of, monkeypatch):
    model = model_of("bert")
    monkeypatch.setattr(type(model.pooling), "forward", lambda self, hidden, mask: paths.untaken(3))
    with pytest.raises(AttributeError):
        trial(model).require_sound()


def test_auto_takes_fp32_where_bf16_fails_and_bf16_is_refused(
    learnable, tmp_path, monkeypatch, model_of, caplog
):
    monkeypatch.setenv("HBLM_BF16", "1")
    model_of("deberta")
    given = (f"encoder.model_name={tmp_path / 'deberta'}", "trainer.epochs=1")
    record = json.loads(run(learnable, *given).read_text())
    assert record["environment"]["precision"] == "fp32"
    assert "DebertaModel fails in bf16" in record["auto"]["trainer.precision"]["reason"]
    with pytest.raises(ConfigError, match=r"trainer\.precision=bf16: DebertaModel fails in bf16"):
        run(learnable, *given, "trainer.precision=bf16")


@pytest.mark.long
def test_every_text_family_is_trained_right_or_refused(model_of, tmp_path):
    """All families of transformers' AutoModel with a text head: stored, loaded, tried, and a gradient taken.

    A family that the trial lets pass gives a document alone the states it has in a batch, in every pooling,
    and its encoder a gradient. Families that cannot be made this small are left out.
    """
    ends = collections.defaultdict(list)
    for family in text_families():
        config = small_or_none(family)
        if config is None:
            ends["not made"].append(family)
            continue
        try:
            model = model_of(family)
        except ConfigError as error:
            ends[str(error)].append(family)
            continue
        for name, pooling in POOLINGS.items():
            model.pooling = pooling()
            try:
                trial(model, name).require_sound()
            except ConfigError as error:
                ends[
                    re.sub(r"[\d.]+e?-?\d*", "N", str(error)).replace(type(model.encoder).__name__, "X")
                ].append(f"{family}:{name}")
                continue
            ids = torch.arange(3, 43).view(4, 10)
            mask = torch.arange(10) < torch.tensor([[10], [7], [3], [1]])
            pooled = model.eval().pool(ids * mask, mask.long())
            alone = [
                model.pool(row[None, :n], mask[:1, :n].long())
                for row, n in zip(ids, mask.sum(1), strict=True)
            ]
            torch.testing.assert_close(pooled, torch.cat(alone), atol=1e-5, rtol=1e-3, msg=f"{family} {name}")
            (model.train().pool(ids * mask, mask.long()) ** 2).sum().backward()
            assert any(p.grad is not None and p.grad.any() for p in model.encoder.parameters()), family
            ends[f"runs with {name}"].append(family)
        shutil.rmtree(tmp_path / family)
    for end, families in ends.items():
        print(f"{len(families)} {end}: {' '.join(families)}")
    assert len(ends["runs with mean"]) > 100
    assert len(ends["not made"]) < 60
