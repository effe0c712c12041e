"""What no check of a level can tell of a release, and why: the table of docs/checking.md, and what tests spare."""

from typing import NamedTuple


class Limit(NamedTuple):
    """Something that a forger can change without being found.

    Parameters:
        what: for people.
        fields: a regular expression for the dotted paths of the record's fields that it speaks of; "" for none.
        score, prefill, generate, train: whether the level finds a change.
        why: why it does not.
    """

    what: str
    fields: str
    score: bool
    prefill: bool
    generate: bool
    train: bool
    why: str


LIMITS = (
    Limit(
        "outputs that the models did not write, with their tokens and scores",
        "",
        False,
        True,
        True,
        True,
        "without a model only the numbers are known to follow from the outputs",
    ),
    Limit(
        "other weights, and the sizes of the model",
        r"model\..*",
        False,
        True,
        True,
        True,
        "without a model nobody can say what the weights write; weights that write the same for every test row pass",
    ),
    Limit(
        "what of the recipe only training reads; losses, steps, the seed",
        r"recipe\.(?!expect|prompt|target|references|title|task|language|adapter_name|model_name|dataset|length_rules|test_size"
        r"|validation_size|split|lora_|max_new|num_beams|engine).*"
        r"|training\.(history|steps|epochs|seed|best_step|resumed_from).*",
        False,
        False,
        False,
        True,
        "only training again shows it, and bit for bit only on the same CPU, threads and versions",
    ),
    Limit(
        "seconds, tokens per second, peak memory, energy, how memory cut the batch",
        r"training\.(seconds|tokens_per_second|peak_memory_bytes)|scores\.\w+_outputs\.seconds|energy.*|batch\..*",
        False,
        False,
        False,
        False,
        "nothing else follows from them",
    ),
    Limit(
        "device, platform, packages and commit of the code",
        r"(environment|scored_in)\..*",
        False,
        False,
        False,
        False,
        "nobody can see where something ran; outputs of another device are compared by statistics",
    ),
    Limit(
        "title, task, language and names; what the recipe says that others published",
        r"recipe\.(title|task|language|adapter_name|expect).*|name|hub",
        False,
        False,
        False,
        False,
        "they are the publisher's words; a title that states a score is a concern",
    ),
    Limit(
        "the metric's version, where this one gives the same numbers; batch size, dtype and engine of the scoring",
        r"contract\.(metric_version|batch_size|dtype|engine)",
        False,
        False,
        False,
        False,
        "another version that scores the same is no other score",
    ),
    Limit(
        "another prompt, split or rule, drawn, generated and scored again by it; a parent that was never continued",
        "",
        False,
        False,
        False,
        True,
        "all of it is true of the weights; only that they were trained so is not",
    ),
    Limit(
        "on another device: a choice among near-ties that gains less than the margin",
        "",
        False,
        False,
        False,
        False,
        "other rounding chooses among them, too",
    ),
    Limit(
        "on the device that the record names: a choice among near-ties; weights that differ by rounding alone",
        "",
        False,
        False,
        True,
        True,
        "reading multiplies in other shapes than writing: `prefill` lets pass what rounding explains, on every device",
    ),
    Limit(
        "rows outside a sample",
        "",
        False,
        False,
        False,
        False,
        "the commit draws it: a forger cannot know it before, but may publish until he likes it",
    ),
    Limit(
        "another commit of the same bytes; a parent's own numbers; the publisher's own verdict",
        "",
        False,
        False,
        False,
        False,
        "check the parent, too; a verdict is held to speak of these weights and scores, and anybody can write one",
    ),
    Limit(
        "offline: licences, marks of miniatures, branches, and files that were added to the repository",
        "",
        False,
        False,
        False,
        False,
        "only the Hub knows them",
    ),
)
