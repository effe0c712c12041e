"""The service's OpenAPI document."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from serving.requests import Chat, Completion, LoadAdapter, UnloadAdapter

PREFIX = "#/components/schemas/"
ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
# What each request asks: method, path, the body's model, what is answered in which media types.
OPERATIONS: list[tuple[str, str, type[BaseModel] | None, str, tuple[str, ...]]] = [
    ("post", "/v1/completions", Completion, "Complete prompts", ("application/json", "text/event-stream")),
    ("post", "/v1/chat/completions", Chat, "Answer a chat's last message", ("application/json", "text/event-stream")),
    ("post", "/v1/load_lora_adapter", LoadAdapter, "Load an adapter", ("text/plain",)),
    ("post", "/v1/unload_lora_adapter", UnloadAdapter, "Unload an adapter", ("text/plain",)),
    ("get", "/v1/models", None, "All models", ("application/json",)),
    ("get", "/v1/models/{id}", None, "One model", ("application/json",)),
    ("get", "/health", None, "Whether the process works", ("application/json",)),
    ("get", "/ready", None, "Whether it takes requests", ("application/json",)),
    ("get", "/metrics", None, "Figures for Prometheus", ("text/plain",)),
]


def document() -> dict[str, Any]:
    """OpenAPI 3.1, whose schemas are JSON Schema as pydantic writes it."""
    bodies = [body for _, _, body, _, _ in OPERATIONS if body]
    _, schemas = models_json_schema([(body, "validation") for body in bodies], ref_template=PREFIX + "{model}")
    paths: dict[str, dict] = {}
    for method, path, body, summary, media in OPERATIONS:
        operation: dict[str, Any] = {
            "summary": summary,
            "responses": {
                "200": {"description": summary, "content": {kind: {} for kind in media}},
                "default": {
                    "description": "Refused, with one sentence that says why",
                    "content": {"application/json": {"schema": {"$ref": f"{PREFIX}Error"}}},
                },
            },
        }
        if body:
            schema = {"$ref": f"{PREFIX}{body.__name__}"}
            operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
        if "{id}" in path:
            operation["parameters"] = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
        paths.setdefault(path, {})[method] = operation
    return {
        "openapi": "3.1.0",
        "info": {"title": "Adapters of encoder-decoders in OpenAI's format", "version": "1"},
        "paths": paths,
        "components": {"schemas": schemas["$defs"] | {"Error": ERROR}},
    }
