"""What the model reads: the prompts of a completion, or an adapter's template filled from a chat's last message."""

import json

from recipes.data.columns import fill_template
from recipes.templates import template_columns
from record.errors import one_line
from serving.loading import Served
from serving.requests import Chat, Completion, Refused, readable

# Attention takes memory that grows with the square of it.
MAX_PROMPT_TOKENS = 1024


def prompts_of(asked: Completion | Chat, served: Served) -> tuple[list[str | list[int]], list[str]]:
    """The prompts, texts or token ids, and warnings about how they were made.

    Raises:
        `Refused`: with 400.
    """
    if isinstance(asked, Completion):
        return list(asked.prompt), []
    prompt, warnings = _filled(asked, served.about["prompt_template"])
    try:
        return [readable(prompt)], warnings
    except ValueError as error:
        raise Refused(400, f"`messages`: {error}", "messages") from None


def _filled(chat: Chat, templates: list[str] | None) -> tuple[str, list[str]]:
    *before, last = chat.messages
    if last.role != "user":
        raise Refused(400, f"the last message is of the role {last.role}: end with one of the role user", "messages")
    warnings = []
    text = last.text
    if templates:
        text, empty = _fill(templates[0], text)
        if empty:
            warnings.append(f"the template's {', '.join(empty)} stayed empty: send them all as a JSON object of texts")
    system = [message.text for message in before if message.role in ("system", "developer")]
    if system and templates:
        warnings.append("the system text stands before the template: the adapter was trained without it")
    if len(system) < len(before):
        warnings.append("only the last message was read: the model answers one question at a time")
    return "\n".join([*system, text]), warnings


def _fill(template: str, text: str) -> tuple[str, list[str]]:
    """The template filled with a JSON object of its fields, or with a text as the first of them; the empty fields."""
    columns = template_columns(template)
    fields = _fields(text, columns) or dict.fromkeys(columns[:1], text)
    empty = [column for column in columns if not fields.get(column, "").strip()]
    return fill_template(template, dict.fromkeys(columns, "") | fields), empty


def _fields(text: str, columns: list[str]) -> dict[str, str] | None:
    """The message's JSON object; None where it is a text, or an object without any of the fields."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict) or fields.keys().isdisjoint(columns):
        return None
    if wrong := sorted(name for name, value in fields.items() if name not in columns or not isinstance(value, str)):
        raise Refused(
            400, f"`{one_line(wrong[0], 100)}` is not a text of the template, whose fields are {', '.join(columns)}",
            "messages",
        )  # fmt: skip
    return fields


def token_ids(served: Served, prompts: list[str | list[int]]) -> list[list[int]]:
    """The ids of every prompt, `</s>` included; ids that came as such get it where they lack it.

    Raises:
        `Refused`: with 400.
    """
    rows = len(served.weights.encoder.embedding)
    texts = [prompt for prompt in prompts if isinstance(prompt, str)]
    encoded = iter(served.tokenizer(texts, verbose=False)["input_ids"] if texts else [])
    found = []
    for prompt in prompts:
        if isinstance(prompt, str):
            found.append(next(encoded))
            continue
        if not all(0 <= token < rows for token in prompt):
            raise Refused(400, f"`prompt`: token ids are from 0 to {rows - 1:,}", "prompt")
        end = served.model.generation_config.eos_token_id
        found.append(prompt if prompt[-1] == end else [*prompt, end])
    return found


def divided(asked: Completion | Chat, served: Served, prompt: str | list[int], ids: list[int]
            ) -> tuple[list[int], list[int]]:  # fmt: skip
    """What the encoder reads, `</s>` included, and what the decoder is made to write, which is nothing but for figures.

    `</s>` in the prompt is the border between the two: it is what ends every text that the encoder reads.

    Parameters:
        ids: of the prompt, as `token_ids` gives them.

    Raises:
        `Refused`: with 400, where the decoder's part is asked for and the prompt does not hold one `</s>` before it.
    """
    if not asked.forced:
        return ids, []
    end = served.model.generation_config.eos_token_id
    # A text has got one more at its end, by the tokenizer.
    own = ids[:-1] if isinstance(prompt, str) else prompt
    if own.count(end) != 1 or own[-1] == end:
        raise Refused(
            400, "`echo` with `logprobs`: what the encoder reads has no probability: put one </s> between that and the "
            "text whose probabilities are asked for", "prompt",
        )  # fmt: skip
    border = own.index(end) + 1
    return own[:border], own[border:]


def echo(asked: Completion, served: Served, prompt: str | list[int], ids: list[int]) -> str:
    """The text that stands before an answer that repeats its prompt; the decoder's part of it is in the answer."""
    if not asked.forced:
        return prompt if isinstance(prompt, str) else served.tokenizer.decode(prompt, skip_special_tokens=True)
    read, _ = divided(asked, served, prompt, ids)
    return served.tokenizer.decode(read, skip_special_tokens=True) + served.tokenizer.eos_token


def check_lengths(served: Served, prompts: list[list[int]]) -> list[str]:
    """Warnings about prompts that are longer than what the base model was trained on.

    Raises:
        `Refused`: with 400, where one is longer than `MAX_PROMPT_TOKENS`.
    """
    warnings = []
    for place, ids in enumerate(prompts):
        if len(ids) > MAX_PROMPT_TOKENS:
            raise Refused(400, f"prompt {place} has {len(ids)} tokens, more than {MAX_PROMPT_TOKENS}", "prompt")
        if len(ids) > served.trained:
            warnings.append(
                f"prompt {place} has {len(ids)} tokens: all were read, but the base model was trained on "
                f"{served.trained} at most"
            )
    return warnings
