"""The notebook, run as people run it."""

import pathlib

import pytest


NOTEBOOK = pathlib.Path(__file__).parents[1] / "examples" / "population.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    for needed in ("ipykernel", "pandas", "arviz"):
        pytest.importorskip(needed)
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs for cell in code)  # none is kept in the repository
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    shown = [str(cell.outputs) for cell in code]
    assert "bursting" in shown[0] and "g_s[0]" in shown[1]
    assert shown[2].count("True") >= 8
    assert "mS/cm2" in shown[3] and "run.py" in shown[4]
