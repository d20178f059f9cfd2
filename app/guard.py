"""The one decorator that turns our own errors into messages a visitor can read."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

import gradio as gr

from app.components.markup import escape
from backend.errors import IconoscopeError

P = ParamSpec("P")
R = TypeVar("R")


def plain(message: str) -> str:
    """A message as Gradio's notices want it: they render HTML, and messages quote what visitors sent."""
    return str(escape(message))


def _as_gradio(error: IconoscopeError) -> gr.Error:
    # print_exception=False: the visitor's mistake is not a fault of the server's.
    return gr.Error(plain(str(error)), title="That did not work", print_exception=False)


def readable_errors(handler: Callable[P, R]) -> Callable[P, R]:
    """Re-raise :class:`IconoscopeError` as ``gr.Error``; every other exception is our bug and stays one.

    Generators are wrapped as generators, since Gradio asks the function which of the two it is.
    """
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def streamed(*args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
            try:
                yield from handler(*args, **kwargs)
            except IconoscopeError as error:
                raise _as_gradio(error) from error

        return streamed  # type: ignore[return-value]

    @functools.wraps(handler)
    def answered(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return handler(*args, **kwargs)
        except IconoscopeError as error:
            raise _as_gradio(error) from error

    return answered
