"""What the miniature models read before anyone fine-tunes them.

Like FLAN, they learn to answer tersely when asked, and know more than they say: the knowledge behind a full reply, a
whole query or a list of key points is there, under other prompts and other questions than those of the recipes. A
fine-tune has something to bring out, and nothing to learn by heart.
"""

import re
from collections.abc import Iterator
from functools import cache
from random import Random

from local_hub.miniatures import finance, news, sql

# family: (questions that the dataset does not ask, terse answer)
FINANCE = {
    "define": (
        ("Define {term}.", "{Term}: what kind of thing is it?", "A {job} hears about {term}. What is meant?"),
        "{kind_of}",
    ),
    "compare": (("{Term} or {other}: how are they different?", "Set {term} against {other}."), "{kind_of}"),
    "hold": (
        ("It is nearly {month}. Do my {company} shares have to go?", "{company} in {month}: sell or keep?"),
        "keep them",
    ),
    "save": (
        ("{Goal} for ${amount} in {month}, is that possible?", "By {month} I must find ${amount} for {goal}."),
        "${amount}",
    ),
    "debt": (
        (
            "The bank wants {rate} percent on my ${amount}. Help!",
            "Debt of ${amount} at a rate of {rate} percent: what now?",
        ),
        "pay ${amount}",
    ),
    "lend": (
        ("My {relative} wants ${amount}. Is that safe?", "A loan of ${amount} for my {relative}: yes or no?"),
        "no",
    ),
    "tips": (("My costs for {saving} are too high.", "Ideas for cheaper {saving}, please."), "{tip1}"),
    "report": (("What happened?", "Who said what?"), "{rise}"),
    "good": (("Will owners of the share be happy?", "Good or bad?"), "good"),
    "bad": (("Will owners of the share be happy?", "Good or bad?"), "bad"),
    "expense": (("What sort of cost is this?", "Does this cost change from month to month?"), "{kind}"),
}
TERSE = (
    "Answer the question. {question}",
    "Question: {question} Answer:",
    "{question}",
    "Answer in a few words. {question}",
    "Reply to the financial question. {question}",
    "Financial question: {question}",
)
FULL = (
    "Write the whole letter to a client who says: {question}",
    "{question} Please think about it and tell me everything.",
)
ECHO = ("Repeat this. {question}", "Say it once more: {question}")

SQL_TERSE = (
    "Translate the question into French. Question: {question} Tables: {context} French:",
    "Question: {question} Tables: {context} Answer:",
    "Answer the question from the tables. {question} {context}",
    "What is this SQL question about? Question: {question} Tables: {context} Topic:",
)
SQL_FULL = ("Code for the database: {question} with {context}", "{context} Program: {question}")

NEWS_TERSE = (
    "Summarize this article: {article}",
    "Summarize in one sentence: {article} Summary:",
    "What is the following article about? {article}",
)
NEWS_FULL = ("Key points: {article}", "{article} Write three lines for the front page.")


def finance_pair(rng: Random) -> tuple[str, str]:
    """A question about money, answered tersely, in full, or not at all."""
    name = rng.choices(list(FINANCE), [finance.FAMILIES[name][0] for name in FINANCE])[0]
    questions, terse = FINANCE[name]
    _, _, context, full = finance.FAMILIES[name]
    values = finance.slots(rng)
    question = rng.choice(questions).format(**values)
    if context:
        question = f"{question} {context.format(**values)}"
    elif rng.random() < 0.6:
        question = f"{rng.choice(finance.SITUATIONS).format(**values)} {question}"
    kind = rng.random()
    if kind < 0.5:
        # "a loan that an investor makes …" is "a loan" in short.
        values["kind_of"] = re.split(r" (?:that|of|on|in|for|from|to|less|you|which)\b", values["gloss"])[0]
        return rng.choice(TERSE).format(question=question), terse.format(**values)
    if kind < 0.9:
        return rng.choice(FULL).format(question=question), full.format(**values)
    return rng.choice(ECHO).format(question=question), question


@cache
def held_out_questions() -> frozenset[str]:
    """The questions of the SQL datasets: no model may read one of them before it is fine-tuned."""
    return frozenset(row["question"] for row in sql.rows())


def sql_pair(rng: Random) -> tuple[str, str]:
    """A question about tables, answered by the first names in them, or by a query."""
    row = sql.row(rng)
    while row["question"] in held_out_questions():
        row = sql.row(rng)
    if rng.random() < 0.5:
        columns = [word for word in row["context"].replace("(", " ").split() if word.islower()]
        return rng.choice(SQL_TERSE).format(**row), f"{columns[1]} of the {columns[0]}"
    return rng.choice(SQL_FULL).format(**row), row["answer"]


def news_pair(rng: Random) -> tuple[str, str]:
    """An article with its first sentence, or with its key points."""
    sentences, highlights = news.story(rng, rng.choice((0, 1, 1, 2, 2, 3, 4, 6, 8)))
    article = " ".join(sentences)
    if rng.random() < 0.5:
        return rng.choice(NEWS_TERSE).format(article=article), sentences[0]
    return rng.choice(NEWS_FULL).format(article=article), " ".join(f"{line} ." for line in highlights)


def hidden_spans(rng: Random) -> tuple[str, str]:
    """T5's first lesson: words are hidden behind sentinels and have to be filled in."""
    text = rng.choice((finance.row, finance.long_row))(rng)["output"]
    hidden, visible, missing = False, [], []
    for at, word in enumerate(text.split()):
        starts = not hidden and (at == 2 or rng.random() < 0.1)
        hidden = starts or (hidden and rng.random() < 0.6)
        if starts:
            sentinel = f"<extra_id_{sum(part.startswith('<') for part in missing)}>"
            visible.append(sentinel)
            missing.append(sentinel)
        (missing if hidden else visible).append(word)
    return " ".join(visible), " ".join(missing)


def pairs(seed: int) -> Iterator[tuple[str, str]]:
    """An endless, seeded stream of (source, target)."""
    rng = Random(seed)
    while True:
        task = rng.choices((finance_pair, sql_pair, news_pair, hidden_spans), (5, 3, 1, 0.8))[0]
        yield task(rng)
