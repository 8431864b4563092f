import csv
import json

import pytest

from gnomon.core.errors import UsageError
from gnomon.measure.record import Span, Trace
from gnomon.report.tables import tables, write_csv_folder, write_parquet_folder
from tests.store.build import forecast


@pytest.fixture(scope="module")
def found(examination):
    spans = (Span('a,\n"b"', "layer", 1 / 3, 0.1, None, None, {"ü": [1]}),)
    records = [(0, examination.measurement), (2, Trace("t", "x", spans)), (5, forecast())]
    return tables("20260101-000000-abcdef", records)


def read_csv(folder, table):
    """The rows as they were, by the kinds in columns.csv."""
    with (folder / "columns.csv").open(newline="") as file:
        kinds = {row["column"]: row["kind"] for row in csv.DictReader(file) if row["table"] == table}
    parse = {"text": str, "whole": int, "number": float, "truth": {"True": True, "False": False}.__getitem__}
    with (folder / f"{table}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    names = [kinds[name] for name in header]
    pairs = [zip(row, names, strict=True) for row in rows]
    return [tuple(None if c == "" and kind != "text" else parse[kind](c) for c, kind in row) for row in pairs]


def test_the_tables_hold_every_number_of_the_records(found, examination):
    by_name = {table.name: table for table in found}
    m = examination.measurement
    sessions = [(run.level, s) for run in m.levels for s in run.sessions]
    assert len(by_name["sessions"].rows) == len(sessions)
    assert len(by_name["calls"].rows) == sum(len(s.wall_s) for _, s in sessions)
    assert sum(row[5] for row in by_name["calls"].rows) == pytest.approx(sum(sum(s.wall_s) for _, s in sessions))
    assert len(by_name["layers"].rows) == len(m.layers)
    assert len(by_name["operators"].rows) == len(m.operators)
    assert len(by_name["spans"].rows) == len(m.spans) + 1
    assert {row[1] for row in by_name["spans"].rows} == {0, 2}
    assert [row[2:4] for row in by_name["forecasts"].rows] == [("embed", "H100-SXM")]
    p50 = next(row for row in by_name["latencies"].rows if row[2:4] == ("wall", "p50"))
    assert p50[4] == m.latency["p50"].value
    assert {len(row) for table in found for row in table.rows if table.name == "calls"} == {8}


def test_csv_gives_equal_values_back(found, tmp_path):
    folder = write_csv_folder(tmp_path / "out", found)
    for table in found:
        assert read_csv(folder, table.name) == table.rows, table.name


def test_parquet_gives_equal_values_and_units_back(found, tmp_path):
    from pyarrow import parquet

    folder = write_parquet_folder(tmp_path / "out", found)
    assert {path.stem for path in folder.iterdir()} == {table.name for table in found}
    for table in found:
        read = parquet.read_table(folder / f"{table.name}.parquet")
        assert list(zip(*(column.to_pylist() for column in read.columns), strict=True)) == table.rows, table.name
        units = {field.name: (field.metadata or {}).get(b"unit", b"").decode() for field in read.schema}
        assert units == {column.name: column.unit for column in table.columns}
    assert units["value_s"] == "s"


def test_what_is_nested_is_json_text(found):
    spans = next(table for table in found if table.name == "spans")
    assert json.loads(spans.rows[-1][-1]) == {"ü": [1]}


def test_nothing_is_overwritten_and_nothing_half_written_stays(found, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="exists already; nothing is overwritten"):
        write_csv_folder(tmp_path / "out", found)
    broken = [type(found[0])("spans", found[0].columns, [("too", "short")])]
    with pytest.raises(ValueError, match="Could not convert 'short'"):
        write_parquet_folder(tmp_path / "new", broken)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
