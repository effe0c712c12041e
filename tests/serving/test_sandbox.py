"""The SQL of the page: what is run, what is refused, and which rows are made up."""

import sqlite3
import time
from contextlib import closing

import pytest

from serving.space.page import sandbox
from serving.space.page.template import Template

PETS = """CREATE TABLE pet (id INTEGER PRIMARY KEY, name VARCHAR, age INTEGER);
CREATE TABLE visit (pet_id INTEGER, day TEXT)"""
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def answer(query: str, schema: str = PETS, inserts: str = "INSERT INTO pet VALUES (1, 'Bo', 3), (2, 'Cy', NULL)"):
    connection, _ = sandbox.open_tables(schema, inserts, [query])
    with closing(connection):
        return sandbox.run(connection, query)


def refusal(query: str, **given: str) -> str:
    with pytest.raises(sandbox.Refused) as refused:
        answer(query, **given)
    return str(refused.value)


def test_a_query_gives_its_rows():
    assert answer("SELECT name, age FROM pet;") == (["name", "age"], [("Bo", 3), ("Cy", None)], False)
    many = answer("SELECT a.id FROM pet a, pet b, pet c, pet d, pet e")
    assert len(many.rows) == 20 and many.more


@pytest.mark.parametrize(
    "query",
    ["ATTACH DATABASE 'stolen.db' AS s", "PRAGMA table_info(pet)", "DROP TABLE pet", "DELETE FROM pet", "VACUUM",
     "INSERT INTO pet VALUES (3, 'x', 1)", "UPDATE pet SET age = 1", "CREATE TABLE t (a)", "SELECT load_extension('x')",
     "CREATE TEMP TABLE t (a)", "SELECT printf('%1000000000d', 1)", "SELECT * FROM pragma_database_list"],
)  # fmt: skip
def test_only_a_select_is_run(query, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "nothing else is allowed (" in refusal(query)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "statement",
    ["ATTACH DATABASE 'stolen.db' AS s", "PRAGMA hard_heap_limit = 0", "DELETE FROM pet",
     "CREATE VIRTUAL TABLE v USING fts5(a)", "BEGIN",
     "CREATE TRIGGER t AFTER INSERT ON pet BEGIN DELETE FROM pet; END", "CREATE VIEW v AS SELECT 1"],
)  # fmt: skip
def test_tables_and_rows_can_do_no_more_either(statement, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said = refusal("SELECT 1", schema=f"{PETS}; {statement}")
    assert said.startswith("The tables cannot be made: ") and "nothing else is allowed" in said
    assert refusal("SELECT 1", inserts=statement).startswith("The rows cannot be made: ")
    assert not list(tmp_path.iterdir())


def test_time_and_memory_are_bounded():
    start = time.monotonic()
    assert refusal(ENDLESS) == "The query does not run on these tables: stopped after 2 seconds."
    # Rows of 10,000 characters fill the memory long before the time is up.
    large = "replace(hex(hex(hex(hex(hex('0123456789'))))), '3', '3333333333')"
    filling = f"INSERT INTO pet {ENDLESS.replace('count(*)', f'x, {large}, x')}"
    assert refusal("SELECT 1", inserts=filling) == "The rows cannot be made: they need more than 64 MB of memory."
    # SQLite's other way to say so, which comes where its memory does not even suffice for the first.
    with (
        pytest.raises(sandbox.Refused, match="they need more than 64 MB of memory"),
        closing(sqlite3.connect(":memory:")) as connection,
        sandbox._guarded(connection, sandbox.FILLING, "They cannot be made"),
    ):
        raise sqlite3.OperationalError("out of memory")
    assert time.monotonic() - start < 8
    doubled = "hex(" * 12 + "'0123456789'" + ")" * 12
    assert "string or blob too big" in refusal(f"SELECT {doubled}")
    assert refusal("SELECT 1", schema="x" * 20_001) == "The tables have 20,001 characters; at most 20,000 are taken."


def test_errors_are_sentences():
    assert refusal("SELECT nmae FROM pet") == "The query does not run on these tables: no such column: nmae."
    assert refusal("SELECT 1", schema="", inserts="").startswith("There are no tables to run a query on")
    for text, said in {
        " ": "The answer is empty.",
        "brand of the product": "This cannot be read as SQL.",
        "DROP TABLE pet": "This is no query: only a single SELECT is run.",
        "SELECT 1; SELECT 2": "These are 2 statements: only a single SELECT is run.",
        "SELECT " + "(" * 3000: "This cannot be read as SQL.",
        "SELECT 1" + " " * 20_000: "The answer has 20,008 characters: too many for a query.",
    }.items():
        with pytest.raises(sandbox.Refused) as refused:
            sandbox.parse(text)
        assert str(refused.value) == said


def test_rows_are_made_up_that_the_query_finds():
    joined = 'SELECT p.name FROM pet AS p JOIN visit AS v ON p.id = v.pet_id WHERE p.age > 7 AND v.day = "May"'
    connection, made_up = sandbox.open_tables(PETS, "", [joined])
    with closing(connection):
        found = sandbox.run(connection, joined)
        everything = sandbox.contents(connection)
    assert made_up and 0 < len(found.rows) < 6
    assert {name: len(rows.rows) for name, rows in everything.items()} == {"pet": 6, "visit": 6}


def test_the_prompts_fields_are_boxes():
    sql = Template("Translate. Question: {question} Tables: {context} SQL:", "{context}")
    assert (sql.labels, sql.tables) == (["Question", "Context"], 1)
    prompt = "Translate. Question: How many? Tables: CREATE TABLE a (b) SQL:"
    assert sql.read(prompt) == ["How many?", "CREATE TABLE a (b)"] and sql.fill(sql.read(prompt)) == prompt
    assert sql.read("Another prompt") is None
    money = Template("Answer. {instruction} {input}", None)
    assert (money.labels, money.tables) == (["Instruction, input"], None)
    assert money.read("Answer. What is a bond?\nSay it.") == ["What is a bond?\nSay it."]
    assert Template("{a}-{b}-{a}", "{a}{b}").labels == ["Prompt"]
    assert Template("{text} Summary:", "{text}; {more}").tables is None
