"""Sizes of models, read from their files where these are on this machine: `memory` of a model that does not give it.

Nothing is downloaded: a model of `hf://`, `s3://`, `gs://` or `oci://` is read if it is in the cache of this machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tierserve.api import GenAIDeployment
from tierserve.api.errors import Problem
from tierserve.api.units import Quantity
from tierserve.api.v1alpha1.models import Model

if TYPE_CHECKING:
    from tierserve_serving.engines.model_sizes import ModelSizes


def model_sizes(model: Model) -> ModelSizes | None:
    """Return the sizes of a model by its files; None if it has none, or none that can be read here."""
    if model.source is None or model.engine == "emulated":
        return None
    try:
        from tierserve_serving.engines.model_sizes import read
        from tierserve_serving.sources import local_path

        path = local_path(model.source, "gguf" if model.engine == "llamacpp" else "folder")
        return read(path, model.engine_args) if path else None
    except (OSError, ValueError, KeyError, TypeError, ImportError):  # the replica names what is wrong with a file
        return None


def with_model_sizes(gaid: GenAIDeployment) -> GenAIDeployment:
    """Return the resource with `memory` of each model as its files state it; values that are given stay."""
    models = tuple(_with_sizes(model) for model in gaid.spec.models)
    if models == gaid.spec.models:
        return gaid
    return gaid.model_copy(update={"spec": gaid.spec.model_copy(update={"models": models})})


def _with_sizes(model: Model) -> Model:
    sizes, given = model_sizes(model), model.memory
    if sizes is None:
        return model
    update: dict[str, Quantity] = {}
    if given.weights is None and sizes.weights:
        update["weights"] = Quantity(str(sizes.weights))
    if given.per_token is None and given.per_request is None and sizes.cache_per_token:
        update["per_token"] = Quantity(str(sizes.cache_per_token))
    return model.model_copy(update={"memory": given.model_copy(update=update)}) if update else model


def context_problems(gaid: GenAIDeployment) -> list[Problem]:
    """Return a problem for each model whose `contextTokens` is above what the model was made for."""
    problems = []
    for index, model in enumerate(gaid.spec.models):
        sizes = model_sizes(model)
        if sizes and sizes.context and model.context_tokens > sizes.context and not _extends_context(model):
            problems.append(
                Problem(
                    f"spec.models[{index}].contextTokens",
                    f"must be at most {sizes.context}, the longest context of {model.name}",
                    f"set it to {sizes.context} or less; a replica would not start",
                    str(model.context_tokens),
                )
            )
    return problems


def _extends_context(model: Model) -> bool:
    from tierserve_serving.engines.model_sizes import extends_context

    return extends_context(model.engine_args)
