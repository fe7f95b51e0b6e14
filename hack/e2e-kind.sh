#!/usr/bin/env bash
# make e2e on two clusters of kind (https://kind.sigs.k8s.io), which are made for it
# and deleted afterwards. Needs Docker, kind and kubectl.
#
# NOT TRIED: nobody with Docker has run this yet. It does what kind's and Knative's
# documentation say: a registry beside the clusters, Serving with Kourier, Eventing.
#
#   hack/e2e-kind.sh [make's arguments]             KEEP=1 leaves the clusters up
set -euo pipefail
cd "$(dirname "$0")/.."

serving=${KNATIVE_SERVING:-knative-v1.18.0} eventing=${KNATIVE_EVENTING:-knative-v1.18.0} kourier=${KOURIER:-knative-v1.18.0}
port=${REGISTRY_PORT:-5001}
for program in docker kind kubectl; do
	command -v $program >/dev/null || {
		echo "e2e: $program is missing" >&2
		exit 1
	}
done
folder=$(mktemp -d)
finish() {
	if [ -z "${KEEP:-}" ]; then
		kind delete clusters tandem-east tandem-west
		docker rm -f tandem-registry
	fi
	rm -rf "$folder"
}
trap finish EXIT

docker inspect tandem-registry >/dev/null 2>&1 ||
	docker run -d --restart=always -p "127.0.0.1:$port:5000" --name tandem-registry registry:2
github=https://github.com/knative
for name in east west; do
	kind create cluster --name tandem-$name --kubeconfig "$folder/$name" --config - <<-YAML
		kind: Cluster
		apiVersion: kind.x-k8s.io/v1alpha4
		containerdConfigPatches:
		  - |-
		    [plugins."io.containerd.grpc.v1.cri".registry]
		      config_path = "/etc/containerd/certs.d"
	YAML
	node=tandem-$name-control-plane
	docker exec $node mkdir -p "/etc/containerd/certs.d/localhost:$port"
	echo '[host."http://tandem-registry:5000"]' | docker exec -i $node cp /dev/stdin "/etc/containerd/certs.d/localhost:$port/hosts.toml"
	k="kubectl --kubeconfig $folder/$name"
	$k apply -f $github/serving/releases/download/$serving/serving-crds.yaml
	$k apply -f $github/serving/releases/download/$serving/serving-core.yaml
	$k apply -f $github/net-kourier/releases/download/$kourier/kourier.yaml
	$k apply -f $github/eventing/releases/download/$eventing/eventing-crds.yaml
	$k apply -f $github/eventing/releases/download/$eventing/eventing-core.yaml
	$k apply -f $github/eventing/releases/download/$eventing/in-memory-channel.yaml
	$k apply -f $github/eventing/releases/download/$eventing/mt-channel-broker.yaml
	# A registry by the name of localhost is not asked for digests by Serving.
	$k -n knative-serving patch configmap config-network --type merge -p '{"data":{"ingress-class":"kourier.ingress.networking.knative.dev"}}'
	$k -n knative-serving patch configmap config-deployment --type merge -p "{\"data\":{\"registries-skipping-tag-resolving\":\"localhost:$port\"}}"
	$k -n knative-serving wait --for=condition=Available --timeout=5m deployment --all
	$k -n knative-eventing wait --for=condition=Available --timeout=5m deployment --all
done
docker network connect kind tandem-registry 2>/dev/null || true

# The host, as pods reach it; and a link is cut by taking its node off the network's
# way to the host.
host=$(docker network inspect kind -f '{{range .IPAM.Config}}{{println .Gateway}}{{end}}' | grep -m1 '\.')
export HOST_FROM_PODS=$host REGISTRY=localhost:$port/tandem
for name in EAST WEST; do
	node=tandem-$(echo $name | tr A-Z a-z)-control-plane
	export "CUT_$name=docker exec $node ip route add blackhole $host/32" "HEAL_$name=docker exec $node ip route del blackhole $host/32"
done
make e2e EAST="$folder/east" WEST="$folder/west" "$@"
