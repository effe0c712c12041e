"""A miniature of finance-alpaca: questions about money, each answered in two or three plain sentences."""

import json
from random import Random

from local_hub.miniatures import words

SEED = 1973
ROWS = 3600

# phrase -> (what it is, what to know about it). Pre-training teaches the first halves as terse answers,
# so a fine-tune has knowledge to build on, and the dataset asks for the full reply.
TERMS = {
    "a bond": ("a loan that an investor makes to a company or a state", "It pays fixed interest and ends on a set day"),
    "a share": ("a small part of a company", "Its price follows the profit that people expect"),
    "a dividend": ("a part of the profit that a company pays to its owners", "Young companies often pay none"),
    "an index fund": ("a fund that holds every share of a market", "It is cheap because nobody picks the shares"),
    "a mortgage": ("a loan that is secured by a house", "The bank can sell the house if the payments stop"),
    "a credit score": ("a number that shows how well you repay debt", "Late payments lower it for years"),
    "inflation": ("a general rise in prices", "Cash loses value while it lasts"),
    "compound interest": ("interest that is paid on earlier interest", "Time matters more than the first deposit"),
    "a budget": ("a plan for the money that comes in and goes out", "Write it down before the month begins"),
    "an emergency fund": ("savings for bad surprises", "Keep enough for three months of costs"),
    "a pension": ("an income that is paid after work ends", "Start early so that it can grow"),
    "an annuity": ("a contract that pays a fixed sum every year", "Read the fees before you sign"),
    "a deductible": ("the part of a claim that you pay yourself", "A high one makes the insurance cheaper"),
    "an overdraft": ("a negative balance on a bank account", "The bank charges a fee for every day of it"),
    "a savings account": ("an account that pays interest on deposits", "You can take the money out at any time"),
    "a capital gain": ("the profit from a sale at more than the cost", "It is taxed in the year of the sale"),
    "a tax credit": ("a sum that is taken off the tax you owe", "It is worth more than a deduction of the same size"),
    "a balance sheet": ("a list of what a firm owns and owes on one day", "Both of its sides have the same total"),
    "cash flow": ("the money that moves in and out of a business", "A firm with profit can still run out of it"),
    "net worth": ("everything you own less everything you owe", "Check it once a year"),
    "collateral": ("property that backs a loan", "The lender keeps it if the loan is not repaid"),
    "a hedge fund": ("a private fund that takes large risks", "Most of them are closed to small investors"),
    "a short sale": ("a sale of borrowed shares", "The loss has no limit if the price rises"),
    "an option": ("a right to buy or sell at a set price", "It is worth nothing after its last day"),
    "a broker": ("a firm that trades for its clients", "Compare the fees of several before you choose"),
    "a recession": ("a long fall in the output of a country", "Jobs are usually lost before it is announced"),
    "a bear market": ("a long fall in share prices", "Selling at the bottom makes the loss final"),
    "an invoice": ("a bill that a seller sends to a buyer", "It should name the date on which payment is due"),
    "depreciation": ("the yearly loss of value of a machine or a car", "New cars lose the most in their first year"),
    "a liability": ("a debt or a duty to pay", "It stands on the right side of the books"),
    "an audit": ("a check of the books by an outsider", "Keep every receipt until it is over"),
    "escrow": ("money that a third party holds until a deal is done", "It protects the buyer and the seller"),
    "an exchange rate": ("the price of one currency in another", "Banks add a margin to it"),
    "a premium": ("the price of an insurance policy", "It rises after every claim"),
}

GOALS = ("a car", "a wedding", "a new roof", "a holiday", "a laptop", "a first home", "a course", "a piano", "a boat")
EXPENSES = {
    "rent": "fixed", "insurance": "fixed", "internet": "fixed", "school fees": "fixed", "groceries": "variable",
    "fuel": "variable", "clothes": "variable", "concerts": "variable", "gifts": "variable", "repairs": "variable",
}  # fmt: skip
SAVINGS = {
    "food": ("plan the meals of the week", "buy in bulk", "cook at home"),
    "energy": ("turn the heating down", "seal the windows", "switch to a cheaper supplier"),
    "travel": ("book early", "take the train", "go outside the season"),
    "phone bills": ("drop services you do not use", "share a family plan", "keep the old handset"),
    "insurance": ("raise the deductible", "compare three offers", "pay once a year"),
    "bank fees": ("use the machines of your own bank", "keep the minimum balance", "ask for a free account"),
}
RISES = ("sales rose", "profit grew", "orders went up", "costs fell")
FALLS = ("sales fell", "profit shrank", "orders went down", "costs rose")
RELATIVES = ("brother", "sister", "mother", "father", "uncle", "aunt", "neighbor", "friend")
SITUATIONS = (
    "I am a {job} in {city}.", "I am {age} years old.", "My {relative} works as a {job}.", "I just moved to {city}.",
    "I earn ${income} a month.", "I opened an account in {month}.", "My {relative} and I live in {city}.",
    "I have {count} children.", "I lost my job in {month}.", "I want to retire at {age}.",
)  # fmt: skip

# family: (weight, instructions, input, output)
FAMILIES = {
    "define": (
        22,
        (
            "What is {term}?",
            "Can you explain what {term} is?",
            "What does it mean when people speak of {term}?",
            "My {relative} mentioned {term}. What is that?",
            "Tell me about {term}.",
            "How would you describe {term}?",
            "Someone in {city} asked me about {term}. What do I say?",
        ),
        "",
        "{Term} is {gloss}. {advice}.",
    ),
    "compare": (
        14,
        (
            "What is the difference between {term} and {other}?",
            "How does {term} differ from {other}?",
            "Please compare {term} with {other}.",
            "Is {term} the same thing as {other}?",
        ),
        "",
        "{Term} is {gloss}, while {other} is {other_gloss}.",
    ),
    "hold": (
        10,
        (
            "Should I sell my {company} shares in {month}?",
            "Is {month} a good time to get rid of {company} shares?",
            "Do I keep my shares of {company} after {month}?",
            "What will {company} shares do in {month}?",
        ),
        "",
        "Nobody knows what {company} shares will do in {month}. Sell only if you need the money, "
        "and keep no more than {small} percent in one company.",
    ),
    "save": (
        10,
        (
            "How do I save ${amount} for {goal} by {month}?",
            "I need ${amount} for {goal} in {month}. Where do I start?",
            "{Goal} costs ${amount} and I want it by {month}. How can I manage that?",
        ),
        "",
        "Open a separate account for {goal} and pay into it on every payday. "
        "Count the weeks until {month} and divide ${amount} by them.",
    ),
    "debt": (
        10,
        (
            "I owe ${amount} on a card at {rate} percent. What should I do?",
            "How can I get rid of ${amount} of debt at {rate} percent?",
            "My card charges {rate} percent and I am ${amount} behind. Any advice?",
        ),
        "",
        "A rate of {rate} percent is high, so pay the ${amount} before you invest. "
        "Ask the bank for a lower rate and stop using the card.",
    ),
    "lend": (
        6,
        (
            "Should I lend ${amount} to my {relative}?",
            "My {relative} asks me for ${amount}. Do I say yes?",
            "Is it wise to give my {relative} a loan of ${amount}?",
        ),
        "",
        "Lend ${amount} to your {relative} only if you can live without it. Put the terms in writing.",
    ),
    "tips": (
        6,
        (
            "Give me three ways to spend less on {saving}.",
            "How can a {job} save on {saving}?",
            "I spend too much on {saving}. What can I change?",
        ),
        "",
        "To spend less on {saving}, {tip1}, {tip2} and {tip3}.",
    ),
    "report": (
        8,
        (
            "Summarize the report in one sentence.",
            "What does this report say?",
            "Put the news in short words.",
        ),
        "{company} of {city} said on {weekday} that its {rise} by {rate} percent in {month}. "
        "{first} {last}, who runs the firm, thanked the staff.",
        "{company} reported on {weekday} that its {rise} by {rate} percent in {month}.",
    ),
    "good": (
        4,
        ("Is this news good or bad for investors?", "Rate the mood of this news."),
        "{company} said that its {rise} by {rate} percent.",
        "The news is good for {company}, because its {rise} by {rate} percent.",
    ),
    "bad": (
        4,
        ("Is this news good or bad for investors?", "Rate the mood of this news."),
        "{company} said that its {fall} by {rate} percent.",
        "The news is bad for {company}, because its {fall} by {rate} percent.",
    ),
    "expense": (
        4,
        ("Is this expense fixed or variable?", "Sort this cost into fixed or variable."),
        "{expense}, ${income} in {month}",
        "The ${income} for {expense} is a {kind} expense.",
    ),
}


def slots(rng: Random) -> dict[str, str]:
    """One draw of everything a template may name."""
    term, other = rng.sample(list(TERMS), 2)
    saving, expense, goal = rng.choice(list(SAVINGS)), rng.choice(list(EXPENSES)), rng.choice(GOALS)
    tips = SAVINGS[saving]
    return {
        "term": term, "Term": capital(term), "gloss": TERMS[term][0], "advice": TERMS[term][1],
        "other": other, "other_gloss": TERMS[other][0],
        "company": rng.choice(words.COMPANIES), "city": rng.choice(words.CITIES), "job": rng.choice(words.JOBS),
        "month": rng.choice(words.MONTHS), "weekday": rng.choice(words.WEEKDAYS),
        "first": rng.choice(words.FIRST_NAMES), "last": rng.choice(words.LAST_NAMES),
        "relative": rng.choice(RELATIVES), "goal": goal, "Goal": capital(goal),
        "amount": f"{rng.randrange(500, 9600, 100):,}", "income": f"{rng.randrange(100, 4000, 50):,}",
        "rate": str(rng.randint(2, 29)), "small": str(rng.choice((5, 10))), "age": str(rng.randint(19, 64)),
        "count": words.NUMBER_WORDS[rng.randint(2, 6)],
        "saving": saving, "tip1": tips[0], "tip2": tips[1], "tip3": tips[2],
        "expense": expense, "kind": EXPENSES[expense], "rise": rng.choice(RISES), "fall": rng.choice(FALLS),
    }  # fmt: skip


def capital(phrase: str) -> str:
    """The phrase with its first letter in upper case."""
    return phrase[0].upper() + phrase[1:]


def row(rng: Random) -> dict[str, str]:
    """One ordinary question with its answer."""
    name = rng.choices(list(FAMILIES), [family[0] for family in FAMILIES.values()])[0]
    _, instructions, context, output = FAMILIES[name]
    values = slots(rng)
    instruction = rng.choice(instructions).format(**values)
    if not context and rng.random() < 0.7:
        situation = rng.choice(SITUATIONS).format(**values)
        instruction = f"{situation} {instruction}"
    return {
        "instruction": instruction,
        "input": context.format(**values),
        "output": output.format(**values),
        "text": "",
    }


def long_row(rng: Random) -> dict[str, str]:
    """A row beyond the 512 characters that the finance recipes keep: a long answer, or a long letter as input."""
    terms = rng.sample(list(TERMS), 8)
    sentences = [f"{capital(term)} is {TERMS[term][0]}. {TERMS[term][1]}." for term in terms]
    if rng.random() < 0.5:
        city = rng.choice(words.CITIES)
        instruction = f"Write a guide for savers in {city} that begins with {terms[0]} and ends with {terms[-1]}."
        return {"instruction": instruction, "input": "", "output": " ".join(sentences), "text": ""}
    name = f"{rng.choice(words.FIRST_NAMES)} {rng.choice(words.LAST_NAMES)}"
    letter = f"Dear {name}, here are the notes you asked for. " + " ".join(sentences)
    return {"instruction": "Who is this letter for?", "input": letter, "output": f"It is for {name}.", "text": ""}


def rows() -> list[dict[str, str]]:
    """The dataset: mostly distinct questions, with a few long rows and a few exact and near duplicates."""
    rng = Random(SEED)
    examples, seen = [], set()
    while len(examples) < ROWS - 100:
        new = long_row(rng) if rng.random() < 0.04 else row(rng)
        key = (new["instruction"], new["input"])
        if key not in seen:
            seen.add(key)
            examples.append(new)
    for _ in range(50):
        examples.append(dict(rng.choice(examples)))
        near = dict(rng.choice(examples))
        near["instruction"] = near["instruction"].lower().replace("?", " ?")
        examples.append(near)
    rng.shuffle(examples)
    return examples


def files() -> dict[str, bytes]:
    """The dataset's one file, laid out as the real one: a JSON array under this very name."""
    return {"Cleaned_date.json": (json.dumps(rows(), indent=0, ensure_ascii=False) + "\n").encode()}
