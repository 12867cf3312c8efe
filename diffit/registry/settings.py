"""Settings as JSON schemas: the types that entries of a registry use, and the schema of an entry's settings.

A setting is required unless it is wrapped in :func:`default` or :func:`optional`.
"""

from collections.abc import Mapping

Setting = dict[str, object]

BOOLEAN: Setting = {"type": "boolean"}
COUNT: Setting = {"type": "integer", "minimum": 1}
COUNTS: Setting = {"type": "array", "minItems": 1, "items": COUNT}
NATURAL: Setting = {"type": "integer", "minimum": 0}
NUMBER: Setting = {"type": "number"}
POSITIVE: Setting = {"type": "number", "exclusiveMinimum": 0}
FRACTION: Setting = {"type": "number", "minimum": 0, "maximum": 1}
TEXT: Setting = {"type": "string"}
MD5: Setting = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
SHA1: Setting = {"type": "string", "pattern": "^[0-9a-f]{40}$"}
SHA256: Setting = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

_OPTIONAL = "optional"


def one_of(*values: object) -> Setting:
    """A setting with these values."""
    return {"enum": list(values)}


def constant(value: object) -> Setting:
    """A setting that every entry has, but that this one fixes."""
    return {"const": value, "default": value}


def nullable(setting: Setting) -> Setting:
    """The setting or null."""
    return {**setting, "type": [setting["type"], "null"]}


def default(setting: Setting, value: object) -> Setting:
    """The setting with a default, which is written into the configuration."""
    return {**setting, "default": value}


def optional(setting: Setting) -> Setting:
    """A setting that may be absent and is not filled in, so that runs that began without the key stay what they are."""
    return {**setting, _OPTIONAL: True}


def object_schema(settings: Mapping[str, Setting]) -> dict:
    """The JSON schema of an object with these settings and no others."""
    required = [name for name, setting in settings.items() if not setting.keys() & {"default", _OPTIONAL}]
    properties = {
        name: {key: value for key, value in setting.items() if key != _OPTIONAL} for name, setting in settings.items()
    }
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def by_kind(key: str, settings: Mapping[str, Mapping[str, Setting]], usual: str | None = None) -> dict:
    """The JSON schema of an object whose ``key`` names an entry, with the settings of that entry and no others.

    Args:
        key: ``kind``, or ``source`` for data sets.
        settings: those of each entry by its name.
        usual: the entry that an object without the key means; None where the key is required.
    """
    names = one_of(*settings)
    chosen = {key: default(names, usual) if usual else names}
    branches = []
    for name, own in settings.items():
        condition = {"required": [key], "properties": {key: {"const": name}}}
        # required comes after properties of the object itself, which fill in the key.
        branches.append({"if": condition, "then": object_schema({key: {"default": name}, **own})})
    return {"type": "object", "required": [] if usual else [key], "properties": chosen, "allOf": branches}
