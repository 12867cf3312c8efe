"""YAML files that people write, read strictly: no duplicate keys, no tabs, and mistakes with file and line."""

from collections.abc import Sequence
from pathlib import Path

import yaml

from diffit.cli import UserError
from diffit.registry.mistakes import refuse_strange_values


class _Loader(yaml.SafeLoader):
    """A loader that refuses a key that a mapping has twice: YAML would silently keep the last one."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        if isinstance(node, yaml.MappingNode):
            seen: dict = {}
            for key_node, _ in node.value:
                if key_node.tag == "tag:yaml.org,2002:merge":
                    continue
                key = (key_node.tag, str(key_node.value))
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key_node.value!r} is also in line {seen[key]}; remove one of them",
                        key_node.start_mark,
                    )  # fmt: skip
                seen[key] = key_node.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_mapping(path: Path) -> dict:
    """The content of a YAML file whose top level has keys.

    Raises :class:`UserError` if the file is missing, empty or not such a file, for a key that is there twice, and for
    numbers that nothing can compute with.
    """
    value = _parsed(path)
    if value is None:
        raise UserError(f"{path} is empty; write at least one key, or do not name the file")
    if not isinstance(value, dict):
        kind = "a list" if isinstance(value, list) else "text"
        raise UserError(f"{path} is {kind} at its top level; write keys such as `runs:` there")
    refuse_strange_values(str(path), value)
    return value


def check_files(main: str, local: str, others: Sequence[Path]) -> None:
    """Raise :class:`UserError` for the first mistake that :func:`read_mapping` finds in configuration files.

    Args:
        main: the file in the current folder, which may be missing if there are others.
        local: the user's own file in the current folder, which may be missing.
        others: the files of ``--configfile``.
    """
    if Path(main).exists():
        read_mapping(Path(main))
    elif not others:
        raise UserError(
            f"there is no {main} in {Path.cwd()}; run Snakemake in the folder of the project, or give --directory"
        )
    for path in [*([Path(local)] if Path(local).exists() else []), *others]:
        read_mapping(path)


def _parsed(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; correct the name of the configuration file") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); name a readable YAML file") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not text in UTF-8; save it in this encoding") from None
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise UserError(_sentence(path, text, error)) from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply; write it with fewer levels") from None
    except ValueError as error:  # a date or a number that cannot exist
        raise UserError(f"{path} has a value that YAML cannot read ({error}); correct it or put it in quotes") from None


def _sentence(path: Path, text: str, error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is None:  # a control character
        reason = str(error).splitlines()[0]
        return f"{path} has a character that YAML does not allow ({reason}); remove it"
    lines = text.splitlines()
    for number in (mark.line, mark.line - 1):
        if 0 <= number < len(lines) and "\t" in lines[number][: len(lines[number]) - len(lines[number].lstrip())]:
            return f"{path}, line {number + 1}: the line is indented with a tab; use spaces"
    problem = getattr(error, "problem", None) or "it is not YAML"
    way_out = "" if "; remove" in problem else "; correct the line or the one before it"
    return f"{path}, line {mark.line + 1}: {problem}{way_out}"
