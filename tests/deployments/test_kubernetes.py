"""Manifests and chart: valid for Kubernetes, equal to each other, and true about the services they run."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from fastapi.routing import APIRoute
from tests.deployments.parts import (
    CHART,
    DEPLOYMENTS,
    KUBERNETES,
    PORTS,
    Objects,
    helm,
    known_settings,
    kustomized,
    objects,
)

from cert.core.config import Settings

pytestmark = pytest.mark.deployments

OVERLAYS = ("dev", "cpu", "gpu")
# The oldest version that Kubernetes still mends, and the newest of the validator.
VERSIONS = ("1.35.0", "1.37.0")
# What is left out on purpose, and why.
UNCHECKED = {
    "CKV_K8S_21": "no namespace: the bases are applied into the one that the operator chooses",
    "CKV_K8S_11": "no limit on the processor: throttling makes answers late and protects nobody",
    "CKV_K8S_43": "no digest: the image is built by whoever deploys",
    "CKV_K8S_15": "the tag is a version, which is pulled once",
    "CKV_K8S_35": "keys are files; vendors' keys are read from the environment, as their own clients do",
}
# Variables of the environment that are not ours.
FOREIGN = {"HF_TOKEN", "HF_HOME", "HOME"}


@pytest.fixture(scope="module")
def rendered() -> dict[str, str]:
    """Everything that can be applied, by what it comes from."""
    found = {overlay: kustomized(KUBERNETES / "overlays" / overlay) for overlay in OVERLAYS}
    found |= {name: kustomized(KUBERNETES / name) for name in PORTS}
    found["chart"] = helm("render").stdout
    return found


@pytest.fixture(scope="module")
def everything(rendered: dict[str, str]) -> dict[str, Objects]:
    """The same as objects."""
    return {name: objects(text) for name, text in rendered.items()}


def of_kind(found: Objects, kind: str) -> list[dict[str, Any]]:
    return [found[key] for key in found if key[0] == kind]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", [*OVERLAYS, *PORTS, "chart"])
def test_every_object_is_valid(tool, rendered, tmp_path, name, version):
    """An API server would refuse a misspelt field, or drop it in silence."""
    path = tmp_path / "all.yaml"
    path.write_text(rendered[name])
    command = [tool("kubernetes-validate"), "--strict", "--quiet", "-k", version, path]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_validator_sees_a_misspelt_field(tool, rendered, tmp_path):
    """A check that accepts everything says nothing."""
    path = tmp_path / "wrong.yaml"
    path.write_text(rendered["hamiltonian"].replace("readinessProbe:", "readynessProbe:"))
    done = subprocess.run([tool("kubernetes-validate"), "--strict", path], capture_output=True, check=False)
    assert done.returncode != 0


@pytest.mark.parametrize("name", PORTS)
def test_a_deployment_applies_alone(everything, name):
    """`kubectl apply -f …/deployment.yaml` on an empty cluster has to give a pod that becomes ready."""
    alone = objects((KUBERNETES / name / "deployment.yaml").read_text())
    (deployment,) = of_kind(alone, "Deployment")
    assert deployment["metadata"]["name"] == f"{name}-monitor"
    pod = deployment["spec"]["template"]["spec"]
    there = {key[1] for key in alone if key[0] in ("ConfigMap", "ServiceAccount")}
    assert pod["serviceAccountName"] in there
    for source in pod["containers"][0]["envFrom"]:
        needed = source.get("configMapRef", {}).get("name")
        assert needed in there or source["secretRef"]["optional"]
    for volume in pod["volumes"]:
        assert "emptyDir" in volume or volume["secret"]["optional"]
    assert deployment["spec"]["replicas"] == 1


@pytest.mark.parametrize("name", [*OVERLAYS, "hamiltonian", "coordination", "chart"])
def test_selectors_ports_and_names_fit_each_other(everything, name):
    """A Service that selects nothing answers nobody, and every object looks well."""
    found = everything[name]
    pods = {one["metadata"]["name"]: one["spec"]["template"] for one in of_kind(found, "Deployment")}
    for deployment in of_kind(found, "Deployment"):
        template, labels = deployment["spec"]["template"], deployment["spec"]["selector"]["matchLabels"]
        assert labels.items() <= template["metadata"]["labels"].items()
        spread = template["spec"]["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"]
        assert spread == labels
    for kind, path in (
        ("Service", ("spec", "selector")),
        ("PodDisruptionBudget", ("spec", "selector", "matchLabels")),
        ("NetworkPolicy", ("spec", "podSelector", "matchLabels")),
    ):
        for one in of_kind(found, kind):
            selector: Any = one
            for step in path:
                selector = selector[step]
            selected = [pod for pod in pods.values() if selector.items() <= pod["metadata"]["labels"].items()]
            assert len(selected) == 1, (kind, one["metadata"]["name"])
            if kind == "Service":
                named = {port["name"] for port in selected[0]["spec"]["containers"][0]["ports"]}
                assert {port["targetPort"] for port in one["spec"]["ports"]} <= named
    for scaler in of_kind(found, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in found
        assert "replicas" not in found["Deployment", target["name"]]["spec"]


@pytest.mark.parametrize("name", [*OVERLAYS, "hamiltonian", "coordination", "chart"])
def test_what_pods_are_told_is_what_the_services_know(everything, name):
    """A probe of a path that is not there restarts the pod for ever; a misspelt setting is never read."""
    routes = {component: probe_paths(component) for component in PORTS}
    for deployment in of_kind(everything[name], "Deployment"):
        template = deployment["spec"]["template"]
        (container,) = template["spec"]["containers"]
        component = container["name"]
        http, metrics = PORTS[component]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert ports == {"http": http, "metrics": metrics}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container[probe]["httpGet"]
            assert asked["path"] in routes[component]
            assert asked["port"] == "http"
        told = template["metadata"]["annotations"]
        assert told["prometheus.io/port"] == str(metrics)
        assert told["prometheus.io/path"] == "/metrics"
        config = everything[name]["ConfigMap", deployment["metadata"]["name"]]["data"]
        assert set(config) <= known_settings() | FOREIGN
        assert all(isinstance(value, str) for value in config.values())
        grace = template["spec"]["terminationGracePeriodSeconds"]
        assert grace >= float(config["CERT_SHUTDOWN_SECONDS"]) + 10
        # What the server leaves to requests in hand: see `cert.services.common.running`.
        longest = float(config.get("CERT_REQUEST_SECONDS", Settings().service.request_seconds))
        assert 0.8 * float(config["CERT_SHUTDOWN_SECONDS"]) >= longest
        assert config["CERT_API_KEYS_FILE"].startswith("/etc/cert/keys/")


def probe_paths(component: str) -> set[str]:
    if component == "hamiltonian":
        from cert.services.hamiltonian.app import create_app
    else:
        from cert.services.coordination.app import create_app  # type: ignore[assignment]
    app = create_app(Settings())
    return set(app.openapi()["paths"]) | {route.path for route in app.routes if isinstance(route, APIRoute)}


@pytest.mark.parametrize("name", [*OVERLAYS, "hamiltonian", "coordination", "chart"])
def test_pods_keep_to_the_restricted_standard(everything, name):
    """A namespace that enforces it would refuse them; any other would give them more than they need."""
    for deployment in of_kind(everything[name], "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 10001
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False
            assert context["readOnlyRootFilesystem"] is True
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]
            assert "memory" in container["resources"]["limits"]


def test_no_secret_is_written_down(rendered):
    """A key in a manifest is in the repository for ever."""
    for text in [*rendered.values(), (CHART / "values.yaml").read_text()]:
        assert "kind: Secret" not in text
        for name in ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "CERT_JOBS_KEY", "CERT_DATABASE_URL", "HF_TOKEN"):
            assert not re.search(rf"^\s*{name}: *\S", text, re.MULTILINE), name


def test_chart_and_manifests_are_the_same_objects(everything):
    """Two descriptions of one thing drift apart unless something compares them."""
    bases = everything["hamiltonian"] | everything["coordination"]
    assert everything["chart"] == bases


def test_images_are_those_that_compose_builds(everything):
    """A cluster would look for an image that nobody builds."""
    compose = yaml.safe_load((DEPLOYMENTS / "docker" / "docker-compose.yml").read_text())["services"]
    for component in PORTS:
        (container,) = everything[component]["Deployment", f"{component}-monitor"]["spec"]["template"][
            "spec"
        ]["containers"]
        assert compose[component]["image"] == container["image"].replace(":4.0.0", ":${CERT_TAG:-4.0.0}")


@pytest.mark.slow
def test_checkov_finds_nothing_that_is_not_left_out_on_purpose(tool, rendered, tmp_path):
    """The practice that others have agreed on."""
    for name in ("cpu", "gpu"):
        (tmp_path / f"{name}.yaml").write_text(rendered[name])
    command = [tool("checkov"), "-d", tmp_path, "--framework", "kubernetes", "--skip-download", "--quiet"]
    command += ["--compact", "--skip-check", ",".join(UNCHECKED)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=110)
    assert done.returncode == 0, done.stdout


# --- the chart ---

FORMS: dict[str, tuple[dict[str, Any], Callable[[Objects], bool]]] = {
    "gpu": (
        {"hamiltonian": {"gpus": 2}},
        lambda found: limits(found)["nvidia.com/gpu"] == "2" and limits(found)["memory"] == "6Gi",
    ),
    "autoscaled by the queue": (
        {"hamiltonian": {"autoscaling": {"enabled": True, "waitingRequests": 8}}},
        lambda found: len(found["HorizontalPodAutoscaler", "hamiltonian-monitor"]["spec"]["metrics"]) == 2,
    ),
    "shared models": (
        {"hamiltonian": {"models": {"shared": True, "storageClass": "nfs"}}},
        lambda found: found["PersistentVolumeClaim", "cert-models"]["spec"]["storageClassName"] == "nfs",
    ),
    "one service alone": (
        {"coordination": {"enabled": False}},
        lambda found: not any(name == "coordination-monitor" for _, name in found),
    ),
    "replicas that share": (
        {"coordination": {"replicas": 3, "sharesState": True}},
        lambda found: found["Deployment", "coordination-monitor"]["spec"]["replicas"] == 3,
    ),
    "bare": (
        {"networkPolicy": {"enabled": False}, "podDisruptionBudget": {"enabled": False}},
        lambda found: {kind for kind, _ in found} == {"ServiceAccount", "ConfigMap", "Service", "Deployment"},
    ),
}  # fmt: skip


def limits(found: Objects) -> dict[str, str]:
    pod = found["Deployment", "hamiltonian-monitor"]["spec"]["template"]["spec"]
    result: dict[str, str] = pod["containers"][0]["resources"]["limits"]
    return result


@pytest.mark.parametrize("form", FORMS)
def test_the_chart_renders_what_its_values_say(tool, tmp_path, form):
    """Each option gives valid objects, and does what it is named after."""
    values, holds = FORMS[form]
    done = helm("render", values)
    assert done.returncode == 0, done.stderr
    assert holds(objects(done.stdout))
    path = tmp_path / "chart.yaml"
    path.write_text(done.stdout)
    checked = subprocess.run(
        [tool("kubernetes-validate"), "--strict", "--quiet", "-k", VERSIONS[0], path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"hamiltonian": {"replicas": "two"}}, "replicas"),
        ({"hamiltonian": {"replica": 2}}, "replica"),
        ({"hamiltonian": {"config": {"CERT_MAX_BATCH": 5}}}, "CERT_MAX_BATCH"),
        ({"coordination": {"config": {"ANTHROPIC_API_KEY": "sk-ant"}}}, "ANTHROPIC_API_KEY"),
        ({"hamiltonian": {"models": {"size": "much"}}}, "size"),
        ({"coordination": {"replicas": 2}}, "PostgreSQL"),
        ({"apiKeysSecret": ""}, "apiKeysSecret"),
    ],
)  # fmt: skip
def test_the_chart_refuses_wrong_values(values, told):
    """A misspelt value would be ignored, and the operator believe that it holds."""
    done = helm("render", values)
    assert done.returncode == 1
    assert told in done.stderr


def test_the_chart_passes_helms_own_lint():
    """What Helm calls an error stops an installation."""
    done = helm("lint")
    assert done.returncode == 0, done.stderr
    assert '"errors": []' in done.stdout


@pytest.mark.parametrize("component", ["autoscaling", "queue-autoscaling", "pod-monitor", "vllm"])
def test_every_option_can_be_added_to_an_overlay(component):
    """A component that no overlay uses rots unseen."""
    # kustomize takes relative paths alone.
    folder = KUBERNETES / "overlays" / f"test-{component}"
    folder.mkdir()
    try:
        base = "  - ../../hamiltonian\n  - ../../coordination"
        (folder / "kustomization.yaml").write_text(
            f"resources:\n{base}\ncomponents:\n  - ../../components/{component}\n"
        )
        found = objects(kustomized(folder))
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    expected = {
        "autoscaling": ("HorizontalPodAutoscaler", "hamiltonian-monitor"),
        "queue-autoscaling": ("HorizontalPodAutoscaler", "hamiltonian-monitor"),
        "pod-monitor": ("PodMonitor", "cert-framework"),
        "vllm": ("Deployment", "cert-vllm"),
    }
    assert expected[component] in found


def test_every_file_of_the_manifests_is_used():
    """A file that nothing names is not applied, whatever it says."""
    named = "\n".join(path.read_text() for path in Path(KUBERNETES).rglob("kustomization.yaml"))
    for path in Path(KUBERNETES).rglob("*.yaml"):
        if path.name not in ("kustomization.yaml", "adapter-rule.yaml"):
            assert re.search(rf"\b{re.escape(path.name)}\b", named), path
