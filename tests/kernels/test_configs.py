import json
from pathlib import Path

import pytest

from pocketxl.kernels import configs
from pocketxl.kernels.architecture import GPU_ARCHITECTURES, architecture
from pocketxl.kernels.errors import KernelError

TABLES = sorted(path.stem for path in configs.FOLDER.glob("*.json"))


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = [
        {"sm": 89, "shape": {}, "rows": 64, "config": {"tile": 1}},
        {"sm": 89, "shape": {}, "rows": 1024, "config": {"tile": 2}},
        {"sm": 89, "shape": {"k": 640}, "rows": None, "config": {"tile": 3}},
        {"sm": 89, "shape": {"k": 640, "n": 320}, "rows": 128, "config": {"tile": 4}},
    ]
    (tmp_path / "op.json").write_text(json.dumps(table))
    monkeypatch.setattr(configs, "FOLDER", tmp_path)
    configs.table.cache_clear()


@pytest.mark.usefixtures("rows")
@pytest.mark.parametrize(
    ("asked", "k", "n", "tile"),
    [(1, 8, 8, 1), (64, 8, 8, 1), (65, 8, 8, 2), (9999, 8, 8, 2), (5, 640, 8, 3), (5, 640, 320, 4), (500, 640, 320, 4)],
)
def test_the_row_that_names_most_of_the_shape_and_holds_the_rows(asked: int, k: int, n: int, tile: int) -> None:
    assert configs.lookup("op", architecture(89), asked, k=k, n=n) == {"tile": tile}


@pytest.mark.usefixtures("rows")
def test_no_row_for_an_architecture_is_an_error() -> None:
    with pytest.raises(KernelError, match=r"no configuration of op for sm_90 in op\.json"):
        configs.lookup("op", architecture(90), 1)


@pytest.mark.parametrize("name", TABLES)
def test_every_table_serves_every_architecture_and_any_shape(name: str) -> None:
    rows = configs.table(name)
    assert {row.sm for row in rows if not row.shape} == set(GPU_ARCHITECTURES)
    assert all(isinstance(value, int) and value > 0 for row in rows for value in row.config.values())
    assert len({(row.sm, tuple(sorted(row.shape.items())), row.rows) for row in rows}) == len(rows), "two rows for one"
