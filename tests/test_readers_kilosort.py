"""The folder of Kilosort, as it is written and after curation in phy."""

import pathlib

import numpy as np
import pytest

from dicjax.cli import main
from dicjax.recordings.readers import common, read_spike_trains


TRAIN = np.arange(1, 41) * 50.125
OTHER = np.arange(1, 31) * 80.375
PARAMS = "dat_path = 'raw.dat'\nn_channels_dat = 4\nsample_rate = 30000.  # Hz\n"


GOOD = [["cluster_id", "group"], [2, "good"], [5, "good"], [11, "good"]]


def kilosort(folder, params=PARAMS, clusters="spike_clusters.npy", **tables):
    """Three clusters: 2 and 11, and 5, which repeats 2 half a period later.

    All are good unless `tables` say something else, or None says nothing.
    """
    folder.mkdir(exist_ok=True)
    tables = {x: rows for x, rows in (tables or {"group": GOOD}).items() if rows}
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


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "tables, left",
    (
        ({"group": GROUPS}, ["2", "11"]),
        ({"info": INFO}, ["5", "11"]),
        ({"KSLabel": LABELS}, ["2", "5"]),
        ({"group": GROUPS, "info": INFO, "KSLabel": LABELS}, ["2"]),
        ({"group": GROUPS[:1], "KSLabel": LABELS}, ["2", "5"]),
    ),
)
def test_noise_is_left_out_by_the_verdict_of_people_first(tmp_path, tables, left):
    with pytest.warns(UserWarning, match=r"left out.*noise|only Kilosort.*noise"):
        assert names(kilosort(tmp_path, **tables)) == left


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("mark", ("\t", ","))
@pytest.mark.parametrize(
    "name, rows",
    (
        ("cluster_groups.csv", [*GROUPS, [11, "unsorted"]]),
        (
            "cluster_info.csv",
            [["id", "depth", "group"], [2, 9, "good"], [5, 9, "noise"]],
        ),
        ("cluster_info.csv", [["id", "KSLabel"], [2, "good"], [5, "noise"]]),
        ("cluster_KSLabel.csv", [["cluster_id", "KSLabel"], [5, "Noise "]]),
    ),
)
def test_tables_of_old_versions_are_read(tmp_path, name, rows, mark):
    lines = [mark.join(map(str, row)) for row in rows]
    (kilosort(tmp_path, group=None) / name).write_text("\n".join(lines))
    with pytest.warns(UserWarning, match=r"5 \(noise\)"):
        left = names(tmp_path)
    assert left == (["2"] if "groups" in name else ["2", "11"])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_clusters_that_nobody_sorted_are_left_out_unless_kilosort_labels_them(tmp_path):
    rows = [["cluster_id", "group"], [2, "good"], [11, "unsorted"], [5, "unsorted"]]
    folder = kilosort(tmp_path, group=rows)
    with pytest.warns(UserWarning, match=r"5 \(unsorted\), 11 \(unsorted\)"):
        assert names(folder) == ["2"]
    kilosort(tmp_path, group=rows, KSLabel=[["cluster_id", "KSLabel"], [5, "good"]])
    with pytest.warns(UserWarning, match=r"11 \(unsorted\)"):
        assert names(folder) == ["2", "5"]
    kilosort(tmp_path, group=[*rows[:1], *([i, "noise"] for i in (2, 5, 11))])
    with pytest.raises(ValueError, match="noise or unsorted"):
        names(folder)


@pytest.mark.parametrize("groups", (None, [["cluster_id", "group"], [2, "unsorted"]]))
def test_a_folder_that_nobody_curated_says_so(tmp_path, groups):
    with pytest.warns(UserWarning, match="nobody has curated"):
        assert names(kilosort(tmp_path, group=groups)) == ["2", "5", "11"]


def test_multi_unit_activity_is_pointed_out(tmp_path):
    folder = kilosort(tmp_path, group=[*GOOD[:2], [5, "mua"], [11, "good"]])
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
    with pytest.warns(UserWarning, match="nobody has curated"):
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
