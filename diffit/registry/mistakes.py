"""Values checked against JSON schemas: defaults are filled in, and a mistake becomes one sentence."""

import copy
import json
import math
import reprlib
from collections.abc import Iterator, Sequence

from jsonschema import Draft202012Validator, ValidationError, validators

from diffit.cli import LARGEST, UserError, suggestion

_TYPES = {
    "object": "a mapping of keys to values",
    "array": "a list",
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "null": "null",
}
_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80


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


def fill_in(value: dict, schema: dict) -> ValidationError | None:
    """Fill in a schema's defaults in place and return the first mistake, in alphabetical order of the places."""
    errors = list(_with_defaults(Draft202012Validator)(schema).iter_errors(value))
    # The library returns them in the order of a set, which differs between processes.
    return min(errors, key=lambda error: [str(part) for part in error.absolute_path], default=None)


def refuse_strange_values(what: str, value: object) -> None:
    """Raise :class:`UserError` for numbers that nothing can compute with, and for an entry that contains itself.

    Args:
        what: the file or argument that holds the value, for the message.
        value: a value as YAML or JSON is read.
    """
    for place, number in _numbers(what, value, (), ()):
        where = f"{what}: {'.'.join(map(str, place)) or 'the top level'}"
        if isinstance(number, float) and not math.isfinite(number):
            raise UserError(f"{where} is {number}; write a finite number")
        if abs(number) > LARGEST:
            raise UserError(f"{where} is {number:.3g}, beyond 2^53, the largest number allowed; write a smaller one")


def _numbers(what: str, value: object, place: tuple, above: tuple[int, ...]) -> Iterator[tuple[tuple, int | float]]:
    if isinstance(value, int | float) and not isinstance(value, bool):
        yield place, value
    elif isinstance(value, dict | list):
        if id(value) in above:
            raise UserError(f"{what}: {'.'.join(map(str, place))} contains itself; remove the alias")
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _numbers(what, inner, (*place, key), (*above, id(value)))


def sentence(error: ValidationError, what: str, remedy: str, inside: Sequence[str] = ()) -> str:
    """What is wrong in ``what`` (``config``), as one sentence that ends with the way out.

    Args:
        error: the mistake, as :func:`fill_in` returns it.
        what: the file or argument that was read.
        remedy: where the allowed keys and values are listed.
        inside: the keys that lead to the value that was checked.
    """
    place = ".".join(str(part) for part in [*inside, *error.absolute_path])
    where = f"{what}: {place}" if place else what if what.startswith("the ") else f"{what}: the top level"
    match error.validator:
        case _ if "propertyNames" in error.absolute_schema_path:
            return _of_name(where, error)
        case "additionalProperties":
            known = error.schema.get("properties", {})
            key = min(set(error.instance) - set(known), key=str)
            return f"{where} has an unknown key {key!r}; {suggestion(str(key), known)}"
        case "required":
            missing = next(key for key in error.validator_value if key not in error.instance)
            return f"{where} lacks the key {missing!r}; add it; {remedy}"
        case "dependentRequired":
            # Read from the message, because defaults have been filled into the instance since.
            missing, given = error.message.split(" is a dependency of ")
            return f"{where} has {given} without {missing}; add it; {remedy}"
        case "oneOf":
            return f"{where} needs either training and milestones, or weights; {remedy}"
        case "type":
            return _of_type(what, where, error, remedy)
        case "enum":
            allowed = [str(value) for value in error.validator_value]
            listed = f"{_shown(error.instance)} is not one of {', '.join(allowed)}"
            near = suggestion(str(error.instance), allowed)
            return f"{where}: {listed}; {near if near.startswith('did') else remedy}"
        case "const":
            return f"{where} is {_shown(error.instance)}, but must be {_shown(error.validator_value)}; {remedy}"
        case "pattern" | "anyOf" if "description" in error.schema:
            return f"{where}: {_shown(error.instance)} must be {error.schema['description']}; {remedy}"
    return f"{where}: {error.message.replace(repr(error.instance), _shown(error.instance))}; {remedy}"


def _of_name(where: str, error: ValidationError) -> str:
    name = error.instance
    if not isinstance(name, str):
        return f"{where} has the name {name!r}, which is not text in YAML; put it in quotes"
    return f"{where} has the name {_shown(name)}; a name must be {error.schema['description']}"


def _of_type(what: str, where: str, error: ValidationError, remedy: str) -> str:
    value, types = error.instance, error.validator_value
    types = [types] if isinstance(types, str) else types
    wanted = " or ".join(_TYPES[name] for name in types)
    if value is None:
        return f"{where} is empty, but must be {wanted}; fill it in or remove the key; {remedy}"
    if isinstance(value, float) and value.is_integer() and "integer" in types:
        return f"{where} is {value}, but must be {wanted}; write {int(value)}"
    number = _number(value) if isinstance(value, str) and {"integer", "number"} & set(types) else None
    if number is not None and ("number" in types or number == int(number)):
        # YAML reads 1e-3 as text: a number with an exponent needs a decimal point.
        plain = int(number) if number == int(number) and "integer" in types else number
        return (
            f"{where}: {value!r} is text{'' if what.startswith('the ') else ' in YAML'}; write {plain!r} for the number"
        )
    return f"{where} is {_shown(value)}, but must be {wanted}; {remedy}"


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _shown(value: object) -> str:
    """A value as YAML writes it, shortened."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return _short.repr(value)
