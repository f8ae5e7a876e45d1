"""Helm releases of the chart on a real API server: who owns the CRD, and which operators may be beside each other."""

from __future__ import annotations

import copy
import os
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.apiserver, pytest.mark.helm]
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tierserve"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
NAME = "genaideployments.serving.tierserve.io"
CRD: dict[str, Any] = yaml.safe_load((ROOT / "crds" / "genaideployments.yaml").read_text())


@dataclass
class Releases:
    """helm and kubectl against one API server, as its administrator or as another user."""

    server: Any
    folder: Path
    helm: Path
    kubectl: Path

    def run(self, program: Path, *words: str, token: str = "") -> subprocess.CompletedProcess[str]:
        kubeconfig = self.folder / "kubeconfig"
        cluster = {"server": self.server.url, "certificate-authority": str(self.server.certificate)}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": token or self.server.token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        }  # fmt: skip
        kubeconfig.write_text(yaml.safe_dump(document))
        environment = {**os.environ, "KUBECONFIG": str(kubeconfig), "HELM_CACHE_HOME": str(self.folder / "helm")}
        return subprocess.run(
            [str(program), *words], capture_output=True, text=True, env=environment, timeout=120, check=False
        )

    def helm_with(
        self, verb: str, name: str, namespace: str, *values: str, token: str = ""
    ) -> subprocess.CompletedProcess[str]:
        sets = [part for value in values for part in ("--set", value)]
        create = ["--create-namespace"] if verb == "install" and not token else []
        return self.run(self.helm, verb, name, str(CHART), "-n", namespace, *create, *sets, token=token)

    def install(self, name: str, namespace: str, *values: str, token: str = "") -> str:
        """The notes of an installation that must succeed."""
        done = self.helm_with("install", name, namespace, *values, token=token)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def upgrade(self, name: str, namespace: str, *values: str) -> str:
        done = self.helm_with("upgrade", name, namespace, *values)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, name: str, namespace: str, *values: str, verb: str = "install") -> str:
        """What is said by an installation that must fail, and must leave nothing."""
        done = self.helm_with(verb, name, namespace, *values)
        assert done.returncode != 0, done.stdout
        assert "cannot be imported into the current release" not in done.stderr, "that is Helm's sentence, not ours"
        if verb == "install":
            assert (name, namespace) not in self.names()
        return done.stderr

    def uninstall(self, name: str, namespace: str) -> None:
        done = self.run(self.helm, "uninstall", name, "-n", namespace)
        assert done.returncode == 0, done.stderr

    def names(self) -> set[tuple[str, str]]:
        done = self.run(self.helm, "list", "-A", "-a", "-o", "yaml")
        return {(one["name"], one["namespace"]) for one in yaml.safe_load(done.stdout) or ()}

    def crd(self) -> dict[str, Any] | None:
        code, found = self.server.get(f"{DEFINITIONS}/{NAME}")
        return found if code == 200 else None

    def owner(self) -> tuple[str | None, str | None]:
        found = self.crd()
        assert found is not None
        annotations = found["metadata"].get("annotations") or {}
        return annotations.get("meta.helm.sh/release-name"), annotations.get("meta.helm.sh/release-namespace")

    def put_crd(self, change: Callable[[dict[str, Any]], None] = lambda crd: None) -> None:
        document = copy.deepcopy(CRD)
        change(document)
        file = self.folder / "crd.yaml"
        file.write_text(yaml.safe_dump(document))
        done = self.run(self.kubectl, "apply", "-f", str(file))
        assert done.returncode == 0, done.stderr

    def remove_crd(self) -> None:
        self.server.delete(f"{DEFINITIONS}/{NAME}")
        end = time.monotonic() + 60
        while self.crd() is not None:
            assert time.monotonic() < end, "the CRD is not gone"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def programs(request: pytest.FixtureRequest, script: Any) -> tuple[Path, Path]:
    """helm and kubectl (built first if need be, in the sight of the user)."""
    binaries = script("kube_binaries")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return binaries.helm(), binaries.kubectl()


@pytest.fixture
def releases(empty_kube: Any, programs: tuple[Path, Path], tmp_path: Path) -> Iterator[Releases]:
    """A cluster without releases and without the CRD."""
    found = Releases(empty_kube, tmp_path, *programs)
    yield found
    for name, namespace in found.names():
        found.uninstall(name, namespace)
    found.remove_crd()


def other_schema(crd: dict[str, Any]) -> None:
    """A CRD of another release of TierServe: with a field less."""
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"].pop("paused")


def of_version(version: str | None) -> Callable[[dict[str, Any]], None]:
    def change(crd: dict[str, Any]) -> None:
        other_schema(crd)
        crd["metadata"]["labels"] = {"app.kubernetes.io/version": version} if version else {}

    return change


def test_the_crd_is_upgraded_with_its_release_and_kept_when_it_is_uninstalled(releases):
    releases.install("tierserve", "a")
    assert releases.owner() == ("tierserve", "a")
    releases.server.patch(f"{DEFINITIONS}/{NAME}", {"spec": {"names": {"shortNames": ["old"]}}})
    releases.upgrade("tierserve", "a", "commonLabels.step=two")
    assert releases.crd()["metadata"]["labels"]["step"] == "two"
    releases.uninstall("tierserve", "a")
    assert releases.crd() is not None
    releases.install("tierserve", "a")
    assert releases.owner() == ("tierserve", "a")


def test_a_crd_that_was_kept_is_used_by_a_release_of_another_name(releases):
    releases.install("tierserve", "a")
    releases.uninstall("tierserve", "a")
    notes = releases.install("ts", "b")
    assert "Helm release tierserve in namespace a" in notes
    assert releases.owner() == ("tierserve", "a")
    releases.upgrade("ts", "b", "logFormat=text")
    releases.uninstall("ts", "b")
    assert releases.crd() is not None


def test_the_commands_of_the_notes_make_it_the_release_s_own(releases):
    releases.put_crd()
    commands = releases.install("ts", "b")
    take_over(releases, commands)
    notes = releases.upgrade("ts", "b", "commonLabels.step=two")
    assert "kubectl annotate" not in notes
    assert releases.owner() == ("ts", "b")
    assert releases.crd()["metadata"]["labels"]["step"] == "two"


def test_a_crd_that_kubectl_applied_is_used(releases):
    releases.put_crd()
    assert "no Helm release" in releases.install("tierserve", "a")
    assert releases.owner() == (None, None)


@pytest.mark.parametrize("version", [None, "0.0.9"])
def test_a_crd_of_another_schema_is_refused_with_commands_that_help(releases, version):
    releases.put_crd(of_version(version))
    stderr = releases.refused("tierserve", "a")
    assert "crds.enabled" in stderr
    take_over(releases, stderr)
    releases.install("tierserve", "a")
    spec = releases.crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert "paused" in spec["properties"], "and it was brought up to date"


def test_a_crd_of_another_schema_is_left_as_it_is_where_that_is_asked_for(releases):
    releases.put_crd(of_version("0.0.9"))
    releases.install("tierserve", "a", "crds.enabled=false")
    assert releases.owner() == (None, None)


def test_the_notes_name_the_command_for_a_crd_that_is_not_there(releases):
    command = "kubectl apply --server-side -f crds/genaideployments.yaml"
    assert command in releases.install("tierserve", "a", "crds.enabled=false")
    assert command not in releases.upgrade("tierserve", "a", "crds.enabled=true")


def test_a_crd_of_a_newer_version_is_never_taken_back(releases):
    releases.put_crd(of_version("99.0.0"))
    releases.install("tierserve", "a")
    assert releases.crd()["metadata"]["labels"]["app.kubernetes.io/version"] == "99.0.0"


def test_one_that_is_not_kept_goes_with_its_release(releases):
    releases.install("tierserve", "a", "crds.keep=false")
    releases.uninstall("tierserve", "a")
    end = time.monotonic() + 60
    while releases.crd() is not None:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_each_team_has_a_release_of_its_own(releases):
    releases.install("tierserve", "red", "watchNamespaces={red}")
    releases.install("tierserve", "blue", "watchNamespaces={blue}")
    releases.upgrade("tierserve", "red", "watchNamespaces={red}", "logFormat=text")
    assert releases.owner() == ("tierserve", "red")
    releases.uninstall("tierserve", "red")
    releases.upgrade("tierserve", "blue", "watchNamespaces={blue}", "logFormat=text")
    assert releases.names() == {("tierserve", "blue")}


@pytest.mark.parametrize(
    ("first", "second"),
    [((), ()), (("watchNamespaces={red}",), ()), ((), ("watchNamespaces={blue}",)),
     (("watchNamespaces={red,blue}",), ("watchNamespaces={blue}",))],
    ids=["all-all", "some-all", "all-some", "shared"],
)  # fmt: skip
def test_a_namespace_has_one_operator(releases, first, second):
    for namespace in ("red", "blue"):
        releases.run(releases.kubectl, "create", "namespace", namespace)
    releases.install("tierserve", "red", *first)
    stderr = releases.refused("ts", "blue", *second)
    assert "watchNamespaces" in stderr
    assert "release tierserve in namespace red" in stderr
    releases.uninstall("tierserve", "red")
    releases.install("ts", "blue", *second)


def test_a_team_without_rights_in_the_cluster_installs_in_its_namespace(releases):
    releases.put_crd()
    releases.run(releases.kubectl, "create", "namespace", "green")
    releases.run(releases.kubectl, "create", "serviceaccount", "dev", "-n", "green")
    for role in ("view", "edit", "admin"):  # `admin` is their sum once the controller manager, not here, has made it so
        words = ("create", "rolebinding", role, f"--clusterrole=system:aggregate-to-{role}")
        releases.run(releases.kubectl, *words, "-n", "green", "--serviceaccount=green:dev")
    # Kubernetes lets nobody grant rights beyond their own: the operator's Role is an administrator's to create.
    token = releases.run(releases.kubectl, "create", "token", "dev", "-n", "green").stdout.strip()
    values = ("watchNamespaces={green}", "crds.enabled=false", "rbac.create=false")
    releases.install("tierserve", "green", *values, token=token)


def take_over(releases: Releases, text: str) -> None:
    """Run the two commands of a text, as a reader would."""
    commands = re.findall(r"kubectl (?:label|annotate) crd (?:.*\\\n)*.*", text)
    assert len(commands) == 2, text
    for command in commands:
        words = command.replace("\\\n", " ").split()[1:]
        done = releases.run(releases.kubectl, *words)
        assert done.returncode == 0, done.stderr
