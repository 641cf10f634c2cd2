"""Checks deploy/kubernetes: against the schemas of Kubernetes, and for what every pod there has to be.

    check.py FOLDER

Says what is wrong, a line each, and ends with 1 then.
"""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

# The oldest version that is still looked after somewhere, and the newest that is known here.
VERSIONS = ["1.29", "1.37"]
# Kinds of others, whose schemas do not come with Kubernetes; what matters of them is checked below.
FOREIGN = {"ServiceMonitor"}


def documents(folder):
    """Each document of each file that a kustomization of the folder names, with its file; files that none names are wrong."""
    named = set()
    for kustomization in sorted(folder.rglob("kustomization.yaml")):
        content = yaml.safe_load(kustomization.read_text())
        for entry in content.get("resources", []) + content.get("components", []):
            path = (kustomization.parent / entry).resolve()
            named.add(path / "kustomization.yaml" if path.is_dir() else path)
    for path in sorted(folder.rglob("*.yaml")):
        path = path.resolve()
        if path.name == "kustomization.yaml":
            continue
        if path not in named:
            yield path, None
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document
    for path in sorted(named):
        if not path.exists():
            yield path, None


def pods(resource):
    template = resource.get("spec", {}).get("template", {})
    return [template["spec"]] if "spec" in template else []


def wrong_with_pod(pod):
    context = pod.get("securityContext", {})
    if context.get("runAsNonRoot") is not True or not context.get("runAsUser"):
        yield "may run as root"
    if context.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "has no seccomp profile"
    if pod.get("automountServiceAccountToken") is not False:
        yield "is given a token of the API server"
    if context.get("fsGroup") and context.get("fsGroupChangePolicy") != "OnRootMismatch":
        yield "changes the ctime of every file at each start"
    for container in pod.get("initContainers", []) + pod["containers"]:
        name, own = container["name"], container.get("securityContext", {})
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{name}: writes to its root"
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{name}: may gain privileges"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{name}: has capabilities"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name}: has no limit of memory"
        if "requests" not in container.get("resources", {}):
            yield f"{name}: requests nothing"


def selects(selector, labels):
    return selector.items() <= labels.items()


def wrong_with(resources):
    """What does not fit together."""
    def of(kind):
        return [resource for resource in resources if resource["kind"] == kind]

    labels = [
        resource["spec"]["template"]["metadata"]["labels"] for resource in resources if pods(resource)
    ]
    for service in of("Service"):
        if not any(selects(service["spec"]["selector"], of_pod) for of_pod in labels):
            yield f"Service {service['metadata']['name']} selects no pod"
    for budget in of("PodDisruptionBudget"):
        if not any(selects(budget["spec"]["selector"]["matchLabels"], of_pod) for of_pod in labels):
            yield f"PodDisruptionBudget {budget['metadata']['name']} selects no pod"
    for monitor in of("ServiceMonitor"):
        selected = [
            service
            for service in of("Service")
            if selects(monitor["spec"]["selector"]["matchLabels"], service["metadata"].get("labels", {}))
        ]
        for endpoint in monitor["spec"]["endpoints"]:
            if len(selected) != 2 or not all(
                endpoint["port"] in [port["name"] for port in service["spec"]["ports"]] for service in selected
            ):
                yield f"ServiceMonitor {monitor['metadata']['name']} does not see seeders and nodes"
    for workload in of("StatefulSet"):
        if workload["spec"]["serviceName"] not in [service["metadata"]["name"] for service in of("Service")]:
            yield f"StatefulSet {workload['metadata']['name']} has no Service"
    for kind in ["StatefulSet", "DaemonSet", "NetworkPolicy", "PodDisruptionBudget", "ServiceMonitor"]:
        if not of(kind):
            yield f"there is no {kind}"


def main():
    folder, wrong, resources = Path(sys.argv[1]), [], []
    for path, resource in documents(folder):
        at = path.relative_to(folder.resolve())
        if resource is None:
            wrong.append(f"{at}: a kustomization names it and it is not there, or none names it")
            continue
        resources.append(resource)
        name = f"{at}: {resource['kind']} {resource['metadata']['name']}"
        for pod in pods(resource):
            wrong.extend(f"{name} {what}" for what in wrong_with_pod(pod))
        for version in VERSIONS if resource["kind"] not in FOREIGN else []:
            try:
                kubernetes_validate.validate(resource, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                where = ".".join(str(part) for part in error.path)
                wrong.append(f"{name} is not valid in Kubernetes {version}: {where}: {error.message}")
    wrong.extend(wrong_with(resources))
    print("\n".join(wrong) or f"{len(resources)} resources are valid")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
