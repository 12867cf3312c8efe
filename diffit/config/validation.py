"""Reading what a user wrote: ``config.yaml`` against its schema, with one sentence for each mistake."""

import copy

from jsonschema import Draft202012Validator, ValidationError, validators

from diffit.cli import UserError, suggestion
from diffit.config.cross_checks import check


def _with_defaults(validator_class):
    """A validator that fills in the schema's ``default`` of each missing key before it looks at the properties."""
    check_properties = validator_class.VALIDATORS["properties"]

    def fill(validator, properties, instance, schema):
        if isinstance(instance, dict):
            for key, rule in properties.items():
                if "default" in rule:
                    instance.setdefault(key, copy.deepcopy(rule["default"]))
        yield from check_properties(validator, properties, instance, schema)

    # 4.0 is a whole number to JSON, and no count of shards to anything else.
    whole = validator_class.TYPE_CHECKER.redefine("integer", lambda _, value: type(value) is int)
    return validators.extend(validator_class, {"properties": fill}, type_checker=whole)


def validate(config: dict, schema: dict) -> dict:
    """Fill in the schema's defaults and check a configuration in place; return it.

    Raises :class:`UserError` for the first mistake, places in alphabetical order, with the nearest valid spelling
    where a key or a name is unknown. What sections say of each other is checked as well (diffit/config/cross_checks.py).
    """
    if mistake := fill_in(config, schema):
        raise UserError(_sentence(mistake))
    check(config)
    return config


def fill_in(value: dict, schema: dict) -> ValidationError | None:
    """Fill in a schema's defaults in place; the first mistake, places in alphabetical order."""
    errors = list(_with_defaults(Draft202012Validator)(schema).iter_errors(value))
    # Their own order is that of a set, another in each process.
    return min(errors, key=lambda error: [str(part) for part in error.absolute_path], default=None)


def lookup(section: dict, kind: str, name: str) -> dict:
    """The entry ``name`` of a section, or a :class:`UserError` with the nearest name that there is."""
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
        return f"config: {place} needs either training and milestones, or weights; docs/config.md says what they mean"
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in error.instance)
        return f"config: {place} lacks the key {missing!r}; add it, docs/config.md says what it means"
    if error.validator == "dependentRequired":
        # From the message: the defaults that the instance had filled in since hide what was missing.
        missing, given = error.message.split(" is a dependency of ")
        return f"config: {place} has {given} without {missing}; add it, docs/config.md says what it means"
    if error.validator == "type" and isinstance(error.instance, str) and _is_number(error.instance):
        # YAML reads 1e-3 as text: its numbers with an exponent have a dot.
        return f"config: {place}: {error.instance!r} is text in YAML; write {float(error.instance)!r} for the number"
    return f"config: {place}: {error.message}; docs/config.md says what may stand there"


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
