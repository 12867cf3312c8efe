"""Validation of a configuration against its schema, with one sentence per mistake."""

import copy

from jsonschema import Draft202012Validator, ValidationError, validators

from diffit.cli import UserError, suggestion
from diffit.config.cross_checks import check


def _with_defaults(validator_class):
    """A validator that fills in the schema's ``default`` of each missing key before it checks the properties."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        if isinstance(instance, dict):
            for key, rule in properties.items():
                if "default" in rule:
                    instance.setdefault(key, copy.deepcopy(rule["default"]))
        yield from check_properties(validator, properties, instance, schema)

    # JSON Schema accepts 4.0 as an integer; range() and file names do not.
    whole = validator_class.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(validator_class, {"properties": fill}, type_checker=whole)


def validate(config: dict, schema: dict) -> dict:
    """Fill in the schema's defaults and check a configuration in place; return it.

    Raises :class:`UserError` for the first mistake, in alphabetical order of the places. If a key or a name is unknown,
    the message suggests the most similar one. Includes the checks across sections of diffit/config/cross_checks.py.
    """
    if mistake := fill_in(config, schema):
        raise UserError(_sentence(mistake))
    check(config)
    return config


def fill_in(value: dict, schema: dict) -> ValidationError | None:
    """Fill in a schema's defaults in place and return the first mistake, in alphabetical order of the places."""
    errors = list(_with_defaults(Draft202012Validator)(schema).iter_errors(value))
    # The library returns them in the order of a set, which differs between processes.
    return min(errors, key=lambda error: [str(part) for part in error.absolute_path], default=None)


def lookup(section: dict, kind: str, name: str) -> dict:
    """The entry ``name`` of a section. Raises :class:`UserError` with the most similar name if it is not defined."""
    if name not in section:
        raise UserError(f"there is no {kind} {name!r} in the config; {suggestion(name, section)}")
    return section[name]


def _sentence(error) -> str:
    place = ".".join(str(part) for part in error.absolute_path) or "the top level"
    if error.validator == "additionalProperties":
        known = error.schema.get("properties", {})
        key = min(set(error.instance) - set(known), key=str)
        return f"config: {place} has an unknown key {key!r}; {suggestion(str(key), known)}"
    if error.validator == "oneOf":
        return f"config: {place} needs either training and milestones, or weights; docs/config.md explains them"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"config: {place} lacks the key {missing!r}; add it; docs/config.md explains it"
    if error.validator == "dependentRequired":
        # Read from the message, because defaults have been filled into the instance since.
        missing, given = error.message.split(" is a dependency of ")
        return f"config: {place} has {given} without {missing}; add it; docs/config.md explains it"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        # YAML reads 1e-3 as text: a number with an exponent needs a decimal point.
        return f"config: {place}: {error.instance!r} is text in YAML; write {float(error.instance)!r} for the number"
    return f"config: {place}: {error.message}; docs/config.md lists the allowed values"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
