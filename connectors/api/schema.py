"""The JSON Schema of a configuration, for editors: made from the models that check it.

`config.schema.json` is a copy of what this module gives, so that an editor needs no Python;
`python -m contextframe_beam.connectors.api.schema` writes it anew.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from contextframe_beam.connectors.api.config import ApiConfig

#: The copy that is part of the package.
SCHEMA_FILE = Path(__file__).with_name("config.schema.json")


def config_schema() -> dict[str, Any]:
    """Returns the JSON Schema (2020-12) of a configuration."""
    schema = _without_titles(ApiConfig.model_json_schema(mode="validation"))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "contextframe-beam API source",
    }


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
