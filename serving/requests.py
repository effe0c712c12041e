"""What a completion request may ask for, in OpenAI's format, and how it is refused."""

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
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


def refusal(refused: Refused) -> JSONResponse:
    """The answer in the shape of OpenAI's errors."""
    kind = "invalid_request_error" if refused.status < 500 and refused.status != 429 else "server_error"
    error = {"message": str(refused), "type": kind, "param": refused.param, "code": refused.code}
    return JSONResponse({"error": error}, refused.status, refused.headers)


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _readable(text: str) -> str:
    if not text.strip():
        raise ValueError("a prompt is empty")
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


def _one(value: Any) -> Any:
    if value is not None and value != 1:
        raise ValueError("not supported here: leave it out")
    return value


Off = Annotated[Any, AfterValidator(_off)]
Stop = Annotated[str, Field(min_length=1, max_length=100)]


class Completion(BaseModel):
    """OpenAI's parameters of `/v1/completions`; those that cannot be had here may be sent if they ask for nothing."""

    model_config = ConfigDict(strict=True, extra="forbid")

    model: Annotated[str, Field(max_length=300)]
    prompt: Annotated[
        list[Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_readable)]],
        BeforeValidator(_listed),
        Field(min_length=1, max_length=MAX_ROWS),
    ]
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1, le=MAX_ROWS)] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    stop: Annotated[list[Stop], BeforeValidator(_listed), Field(max_length=4)] | None = None
    user: Annotated[str, Field(max_length=300)] | None = None
    best_of: Annotated[Any, AfterValidator(_one)] = None
    stream: Off = None
    stream_options: Off = None
    echo: Off = None
    suffix: Off = None
    logprobs: Off = None
    logit_bias: Off = None
    presence_penalty: Off = None
    frequency_penalty: Off = None

    @property
    def rows(self) -> int:
        return len(self.prompt) * (self.n or 1)


async def read(request: Request) -> Completion:
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
        completion = Completion.model_validate(strict_json.parse(bytes(body)))
    except ValidationError as error:
        raise _refusal(error) from None
    except ValueError as error:
        raise Refused(400, f"the body cannot be read: {one_line(str(error), 300)}") from None
    if completion.rows > MAX_ROWS:
        raise Refused(400, f"`n` times the prompts makes {completion.rows} answers, more than {MAX_ROWS}", "n")
    return completion


def _refusal(error: ValidationError) -> Refused:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    where = one_line(str(first["loc"][0]), 100) if first["loc"] else None
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        message = "there is no such parameter"
    return Refused(400, one_line(f"`{where}`: {message}" if where else f"the body: {message}", 300), where)
