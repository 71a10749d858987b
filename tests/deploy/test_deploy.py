"""The files that install the service: each read as what it is for reads it, and held to what deploy/README.md says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from io_fhir_adapter.config import Config

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
UNITS = ("io-fhir-adapter-serve.service", "io-fhir-adapter-night.service")
MOST_EXPOSED = 20  # of 100, as systemd counts
USER = 10001


@pytest.fixture
def units(tmp_path: Path) -> dict[str, str]:
    """The units with this interpreter in the place of the installed command; the environment for systemd-analyze."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not on this machine (Debian package systemd)")
    folder = tmp_path / "units"
    shutil.copytree(DEPLOY / "systemd", folder)
    for name in UNITS:
        text = (folder / name).read_text(encoding="utf-8")
        assert text.count("ExecStart=/opt/io-fhir-adapter/bin/io-fhir-adapter ") == 1
        (folder / name).write_text(
            text.replace("/opt/io-fhir-adapter/bin/io-fhir-adapter", sys.executable), encoding="utf-8"
        )
    return {**os.environ, "SYSTEMD_UNIT_PATH": f"{folder}:", "SYSTEMD_PAGER": ""}


def test_systemd_takes_the_units(units: dict[str, str]) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *UNITS, "io-fhir-adapter-night.timer"],
        env=units, capture_output=True, text=True, check=False,
    )  # fmt: skip
    own = [line for line in done.stderr.splitlines() if "io-fhir-adapter" in line]
    assert own == []


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_finds_the_services_well_enclosed(units: dict[str, str], unit: str) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", unit],
        env=units, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-300:]


def documents() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            yield f"{path.name}: {document['kind']}", document


def pods() -> dict[str, dict[str, Any]]:
    found = {}
    for name, document in documents():
        match document["kind"]:
            case "Deployment":
                found[name] = document["spec"]["template"]
            case "CronJob":
                found[name] = document["spec"]["jobTemplate"]["spec"]["template"]
    return found


def test_every_pod_is_enclosed() -> None:
    assert len(pods()) == 2
    for name, pod in pods().items():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] == USER, name
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["terminationGracePeriodSeconds"] >= 20, name
        (box,) = spec["containers"]
        assert box["securityContext"]["readOnlyRootFilesystem"] is True, name
        assert box["securityContext"]["allowPrivilegeEscalation"] is False, name
        assert box["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
        assert "env" not in box, name  # secrets are files
        mounted = {mount["name"] for mount in box["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}, name
        writable = {mount["mountPath"] for mount in box["volumeMounts"] if not mount.get("readOnly")}
        assert writable == {"/var/lib/io-fhir-adapter", "/tmp"}, name  # noqa: S108 - a mount point in the pod


def test_keys_that_kubernetes_mounts_are_ones_that_the_adapter_takes() -> None:
    """With an fsGroup a Secret is root's, and its group reads it: that has to be the group that the process runs as."""
    for name, pod in pods().items():
        spec = pod["spec"]
        (secrets,) = (volume["secret"] for volume in spec["volumes"] if volume["name"] == "secrets")
        (mount,) = (one for one in spec["containers"][0]["volumeMounts"] if one["name"] == "secrets")
        assert secrets["defaultMode"] == 0o400, name
        assert mount["readOnly"] is True, name
        assert spec["securityContext"]["fsGroup"] == spec["securityContext"]["runAsGroup"], name
        assert spec["securityContext"]["fsGroupChangePolicy"] == "OnRootMismatch", name


def test_the_network_policy_is_about_these_pods() -> None:
    (policy,) = (document for _, document in documents() if document["kind"] == "NetworkPolicy")
    wanted = policy["spec"]["podSelector"]["matchLabels"].items()
    assert all(wanted <= pod["metadata"]["labels"].items() for pod in pods().values())
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]


def test_the_probes_ask_for_addresses_that_the_service_has() -> None:
    (box,) = next(pod for name, pod in pods().items() if "Deployment" in name)["spec"]["containers"]
    assert box["livenessProbe"]["httpGet"]["path"] == "/health/live"
    assert box["readinessProbe"]["httpGet"]["path"] == "/health/ready"
    assert "/health/live" in (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")


def test_the_configurations_are_ones() -> None:
    texts = [document["data"]["facility.yaml"] for _, document in documents() if document["kind"] == "ConfigMap"]
    texts.append((DEPLOY / "compose" / "facility.yaml").read_text(encoding="utf-8"))
    assert len(texts) == 2
    for text in texts:
        Config.model_validate(yaml.safe_load(text))


def test_the_image_is_nobodys_but_its_users() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text(encoding="utf-8")
    final = text.rpartition("\nFROM ")[2]
    assert f"USER {USER}:{USER}" in final
    assert "HEALTHCHECK" in final
    assert not re.search(r"^(ADD|ENV .*(TOKEN|PASSWORD|SECRET))", text, re.MULTILINE)
    services = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text(encoding="utf-8"))["services"]
    for name in ("adapter", "hospital"):
        assert services[name]["read_only"] is True
        assert services[name]["user"] == f"{USER}:{USER}"
        assert services[name]["cap_drop"] == ["ALL"]


def test_the_manual_names_the_files_that_are_there() -> None:
    text = (DEPLOY / "README.md").read_text(encoding="utf-8")
    files = {path.name for path in DEPLOY.rglob("*") if path.is_file()} - {"README.md"}
    assert sorted(name for name in files - {"facility.yaml"} if name not in text) == []
