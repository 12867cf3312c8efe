"""JSON objects on the command line of a stage, checked against the schema of what they describe."""

import argparse
from collections.abc import Callable, Mapping

from diffit.cli import UserError, json_argument
from diffit.registry.mistakes import fill_in, refuse_strange_values, sentence
from diffit.registry.settings import Setting, object_schema


def described(
    what: str, settings: Mapping[str, Setting] | dict, schema: str = "docs/config.md"
) -> Callable[[str], dict]:
    """An argparse type: a JSON object with these settings, in which the defaults are filled in.

    Args:
        what: what the object describes, for error messages.
        settings: the settings of an object, or a complete JSON schema with ``type``.
        schema: where people find the keys and values.
    """

    def parse(text: str) -> dict:
        value = json_argument(text)
        rules = settings if settings.get("type") == "object" else object_schema(settings)
        try:
            refuse_strange_values(what, value)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if mistake := fill_in(value, rules):
            raise argparse.ArgumentTypeError(sentence(mistake, what, f"{schema} describes the keys"))
        return value

    return parse
