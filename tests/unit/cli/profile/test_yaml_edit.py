"""`tierserve profile --write`: the profile is in the file afterwards, and every other line is as before."""

from __future__ import annotations

import pytest

from tierserve.api.loading import load_text
from tierserve.cli.profile.yaml_edit import with_profile

BLOCK = "profile: {alpha: 12ms, beta: 1ms, gamma: 2us}"
HEAD = """# my service
apiVersion: serving.tierserve.io/v1alpha1
kind: GenAIDeployment
metadata: {name: assistant}
spec:
  objective: {responseTime: {percentile: 95, target: 5s}}
  tiers:
    - {name: home, kind: device, accelerator: {preset: cpu}}
  models:
"""
MODELS = {
    "flow": "    - {name: light, engine: emulated}  # small\n",
    "block": "    - name: light  # small\n      engine: emulated\n",
    "block, name last": "    - engine: emulated\n      name: light",
    "with a profile": "    - name: light  # small\n      profile: {alpha: 1s}  # old\n      engine: emulated\n",
    "with a block": (
        "    - name: light\n      profile:\n        alpha: 1s\n        beta: 3ms\n"
        "      # the engine\n      engine: emulated\n"
    ),
    "flow with a profile": "    - {name: light, profile: {alpha: 1s}, engine: emulated}\n",
    "quoted": '    - {"name": "light", engine: emulated}\n',
}


@pytest.mark.parametrize("models", MODELS.values(), ids=MODELS)
def test_the_profile_is_in_the_file_afterwards(models):
    edited = with_profile(HEAD + models, "light", BLOCK)
    profile = load_text(edited).model("light").profile
    assert (profile.alpha, profile.beta, profile.gamma) == ("12ms", "1ms", "2us")


@pytest.mark.parametrize("models", MODELS.values(), ids=MODELS)
def test_comments_and_other_fields_stay(models):
    text = HEAD + models
    edited = with_profile(text, "light", BLOCK)
    assert edited.startswith(HEAD)
    assert [line.partition("#")[2] for line in edited.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in text.splitlines() if "#" in line
    ]
    assert load_text(edited).model("light").engine == "emulated"


def test_only_the_model_of_that_name_changes():
    models = "    - {name: large, engine: emulated}\n    - {name: light, engine: emulated}\n"
    after = load_text(with_profile(HEAD + models, "light", BLOCK))
    assert after.model("large").profile is None
    assert after.model("light").profile is not None


def test_other_documents_and_a_list_are_understood():
    other = "kind: ConfigMap\nspec: {models: [{name: light}]}\n---\n"
    assert with_profile(other + HEAD + MODELS["flow"], "light", BLOCK).startswith(other)


def test_a_model_that_is_not_written_out_is_not_edited():
    assert with_profile(HEAD + MODELS["flow"], "large", BLOCK) is None
