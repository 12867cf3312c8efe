"""JSON schemas of settings: common types of a setting, and the schema of all settings of a registry's entry.

A setting is required unless it comes from :func:`default` or :func:`optional`.
"""

from collections.abc import Mapping

Setting = dict[str, object]

BOOLEAN: Setting = {"type": "boolean"}
COUNT: Setting = {"type": "integer", "minimum": 1, "maximum": 1_000_000_000}
COUNTS: Setting = {"type": "array", "minItems": 1, "items": COUNT}
NATURAL: Setting = {"type": "integer", "minimum": 0}
NUMBER: Setting = {"type": "number"}
POSITIVE: Setting = {"type": "number", "exclusiveMinimum": 0}
FRACTION: Setting = {"type": "number", "minimum": 0, "maximum": 1}
TEXT: Setting = {"type": "string", "minLength": 1}
MD5: Setting = {"type": "string", "pattern": r"^[0-9a-f]{32}\Z", "description": "32 hexadecimal digits"}
SHA1: Setting = {"type": "string", "pattern": r"^[0-9a-f]{40}\Z", "description": "40 hexadecimal digits"}
SHA256: Setting = {"type": "string", "pattern": r"^[0-9a-f]{64}\Z", "description": "64 hexadecimal digits"}
# Each shard is a job, and Snakemake slows down with their number.
SHARDS: Setting = {"type": "integer", "minimum": 1, "maximum": 100_000}
RESOLUTION: Setting = {"type": "integer", "minimum": 1, "maximum": 16_384}

_OPTIONAL = "optional"


def one_of(*values: object) -> Setting:
    """A setting with these allowed values."""
    return {"enum": list(values)}


def constant(value: object) -> Setting:
    """A setting that this entry fixes to one value, while other entries of the registry let the user choose."""
    return {"const": value, "default": value}


def nullable(setting: Setting) -> Setting:
    """The setting; null is allowed as well."""
    return {**setting, "type": [setting["type"], "null"]}


def default(setting: Setting, value: object) -> Setting:
    """The setting with a default value, which validation writes into the configuration."""
    return {**setting, "default": value}


def optional(setting: Setting) -> Setting:
    """A setting that may be missing and gets no default, so that runs from before the setting existed stay the same."""
    return {**setting, _OPTIONAL: True}


def object_schema(settings: Mapping[str, Setting]) -> dict:
    """The JSON schema of an object with exactly these settings."""
    required = [name for name, setting in settings.items() if not setting.keys() & {"default", _OPTIONAL}]
    properties = {
        name: {key: value for key, value in setting.items() if key != _OPTIONAL} for name, setting in settings.items()
    }
    return {"type": "object", "additionalProperties": False, "required": required, "properties": properties}


def by_kind(key: str, settings: Mapping[str, Mapping[str, Setting]], default_name: str | None = None) -> dict:
    """The JSON schema of an object whose ``key`` names an entry and whose other keys are the settings of that entry.

    Args:
        key: ``kind``, or ``source`` for data sets.
        settings: the settings of each entry, by entry name.
        default_name: the default entry; None if the key is required.
    """
    names = one_of(*settings)
    chosen = {key: default(names, default_name) if default_name else names}
    branches = []
    for name, own in settings.items():
        condition = {"required": [key], "properties": {key: {"const": name}}}
        # The object's own properties fill in the key before `if` is evaluated, because they come earlier in the schema.
        branches.append({"if": condition, "then": object_schema({key: {"default": name}, **own})})
    return {"type": "object", "required": [] if default_name else [key], "properties": chosen, "allOf": branches}
