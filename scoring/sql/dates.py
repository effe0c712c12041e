"""SQLite's functions of dates without the clock and the time zone: the same on every day and every machine."""

import sqlite3

DATES = frozenset(["date", "time", "datetime", "julianday", "strftime"])
# What reads the clock or the machine's time zone, and what writes more than it reads (sqlite.org/lang_datefunc.html).
MOVING = ("now", "localtime", "utc", "subsec")
LONGEST_FORMAT = 100  # characters


def add_dates(connection: sqlite3.Connection) -> None:
    """Replaces the functions of dates by those that fail where they would read the clock."""
    own = sqlite3.connect(":memory:", isolation_level=None)
    for name in DATES:
        connection.create_function(name, -1, still(own, name), deterministic=True)


def still(own: sqlite3.Connection, name: str):
    """SQLite's function of that name for what is no moment of today.

    Raises:
        `ValueError`: of the function; it reads the clock or the time zone.
    """
    first = int(name == "strftime")

    def call(*arguments):
        words = [value.strip().lower() for value in arguments[first:] if isinstance(value, str)]
        if len(arguments) <= first or any(word.startswith(MOVING) for word in words):
            raise ValueError("it reads the clock")
        if first and len(str(arguments[0])) > LONGEST_FORMAT:
            raise ValueError("too long")
        return own.execute(f"SELECT {name}({', '.join('?' * len(arguments))})", arguments).fetchone()[0]

    return call
