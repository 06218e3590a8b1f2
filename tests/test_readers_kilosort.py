"""The folder of Kilosort, as it is written and after curation in phy."""

import pathlib

import numpy as np
import pytest

from dicjax.cli import main
from dicjax.recordings.readers import common, read_spike_trains


TRAIN = np.arange(1, 41) * 50.125
OTHER = np.arange(1, 31) * 80.375
PARAMS = "dat_path = 'raw.dat'\nn_channels_dat = 4\nsample_rate = 30000.  # Hz\n"


def kilosort(folder, params=PARAMS, clusters="spike_clusters.npy", **tables):
    """Three clusters: 2 and 11, and 5, which repeats 2 half a period later."""
    folder.mkdir(exist_ok=True)
    trains = {2: TRAIN, 11: OTHER, 5: TRAIN + 25.0}
    ids = np.repeat(list(trains), [t.size for t in trains.values()])
    samples = np.round(np.concatenate(list(trains.values())) * 30)
    order = np.argsort(samples, kind="stable")
    np.save(folder / "spike_times.npy", samples[order].astype(np.uint64)[:, None])
    np.save(folder / clusters, ids[order].astype(np.int32))
    if params is not None:
        (folder / "params.py").write_text(params)
    for name, rows in tables.items():
        lines = ["\t".join(map(str, row)) for row in rows]
        (folder / f"cluster_{name}.tsv").write_text("\n".join(lines) + "\n")
    return folder


def names(folder, **options):
    return [train.name for train in read_spike_trains(folder, **options)]


@pytest.mark.parametrize("clusters", ("spike_clusters.npy", "spike_templates.npy"))
def test_clusters_are_units_at_the_rate_of_the_parameters(tmp_path, clusters):
    trains = read_spike_trains(kilosort(tmp_path / "sorted", clusters=clusters))
    assert [train.name for train in trains] == ["2", "5", "11"]
    assert all(train.source == "sorted" for train in trains)
    for train, times in zip(trains, (TRAIN, TRAIN + 25.0, OTHER), strict=True):
        np.testing.assert_allclose(train.times, times, atol=1 / 30)
    assert names(str(tmp_path / "sorted") + "/", unit_id=5) == ["5"]


GROUPS = [["cluster_id", "group"], [2, "good"], [5, "noise"]]
INFO = [["id", "group", "KSLabel"], [2, "noise", "good"], [5, "", "mua"]]
LABELS = [["cluster_id", "KSLabel"], [2, "good"], [11, "noise"]]


@pytest.mark.parametrize(
    "tables, left",
    (
        ({"group": GROUPS}, ["2", "11"]),
        ({"info": INFO}, ["5", "11"]),
        ({"KSLabel": LABELS}, ["2", "5"]),
        ({"group": GROUPS, "info": INFO, "KSLabel": LABELS}, ["2", "11"]),
        ({"group": GROUPS[:1], "KSLabel": LABELS}, ["2", "5"]),
    ),
)
def test_noise_is_left_out_by_the_verdict_of_people_first(tmp_path, tables, left):
    assert names(kilosort(tmp_path, **tables)) == left


def test_multi_unit_activity_is_pointed_out(tmp_path):
    folder = kilosort(tmp_path, group=[["cluster_id", "group"], [5, "mua"]])
    with pytest.warns(UserWarning, match="unit 5 .*multi-unit"):
        assert names(folder) == ["2", "5", "11"]
    assert names(folder, unit_id="2") == ["2"]  # which is none


@pytest.mark.parametrize("params", (None, "", "sample_rate = RATE", "sample_rate = 0"))
def test_a_rate_that_is_not_stated_must_be_given(tmp_path, params):
    folder = kilosort(tmp_path, params)
    with pytest.raises(ValueError, match='unit="samples@30000"'):
        read_spike_trains(folder)
    (train,) = read_spike_trains(folder, unit="samples@30000", unit_id=2)
    np.testing.assert_allclose(train.times, TRAIN, atol=1 / 30)


def test_a_rate_that_contradicts_the_parameters_is_refused(tmp_path):
    folder = kilosort(tmp_path)
    assert names(folder, unit="samples@30000.0") == ["2", "5", "11"]
    for unit in ("samples@25000", "s"):
        with pytest.raises(ValueError, match=f"samples@30000.* unit={unit!r}"):
            read_spike_trains(folder, unit=unit)


def test_parameters_are_never_run(tmp_path):
    ran = tmp_path / "ran"
    params = f"open({str(ran)!r}, 'w')\nsample_rate = 30000.\n"
    assert len(names(kilosort(tmp_path / "sorted", params))) == 3
    assert not ran.exists()


def test_bad_folders_are_refused(tmp_path, monkeypatch):
    folder = kilosort(tmp_path)
    good = (folder / "spike_clusters.npy").read_bytes()
    np.save(folder / "spike_clusters.npy", np.arange(3))
    with pytest.raises(ValueError, match="110 .*3"):
        read_spike_trains(folder)
    np.save(folder / "spike_clusters.npy", np.array(["a"] * 110))
    with pytest.raises(ValueError, match="spike_clusters.npy"):
        read_spike_trains(folder)
    (folder / "spike_clusters.npy").unlink()
    with pytest.raises(ValueError, match="spike_clusters.npy"):
        read_spike_trains(folder)
    (folder / "spike_clusters.npy").write_bytes(good)
    (folder / "cluster_group.tsv").write_bytes(b"\xff\x00cluster_id\tgroup\n2")
    assert len(names(folder)) == 3
    monkeypatch.setattr(common, "MAX_BYTES", 300)
    with pytest.raises(common.TooLarge, match="spike_times.npy"):
        read_spike_trains(folder)


def test_the_command_line_takes_a_folder(tmp_path, capsys):
    folder = kilosort(tmp_path / "sorted")
    out: pathlib.Path = tmp_path / "features.csv"
    with pytest.raises(SystemExit) as ended:
        main(["features", str(folder), "--out", str(out)])
    assert ended.value.code == 0 and capsys.readouterr().err == ""
    assert [row.split(",")[0] for row in out.read_text().splitlines()[1:]] == [
        '"2"',
        '"5"',
        '"11"',
    ]
