"""The reference page of an API's YAML: every key of the schema, with an example that works."""

from __future__ import annotations

import importlib.util
import json
import re
from types import ModuleType
from typing import Any

import pytest
from pydantic import TypeAdapter

from contextframe_beam.connectors import record_mapping
from contextframe_beam.connectors.api import config, rules
from contextframe_beam.connectors.api import config as models
from contextframe_beam.connectors.api.load import SCHEMA_FILE
from contextframe_beam.connectors.http import settings
from tests.support.cli_helpers import ROOT

SCHEMA: dict[str, Any] = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
SECTIONS: dict[str, Any] = {"ApiConfig": SCHEMA, **SCHEMA["$defs"]}
# Keys that others of their section need beside them.
BESIDE = {
    "AnswerRule": ["field"],
    "BudgetSettings": ["per_second"],
    "Filter": ["equals"],
    "Incremental": ["start"],
    "Resource": ["parent"],
    "RetryRule": ["field"],
}


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "_generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GENERATOR = generator()
PAGE = GENERATOR.on_page_markdown("{{ api_yaml }}")


def model_of(section: str) -> Any:
    if section.endswith("Paginator"):
        return models.PaginatorSetting
    if "const" in SECTIONS[section]["properties"].get("type", {}):
        return settings.AuthSetting
    homes = (config, rules, record_mapping, settings)
    return next(getattr(one, section) for one in homes if hasattr(one, section))


def keys_by_heading() -> list[list[str]]:
    return [re.findall(r"^\| `(\w+)` \|", part, re.MULTILINE) for part in PAGE.split("\n## ")]


def test_every_section_of_the_schema_has_its_keys_on_the_page() -> None:
    expected = [sorted(section["properties"]) for section in SECTIONS.values()]
    assert sorted(map(sorted, keys_by_heading())) == sorted(expected)


def test_links_lead_to_headings_of_the_page() -> None:
    headings = {
        re.sub(r"[^a-z0-9_]+", "-", heading.lower())
        for heading in re.findall(r"^## (.+)$", PAGE, re.MULTILINE)
    }
    assert len(headings) == len(SECTIONS)
    assert set(re.findall(r"\]\(#([^)]+)\)", PAGE)) <= headings


@pytest.mark.parametrize("section", SECTIONS)
def test_every_example_is_accepted_where_it_stands(section: str) -> None:
    properties = SECTIONS[section]["properties"]
    adapter: TypeAdapter[Any] = TypeAdapter(model_of(section))
    for key in properties:
        needed = [*SECTIONS[section].get("required", []), *BESIDE.get(section, [])]
        needed += ["name"] if key == "in" else []
        value = {one: GENERATOR.example_of(section, one, properties[one]) for one in [*needed, key]}
        adapter.validate_python(value)


def test_no_example_is_of_a_key_that_is_gone() -> None:
    keys = {key for section in SECTIONS.values() for key in section["properties"]}
    of_sections = {f"{name}.{key}" for name, one in SECTIONS.items() for key in one["properties"]}
    assert set(GENERATOR.EXAMPLES) <= keys | of_sections
