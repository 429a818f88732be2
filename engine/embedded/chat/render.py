"""A Hugging Face chat template, rendered as transformers renders it.

Source of the environment: `transformers/utils/chat_template_utils.py` - a sandboxed immutable
environment, trim_blocks, lstrip_blocks, loop controls, a `generation` block that only marks, and
the names `raise_exception`, `strftime_now` and `tojson`.
"""

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

Message = Mapping[str, str]

FROZEN_DATE = datetime.datetime(2024, 7, 26, tzinfo=datetime.UTC)
"""The day of templates that write today's date: an export must not depend on when it is made.

It is the day that Llama 3's templates themselves fall back to.
"""


class TemplateFailure(Exception):
    """The chat template does not parse, or refuses these messages; the text says why."""


class _Generation(Extension):
    """`{% generation %}...{% endgeneration %}` marks what the assistant wrote and prints it as is."""

    tags = {"generation"}  # noqa: RUF012  declared so by jinja2

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any
) -> str:  # jinja2's own filter escapes HTML
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


class ChatTemplate:
    """A parsed chat template; `special_tokens` are its variables bos_token, eos_token, ...

    Raises TemplateFailure when `source` does not parse. `wrote_date` turns true once a rendering
    asked for today's date and got FROZEN_DATE. `reply_header` is put behind what is rendered with a
    generation prompt, for a template that writes none.
    """

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _Generation]
        )
        environment.filters["tojson"] = _tojson
        names: dict[str, Callable[..., Any]] = {
            "raise_exception": _raise_exception,
            "strftime_now": self._strftime_now,
        }
        environment.globals.update(names)
        self.wrote_date = False
        self.reply_header = ""
        self._special_tokens = dict(special_tokens)
        try:
            self._template = environment.from_string(source)
        except TemplateError as error:
            line = getattr(error, "lineno", None)
            raise TemplateFailure(f"{error}" + (f" (line {line})" if line else "")) from error

    def _strftime_now(self, form: str) -> str:
        self.wrote_date = True
        return FROZEN_DATE.strftime(form)

    def render(self, messages: Sequence[Message], *, add_generation_prompt: bool = True) -> str:
        """The prompt for `messages`; raises TemplateFailure with the template's own words."""
        try:
            text = self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        except Exception as error:  # templates are foreign code and may raise anything
            raise TemplateFailure(f"{type(error).__name__}: {error}") from error
        return text + self.reply_header if add_generation_prompt else text
