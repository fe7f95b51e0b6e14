#!/usr/bin/env bash
# make e2e on two clusters of the kit `realcluster`, which are made for it and wiped
# afterwards. The kit's program has to be on the PATH, or named by REALCLUSTER.
#
#   hack/e2e-realcluster.sh [make's arguments]      KEEP=1 leaves the clusters up
set -euo pipefail
cd "$(dirname "$0")/.."

kit=${REALCLUSTER:-realcluster}
command -v "$kit" >/dev/null || {
	echo "e2e: there is no program '$kit': put it on the PATH, or name it by REALCLUSTER" >&2
	exit 1
}
"$kit" install
[ -n "${KEEP:-}" ] || trap '"$kit" down east --wipe; "$kit" down west --wipe; "$kit" registry down --wipe' EXIT
"$kit" registry up
"$kit" up east 1
"$kit" up west 2
kubeconfig() { (eval "$("$kit" env "$1")" && echo "$KUBECONFIG"); }

export HOST_FROM_PODS=host.rc.internal REGISTRY=${REGISTRY:-localhost:5000/tandem}
export CUT_EAST="$kit cut east" HEAL_EAST="$kit heal east" CUT_WEST="$kit cut west" HEAL_WEST="$kit heal west"
make e2e EAST="$(kubeconfig east)" WEST="$(kubeconfig west)" "$@"
