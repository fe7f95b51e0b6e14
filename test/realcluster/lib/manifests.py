#!/usr/bin/python3
"""Writes Knative's own manifests, as its Go modules ship them, with the
cluster's images and settings: manifests.py OUT CLUSTER NODE_IP TAG REGISTRY FAST
EVENTING SERVING NETWORKING CACHING (the last four are the modules' folders).

It writes eventing-N.json and serving-N.json into OUT, to be applied in the order of N."""
import glob
import json
import sys

import yaml

out, cluster, node_ip, tag, registry, fast, eventing, serving, networking, caching = sys.argv[1:]
loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def load(folder, *patterns):
    docs = {}
    for pattern in patterns:
        files = sorted(glob.glob(f"{folder}/config/{pattern}"))
        assert files, f"nothing matches {folder}/config/{pattern}"
        for name in files:
            with open(name) as f:
                for d in yaml.load_all(f, loader):
                    if d and d["kind"] not in ("HorizontalPodAutoscaler", "PodDisruptionBudget"):
                        docs[d["kind"], d["metadata"]["name"], d["metadata"].get("namespace")] = d
    return list(docs.values())


def images(o):
    """ko://knative.dev/serving/cmd/queue -> dev.local/serving/queue:TAG"""
    if isinstance(o, dict):
        return {k: images(v) for k, v in o.items()}
    if isinstance(o, list):
        return [images(v) for v in o]
    if isinstance(o, str) and o.startswith("ko://knative.dev/"):
        path = o.split("/")
        return f"dev.local/{path[3]}/{path[-1]}:{tag}"
    return o


def settle(d):
    """Adapts a stock Deployment to one small node."""
    pod = d["spec"]["template"]["spec"]
    for c in pod["containers"]:
        c.pop("resources", None)  # their requests exceed two cores
        if "readinessProbe" in c:  # the stock controller probes after 20 s
            c["readinessProbe"].update(initialDelaySeconds=1, periodSeconds=2)
        if "livenessProbe" in c:  # a busy machine is no reason to restart
            c["livenessProbe"]["failureThreshold"] = 12


def write(name, docs):
    for d in docs:
        if d["kind"] == "Deployment":
            settle(d)
    with open(f"{out}/{name}.json", "w") as f:
        json.dump(images({"apiVersion": "v1", "kind": "List", "items": docs}), f, default=str)


# Eventing, with the in-memory channel and the broker that stands on it.
deployments = load(
    eventing,
    "core/deployments/controller.yaml", "core/deployments/webhook.yaml",
    "core/deployments/pingsource-mt-adapter.yaml",
    "channels/in-memory-channel/deployments/*.yaml",
    "brokers/mt-channel-broker/deployments/*.yaml")
# The controller requires names of transformation and integration images, which are not built here.
names = {}
for d in deployments:
    if d["kind"] == "Deployment":
        for c in d["spec"]["template"]["spec"]["containers"]:
            for e in c.get("env", []):
                ref = e.get("valueFrom", {}).get("configMapKeyRef")
                if ref:
                    names.setdefault(ref["name"], {})[ref["key"]] = "dev.local/none:1"
write("eventing-1", load(
    eventing, "core/100-namespace.yaml", "core/resources/*.yaml",
    "channels/in-memory-channel/resources/*.yaml"))
write("eventing-2", load(
    eventing,
    "core/*.yaml", "core/roles/*.yaml", "core/configmaps/*.yaml",
    "channels/in-memory-channel/*.yaml", "channels/in-memory-channel/roles/*.yaml",
    "channels/in-memory-channel/configmaps/*.yaml", "brokers/mt-channel-broker/roles/*.yaml",
) + [{"apiVersion": "v1", "kind": "ConfigMap",
      "metadata": {"name": n, "namespace": "knative-eventing"}, "data": v} for n, v in names.items()])
write("eventing-3", deployments)
write("eventing-4", load(
    eventing, "core/webhooks/*.yaml", "channels/in-memory-channel/webhooks/*.yaml"))

# Serving, with the kit's own ingress.
config = load(serving, "core/200-roles/*.yaml", "core/200-serviceaccount.yaml", "core/configmaps/*.yaml")
config += load(networking, "config-network.yaml")
settings = {
    "config-network": {"ingress-class": "rc.ingress.networking.knative.dev"},
    "config-domain": {f"{cluster}.example.test": ""},
    # The controller is in a pod, where the host's registry has another name.
    "config-deployment": {"registries-skipping-tag-resolving": f"dev.local,kind.local,ko.local,{registry}"},
    "config-autoscaler": {
        "stable-window": "6s", "scale-to-zero-grace-period": "6s",
        "scale-to-zero-pod-retention-period": "0s"} if fast == "1" else {},
}
for d in config:
    if d["kind"] == "ConfigMap":
        d["metadata"]["namespace"] = "knative-serving"
        d.setdefault("data", {}).update(settings.pop(d["metadata"]["name"], {}))
assert not settings, f"no such ConfigMaps: {settings}"
ingress = {"name": "kingress", "namespace": "knative-serving"}
write("serving-1", load(serving, "core/100-namespace.yaml", "core/300-resources/*.yaml") + load(
    networking, "ingress.yaml", "serverlessservice.yaml", "certificate.yaml", "domain-claim.yaml",
) + load(caching, "image.yaml"))
write("serving-2", config + load(serving, "core/999-cache.yaml") + [
    {"apiVersion": "v1", "kind": "Service", "metadata": ingress,
     "spec": {"ports": [{"name": "http", "port": 80}]}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
     "metadata": {**ingress, "labels": {"kubernetes.io/service-name": "kingress"}},
     "endpoints": [{"addresses": [node_ip]}], "ports": [{"name": "http", "port": 80}]},
])
write("serving-3", load(serving, "core/deployments/*.yaml"))
write("serving-4", load(serving, "core/webhooks/*.yaml"))
