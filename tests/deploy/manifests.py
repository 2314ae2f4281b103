"""manifests.py OVERLAY FILE: each document of what kustomize or Helm has built is what Kubernetes and the Prometheus Operator know
(no unknown key), pods are restricted, and rules, dashboards and config are those of the project."""
import json
import pathlib
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.prometheus_operator import v1 as operator

ROOT = pathlib.Path(__file__).resolve().parents[2]
VERSIONS = ("1.30", "1.37")
overlay, file = sys.argv[1:]
documents = [document for document in yaml.safe_load_all(pathlib.Path(file).read_text()) if document]
problems = []


def check(ok, message):
    if not ok:
        problems.append(message)


def found(kind):
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def pod_of(document):
    spec = document["spec"]
    return spec["jobTemplate"]["spec"]["template"] if document["kind"] == "CronJob" else spec["template"]


for document in documents:
    where = f"{document['kind']} {document['metadata']['name']}"
    check(document["kind"] == "Namespace" or document["metadata"].get("namespace") == "forewarn", f"{where}: namespace")
    if document["apiVersion"] == "monitoring.coreos.com/v1":
        known = getattr(operator, document["kind"]).model_validate(document)
        # The types pass over what they do not know: it is missing when they are written again.
        again = json.loads(known.model_dump_json(by_alias=True, exclude_unset=True))
        check(again == document, f"{where}: has keys that the operator does not know")
        continue
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{where} in {version}: {error.message} at {'.'.join(map(str, error.path))}")

if problems:
    sys.exit("\n".join(problems))

workloads = [document for document in documents if document["kind"] in ("StatefulSet", "CronJob")]
check(len(workloads) == 2, "one StatefulSet and one CronJob")
services = found("Service")
for document in workloads:
    where, pod = f"{document['kind']}", pod_of(document)
    spec, security = pod["spec"], pod["spec"]["securityContext"]
    check(security["runAsNonRoot"] and security["seccompProfile"]["type"] == "RuntimeDefault", f"{where}: pod security")
    check(spec["automountServiceAccountToken"] is False, f"{where}: has a token")
    check(spec["serviceAccountName"] in found("ServiceAccount"), f"{where}: service account")
    for volume in spec["volumes"]:
        claim, config = volume.get("persistentVolumeClaim"), volume.get("configMap")
        check(not claim or claim["claimName"] in found("PersistentVolumeClaim"), f"{where}: claim {claim}")
        check(not config or config["name"] in found("ConfigMap"), f"{where}: config map {config}")
    for container in spec["containers"]:
        own = container["securityContext"]
        check(own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, f"{where}: container security")
        check(own["capabilities"] == {"drop": ["ALL"]}, f"{where}: capabilities")
        requests = container["resources"]["requests"]
        check(requests["cpu"] in ("100m", "500m") and requests["memory"] in ("128Mi", "1Gi"), f"{where}: asks for {requests}")
        check(":" in container["image"], f"{where}: image {container['image']} has no tag")
    policy = found("NetworkPolicy")["forewarn"]["spec"]["podSelector"]["matchLabels"]
    check(policy.items() <= pod["metadata"]["labels"].items(), f"{where}: no network policy")

stateful = found("StatefulSet")["forewarn"]
labels = pod_of(stateful)["metadata"]["labels"].items()
check(stateful["spec"]["serviceName"] in services, "the StatefulSet's service")
for name, service in services.items():
    check(service["spec"]["selector"].items() <= labels, f"Service {name} selects no pod")
args = pod_of(stateful)["spec"]["containers"][0]["args"]
count = stateful["spec"]["replicas"]
check(count == 1 or f"--shard.count={count}" in args and "--shard.index=$(POD_NAME)" in args, f"{count} replicas, {args}")
modes = found("PersistentVolumeClaim")["forewarn-models"]["spec"]["accessModes"]
check((modes == ["ReadWriteMany"]) == (count > 1), f"{count} replicas, models {modes}")
check(("PodDisruptionBudget" in {document["kind"] for document in documents}) == (count > 1), "PodDisruptionBudget")
config = (ROOT / "deploy/kubernetes/base/config.yaml").read_text()
check(found("ConfigMap")["forewarn"]["data"]["config.yaml"] == config, "the config")
namespace = found("Namespace")
check(all(n["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted" for n in namespace.values()), "namespace")

if overlay == "operator":
    rules = yaml.safe_load((ROOT / "rules/forewarn.rules.yml").read_text())
    # kustomize adds an empty line where a folded text has a line that stands further in; templates trim it.
    folded = lambda tree: " ".join(json.dumps(tree, sort_keys=True).replace("\\n", " ").split())
    check(folded(found("PrometheusRule")["forewarn"]["spec"]) == folded(rules), "PrometheusRule is not rules/forewarn.rules.yml")
    monitor = found("ServiceMonitor")["forewarn"]["spec"]
    check(all(endpoint["honorLabels"] for endpoint in monitor["endpoints"]), "ServiceMonitor honours no labels")
    chosen = [s for s in services.values() if monitor["selector"]["matchLabels"].items() <= s["metadata"]["labels"].items()]
    check(len(chosen) == 1, f"ServiceMonitor selects {len(chosen)} services")
    boards = {path.name: path.read_text() for path in (ROOT / "dashboards").glob("*.json")}
    shown = {}
    for document in found("ConfigMap").values():
        if document["metadata"]["labels"].get("grafana_dashboard") == "1":
            shown.update(document["data"])
    check(shown == boards, f"dashboards: {sorted(shown)}")

if problems:
    sys.exit("\n".join(problems))
print(f"{overlay}: {len(documents)} documents")
