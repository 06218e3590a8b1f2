import json
import shutil

import jax
import jax.random as jr
import numpy as np
import pytest

from dicjax.atlas import Atlas
from dicjax.checkpoint import load_checkpoint, save_checkpoint, shipped_checkpoint
from dicjax.config import EncoderConfig
from dicjax.encoder import Encoder
from dicjax.models import MODELS


CONFIG = EncoderConfig(width=8, num_heads=2, num_blocks=1, latent=4, max_spikes=16)


@pytest.fixture
def saved(tmp_path):
    encoder = Encoder(CONFIG, (-20.0, 20.0), (0.0, 20.0), key=jr.key(0))
    rng = np.random.default_rng(0)
    atlas = Atlas(
        g=rng.uniform(size=(5, 8)).astype(np.float32),
        labels=np.array([1, 2, 2, 3, 1], np.int32),
        features=rng.normal(size=(5, 7)).astype(np.float32),
    )
    ranks = np.linspace(0, 1, 11).astype(np.float32)
    path = tmp_path / "stg"
    save_checkpoint(path, "stg", encoder, ranks, atlas, {"date": "2026-01-01"})
    return path, encoder, ranks, atlas


def test_a_checkpoint_comes_back_bit_for_bit(saved):
    path, encoder, ranks, atlas = saved
    loaded = load_checkpoint(path, "stg")
    for x, y in zip(
        jax.tree.leaves((encoder, atlas)),
        jax.tree.leaves((loaded.encoder, loaded.atlas)),
        strict=True,
    ):
        assert np.array_equal(x, y, equal_nan=True)
        assert x.dtype == y.dtype
    assert np.array_equal(loaded.ranks, ranks)
    assert loaded.encoder.config == CONFIG
    assert loaded.header["date"] == "2026-01-01"


def test_another_model_is_refused(saved):
    with pytest.raises(ValueError, match="is for the model 'stg', not for 'stg-prinz'"):
        load_checkpoint(saved[0], "stg-prinz")


def test_an_edited_configuration_is_refused(saved):
    header = json.loads((saved[0] / "header.json").read_text())
    header["config"]["width"] = 16
    (saved[0] / "header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="was edited"):
        load_checkpoint(saved[0], "stg")


def test_damaged_arrays_are_refused(saved):
    for path in (saved[0] / "arrays").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved[0], "stg")


def test_arrays_of_another_checkpoint_are_refused(saved, tmp_path):
    path, _, ranks, atlas = saved
    other = Encoder(CONFIG, (-20.0, 20.0), (0.0, 20.0), key=jr.key(1))
    save_checkpoint(tmp_path / "other", "stg", other, ranks, atlas, {})
    shutil.rmtree(path / "arrays")
    (tmp_path / "other" / "arrays").rename(path / "arrays")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(path, "stg")


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"format": "other"}'])
def test_foreign_folders_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "header.json").write_text(content)
    with pytest.raises(ValueError, match="not a dicjax checkpoint"):
        load_checkpoint(tmp_path, "stg")


def test_saving_again_replaces_the_whole(saved):
    path, encoder, ranks, atlas = saved
    save_checkpoint(path, "stg", encoder, ranks, atlas, {"date": "2026-02-02"})
    assert load_checkpoint(path, "stg").header["date"] == "2026-02-02"
    assert not list(path.parent.glob("*.partial"))


@pytest.mark.parametrize("model", ("stg", "stg-prinz"))
def test_what_ships_loads_and_says_how_good_it_is(model):
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    tested = loaded.header["test"]["by_label"]
    assert {"tonic", "bursting"} <= set(tested)
    for row in tested.values():
        assert 0 <= row["coverage_90"] <= 1
    assert loaded.atlas.g.shape[1] == len(MODELS[model]().channels)
    assert np.all(np.diff(loaded.ranks) >= 0)


def test_models_without_a_checkpoint_say_how_to_train_one():
    with pytest.raises(ValueError, match="dicjax train"):
        shipped_checkpoint("squid")
