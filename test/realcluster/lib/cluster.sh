# up and down: a whole cluster.

cmd_up() {
  [[ $# == 1 || $# == 2 ]] || die "usage: realcluster up NAME [IDX]"
  need_built
  check_machine
  use_cluster "$1"
  lock "$NAME"
  choose_index "${2:-}"
  use_cluster "$1" "$IDX"
  mkdir -p "$R"/{logs,pids} "$S"
  echo "$IDX" >"$R/idx"
  echo "$HOME_DIR" >"$S/home"
  TAG=$(knative_tag)

  network_up
  is_cut && die "$NAME is cut off: run 'realcluster heal $NAME' first"
  write_credentials
  start_api
  start_containerd
  write_manifests
  wait_for 30 containerd ctr_ version
  step "network, containerd"
  local images importing
  mapfile -t images < <(knative_images)
  import_missing dev.local/pause:1 "$BIN/pause"
  import_missing "${images[@]}" & importing=$!
  wait_for 120 "kube-apiserver ($R/logs/kube-apiserver.log)" api_ready
  step "API server"
  [[ -e $S/booted ]] || forget_pods
  touch "$S/booted"
  start_controllers
  start_dns_and_proxy
  start_kubelet
  local applying=() status=0 p
  applied || {
    apply eventing 1 2 & applying+=($!)
    apply serving 1 2 & applying+=($!)
  }
  wait_for 120 "node $NAME ($R/logs/kubelet.log)" node_ready
  step "node"
  wait "$importing" || die "an image could not be imported"
  for p in "${applying[@]}"; do wait "$p" || status=1; done
  ((status == 0)) || exit 1
  step "images, custom resources, configuration"
  start_ingress
  if ! applied; then
    apply eventing 3 & p=$!
    apply serving 3
    wait "$p" || exit 1
    apply eventing 4 & p=$!
    apply serving 4
    wait "$p" || exit 1
    manifests_id >"$R/applied"
  fi
  wait_for 180 "Knative Eventing (kubectl -n knative-eventing get pods)" deployments_ready knative-eventing
  step "Knative Eventing"
  wait_for 180 "Knative Serving (kubectl -n knative-serving get pods)" deployments_ready knative-serving
  step "Knative Serving"
  for p in "$R"/pids/*; do
    alive "$p" || die "${p##*/} exited: see $R/logs/${p##*/}.log"
  done
  step "$NAME is up"
  echo "$KUBECONFIG_FILE"
}

# forget_pods: after a boot, the API still shows the former pods as running. It
# deletes those that a controller owns and recreates.
forget_pods() {
  local space pod
  kube_inside get pods -A --no-headers -o custom-columns=:metadata.namespace,:metadata.name,:metadata.ownerReferences[0].kind,:status.phase |
    awk '$3 != "<none>" && ($4 == "Running" || $4 == "Pending") {print $1, $2}' |
    while read -r space pod; do echo "$pod" >>"$R/old-pods-$space"; done
  for space in "$R"/old-pods-*; do
    [[ -e $space ]] || continue
    xargs "$BIN/kubectl" --kubeconfig="$KUBECONFIG_FILE" -n "${space##*/old-pods-}" delete pod \
      --force --grace-period=0 --ignore-not-found <"$space" >>"$R/logs/boot.log" 2>&1 || true
    rm -f "$space"
  done
}

# choose_index IDX: sets IDX to the given index, the cluster's own, or the lowest free one.
choose_index() {
  local want=$1 i owner
  if [[ -n $IDX ]]; then
    [[ -z $want || $want == "$IDX" ]] || die "$NAME has index $IDX: to change it, run 'realcluster down $NAME --wipe' first"
  else
    for i in ${want:-1 2 3 4 5 6 7 8 9}; do
      [[ $i =~ ^[1-9]$ ]] || die "a cluster's index is 1 to 9, not '$i'"
      grep -qsx "$i" "$HOME_DIR"/run/*/idx || { IDX=$i; break; }
    done
    [[ -n $IDX ]] || die "index ${want:-1 to 9} is taken: see 'realcluster status'"
  fi
  owner=$(cat "$S/home" 2>/dev/null || true)
  [[ -z $owner || $owner == "$HOME_DIR" ]] || die "a cluster '$NAME' of another REALCLUSTER_HOME runs here: $owner"
  owner=$(ip -o -4 addr show to "10.201.$IDX.254" | cut -d' ' -f2)
  [[ -z $owner || $owner == "$LINK" ]] || die "index $IDX is in use by the link $owner"
}

# check_machine: fails with one line if this machine cannot run a cluster.
check_machine() {
  local c
  ((EUID == 0)) || die "must run as root (network namespaces, mounts, cgroups)"
  for c in containerd ctr runc iptables ip nsenter unshare conntrack openssl; do
    command -v "$c" >/dev/null || die "$c is missing: run 'realcluster install'"
  done
  [[ -x /usr/lib/cni/ptp ]] || die "CNI plugins are missing: run 'realcluster install'"
  [[ -n $(cgroup_roots) ]] || die "no cgroup hierarchy with cpu and memory is mounted under /sys/fs/cgroup"
  for c in $(cgroup_roots); do [[ -w $c ]] || die "$c is not writable"; done
  grep -qw overlay /proc/filesystems || die "the kernel has no overlay file system"
}

cmd_down() {
  local wipe='' args=() a
  for a in "$@"; do if [[ $a == --wipe ]]; then wipe=1; else args+=("$a"); fi; done
  ((${#args[@]} == 1 || ${#args[@]} == 2)) || die "usage: realcluster down NAME [IDX] [--wipe]"
  use_cluster "${args[@]}"
  lock "$NAME"
  if [[ ! -d $R && ! -d $S ]]; then step "no cluster '$NAME'"; return; fi
  local owner; owner=$(cat "$S/home" 2>/dev/null || true)
  [[ -z $owner || $owner == "$HOME_DIR" ]] || die "'$NAME' belongs to another REALCLUSTER_HOME: $owner"

  local p
  stop "$R/pids/kubelet" 2
  end_pods
  for p in kingress coredns kube-proxy kube-scheduler kube-controller-manager; do stop "$R/pids/$p" 2 & done
  wait
  stop "$R/pids/containerd" 5
  end_pods # of pods that containerd started in the meantime
  stop "$R/pids/kube-apiserver" 5
  stop "$R/pids/etcd" 5
  unmount_all
  network_down
  remove_cgroups
  rm -rf "$S" "$R/cut"
  step "$NAME is down"
  [[ -n $wipe ]] || return 0
  rm -rf "$R"
  rm -f "$HOME_DIR/locks/$NAME"
  step "$NAME is wiped"
}

# end_pods: kills this cluster's containers and their shims.
end_pods() {
  local pids
  for _ in 1 2 3 4 5; do
    pids=$( { ours_in_cgroups; ours_shims; } | sort -u)
    [[ -n $pids ]] || break
    # shellcheck disable=SC2086
    kill -9 $pids 2>/dev/null || true
    sleep 0.2
  done
}

ours_in_cgroups() {
  find /sys/fs/cgroup/"rc-$NAME" /sys/fs/cgroup/*/"rc-$NAME" -name cgroup.procs -exec cat {} + 2>/dev/null || true
}

ours_shims() {
  local f
  for f in /proc/[0-9]*/cmdline; do
    { tr '\0' ' ' <"$f" | grep -q -- "-address $S/containerd.sock"; } 2>/dev/null &&
      basename "$(dirname "$f")"
  done
  return 0
}

unmount_all() {
  local m
  # grep fails where nothing is mounted, as after a down that was interrupted.
  { cut -d' ' -f2 /proc/self/mounts | grep -E "^($S|$R)/" || true; } | sort -r | while read -r m; do
    umount -l "$m" 2>/dev/null || true
  done
}

remove_cgroups() {
  local c
  for c in /sys/fs/cgroup/"rc-$NAME" /sys/fs/cgroup/*/"rc-$NAME"; do
    [[ -d $c && ! -L ${c%/*} ]] || continue
    for _ in 1 2 3 4 5; do
      find "$c" -depth -type d -exec rmdir {} + 2>/dev/null || true
      [[ -d $c ]] || break
      sleep 0.2
    done
  done
}
