"""Validation of a configuration against its schema, with one sentence per mistake."""

from diffit.cli import UserError, suggestion
from diffit.config.cross_checks import check
from diffit.registry.mistakes import fill_in, refuse_strange_values, sentence


def validate(config: dict, schema: dict) -> dict:
    """Fill in the schema's defaults and check a configuration in place; return it.

    Raises :class:`UserError` for the first mistake, in alphabetical order of the places. If a key or a name is unknown,
    the message suggests the most similar one. Includes the checks across sections of diffit/config/cross_checks.py.
    """
    refuse_strange_values("config", config)
    if mistake := fill_in(config, schema):
        raise UserError(sentence(mistake, "config", "docs/config.md explains it"))
    check(config)
    return config


def lookup(section: dict, kind: str, name: str) -> dict:
    """The entry ``name`` of a section. Raises :class:`UserError` with the most similar name if it is not defined."""
    if name not in section:
        raise UserError(f"there is no {kind} {name!r} in the config; {suggestion(name, section)}")
    return section[name]
