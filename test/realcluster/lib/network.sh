# The network of a cluster: one network namespace, one link to the host.
# The cluster reaches host processes at HOST_IP, and nothing beyond the host.

network_up() {
  [[ -e /run/netns/$NETNS ]] || ip netns add "$NETNS" || die "cannot create a network namespace: CAP_SYS_ADMIN is needed"
  inside ip link set lo up
  ip link show "$LINK" >/dev/null 2>&1 ||
    ip link add "$LINK" type veth peer name eth0 netns "$NETNS" || die "cannot create a veth link: CAP_NET_ADMIN is needed"
  ip addr replace "$HOST_IP/24" dev "$LINK"
  ip link set "$LINK" up
  inside ip addr replace "$NODE_IP/24" dev eth0
  inside sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.route_localnet=1
  # The node's own processes reach Services while the link is down.
  inside ip route replace "$SERVICE_CIDR" dev lo src "$NODE_IP"
  ip route replace "$SERVICE_CIDR" via "$NODE_IP" 2>/dev/null || true
  ip route replace "$POD_CIDR" via "$NODE_IP" 2>/dev/null || true
  is_cut || network_heal
  inside iptables -t nat -L -n >/dev/null 2>&1 || die "iptables does not work in a network namespace here"
}

network_down() {
  ip link del "$LINK" 2>/dev/null || true
  ip netns del "$NETNS" 2>/dev/null || true
}

# inside CMD...: runs CMD in the cluster's network.
inside() { nsenter --net="/run/netns/$NETNS" -- "$@"; }

is_cut() { [[ -e $R/cut ]]; }

network_heal() {
  inside ip link set eth0 up
  inside ip route replace default via "$HOST_IP"
  silence -D
  rm -f "$R/cut"
}

# silence -I|-D: drops all packets on the link, so that neither side gets an error.
silence() {
  local rule
  for rule in "PREROUTING -i eth0 -j DROP" "POSTROUTING -o eth0 -j DROP"; do
    # shellcheck disable=SC2086
    while inside iptables -w -t mangle "$1" $rule 2>/dev/null; do [[ $1 == -D ]] || break; done
  done
}

cmd_cut() {
  [[ $# == 1 || $# == 2 && $2 == --silent ]] || die "usage: realcluster cut NAME [--silent]"
  use_existing "$1"
  is_cut && network_heal
  if [[ ${2:-} == --silent ]]; then silence -I; else inside ip link set eth0 down; fi
  touch "$R/cut"
  step "$NAME is cut off"
}

cmd_heal() {
  [[ $# == 1 ]] || die "usage: realcluster heal NAME"
  use_existing "$1"
  network_heal
  step "$NAME is connected"
}

cmd_curl() {
  (($# >= 2)) || die "usage: realcluster curl NAME [CURL-OPTION…] URL…"
  use_existing "$1"; shift
  exec nsenter --net="/run/netns/$NETNS" -- unshare --mount -- \
    "$KIT/lib/with-dns" "$R/resolv.conf" curl --silent --show-error --max-time 60 "$@"
}

cmd_hostip() {
  [[ $# == 1 ]] || die "usage: realcluster hostip NAME"
  use_existing "$1"
  echo "$HOST_IP"
}
