"""What `dicjax infer` says of a file with several neurons."""

import csv

import numpy as np
import pytest

import dicjax as dj
from dicjax.cli import main
from dicjax.generation import suit


@pytest.mark.slow
def test_each_neuron_is_read_with_the_model_that_suits_it(tmp_path):
    trains = {
        "steady": np.cumsum(np.tile([181.0, 185.0, 188.0], 70)),
        "bursting": np.cumsum(np.tile([52.0, 55.0, 61.0, 750.0], 60)),
        "steady_too": np.cumsum(np.tile([171.0, 175.0, 178.0], 70)),
    }
    np.savez(tmp_path / "cells.npz", unit="ms", **trains)  # pyright: ignore[reportArgumentType]
    out = tmp_path / "found.csv"
    with pytest.raises(SystemExit) as ended:
        main(["infer", str(tmp_path / "cells.npz"), "--out", str(out)])
    assert ended.value.code == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    models = [suit(times) for times in trains.values()]
    assert len(set(models)) == 2
    assert [(row["unit"], row["model"]) for row in rows] == [
        *zip(trains, models, strict=True)
    ]
    for model in set(models):
        own = [i for i, name in enumerate(models) if name == model]
        together = np.asarray(
            dj.infer([[*trains.values()][i] for i in own], model).median
        )
        found = [[float(rows[i][name]) for name in ("g_s", "g_u")] for i in own]
        np.testing.assert_allclose(found, together, rtol=1e-4)
