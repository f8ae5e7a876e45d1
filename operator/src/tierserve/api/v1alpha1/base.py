"""Base class and name patterns of the custom resource: frozen, no unknown fields, camelCase in YAML."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
# Names of Services begin with this name and must be DNS labels of RFC 1035, which start with a letter.
SERVICE_NAME_PATTERN = r"^[a-z]([a-z0-9-]*[a-z0-9])?$"
SERVICE_NAME_LENGTH = 40
# Names as on model hubs: qwen2.5-7b, org/Name-8B, llama3:8b. 96 is the longest repository name of Hugging Face; with it
# a class, a model and a pool fit the 255 characters of a key of the gateway's table.
MODEL_NAME_PATTERN = r"^[A-Za-z0-9]([A-Za-z0-9._:@+/-]*[A-Za-z0-9])?$"
MODEL_NAME_LENGTH = 96
ModelName = Annotated[str, Field(pattern=MODEL_NAME_PATTERN, min_length=1, max_length=MODEL_NAME_LENGTH)]
Name = Annotated[str, Field(pattern=NAME_PATTERN, min_length=1, max_length=40)]
SUBDOMAIN_PATTERN = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
Subdomain = Annotated[str, Field(pattern=SUBDOMAIN_PATTERN, min_length=1, max_length=253)]  # names of Secrets
Label = Annotated[str, Field(max_length=63)]


class Part(BaseModel):
    """Base class of all objects of the resource; `model_fields_set` are the fields that the user set."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)
