"""Where requests and responses of models hold prompts, answers, tools and media.

Each row names a place, and the public page that documents it. `make docs` writes the rows into the
SQL function `content_shapes`, from which the functions of `model_calls` work; the load uses the
names of the members to count unknown shapes. So the two cannot disagree.
"""

from __future__ import annotations

from etl.transform.message_shapes import media, parts
from etl.transform.request_shapes import requests
from etl.transform.response_shapes import answers, tools
from etl.transform.shape import Shape

CONTAINERS = (
    "response",
    "response_data",
    "message",
    "delta",
    "metadata",
    "x_groq",
    "body",
    "result",
    "data",
    "chunks",
    "events",
    "stream",
    "modelOutput",
)
"""Members of integrations, gateways and stream events that may contain the response."""

REQUEST_CONTAINERS = (
    "body",
    "request",
    "requests",
    "params",
    "data",
    "payload",
    "json",
    "input",
    "input_mapping",
    "arguments",
    "kwargs",
    "modelInput",
)
"""Members of integrations, gateways and batches that may contain the request."""

MAX_DEPTH = 5
"""Maximum number of containers around a request or a response."""

SHAPES: tuple[Shape, ...] = (*requests(), *answers(), *tools(), *media(), *parts())
