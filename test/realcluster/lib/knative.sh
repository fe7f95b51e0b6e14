# Knative Eventing and Serving: stock manifests, images from the built binaries.

# knative_images: prints pairs of image and binary. The tag of Knative's images is
# the id of their build: after a rebuild the next `up` rolls them out.
knative_images() {
  local part file
  for part in eventing serving; do
    for file in "$BIN/$part"/*; do
      case $file in */heartbeats | */event_display) continue ;; esac
      printf '%s\n' "dev.local/$part/${file##*/}:$TAG" "$file"
    done
  done
  printf '%s\n' dev.local/echo:1 "$BIN/echo" dev.local/heartbeats:1 "$BIN/eventing/heartbeats" \
    dev.local/event_display:1 "$BIN/eventing/event_display"
}

knative_tag() { cat "$BIN"/.built-cluster-{eventing,serving} | sha256sum | cut -c1-12; }

write_manifests() {
  local dirs
  dirs=$(cd "$KIT/build/cluster" && GOWORK=off GOFLAGS= go list -m -f '{{.Dir}}' \
    knative.dev/eventing knative.dev/serving knative.dev/networking knative.dev/caching)
  [[ $(wc -w <<<"$dirs") == 4 ]] || die "Knative's modules are not in the module cache: run 'realcluster install'"
  mkdir -p "$R/manifests"
  # shellcheck disable=SC2086
  /usr/bin/python3 "$KIT/lib/manifests.py" "$R/manifests" "$NAME" "$NODE_IP" "$TAG" \
    "localhost:$REGISTRY_PORT" "${FAST_SCALE:-1}" $dirs
}

# apply PART N...: applies manifests, and retries while kinds and webhooks are not ready.
apply() {
  local part=$1 n end; shift
  for n in "$@"; do
    end=$((SECONDS + 90))
    until kube_inside apply --server-side --force-conflicts -f "$R/manifests/$part-$n.json" \
      >>"$R/logs/apply-$part.log" 2>&1; do
      ((SECONDS < end)) || die "$part's manifests were refused: see $R/logs/apply-$part.log"
      sleep 1
    done
  done
}

manifests_id() { cat "$R"/manifests/*.json | sha256sum; }
applied() { [[ $(cat "$R/applied" 2>/dev/null) == "$(manifests_id)" ]]; }

# deployments_ready NAMESPACE: reports whether all pods of all Deployments are updated and ready.
deployments_ready() {
  kube_inside -n "$1" get deployments,pods -o json | /usr/bin/python3 -c '
import json, sys
items = json.load(sys.stdin)["items"]
pods = [p["metadata"]["labels"] for p in items if p["kind"] == "Pod" and any(
    c["type"] == "Ready" and c["status"] == "True" for c in p["status"].get("conditions", []))]
def ready(d):
    status, want = d.get("status", {}), d["spec"]["replicas"]
    labels = d["spec"]["selector"]["matchLabels"].items()
    return (status.get("observedGeneration", 0) >= d["metadata"]["generation"]
            and status.get("updatedReplicas", 0) >= want
            and sum(labels <= p.items() for p in pods) >= want)
deployments = [d for d in items if d["kind"] == "Deployment"]
sys.exit(0 if deployments and all(map(ready, deployments)) else 1)'
}

start_ingress() {
  start_with_dns kingress "$BIN/kingress" -kubeconfig "$KUBECONFIG_FILE" -listen "$NODE_IP:80"
}
