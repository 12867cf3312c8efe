"""JSON objects on the command line of a stage, checked against the schema of what they describe."""

import argparse
from collections.abc import Callable

from diffit.cli import UserError, json_argument
from diffit.registry.mistakes import fill_in, refuse_strange_values, sentence


def described(what: str, schema: Callable[[], dict], where: str = "docs/config.md") -> Callable[[str], dict]:
    """An argparse type: a JSON object that matches a schema, with the schema's defaults filled in.

    Args:
        what: what the object describes, for error messages.
        schema: returns the schema; called when an argument is parsed.
        where: where people find the keys and values.
    """

    def parse(text: str) -> dict:
        value = json_argument(text)
        try:
            refuse_strange_values(what, value)
        except UserError as error:
            raise argparse.ArgumentTypeError(str(error)) from None
        if mistake := fill_in(value, schema()):
            raise argparse.ArgumentTypeError(sentence(mistake, what, f"{where} describes the keys"))
        return value

    return parse
