"""What a schema does not say: pods are restricted, selectors fit, ports exist, nothing secret is in the open."""

import json
import sys
from pathlib import Path

import yaml

documents = [one for one in yaml.safe_load_all(Path(sys.argv[1]).read_text()) if one]
by_kind = {}
for one in documents:
    by_kind.setdefault(one["kind"], []).append(one)

(deployment,) = by_kind["Deployment"]
spec = deployment["spec"]
template = spec["template"]
labels = template["metadata"]["labels"]
rolling = spec["strategy"]["rollingUpdate"]
assert rolling == {"maxUnavailable": 0, "maxSurge": 1}, rolling
assert ("replicas" in spec) != ("HorizontalPodAutoscaler" in by_kind), "replicas are the autoscaler's, or the chart's"

pods = [template["spec"]] + [pod["spec"] for pod in by_kind["Pod"]]
for pod in pods:
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"]["type"] == "RuntimeDefault"
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "variables WEFT_... of a service are unknown settings"
    for container in pod["containers"]:
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] and not context["allowPrivilegeEscalation"], container["name"]
        assert context["capabilities"] == {"drop": ["ALL"]}, container["name"]

(weft,) = template["spec"]["containers"]
ports = {port["name"]: port["containerPort"] for port in weft["ports"]}
for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
    assert weft[probe]["httpGet"]["port"] in ports, probe
assert weft["livenessProbe"]["httpGet"]["path"] == "/healthz", "liveness never depends on Redis"
assert weft["readinessProbe"]["httpGet"]["path"] == "/readyz"
assert {"checksum/config", "checksum/secret"} <= set(template["metadata"]["annotations"])

selectors = [spec["selector"]["matchLabels"]]
for service in by_kind["Service"]:
    selectors.append(service["spec"]["selector"])
    for port in service["spec"]["ports"]:
        assert port["targetPort"] in ports, port
    assert service["spec"].get("sessionAffinity", "None") == "None", "no stickiness"
for kind in ("PodDisruptionBudget", "NetworkPolicy"):
    for one in by_kind.get(kind, []):
        selectors.append((one["spec"].get("selector") or one["spec"].get("podSelector"))["matchLabels"])
selectors += [one["labelSelector"]["matchLabels"] for one in template["spec"]["topologySpreadConstraints"]]
for selector in selectors:
    assert selector.items() <= labels.items(), f"{selector} selects no pod with {labels}"
    for pod in by_kind["Pod"]:
        assert not selector.items() <= pod["metadata"]["labels"].items(), "the test's pod is no node"

open_text = json.dumps([one for one in documents if one["kind"] != "Secret"])
assert "redis://" not in open_text and "rediss://" not in open_text and "secret@" not in open_text, "a URL in the open"

for rule in by_kind.get("PrometheusRule", []):
    assert rule["spec"]["groups"], "the rules came through"
for monitor in by_kind.get("ServiceMonitor", []):
    wanted = monitor["spec"]["selector"]["matchLabels"]
    found = [one for one in by_kind["Service"] if wanted.items() <= one["metadata"]["labels"].items()]
    assert [one["spec"]["clusterIP"] for one in found] == ["None"], "it finds the internal service, and only that"
    assert "weft" in monitor["spec"]["endpoints"][0]["relabelings"][0]["replacement"], "the rules know the job"
for board in by_kind.get("ConfigMap", []):
    if "weft.json" in board["data"]:
        assert json.loads(board["data"]["weft.json"])["panels"], "the dashboard came through"
for name in (one["metadata"]["name"] for one in documents):
    assert len(name) <= 63, name
