"""What capture costs writers: each case bare and captured in turns, in one run, so that the ratio is fair on any
machine.

    python -m benchmarks.capture [rows] [rounds]

PostgreSQL runs in a cluster of its own with fsync on. Promised: COPY of 100,000 rows keeps at least 0.75 of its speed.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import uuid
from collections.abc import Callable
from contextlib import contextmanager
from time import perf_counter

import sqlalchemy as sa

from fourfold.projection.capture_spec import CaptureSpec
from fourfold.projection.keys import KeyColumn
from fourfold.rows import tables
from fourfold.rows.capture import synchronise
from fourfold.rows.engine import open_sync_engine
from fourfold.testing.postgresql import PostgresCluster

PROMISE = 0.75
KEY = {"postgresql": (KeyColumn("id", "uuid"),), "sqlite": (KeyColumn("id", "text"),)}
Case = Callable[[sa.Engine, str, list], None]


def copy(engine: sa.Engine, table: str, rows: list) -> None:
    with engine.begin() as connection:
        cursor = connection.connection.cursor()
        with cursor.copy(f"COPY {table} (id, title, n) FROM STDIN") as stream:
            stream.write("".join(f"{key}\t{title}\t{n}\n" for key, title, n in rows).encode())


def insert_select(engine: sa.Engine, table: str, _rows: list) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} SELECT id, title, n FROM source")


def executemany(engine: sa.Engine, table: str, rows: list) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"INSERT INTO {table} (id, title, n) VALUES (?, ?, ?)", rows)


def update(engine: sa.Engine, table: str, _rows: list) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET n = n + 1")


def delete(engine: sa.Engine, table: str, _rows: list) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {table}")


def single(engine: sa.Engine, table: str, rows: list) -> None:
    with engine.connect() as connection:
        for key, title, n in rows[:500]:
            connection.exec_driver_sql(f"INSERT INTO {table} (id, title, n) VALUES ('{key}', '{title}', {n})")
            connection.commit()


def measure(engine: sa.Engine, rows: list, cases: dict[str, tuple[Case, bool]], rounds: int) -> dict[str, float]:
    """Print a line per case and return captured speed / bare speed, by medians."""
    ratios = {}
    for name, (case, needs_rows) in cases.items():
        seconds: dict[str, list[float]] = {"bare": [], "captured": []}
        for turn in range(rounds):
            for table in ("bare", "captured") if turn % 2 else ("captured", "bare"):
                with engine.begin() as connection:
                    empty = "DELETE FROM" if engine.dialect.name == "sqlite" else "TRUNCATE"
                    connection.exec_driver_sql(f"{empty} {table}")
                if needs_rows:
                    insert_select(engine, table, rows)
                clear_queue(engine)
                began = perf_counter()
                case(engine, table, rows)
                seconds[table].append(perf_counter() - began)
        bare, captured = (statistics.median(seconds[table]) for table in ("bare", "captured"))
        ratios[name] = bare / captured
        times = f"bare {bare:7.3f} s  captured {captured:7.3f} s"
        print(f"{engine.dialect.name:10}  {name:22} {times}  ratio {ratios[name]:.2f}")
    return ratios


def clear_queue(engine: sa.Engine) -> None:
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.execute(sa.delete(tables.change))
        else:
            connection.exec_driver_sql("TRUNCATE fourfold_change")
    if engine.dialect.name == "postgresql":
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("CHECKPOINT")


@contextmanager
def database(url: str, rows: list):
    engine = open_sync_engine(url)
    kind = "uuid" if engine.dialect.name == "postgresql" else "text"
    with engine.begin() as connection:
        tables.metadata.create_all(connection)
        for name in ("bare", "captured", "source"):
            connection.exec_driver_sql(f"CREATE TABLE {name} (id {kind} PRIMARY KEY, title text, n integer)")
        spec = CaptureSpec("captured", KEY[engine.dialect.name], watched=("title", "n"))
        synchronise(connection, [spec])
    load = executemany if engine.dialect.name == "sqlite" else copy
    load(engine, "source", rows)
    yield engine
    engine.dispose()


def main(count: int = 100_000, rounds: int = 7) -> dict[str, float]:
    """Run all cases; return the ratios by dialect and case."""
    rows = [(str(uuid.uuid4()), f"title {number}", number) for number in range(count)]
    found: dict[str, float] = {}
    cluster = PostgresCluster()
    try:
        cluster.create()
        with database(cluster.create_database("benchmark"), rows) as engine:
            cases = {
                "COPY": (copy, False),
                "INSERT … SELECT": (insert_select, False),
                "UPDATE all": (update, True),
                "DELETE all": (delete, True),
                "500 single commits": (single, False),
            }
            found |= {f"postgresql {name}": ratio for name, ratio in measure(engine, rows, cases, rounds).items()}
    finally:
        cluster.destroy()
    with tempfile.TemporaryDirectory() as folder, database(f"sqlite:///{folder}/rows.db", rows) as engine:
        cases = {
            "executemany": (executemany, False),
            "INSERT … SELECT": (insert_select, False),
            "UPDATE all": (update, True),
            "DELETE all": (delete, True),
            "500 single commits": (single, False),
        }
        found |= {f"sqlite {name}": ratio for name, ratio in measure(engine, rows, cases, rounds).items()}
    kept = found["postgresql COPY"]
    print(f"COPY keeps {kept:.2f} of its speed, promised {PROMISE}: {'kept' if kept >= PROMISE else 'BROKEN'}")
    return found


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
