"""The JSON Schema of a configuration, for editors: made from the models that check it.

`config.schema.json` is a copy of what this module gives, so that an editor needs no Python;
`python -m contextframe_beam.connectors.api.schema` writes it anew.
"""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

from contextframe_beam.connectors.api import config
from contextframe_beam.connectors.api.config import ApiConfig
from contextframe_beam.connectors.http import settings

#: The copy that is part of the package.
SCHEMA_FILE = Path(__file__).with_name("config.schema.json")


def config_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a configuration."""
    schema = ApiConfig.model_json_schema(mode="validation")
    # Pydantic can read these texts too, but does so whenever the models are imported, for 0.13 s.
    texts = {**_field_texts(settings), **_field_texts(config)}
    classes = {**vars(settings), **vars(config)}
    for name, section in ((ApiConfig.__name__, schema), *schema["$defs"].items()):
        # A section's own texts come last, over those that it inherits.
        for owner in reversed(inspect.getmro(classes.get(name, object))):
            for field, text in texts.get(owner.__name__, {}).items():
                key = classes[name].model_fields[field].alias or field
                section["properties"][key]["description"] = text
        if "const" in section["properties"].get("type", {}):
            section["properties"]["type"]["description"] = section["description"]
    schema = _without_titles(schema)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "contextframe-beam API source",
    }


def _field_texts(module: ModuleType) -> dict[str, dict[str, str]]:
    """Returns the text below each field of a module's sections, by section and field."""
    found: dict[str, dict[str, str]] = {}
    for section in ast.parse(inspect.getsource(module)).body:
        if isinstance(section, ast.ClassDef):
            texts = found[section.name] = {}
            for field, below in pairwise(section.body):
                if (
                    isinstance(field, ast.AnnAssign)
                    and isinstance(field.target, ast.Name)
                    and isinstance(below, ast.Expr)
                    and isinstance(below.value, ast.Constant)
                ):
                    texts[field.target.id] = inspect.cleandoc(str(below.value.value))
    return found


def _without_titles(schema: Any) -> Any:
    """Returns a schema without the titles that only repeat the names of the keys."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: _without_titles(value)
        for key, value in schema.items()
        # A key that is called so has a schema and not a text.
        if not (key == "title" and isinstance(value, str))
    }


def schema_text() -> str:
    """Returns the schema as `config.schema.json` holds it."""
    return json.dumps(config_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    SCHEMA_FILE.write_text(schema_text(), encoding="utf-8")
