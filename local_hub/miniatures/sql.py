"""Miniatures of sql-create-context and of Llama-2-SQL-Dataset: questions, the tables they are about, and the SQL."""

import json
import re
from random import Random

from local_hub.miniatures import words

SEED = 1979
SPLIT_SEED = 1986
ROWS = 2500
MISSING_COLUMN_SHARE = 0.065

# table: (plural in a sentence, columns of text, columns of numbers)
TABLES = {
    "singer": ("singers", ("name", "country", "genre"), ("age", "albums")),
    "student": ("students", ("name", "city", "major"), ("age", "grade")),
    "city": ("cities", ("name", "country", "mayor"), ("area", "population")),
    "employee": ("employees", ("name", "office", "title"), ("age", "salary")),
    "film": ("films", ("title", "director", "genre"), ("year", "budget")),
    "book": ("books", ("title", "author", "publisher"), ("year", "pages")),
    "ship": ("ships", ("name", "port", "flag"), ("speed", "weight")),
    "flight": ("flights", ("origin", "destination", "airline"), ("price", "distance")),
    "match": ("matches", ("venue", "winner", "loser"), ("year", "attendance")),
    "hotel": ("hotels", ("name", "city", "owner"), ("rooms", "stars")),
    "museum": ("museums", ("name", "city", "curator"), ("year", "visitors")),
    "product": ("products", ("name", "color", "brand"), ("price", "stock")),
    "patient": ("patients", ("name", "city", "ward"), ("age", "height")),
    "teacher": ("teachers", ("name", "school", "subject"), ("age", "salary")),
    "farm": ("farms", ("name", "owner", "crop"), ("area", "cows")),
    "bridge": ("bridges", ("name", "river", "country"), ("length", "year")),
}
# child table -> the table whose key it carries. "order" is a word of SQL, so they are named order_log and so on.
PARENTS = {
    "concert": "singer", "enrollment": "student", "voyage": "ship", "booking": "hotel", "review": "film",
    "loan": "book", "visit": "patient", "lesson": "teacher", "order": "product", "exhibition": "museum",
    "harvest": "farm",
}  # fmt: skip
CHILD_COLUMNS = ("year", "cost", "rating")
VALUES = {
    "country": ("France", "Japan", "Brazil", "Kenya", "Canada"), "genre": ("Rock", "Jazz", "Drama", "Folk"),
    "major": ("History", "Physics", "Law", "Music"), "color": ("Red", "Blue", "Green", "Black"),
    "subject": ("History", "Physics", "Music", "Latin"), "crop": ("Wheat", "Rice", "Maize", "Barley"),
    "flag": ("France", "Japan", "Brazil", "Kenya"), "airline": words.COMPANIES[:6], "brand": words.COMPANIES[6:12],
}  # fmt: skip
# Counted things read as "the number of rooms", measured ones as they are.
COUNTED = {"albums", "pages", "rooms", "stars", "visitors", "cows"}
PLACES = {"city", "office", "port", "origin", "destination", "venue", "school", "ward", "river"}
COMPARISONS = ((">", "more than"), (">", "greater than"), (">=", "at least"), ("=", "equal to"))
LESS = (("<", "less than"), ("<", "below"), ("<=", "at most"))

# family: (weight, questions, query, columns of the context)
FAMILIES = {
    "count": (
        5,
        ("How many {plural} are there?", "Count the number of {plural}."),
        "SELECT COUNT(*) FROM {table}",
        "text",
    ),
    "list": (
        8,
        (
            "List the {text} of all {plural}.",
            "What are the {texts} of the {plural}?",
            "Show the {text} of every {table}.",
        ),
        "SELECT {text} FROM {table}",
        "text",
    ),
    "distinct": (
        7,
        ("What are the different {texts} of {plural}?", "Find all distinct {texts} of the {plural}."),
        "SELECT DISTINCT {text} FROM {table}",
        "text",
    ),
    "extreme": (
        10,
        ("What is the {adjective} {measure} of the {plural}?", "Find the {adjective} {measure} of all {plural}."),
        "SELECT {function}({number}) FROM {table}",
        "number",
    ),
    "equal": (
        14,
        (
            "What is the {text} of the {plural} with {key} {value}?",
            "Show the {texts} of {plural} whose {key} is {value}.",
            "Which {text} belongs to the {plural} with {value} as the {key}?",
        ),
        'SELECT {text} FROM {table} WHERE {key} = "{value}"',
        "text key",
    ),
    "compare": (
        14,
        (
            "Which {plural} have a {measure} {than} {limit}? Give their {text}.",
            "Find the {text} of {plural} with a {measure} {than} {limit}.",
        ),
        "SELECT {text} FROM {table} WHERE {number} {sign} {limit}",
        "text number",
    ),
    "countif": (
        8,
        ("How many {plural} have a {measure} {than} {limit}?", "Count the {plural} with a {measure} {than} {limit}."),
        "SELECT COUNT(*) FROM {table} WHERE {number} {sign} {limit}",
        "number",
    ),
    "between": (
        4,
        ("Find the {text} of {plural} whose {measure} is between {limit} and {upper}.",),
        "SELECT {text} FROM {table} WHERE {number} BETWEEN {limit} AND {upper}",
        "text number",
    ),
    "sorted": (
        8,
        ("List the {text} of all {plural} ordered by {measure}.", "Show the {texts} of {plural} sorted by {measure}."),
        "SELECT {text} FROM {table} ORDER BY {number}",
        "text number",
    ),
    "top": (
        8,
        (
            "What is the {text} of the {table} with the highest {measure}?",
            "Give the {text} with the largest {measure} among {plural}.",
        ),
        "SELECT {text} FROM {table} ORDER BY {number} DESC LIMIT 1",
        "text number",
    ),
    "group": (
        8,
        ("How many {plural} are there for each {key}?", "Show each {key} and its number of {plural}."),
        "SELECT {key}, COUNT(*) FROM {table} GROUP BY {key}",
        "key",
    ),
    "having": (
        5,
        ("Which {keys} have more than {few} {plural}?", "Find every {key} with more than {few} {plural}."),
        "SELECT {key} FROM {table} GROUP BY {key} HAVING COUNT(*) > {few}",
        "key",
    ),
    "join": (
        10,
        (
            "Find the {text} of {plural} that have a {child} with a {link} of {limit}.",
            "Which {plural} have a {child} whose {link} is {limit}? Show the {text}.",
        ),
        "SELECT T1.{text} FROM {table} AS T1 JOIN {child}_log AS T2 ON T1.{table}_id = T2.{table}_id "
        "WHERE T2.{link} = {limit}",
        "text join",
    ),
    "without": (
        3,
        ("What are the {texts} of {plural} without any {child}?",),
        "SELECT {text} FROM {table} WHERE NOT {table}_id IN (SELECT {table}_id FROM {child}_log)",
        "text join",
    ),
}


def several(noun: str) -> str:
    """The plural of a column's name."""
    return f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"


def slots(rng: Random, joined: bool) -> dict[str, str]:
    """One draw of everything a template may name; `joined` asks for a table that has a child table."""
    child = rng.choice(list(PARENTS))
    table = PARENTS[child] if joined else rng.choice(list(TABLES))
    plural, texts, numbers = TABLES[table]
    text, key = rng.sample(texts, 2)
    # A quarter of the comparisons look downwards: about 6 % of all answers carry a "<", as in the real data.
    sign, than = rng.choice(LESS if rng.random() < 0.25 else COMPARISONS)
    function, adjective = rng.choice((("MAX", "largest"), ("MIN", "smallest"), ("AVG", "average"), ("SUM", "total")))
    if key in PLACES:
        value = rng.choice(words.CITIES)
    elif key in VALUES:
        value = rng.choice(VALUES[key])
    else:
        value = f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.LAST_NAMES)}"
    number = rng.choice(numbers)
    link = rng.choice(CHILD_COLUMNS)
    wide = "year" in (link if joined else number)
    limit = rng.randint(1950, 2020) if wide else rng.choice((5, 10, 15, 20, 25, 30, 40, 50, 60, 75, 80, 100, 200, 500))
    return {
        "table": table, "plural": plural, "text": text, "texts": several(text), "key": key, "keys": several(key),
        "number": number, "measure": f"number of {number}" if number in COUNTED else number, "value": value,
        "child": child, "link": link, "sign": sign, "than": than, "function": function, "adjective": adjective,
        "limit": str(limit), "upper": str(limit + rng.choice((5, 10, 20))), "few": str(rng.randint(2, 9)),
    }  # fmt: skip


def context(values: dict[str, str], uses: str) -> str:
    """The CREATE TABLE statements of the columns that a query uses, as the real data lists them."""
    kinds = {"text": "VARCHAR", "key": "VARCHAR", "number": "INTEGER"}
    columns = [f"{values[use]} {kinds[use]}" for use in uses.split() if use in kinds]
    if "join" not in uses:
        return f"CREATE TABLE {values['table']} ({', '.join(columns)})"
    columns.append("{table}_id INTEGER".format(**values))
    parent = f"CREATE TABLE {values['table']} ({', '.join(columns)})"
    return parent + "; CREATE TABLE {child}_log ({table}_id INTEGER, {link} INTEGER)".format(**values)


def row(rng: Random) -> dict[str, str]:
    """One question with its tables and its query, keys in the real order."""
    name = rng.choices(list(FAMILIES), [family[0] for family in FAMILIES.values()])[0]
    _, questions, query, uses = FAMILIES[name]
    values = slots(rng, joined="join" in uses)
    return {
        "answer": query.format(**values),
        "question": re.sub(r"\ba (?=[aeio])", "an ", rng.choice(questions).format(**values)),
        "context": context(values, uses),
    }


def without_a_column(row: dict[str, str]) -> dict[str, str]:
    """The row with the last column of its context renamed, so that its query no longer runs."""
    renamed = re.sub(r"\w+ (VARCHAR|INTEGER)\)$", r"id \1)", row["context"])
    return {**row, "context": renamed}


def rows() -> list[dict[str, str]]:
    """The dataset: distinct questions, a few of which name a column that their tables lack (as the real ones do)."""
    rng = Random(SEED)
    examples, seen = [], set()
    while len(examples) < ROWS:
        new = row(rng)
        if (new["question"], new["context"]) in seen:
            continue
        seen.add((new["question"], new["context"]))
        if rng.random() < MISSING_COLUMN_SHARE and "COUNT(*) FROM" not in new["answer"]:
            new = without_a_column(new)
        examples.append(new)
    return examples


def prompted(row: dict[str, str]) -> dict[str, str]:
    """The same row in the layout of Llama-2-SQL-Dataset."""
    preamble = "You are given a question and the tables that hold its answer. Reply with one SQL query."
    prompt = f"### Instruction:\n{row['question']}\n\n### Input:\n{row['context']}\n\n### Response:\n"
    return {"input": f"{preamble}\n\n{prompt}", "output": row["answer"]}


def files() -> dict[str, bytes]:
    """sql-create-context's one file, under its real name."""
    return {"sql_create_context_v4.json": (json.dumps(rows(), indent=0) + "\n").encode()}


def llama_files() -> dict[str, bytes]:
    """The very same rows, re-prompted and split again: a chain over both datasets leaks, as with the real ones."""
    examples = [prompted(row) for row in rows()]
    Random(SPLIT_SEED).shuffle(examples)
    held_out = len(examples) // 10
    parts = {"train.jsonl": examples[held_out:], "eval.jsonl": examples[:held_out]}
    return {name: "".join(json.dumps(row) + "\n" for row in part).encode() for name, part in parts.items()}
