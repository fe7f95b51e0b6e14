# The node: containerd, kubelet, kube-proxy, and CoreDNS on the node's address.

start_containerd() {
  mkdir -p "$R/cni" "$R/registries/localhost:$REGISTRY_PORT"
  cat >"$R/cni/10-ptp.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "realcluster", "plugins": [
  {"type": "ptp", "ipMasq": false, "mtu": 1500, "ipam": {
    "type": "host-local", "dataDir": "$R/cni-leases",
    "ranges": [[{"subnet": "$POD_CIDR"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
  # localhost:PORT is the host's registry, on the host and in the clusters alike.
  cat >"$R/registries/localhost:$REGISTRY_PORT/hosts.toml" <<TOML
server = "http://$HOST_IP:$REGISTRY_PORT"
[host."http://$HOST_IP:$REGISTRY_PORT"]
  capabilities = ["pull", "resolve"]
TOML
  # restrict_oom_score_adj: without CAP_SYS_RESOURCE no sandbox would start.
  # netns_mounts_under_state_dir: so that a wipe finds the pods' namespaces.
  cat >"$R/containerd.toml" <<TOML
version = 2
root = "$R/containerd"
state = "$S/containerd"
[grpc]
  address = "$S/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "dev.local/pause:1"
  disable_apparmor = true
  restrict_oom_score_adj = true
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$R/cni"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "$R/registries"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
TOML
  start containerd containerd --config "$R/containerd.toml"
}

ctr_() { ctr --address "$S/containerd.sock" --namespace k8s.io "$@"; }

start_dns_and_proxy() {
  cat >"$R/resolv.conf" <<TEXT
nameserver $NODE_IP
search svc.cluster.local cluster.local
TEXT
  # host.rc.internal: the host, the same name in every cluster.
  # NAME.example.test: the domain of the cluster's Knative Services.
  cat >"$R/Corefile" <<TEXT
.:53 {
  bind $NODE_IP
  errors
  hosts {
    $HOST_IP host.rc.internal
    fallthrough
  }
  template IN A $NAME.example.test {
    answer "{{ .Name }} 60 IN A $NODE_IP"
  }
  template IN AAAA $NAME.example.test {
    rcode NOERROR
  }
  kubernetes cluster.local in-addr.arpa {
    kubeconfig $KUBECONFIG_FILE
    pods insecure
    ttl 2
  }
}
TEXT
  start coredns "$BIN/coredns" -conf "$R/Corefile"
  # kube-proxy exits when this file changes, so it is written once.
  [[ -e $R/proxy.yaml ]] || cat >"$R/proxy.yaml" <<YAML
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: $R/proxy.kubeconfig}
hostnameOverride: $NAME
clusterCIDR: $POD_CIDR
conntrack: {maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}
iptables: {minSyncPeriod: 100ms, syncPeriod: 10s, localhostNodePorts: false}
YAML
  start kube-proxy "$BIN/kube-proxy" --config="$R/proxy.yaml"
}

start_kubelet() {
  # A cgroup root for each cluster, or two kubelets clean up each other's pods.
  local c
  # kubelet refuses a root without these; each fails alone where the kernel lacks it.
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    for c in cpuset cpu io memory hugetlb pids; do
      echo "+$c" >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || true
    done
  fi
  for c in $(cgroup_roots); do
    mkdir -p "$c/rc-$NAME"
    if [[ $c == */cpuset ]]; then
      cat "$c/cpuset.cpus" >"$c/rc-$NAME/cpuset.cpus"
      cat "$c/cpuset.mems" >"$c/rc-$NAME/cpuset.mems"
    fi
  done
  cat >"$R/kubelet.yaml" <<YAML
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
containerRuntimeEndpoint: unix://$S/containerd.sock
cgroupDriver: cgroupfs
cgroupRoot: /rc-$NAME
failCgroupV1: false
failSwapOn: false
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
clusterDNS: [$NODE_IP]
clusterDomain: cluster.local
resolvConf: $R/resolv.conf
enforceNodeAllocatable: []
evictionHard: {}
localStorageCapacityIsolation: false
imageGCHighThresholdPercent: 100
address: 0.0.0.0
healthzBindAddress: 127.0.0.1
podLogsDir: $R/pod-logs
volumePluginDir: $R/volume-plugins
syncFrequency: 10s
nodeStatusUpdateFrequency: 5s
registerNode: true
maxPods: 100
serializeImagePulls: false
YAML
  start kubelet "$BIN/kubelet" --config="$R/kubelet.yaml" --kubeconfig="$R/kubelet.kubeconfig" \
    --hostname-override="$NAME" --node-ip="$NODE_IP" --root-dir="$R/kubelet" --cert-dir="$R/pki-kubelet"
}

# cgroup_roots: prints the folder of the unified hierarchy (cgroup v2), or those of
# each controller (v1).
cgroup_roots() {
  local c
  if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
    grep -qw memory /sys/fs/cgroup/cgroup.controllers && echo /sys/fs/cgroup
    return 0
  fi
  [[ -d /sys/fs/cgroup/memory && -d /sys/fs/cgroup/cpu ]] || return 0
  for c in cpu cpuacct cpuset memory devices freezer blkio pids hugetlb net_cls perf_event systemd; do
    [[ -d /sys/fs/cgroup/$c && ! -L /sys/fs/cgroup/$c ]] && echo "/sys/fs/cgroup/$c"
  done
  return 0
}

# node_ready: reports whether this kubelet, not the one before it, has set Ready.
node_ready() {
  local ready beat
  read -r ready beat < <(kube_inside get node "$NAME" -o \
    jsonpath='{range .status.conditions[?(@.type=="Ready")]}{.status} {.lastHeartbeatTime}{"\n"}{end}')
  [[ $ready == True && ! $beat < $(date -u -r "$R/pids/kubelet" +%FT%TZ) ]]
}
