"""What a request may ask for, in OpenAI's format, and how it is refused."""

from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from starlette.requests import Request
from starlette.responses import JSONResponse

from record import strict_json
from record.errors import one_line

MAX_BODY_BYTES = 2**20
MAX_ROWS = 64
# No piece of T5's vocabulary has more than 16 characters: this is twice what 1,024 tokens can hold.
MAX_PROMPT_CHARACTERS = 2**15
# Below, logits divided by it would leave float32; vLLM takes the likeliest token there, too.
LEAST_TEMPERATURE = 1e-5


class Refused(Exception):
    """A request that is not answered: the HTTP status, and one sentence that says why."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None, **headers: str):
        super().__init__(message)
        self.status, self.param, self.code = status, param, code
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def error_object(refused: Refused) -> dict:
    """The shape of OpenAI's errors."""
    kind = "invalid_request_error" if refused.status < 500 and refused.status != 429 else "server_error"
    return {"error": {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}}


def refusal(refused: Refused) -> JSONResponse:
    """The answer to a request that is refused."""
    return JSONResponse(error_object(refused), refused.status, refused.headers)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _prompts(value: Any) -> Any:
    """A list of prompts, each a text or token ids, out of any of the four forms that OpenAI takes."""
    one = isinstance(value, str) or (isinstance(value, list) and value and type(value[0]) is int)
    prompts = [value] if one else value
    if not isinstance(prompts, list) or not prompts:
        raise ValueError("must be a text, a list of texts, a list of token ids, or a list of such lists")
    if len(prompts) > MAX_ROWS:
        raise ValueError(f"{len(prompts)} prompts are more than {MAX_ROWS}")
    for prompt in prompts:
        if isinstance(prompt, str):
            readable(prompt)
        elif not isinstance(prompt, list) or any(type(token) is not int for token in prompt):
            raise ValueError("a prompt is neither a text nor a list of token ids")
        elif not prompt:
            raise ValueError("a prompt is empty")
    return prompts


def readable(text: str) -> str:
    """The text, if a model can read it.

    Raises:
        `ValueError`.
    """
    if not text.strip():
        raise ValueError("a prompt is empty")
    if len(text) > MAX_PROMPT_CHARACTERS:
        raise ValueError(f"a prompt has {len(text):,} characters, more than {MAX_PROMPT_CHARACTERS:,}")
    if "\0" in text:
        raise ValueError("a prompt holds a null character")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("a prompt holds half a character (a lone surrogate)") from None
    return text


def _off(value: Any) -> Any:
    # False is 0 in Python, and clients send either, or null.
    if value:
        raise ValueError("not supported here: leave it out")
    return value


def _nothing_but(*harmless: Any) -> AfterValidator:
    """A parameter that is taken where it asks for nothing."""

    def check(value: Any) -> Any:
        if value is not None and value not in harmless:
            raise ValueError("not supported here: leave it out")
        return value

    return AfterValidator(check)


Off = Annotated[Any, AfterValidator(_off)]
Stop = Annotated[str, Field(min_length=1, max_length=100)]
STOP = {"type": "string", "minLength": 1, "maxLength": 100}
STOPS = {"anyOf": [STOP, {"type": "array", "items": STOP, "maxItems": 4}]}
Limit = Annotated[int, Field(ge=1)] | None
CLOSED = ConfigDict(strict=True, extra="forbid")


class StreamOptions(BaseModel):
    """What a stream tells besides the text."""

    model_config = CLOSED

    include_usage: bool | None = None
    include_obfuscation: Off = None


class Asked(BaseModel):
    """What `/v1/completions` and `/v1/chat/completions` share.

    A parameter that cannot be had here may be sent if it asks for nothing.
    """

    model_config = CLOSED

    model: Annotated[str, Field(max_length=300)]
    max_tokens: Limit = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[list[Stop], BeforeValidator(_listed), Field(max_length=4), WithJsonSchema(STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[str, Field(max_length=300)] | None = None
    logit_bias: Off = None
    presence_penalty: Off = None
    frequency_penalty: Off = None

    @property
    def limit(self) -> int | None:
        """The most tokens to write; None for the adapter's own limit."""
        return self.max_tokens

    @property
    def likeliest(self) -> int | None:
        """How many of the likeliest tokens are told at each place, next to the one written; None for no figures."""
        return None

    @property
    def forced(self) -> bool:
        """Whether the decoder is made to write a part of the prompt, whose probabilities are told."""
        return False

    @property
    def usage_in_stream(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class Completion(Asked):
    """OpenAI's parameters of `/v1/completions`."""

    prompt: Annotated[
        list[str | list[int]],
        BeforeValidator(_prompts),
        WithJsonSchema({
            "anyOf": [
                {"type": "string", "maxLength": MAX_PROMPT_CHARACTERS},
                {"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MAX_ROWS},
                {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                {"type": "array", "items": {"type": "array", "items": {"type": "integer"}, "minItems": 1},
                 "minItems": 1, "maxItems": MAX_ROWS},
            ]
        }),
    ]  # fmt: skip
    best_of: Annotated[Any, _nothing_but(1)] = None
    echo: bool | None = None
    # OpenAI takes 5 at most, and so do its clients.
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    suffix: Off = None

    @property
    def rows(self) -> int:
        return len(self.prompt) * (self.n or 1)

    @property
    def likeliest(self) -> int | None:
        return self.logprobs

    @property
    def forced(self) -> bool:
        return bool(self.echo) and self.logprobs is not None

    @model_validator(mode="after")
    def refuse_a_cut_in_the_prompt(self):
        if self.forced and (self.stream or self.stop):
            raise ValueError("`echo` with `logprobs` gives the prompt's figures: leave out `stream` and `stop`")
        return self


class TextPart(BaseModel):
    """A part of a message's content."""

    model_config = CLOSED

    type: Literal["text"]
    text: str


def _content(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class Message(BaseModel):
    """One message of a chat."""

    # Clients send earlier answers back with all that they came with.
    model_config = ConfigDict(strict=True, extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[
        list[TextPart],
        BeforeValidator(_content),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": TextPart.model_json_schema()}]}),
    ]

    @property
    def text(self) -> str:
        return "\n".join(part.text for part in self.content)


class Chat(Asked):
    """OpenAI's parameters of `/v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1, max_length=1000)]
    max_completion_tokens: Limit = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    response_format: Annotated[Any, _nothing_but({"type": "text"})] = None
    tool_choice: Annotated[Any, _nothing_but("none", "auto")] = None
    tools: Off = None
    parallel_tool_calls: Any = None
    store: Off = None
    metadata: Any = None

    @property
    def rows(self) -> int:
        return self.n or 1

    @property
    def limit(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def likeliest(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None


class LoadAdapter(BaseModel):
    """vLLM's parameters of `/v1/load_lora_adapter`: an id, and `owner/name[@revision]` or a run's folder."""

    model_config = CLOSED

    lora_name: Annotated[str, Field(min_length=1, max_length=300), AfterValidator(readable)]
    lora_path: Annotated[str, Field(min_length=1, max_length=1000), AfterValidator(readable)]


class UnloadAdapter(BaseModel):
    """vLLM's parameters of `/v1/unload_lora_adapter`."""

    model_config = CLOSED

    lora_name: Annotated[str, Field(min_length=1, max_length=300)]
    lora_int_id: Any = None


Body = TypeVar("Body", bound=BaseModel)


async def read(request: Request, shape: type[Body]) -> Body:
    """The request's body, checked.

    Raises:
        `Refused`: with 413, 415 or 400.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "the body must be JSON: send `Content-Type: application/json`")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "the body is compressed: send it as it is")
    body, size = bytearray(), 0
    # A client that is still sending would not read the answer: what is too much is taken and forgotten.
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY_BYTES:
            body += part
    if size > MAX_BODY_BYTES:
        raise Refused(413, f"the body has {size:,} bytes, more than {MAX_BODY_BYTES:,}: send fewer or shorter prompts")
    try:
        return shape.model_validate(strict_json.parse(bytes(body)))
    except ValidationError as error:
        raise _refusal(error) from None
    except ValueError as error:
        raise Refused(400, f"the body cannot be read: {one_line(str(error), 300)}") from None


def _refusal(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = one_line(str(first["loc"][0]), 100) if first["loc"] else None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such parameter"
    return Refused(400, one_line(f"`{where}`: {message}" if where else f"the body: {message}", 300), where)
