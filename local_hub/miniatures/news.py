"""A miniature of cnn_dailymail: invented local news, each article with its highlights."""

import hashlib
import io
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from local_hub.miniatures import words

SEED = 1980
SPLITS = {"train": 450, "validation": 50, "test": 50}

# kind: lead of the article, a detail with a number, first highlight, second highlight
EVENTS = {
    "factory": (
        "{company} will open a new factory in {city} next {month}, the firm said on {weekday}.",
        "The plant will employ {count} people and cost {cost} million dollars.",
        "{company} will open a factory in {city} in {month}",
        "The plant will employ {count} people",
    ),
    "strike": (
        "Workers at {company} in {city} walked out on {weekday} in a dispute about pay.",
        "The union said that {count} people had joined the strike and asked for {cost} percent more.",
        "Workers at {company} in {city} are on strike over pay",
        "The union says {count} people joined the strike",
    ),
    "storm": (
        "A storm hit {city} on {weekday} and left whole streets without power.",
        "The council counted {count} damaged homes and put the loss at {cost} million dollars.",
        "A storm hit {city} on {weekday}",
        "The council counted {count} damaged homes",
    ),
    "museum": (
        "The museum of {city} opened its new wing on {weekday} after years of work.",
        "The wing shows {count} paintings and cost {cost} million dollars to build.",
        "The museum of {city} opened a new wing on {weekday}",
        "The wing shows {count} paintings",
    ),
    "match": (
        "{city} beat {rival} by {goals} goals on {weekday} and won the {month} cup.",
        "The match drew {count} fans to a ground that cost {cost} million dollars.",
        "{city} beat {rival} and won the {month} cup",
        "The match drew {count} fans",
    ),
    "bridge": (
        "The old bridge between {city} and {rival} was closed on {weekday} for repairs.",
        "Engineers found {count} cracks, and the work will cost {cost} million dollars.",
        "The bridge between {city} and {rival} is closed for repairs",
        "Engineers found {count} cracks",
    ),
    "trial": (
        "A court in {city} found a former manager of {company} guilty of fraud on {weekday}.",
        "The judge heard {count} witnesses and set a fine of {cost} million dollars.",
        "A court in {city} found a former manager of {company} guilty",
        "The judge heard {count} witnesses",
    ),
    "school": (
        "Three schools in {city} will share one building from {month}, the council decided on {weekday}.",
        "The change touches {count} pupils and saves {cost} million dollars a year.",
        "Three schools in {city} will share one building from {month}",
        "The change touches {count} pupils",
    ),
}

# Events that people welcome; the others worry them.
WELCOME = {"factory", "museum", "match"}

# quote in the article, what the last highlight makes of it
HAPPY_QUOTES = (
    (
        '"It is a great day for all of us," said {first} {last}, the mayor of {city}.',
        "Mayor {first} {last} calls it a great day",
    ),
    (
        '"We have waited for this since {year}," said {first} {last}, a {job} from {city}.',
        "{first} {last} has waited for it since {year}",
    ),
)
WORRIED_QUOTES = (
    (
        '"We need answers and we need them soon," said {first} {last}, who speaks for the residents.',
        "Resident {first} {last} asks for answers",
    ),
    (
        '"Nobody told us," said {first} {last}, a {job} from {rival}.',
        "{first} {last} from {rival} says nobody was told",
    ),
    ('"We will look at every detail," said {first} {last}, who leads an inquiry.', "{first} {last} leads an inquiry"),
)

FILLERS = (
    "The news spread quickly through the town.", "Shops along the main street stayed open until the evening.",
    "A {job} who saw it all said that the crowd was calm.", "The last time that it happened was in {year}.",
    "Trains between {city} and {rival} ran late for most of the day.", "The weather was mild and the roads were dry.",
    "Local papers wrote about little else that week.", "People in {rival} followed the news with interest.",
    "A meeting is planned for {other_day} in the town hall.", "Visitors are asked to leave their cars at home.",
    "The council did not want to comment.", "Older residents were reminded of the year {year}.",
    "Several families have lived there since {year}.", "A radio station reported from the scene all day.",
    "A small crowd gathered in front of the town hall.", "The police asked drivers to take another road.",
    "Experts from {rival} were not surprised.", "The council publishes its next report in {other_month}.",
    "Prices for houses nearby have risen since {year}.", "The town hall lost its old records in a fire in {year}.",
    "Most of the money of the council comes from taxes.",
)  # fmt: skip


def slots(rng: Random) -> dict[str, str]:
    """One draw of everything a template may name."""
    city, rival = rng.sample(words.CITIES, 2)
    month, other_month = rng.sample(words.MONTHS, 2)
    weekday, other_day = rng.sample(words.WEEKDAYS, 2)
    return {
        "city": city, "rival": rival, "month": month, "other_month": other_month, "weekday": weekday,
        "other_day": other_day, "company": rng.choice(words.COMPANIES), "job": rng.choice(words.JOBS),
        "first": rng.choice(words.FIRST_NAMES), "last": rng.choice(words.LAST_NAMES),
        "count": str(rng.randrange(20, 900, 10)), "cost": str(rng.randint(2, 29)),
        "goals": words.NUMBER_WORDS[rng.randint(2, 6)], "year": str(rng.randint(1950, 2020)),
    }  # fmt: skip


def story(rng: Random, fillers: int) -> tuple[list[str], list[str]]:
    """The sentences of one article and its highlights."""
    kind = rng.choice(list(EVENTS))
    lead, detail, first, second = EVENTS[kind]
    quote, third = rng.choice(HAPPY_QUOTES if kind in WELCOME else WORRIED_QUOTES)
    values = slots(rng)
    background = []
    while len(background) < fillers:
        background += rng.sample(FILLERS, min(len(FILLERS), fillers - len(background)))
    # Each filler draws its own years, days and jobs, or one article would name the same year ten times.
    background = [
        text.format(**{**slots(rng), "city": values["city"], "rival": values["rival"]}) for text in background
    ]
    at = rng.randint(1, max(1, fillers // 3))
    body = [detail.format(**values), *background[:at], quote.format(**values), *background[at:]]
    highlights = [first, second, third] if rng.random() < 0.8 else [first, third]
    return [lead.format(**values), *body], [line.format(**values) for line in highlights]


def row(rng: Random) -> dict[str, str]:
    """One article; one in eight is so long that it does not fit into 512 tokens."""
    sentences, highlights = story(rng, rng.randint(40, 55) if rng.random() < 0.125 else rng.randint(3, 14))
    place = rng.choice(words.CITIES)
    article = f"{place} (Miniature News) -- " + " ".join(sentences)
    # The real highlights, too, are lines that end in a free-standing full stop, and the id is a SHA-1.
    return {
        "article": article,
        "highlights": "\n".join(f"{line} ." for line in highlights),
        "id": hashlib.sha1(article.encode()).hexdigest(),
    }


def rows() -> dict[str, list[dict[str, str]]]:
    """The three splits."""
    rng = Random(SEED)
    return {split: [row(rng) for _ in range(size)] for split, size in SPLITS.items()}


def files() -> dict[str, bytes]:
    """One parquet file a split, in the real layout."""
    schema = pa.schema([(name, pa.string()) for name in ("article", "highlights", "id")])
    parts = {}
    for split, part in rows().items():
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(part, schema=schema), sink)
        parts[f"3.0.0/{split}-00000-of-00001.parquet"] = sink.getvalue()
    return parts
