"""How functions become endpoints and MCP tools: types as Gradio reads them, errors in words, answers in JSON."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from backend.errors import IconoscopeError

P = ParamSpec("P")
R = TypeVar("R")


class ApiError(gr.Error):
    """An error of ours as programs read it: the message itself, nothing escaped, no traceback on the server."""

    def __init__(self, message: str) -> None:
        super().__init__(message, title="That did not work", print_exception=False)

    def __str__(self) -> str:
        return str(self.message)


def published(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` with our errors made readable, and with its signature as Gradio needs it: types, not their names."""

    @functools.wraps(function)
    def called(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except IconoscopeError as error:
            raise ApiError(str(error)) from error

    called.__signature__ = inspect.signature(function, eval_str=True)  # type: ignore[attr-defined]
    return called


def answer_in_json(blocks: gr.Blocks) -> None:
    """Let MCP tools answer in JSON; Gradio's own text of a dictionary is Python's. Call once the server runs."""
    server = blocks.mcp_server_obj
    if server is None:
        return
    text_content = server.types.TextContent

    def as_json(data: Sequence[Any], root_url: str) -> list[Any]:
        del root_url
        return [text_content(type="text", text=json.dumps(one, ensure_ascii=False, allow_nan=False)) for one in data]

    server.postprocess_output_data = as_json


def has_mcp() -> bool:
    """Whether the ``mcp`` package is installed."""
    return find_spec("mcp") is not None
