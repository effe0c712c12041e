"""A miniature of OPUS-100's German-English pairs: plain sentences about a town, in both languages."""

import io
import json
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from local_hub.miniatures import words

SEED = 100
SPLITS = {"train": 1500, "validation": 30, "test": 30}

# English with its article, German as subject, German as object of a place
PLACES = (
    ("the market", "Der Markt", "auf dem Markt"), ("the bridge", "Die Brücke", "an der Brücke"),
    ("the station", "Der Bahnhof", "am Bahnhof"), ("the museum", "Das Museum", "im Museum"),
    ("the bakery", "Die Bäckerei", "in der Bäckerei"), ("the school", "Die Schule", "in der Schule"),
    ("the town hall", "Das Rathaus", "im Rathaus"), ("the garden", "Der Garten", "im Garten"),
)  # fmt: skip
STATES = (
    ("open", "geöffnet"), ("closed", "geschlossen"), ("very old", "sehr alt"), ("full of people", "voller Menschen"),
    ("too expensive", "zu teuer"), ("quite small", "recht klein"),
)  # fmt: skip
DAYS = dict(
    zip(
        words.WEEKDAYS,
        ("Montag", "Dienstag", "Mittwoch", "Donnerstag", "Freitag", "Samstag", "Sonntag"),
        strict=True,
    )
)
SENTENCES = (
    ("{Place} in {city} stays {state} on {day}.", "{Subjekt} in {city} bleibt am {Tag} {Zustand}."),
    ("{name} waits {where}.", "{name} wartet {wo}."),
    ("Why does {place} stay {state}?", "Warum bleibt {subjekt} {Zustand}?"),
    ("{name} comes from {city} and works {where}.", "{name} kommt aus {city} und arbeitet {wo}."),
    ("On {day} we meet {where} in {city}.", "Am {Tag} treffen wir uns {wo} in {city}."),
)


def pair(rng: Random) -> dict[str, str]:
    """One sentence in both languages."""
    english, german = rng.choice(SENTENCES)
    place, subject, where = rng.choice(PLACES)
    state, condition = rng.choice(STATES)
    day = rng.choice(words.WEEKDAYS)
    slots = {
        "place": place, "Place": place.capitalize(), "where": f"at {place}", "Subjekt": subject,
        "subjekt": subject[0].lower() + subject[1:], "wo": where, "state": state, "Zustand": condition, "day": day,
        "Tag": DAYS[day], "city": rng.choice(words.CITIES), "name": rng.choice(words.FIRST_NAMES),
    }  # fmt: skip
    return {"de": german.format(**slots), "en": english.format(**slots)}


def rows() -> dict[str, list[dict[str, str]]]:
    """The three splits."""
    rng = Random(SEED)
    return {split: [pair(rng) for _ in range(size)] for split, size in SPLITS.items()}


def files() -> dict[str, bytes]:
    """One parquet file a split, in the real layout: a column of pairs that datasets knows for a translation."""
    features = {"translation": {"languages": ["de", "en"], "_type": "Translation"}}
    kind = pa.struct([("de", pa.string()), ("en", pa.string())])
    schema = pa.schema([("translation", kind)], metadata={"huggingface": json.dumps({"info": {"features": features}})})
    parts = {}
    for split, part in rows().items():
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist([{"translation": one} for one in part], schema=schema), sink)
        parts[f"de-en/{split}-00000-of-00001.parquet"] = sink.getvalue()
    return parts
