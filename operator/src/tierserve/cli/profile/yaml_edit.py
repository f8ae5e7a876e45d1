"""Writes a profile into the text of a GenAIDeployment; all other lines stay as they are, with their comments."""

from __future__ import annotations

from collections.abc import Iterator

import yaml

from tierserve.api.v1alpha1.deployment import KIND
from tierserve.api.yaml_source import Loader


def with_profile(text: str, model: str, block: str) -> str | None:
    """Return the text with `block` as the profile of a model; None if the model is not written out there."""
    for document in yaml.compose_all(text, Loader):
        for deployment in _deployments(document):
            models = _child(_child(deployment, "spec"), "models")
            for node in models.value if isinstance(models, yaml.SequenceNode) else ():
                name = _pair(node, "name")
                if name is not None and name[1].value == model:
                    return _edited(text, node, name, block)
    return None


def _edited(text: str, node: yaml.MappingNode, name: tuple[yaml.Node, yaml.Node], block: str) -> str:
    given = _pair(node, "profile")
    if given is not None:
        return text[: given[0].start_mark.index] + block + text[_end(given[1]) :]
    key, value = name
    end = value.end_mark.index
    if node.flow_style:
        return f"{text[:end]}, {block}{text[end:]}"
    line = text.find("\n", end) + 1
    before = text[:line] if line else text + "\n"
    return f"{before}{' ' * key.start_mark.column}{block}\n{text[line:] if line else ''}"


def _end(node: yaml.Node) -> int:
    """End of the last character of a value; a block's own mark is at the next key, behind comments."""
    if isinstance(node, yaml.MappingNode) and not node.flow_style and node.value:
        return _end(node.value[-1][1])
    return int(node.end_mark.index)


def _deployments(node: yaml.Node | None) -> Iterator[yaml.Node]:
    kind = _child(node, "kind")
    if node is not None and isinstance(kind, yaml.ScalarNode) and kind.value == KIND:
        yield node
    items = _child(node, "items")
    for item in items.value if isinstance(items, yaml.SequenceNode) else ():
        yield from _deployments(item)


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pair = _pair(node, name)
    return pair[1] if pair else None


def _pair(node: yaml.Node | None, name: str) -> tuple[yaml.Node, yaml.Node] | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else ()
    return next(((key, value) for key, value in pairs if key.value == name), None)
