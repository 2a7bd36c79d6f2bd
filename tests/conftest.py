"""What all tests share: checked tensor shapes, no network, a free working folder."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports huggingface_hub
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # several tests run at once; threads waiting for each other cost minutes

import pytest
from jaxtyping import install_import_hook

# the modules whose signatures carry tensor shapes
install_import_hook(["hblm.nn", "hblm.loss", "hblm.metrics", "hblm.corpus.batches"], "beartype.beartype")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path_factory, monkeypatch):
    """Run every test in an empty folder, so that none depends on, or leaves, files in the checkout."""
    monkeypatch.chdir(tmp_path_factory.mktemp("cwd"))
