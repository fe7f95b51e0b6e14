# install: Debian packages, then the binaries; a group is built when its sources,
# the Go version or the flags have changed.

PACKAGES=(containerd runc containernetworking-plugins iptables iproute2 conntrack
  socat openssl curl util-linux procps ca-certificates python3 python3-yaml)
KUBERNETES=1.35.4

cmd_install() {
  [[ $# == 0 ]] || die "install takes no arguments"
  lock install
  install_packages
  command -v go >/dev/null || die "Go is missing: install Go 1.26 or newer"
  local k=k8s.io/kubernetes/cmd e=knative.dev/eventing/cmd s=knative.dev/serving/cmd
  local v=k8s.io/component-base/version
  local kube="-X $v.gitVersion=v$KUBERNETES -X $v.gitMajor=1 -X $v.gitMinor=${KUBERNETES:2:2}"
  kube+=" -X $v.gitTreeState=clean -X $v.gitCommit=realcluster -X $v.buildDate=2026-01-01T00:00:00Z"

  # Knative's manifests are files of these modules; some are not needed to compile.
  (cd "$KIT/build/cluster" && GOWORK=off GOFLAGS=-mod=readonly go mod download knative.dev/{eventing,serving,networking,caching}) ||
    die "Knative's modules could not be downloaded"
  step "modules of Knative"
  build tools . "" ./pause ./mkimage ./echo
  build etcd etcd "" go.etcd.io/etcd/server/v3 # its binary is named server
  build cluster . "$kube" $k/kube-apiserver $k/kube-controller-manager $k/kube-scheduler \
    $k/kubelet $k/kube-proxy $k/kubectl ./coredns ./kingress ./registry
  build cluster eventing "" $e/controller $e/webhook $e/mtchannel_broker $e/mtping \
    $e/broker/ingress $e/broker/filter $e/in_memory/channel_controller \
    $e/in_memory/channel_dispatcher $e/heartbeats $e/event_display
  build cluster serving "" $s/controller $s/webhook $s/activator $s/autoscaler $s/queue
  step "installed in $BIN ($(du -sh "$BIN" | cut -f1))"
}

install_packages() {
  local missing=() p
  for p in "${PACKAGES[@]}"; do
    [[ $(dpkg-query -Wf '${Status}' "$p" 2>/dev/null) == 'install ok installed' ]] || missing+=("$p")
  done
  if ((${#missing[@]} == 0)); then step "packages: installed already"; return; fi
  ((EUID == 0)) || die "packages are missing, and only root can install them: ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  # The packages may start services; the kit runs a containerd of its own for each cluster.
  local log=$HOME_DIR/apt.log
  { apt-get update && apt-get install -y --no-install-recommends "${missing[@]}"; } >"$log" 2>&1 ||
    die "apt-get could not install ${missing[*]}: see $log"
  step "packages: installed ${missing[*]}"
}

# build MODULE FOLDER LDFLAGS PACKAGE...: builds into bin/FOLDER, if anything changed.
build() {
  local module=$1 folder=$2 ldflags=$3 out; shift 3
  out=$BIN/$folder
  local id stamp=$BIN/.built-$module-${folder/#./main}
  id=$( (cd "$KIT/build/$module" && find . -type f | LC_ALL=C sort | xargs sha256sum
         go version; echo "$folder $ldflags $*") | sha256sum | cut -c1-12)
  if [[ $(cat "$stamp" 2>/dev/null) == "$id" ]]; then step "$module ${folder/#./}: up to date"; return; fi
  mkdir -p "$out"
  (cd "$KIT/build/$module" &&
    CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOWORK=off nice -n 10 \
      go build -mod=readonly -trimpath -ldflags "-s -w $ldflags" -o "$out/" "$@") ||
    die "building $module $folder failed"
  echo "$id" >"$stamp"
  step "$module ${folder/#./}: built $# binaries"
}

# need_built: fails if install has not run.
need_built() {
  [[ -x $BIN/kubelet && -x $BIN/serving/controller ]] || die "not installed yet: run 'realcluster install'"
}
