"""An answer in OpenAI's format, whole or as the events of a stream."""

import json
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from scoring.decoding.generate import decode
from serving.engine import PendingRow
from serving.loading import Served
from serving.requests import Chat, Completion

DONE = b"data: [DONE]\n\n"


@dataclass
class Job:
    """A request under way.

    `rows` are its answers, those of one prompt together; `before` is the text that stands before each, which `echo`
    asks for. `prompt_tokens` counts every prompt once.
    """

    asked: Completion | Chat
    served: Served
    rows: list[PendingRow]
    before: list[str]
    prompt_tokens: int
    warnings: list[str]
    started: float
    number: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def chat(self) -> bool:
        return isinstance(self.asked, Chat)

    @property
    def stops(self) -> Sequence[str]:
        return self.asked.stop or ()


def head(job: Job, part: str = "") -> dict:
    """What the whole answer and each of its parts begin with."""
    kind = f"chat.completion{part}" if job.chat else "text_completion"
    number = f"{'chatcmpl' if job.chat else 'cmpl'}-{job.number}"
    return {"id": number, "object": kind, "created": job.created, "model": job.served.id}


def tokens_written(job: Job, outputs: list[list[int]]) -> int:
    """How many tokens the model chose; what it was made to write counts among the prompt's."""
    return sum(map(len, outputs)) - sum(len(row.forced) for row in job.rows)


def usage(job: Job, written: int) -> dict:
    total = job.prompt_tokens + written
    return {"prompt_tokens": job.prompt_tokens, "completion_tokens": written, "total_tokens": total}


def whole(job: Job, outputs: list[list[int]]) -> dict:
    """OpenAI's completion object; `warnings` is added where there is something to warn of."""
    choices = []
    for place, (ids, text) in enumerate(zip(outputs, decode(job.served.tokenizer, outputs), strict=True)):
        answer = job.before[place] + cut(text, job.stops)
        said: dict[str, Any] = {"text": answer}
        if job.chat:
            said = {"message": {"role": "assistant", "content": answer, "refusal": None}}
        row = job.rows[place]
        figures = prompt_logprobs(job, place, ids) if row.forced else logprobs(job, row, ids)
        choices.append({"index": place, **said, "logprobs": figures, "finish_reason": reason(job, row, ids, text)})
    answer = head(job) | {"choices": choices, "usage": usage(job, tokens_written(job, outputs))}
    return answer | ({"warnings": job.warnings} if job.warnings else {})


def reason(job: Job, row: PendingRow, ids: list[int], text: str) -> str:
    """Why a row ended: `length` where it did so by its limit alone."""
    return "stop" if len(ids) < row.limit or any(stop in text for stop in job.stops) else "length"


def cut(text: str, stops: Sequence[str]) -> str:
    """The text before the first of the stops."""
    return text[: min((text.find(stop) for stop in stops if stop in text), default=None)]


def logprobs(job: Job, row: PendingRow, ids: list[int], first: int = 0) -> dict | None:
    """The figures of the tokens from `first` on, as each of the two formats wants them; None if nobody asked."""
    if row.likeliest is None:
        return None
    tokenizer = job.served.tokenizer
    figures = row.probabilities[first : len(ids)]
    tokens = _tokens(tokenizer, ids[first:])
    likeliest = [dict(zip(_tokens(tokenizer, best), best.values(), strict=True)) for _, best in figures]
    if job.chat:
        content = []
        for token, (own, _), best in zip(tokens, figures, likeliest, strict=True):
            top = [_with_bytes(name, value) for name, value in best.items()]
            content.append(_with_bytes(token, own) | {"top_logprobs": top})
        return {"content": content, "refusal": None}
    ends = [len(tokenizer.decode(ids[:end], skip_special_tokens=True)) for end in range(first, len(ids))]
    return {
        "tokens": tokens,
        "token_logprobs": [own for own, _ in figures],
        "top_logprobs": likeliest if row.likeliest else None,
        "text_offset": ends,
    }


def prompt_logprobs(job: Job, place: int, ids: list[int]) -> dict:
    """The figures of the prompt and the tokens written: none of what the encoder read, 0 of the `</s>` that ends it.

    The `</s>` by which the model ended its answer is told, too: clients count on a token after the prompt's.
    """
    row, tokenizer = job.rows[place], job.served.tokenizer
    ended = [job.served.model.generation_config.eos_token_id] * (len(ids) < row.limit)
    figures = logprobs(job, row, [*ids, *ended])
    known = len(row.prompt) - 1
    best = figures["top_logprobs"]
    starts = [len(tokenizer.decode(row.prompt[:end], skip_special_tokens=True)) for end in range(len(row.prompt))]
    return {
        "tokens": _tokens(tokenizer, row.prompt) + figures["tokens"],
        "token_logprobs": [None] * known + [0.0] + figures["token_logprobs"],
        "top_logprobs": [None] * known + [{tokenizer.eos_token: 0.0}] + best if best else None,
        "text_offset": starts + [len(job.before[place]) + start for start in figures["text_offset"]],
    }


def _tokens(tokenizer: PreTrainedTokenizerBase, ids) -> list[str]:
    # SentencePiece writes a space as U+2581; the embedding has more rows than there are tokens.
    return [(token or "").replace("\u2581", " ") for token in tokenizer.convert_ids_to_tokens(list(ids))]


def _with_bytes(token: str, value: float) -> dict:
    return {"token": token, "logprob": value, "bytes": list(token.encode())}


class TextStream:
    """A row's text as it grows: its parts put together are the text of the whole answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, stops: Sequence[str]):
        self.tokenizer, self.stops = tokenizer, stops
        self.sent = ""

    def more(self, ids: list[int]) -> str:
        """What can be sent of the tokens so far: nothing that a later token may change or make part of a stop."""
        text = cut(self._text(ids), self.stops).rstrip("\ufffd")
        held = max(
            (size for stop in self.stops for size in range(1, len(stop)) if text.endswith(stop[:size])), default=0
        )
        text = text[: len(text) - held].rstrip()
        # It takes the space out between "do" and "n't" once both are there.
        if self.tokenizer.clean_up_tokenization_spaces:
            text = " ".join(text.split(" ")[:-2])
        return self._send(text)

    def rest(self, ids: list[int]) -> str:
        """What is left to send of all the tokens."""
        return self._send(cut(self._text(ids), self.stops))

    def _text(self, ids: list[int]) -> str:
        return decode(self.tokenizer, [ids])[0]

    def _send(self, text: str) -> str:
        if not text.startswith(self.sent):
            return ""
        part, self.sent = text[len(self.sent) :], text
        return part


def event(content: dict) -> bytes:
    """A server-sent event (WHATWG HTML, section 9.2) whose data is one line of JSON."""
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def part(job: Job, place: int, text: str, figures: dict | None = None, ended: str | None = None) -> dict:
    """A part of the answer at `place`."""
    said: dict[str, Any] = {"delta": {"content": text} if text else {}} if job.chat else {"text": text}
    choice = {"index": place, **said, "logprobs": figures, "finish_reason": ended}
    return head(job, ".chunk") | {"choices": [choice]}


def opening(job: Job, place: int) -> dict:
    """The part before the first token: the role, or the prompt that `echo` asks for; the warnings."""
    begin = part(job, place, job.before[place])
    if job.chat:
        begin["choices"][0]["delta"] = {"role": "assistant", "content": "", "refusal": None}
    return begin | ({"warnings": job.warnings} if job.warnings else {})
