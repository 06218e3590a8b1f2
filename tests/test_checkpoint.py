import dataclasses
import json
import shutil

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from networks import random_encoder, random_network
from runs import dicjax, EXAMPLE

from dicjax._core import digest, Rescued, shipped
from dicjax.generation.generate import checkpoint_for
from dicjax.inference import checkpoint
from dicjax.inference.adapter import attach, LowRank, merge
from dicjax.inference.calibration import Calibration
from dicjax.inference.checkpoint import (
    Base,
    Checkpoint,
    encoder_hash,
    find_neuron,
    load_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
    shipped_models,
)
from dicjax.inference.config import DensityConfig, EmulatorConfig, EncoderConfig
from dicjax.inference.density import Density
from dicjax.inference.emulator import Emulator
from dicjax.inference.library import Library
from dicjax.neurons import load_neuron
from dicjax.neurons.models import MODELS, stg, stg_prinz


CONFIG = EncoderConfig(width=8, num_slots=2, latent=4, hidden=8, max_spikes=16)
DENSITY = DensityConfig(width=8, num_components=2)
EMULATOR = EmulatorConfig(width=8, num_layers=2)
NEURON = """
import dataclasses
import dicjax as dj

neuron = dataclasses.replace(dj.stg(), name="mine")
"""


def _encoder(seed=0):
    return random_encoder(CONFIG, seed)


@pytest.fixture(scope="module")
def made():
    rng = np.random.default_rng(0)
    levels = np.linspace(0, 1, 11, dtype=np.float32)
    free = (0, 1, 2, 3, 4, 7)
    density = random_network(Density, DENSITY, free, 8, 5, seed=1)
    return Checkpoint(
        encoder=_encoder(),
        calibration=Calibration(np.tile(levels, (3, 4, 1)), np.full(3, 1.5)),
        density=density,
        emulator=random_network(Emulator, EMULATOR, 8, seed=2),
        library=Library(
            g=rng.uniform(size=(5, 8)).astype(np.float32),
            labels=np.array([1, 2, 2, 3, 1], np.int32),
            features=rng.normal(size=(5, 7)).astype(np.float32),
        ),
        neuron=stg(),
        header={"date": "2026-01-01"},
    )


@pytest.fixture(scope="module")
def original(tmp_path_factory, made):
    path = tmp_path_factory.mktemp("checkpoints") / "stg"
    save_checkpoint(path, made)
    return path


@pytest.fixture
def saved(tmp_path, original):
    """A copy, to be changed and damaged."""
    return shutil.copytree(original, tmp_path / "stg")


def _same(a, b):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(x, y, equal_nan=True)
        assert x.dtype == y.dtype


def test_a_checkpoint_comes_back_bit_for_bit(saved, made):
    loaded = load_checkpoint(saved, "stg")
    for name in ("encoder", "calibration", "density", "library"):
        _same(getattr(loaded, name), getattr(made, name))
    assert loaded.encoder.config == CONFIG
    assert loaded.density.free == (0, 1, 2, 3, 4, 7)
    assert loaded.header["date"] == "2026-01-01"
    assert loaded.neuron.name == "stg"


def test_an_adapter_is_kept_without_the_encoder_and_comes_back_on_it(
    saved, made, tmp_path, monkeypatch
):
    monkeypatch.setattr(checkpoint, "shipped_checkpoint", lambda model: saved)
    adapted = attach(jr.key(2), made.encoder, 2)
    adapted = jax.tree.map(
        lambda x: (
            eqx.tree_at(lambda w: w.up, x, x.up + jnp.float32(0.1))
            if isinstance(x, LowRank)
            else x
        ),
        adapted,
        is_leaf=lambda x: isinstance(x, LowRank),
    )
    base = Base("stg", 2, encoder_hash(made.encoder))
    path = tmp_path / "stg-prinz"
    prinz = dataclasses.replace(made, encoder=adapted, neuron=stg_prinz())
    save_checkpoint(path, prinz, base=base)
    loaded = load_checkpoint(path, "stg-prinz")
    _same(loaded.encoder, eqx.filter_jit(merge)(adapted))
    whole = load_checkpoint(saved).header["num_parameters"]
    assert loaded.header["num_parameters"] < whole
    # Another encoder in the place of the one it was trained on does not go unnoticed.
    shutil.rmtree(saved)
    save_checkpoint(saved, dataclasses.replace(made, encoder=_encoder(9)))
    with pytest.raises(ValueError, match=base.encoder_hash):
        load_checkpoint(path)


def test_a_neuron_of_ones_own_travels_with_its_checkpoint(made, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(NEURON)
    path = tmp_path / "mine"
    mine = dataclasses.replace(made, neuron=load_neuron(file))
    save_checkpoint(path, mine, neuron_file=file)
    assert load_checkpoint(path, str(file)).neuron.name == "mine"
    file.unlink()
    copy = path / "neuron.py"
    loaded = load_checkpoint(copy)
    assert loaded.model == loaded.neuron.name == "mine"
    assert checkpoint_for(str(copy)).neuron.name == "mine"
    neuron, named = find_neuron(str(copy))
    assert neuron.name == "mine" and named == copy
    load_checkpoint(copy)  # looking at it has left nothing behind
    copy.write_text(NEURON + "\n# edited")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(copy)


def test_no_python_in_a_checkpoint_runs_unless_it_is_named(made, tmp_path):
    file, mark = tmp_path / "evil.py", tmp_path / "ran"
    file.write_text(f"open({str(mark)!r}, 'w')\n{NEURON}")
    path = tmp_path / "mine"
    mine = dataclasses.replace(made, neuron=load_neuron(file))
    save_checkpoint(path, mine, neuron_file=file)
    mark.unlink()
    out = tmp_path / "out"
    for way in (
        lambda: load_checkpoint(path),
        lambda: load_checkpoint(path, "mine"),
        lambda: find_neuron(str(path)),
        lambda: checkpoint_for(str(path)),
        lambda: checkpoint_for("mine", path),
    ):
        with pytest.raises(ValueError, match="no Python in a checkpoint is run"):
            way()
    assert dicjax("generate", EXAMPLE, "--model", path, "--out", out) == 2
    assert not mark.exists()
    other = tmp_path / "other.py"
    other.write_text(NEURON)
    with pytest.raises(ValueError, match="is not the file that declares"):
        load_checkpoint(path, str(other))
    load_checkpoint(path / "neuron.py")
    assert mark.exists()


@pytest.mark.parametrize("name", ("../stg", "/etc", "stg/..", "operators/../stg", ""))
def test_headers_lead_to_nothing_but_what_ships(made, saved, tmp_path, name):
    assert shipped(name) is None
    base = Base(name, 2, encoder_hash(made.encoder))
    adapted = dataclasses.replace(made, encoder=attach(jr.key(2), made.encoder, 2))
    save_checkpoint(tmp_path / "new", adapted, base=base)
    with pytest.raises(ValueError, match="does not ship"):
        load_checkpoint(tmp_path / "new")


def test_a_checkpoint_replaces_nothing_but_a_whole_checkpoint(made, saved, tmp_path):
    for change in ("thesis.tex", "header.json"):
        path = tmp_path / change
        shutil.copytree(saved, path)
        (path / change).write_text("years of work")
        with pytest.raises(Rescued, match="did not write") as raised:
            save_checkpoint(path, made)
        assert load_checkpoint(raised.value.place).model == "stg"
        assert (path / change).read_text() == "years of work"
    save_checkpoint(saved, made)
    assert load_checkpoint(saved).model == "stg"


def test_a_model_this_version_does_not_have_is_refused(made, tmp_path):
    newest = dataclasses.replace(stg(), name="newest")
    save_checkpoint(tmp_path / "new", dataclasses.replace(made, neuron=newest))
    with pytest.raises(ValueError, match="'newest'"):
        load_checkpoint(tmp_path / "new")


def test_another_model_is_refused(saved):
    with pytest.raises(ValueError, match="'stg'.*'stg-prinz'"):
        load_checkpoint(saved, "stg-prinz")


def test_another_version_is_refused(saved):
    header = json.loads((saved / "header.json").read_text())
    header["version"] = 1
    (saved / "header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match="1.*3"):
        load_checkpoint(saved)


def test_an_edited_configuration_is_refused(saved):
    header = json.loads((saved / "header.json").read_text())
    header["config"]["encoder"]["width"] = 16
    (saved / "header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=str(saved)):
        load_checkpoint(saved, "stg")


@pytest.mark.parametrize(
    "edit, part",
    (
        (lambda header: header.update(model="stg-prinz"), "edited"),
        (lambda header: header.update(date="2027-01-01"), "edited"),
        (lambda header: header.pop("model"), "lacks 'model'"),
        (lambda header: header.pop("encoder_hash"), "lacks 'encoder_hash'"),
        (lambda header: header.pop("config"), "edited"),
        (lambda header: header.pop("files_hash"), "edited"),
    ),
)
def test_an_edited_header_is_refused(saved, edit, part):
    header = json.loads((saved / "header.json").read_text())
    edit(header)
    (saved / "header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=f"{saved}.* {part}"):
        load_checkpoint(saved)


@pytest.mark.parametrize("key", ("encoder", "density", "base"))
def test_a_configuration_without_a_key_is_refused(saved, key):
    header = json.loads((saved / "header.json").read_text())
    del header["config"][key], header["header_hash"]
    content = json.dumps(header["config"], sort_keys=True).encode()
    header["config_hash"] = digest(content)
    (saved / "header.json").write_text(json.dumps(header))
    with pytest.raises(ValueError, match=f"{saved}.*'{key}'"):
        load_checkpoint(saved)


def test_a_header_without_a_hash_of_its_own_is_read_as_before(saved):
    header = json.loads((saved / "header.json").read_text())
    del header["header_hash"]
    (saved / "header.json").write_text(json.dumps(header))
    assert load_checkpoint(saved).model == "stg"


@pytest.mark.parametrize("name", (".DS_Store", "Thumbs.db", "._arrays", "desktop.ini"))
def test_litter_of_systems_does_not_damage_a_checkpoint(saved, name):
    for folder in (saved, saved / "encoder"):
        (folder / name).write_bytes(b"litter")
    assert load_checkpoint(saved, "stg").model == "stg"
    (saved / "other.bin").write_bytes(b"1")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved)


@pytest.mark.parametrize("folder", ["encoder", "arrays"])
def test_damaged_arrays_are_refused(saved, folder):
    for path in (saved / folder).rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved, "stg")


def test_arrays_of_another_checkpoint_are_refused(saved, made, tmp_path):
    other = dataclasses.replace(made, encoder=_encoder(3))
    save_checkpoint(tmp_path / "other", other)
    shutil.rmtree(saved / "encoder")
    (tmp_path / "other" / "encoder").rename(saved / "encoder")
    with pytest.raises(ValueError, match="damaged"):
        load_checkpoint(saved, "stg")


@pytest.mark.parametrize("content", [None, "not json", "[]", '{"format": "other"}'])
def test_foreign_folders_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "header.json").write_text(content)
    with pytest.raises(ValueError, match=str(tmp_path)):
        load_checkpoint(tmp_path, "stg")


def test_saving_again_replaces_the_whole(saved, made):
    save_checkpoint(saved, dataclasses.replace(made, header={"date": "2026-02-02"}))
    assert load_checkpoint(saved, "stg").header["date"] == "2026-02-02"
    assert not list(saved.parent.glob("*.partial"))


@pytest.mark.parametrize("model", shipped_models())
def test_what_ships_loads_and_says_how_good_it_is(model):
    loaded = load_checkpoint(shipped_checkpoint(model), model)
    for table in loaded.header["tests"].values():
        for row in table.values():
            assert 0 <= row["coverage_90"] <= 1
    tested = next(iter(loaded.header["tests"].values()))
    assert {"tonic", "bursting"} <= set(tested)
    assert loaded.library.g.shape[1] == len(MODELS[model]().channels)
    assert np.all(np.diff(loaded.calibration.ranks, axis=2) >= 0)
    assert loaded.encoder.config == EncoderConfig()


def test_what_ships_are_the_three_models_of_recordings():
    assert set(shipped_models()) >= {"stg", "stg-prinz", "da"}
    folder = shipped_checkpoint("da") / "encoder"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert size < 300_000  # an adapter, not an encoder


def test_models_without_a_checkpoint_say_how_to_make_one():
    with pytest.raises(ValueError, match="'squid'"):
        shipped_checkpoint("squid")


def test_an_unknown_neuron_says_what_may_be_named():
    with pytest.raises(ValueError, match="'squid'"):
        find_neuron("squid")
    assert dataclasses.is_dataclass(find_neuron("stg")[0])
