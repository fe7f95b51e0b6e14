# Shared by every part: folders, one cluster's names and numbers, progress
# lines, waiting, and starting and stopping the cluster's processes.

HOME_DIR=${REALCLUSTER_HOME:-$HOME/.cache/realcluster}
BIN=$HOME_DIR/bin
REGISTRY_PORT=${REALCLUSTER_REGISTRY_PORT:-5000}
STARTED=$EPOCHREALTIME

die() { printf 'realcluster: %s\n' "$*" >&2; exit 1; }

# step TEXT: prints one progress line with the seconds since this command started.
step() {
  local us=$((${EPOCHREALTIME/./} - ${STARTED/./}))
  printf '[%4d.%ds] %s\n' $((us / 1000000)) $((us / 100000 % 10)) "$*"
}

# wait_for SECONDS NAME CMD...: runs CMD until it succeeds, or fails after SECONDS.
wait_for() {
  local seconds=$1 name=$2 end=$((SECONDS + $1)); shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || die "$name is not ready after $seconds s"
    sleep 0.2
  done
}

# use_cluster NAME [IDX]: sets the variables that describe one cluster.
use_cluster() {
  NAME=${1:-}
  [[ $NAME =~ ^[a-z][a-z0-9]{0,10}$ ]] ||
    die "a cluster's name is 1 to 11 letters and digits, the first a letter: not '$NAME'"
  R=$HOME_DIR/run/$NAME       # state, kept until down --wipe
  S=/run/rc-$NAME             # sockets and mounts, gone after down
  NETNS=rc-$NAME              # network namespace
  LINK=rc-$NAME               # host end of the link; the cluster's end is eth0
  IDX=${2:-$(cat "$R/idx" 2>/dev/null || true)}
  [[ -z $IDX || $IDX =~ ^[1-9]$ ]] || die "a cluster's index is 1 to 9, not '$IDX'"
  NODE_IP=10.201.$IDX.1
  HOST_IP=10.201.$IDX.254
  SERVICE_CIDR=10.9$IDX.0.0/16
  POD_CIDR=10.8$IDX.0.0/24
  KUBECONFIG_FILE=$R/admin.kubeconfig
}

# use_existing NAME: the same, for a cluster that `up` has created.
use_existing() {
  use_cluster "$@"
  [[ -n $IDX && -e $KUBECONFIG_FILE ]] || die "no cluster '$NAME': create it with 'realcluster up $NAME'"
}

kube() { "$BIN/kubectl" --kubeconfig="$KUBECONFIG_FILE" "$@"; }

# lock NAME: serializes the commands that change NAME.
lock() {
  mkdir -p "$HOME_DIR/locks"
  exec 9>"$HOME_DIR/locks/$1"
  flock 9
}

# A pid file holds "PID STARTTIME", so that a reused pid is never mistaken for ours.
# A zombie has no start time here.
start_time() { sed -n 's/.*) //; /^[^ZX]/p' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

alive() { # alive FILE
  local pid begun
  [[ -e $1 ]] && read -r pid begun <"$1" && [[ $(start_time "$pid") == "$begun" ]]
}

# launch FILE LOG CMD...: starts CMD in a session of its own, unless it runs already.
launch() {
  local file=$1 log=$2; shift 2
  alive "$file" && return
  setsid "$@" >>"$log" 2>&1 </dev/null 9>&- &
  echo "$! $(start_time $!)" >"$file"
}

# start PROC CMD...: the same inside the cluster's network.
start() {
  local proc=$1; shift
  launch "$R/pids/$proc" "$R/logs/$proc.log" nsenter --net="/run/netns/$NETNS" -- "$@"
}

# start_with_dns PROC CMD...: the same, with the cluster's DNS as resolver.
start_with_dns() {
  local proc=$1; shift
  start "$proc" unshare --mount -- "$KIT/lib/with-dns" "$R/resolv.conf" "$@"
}

# stop FILE [SECONDS]: sends TERM, then KILL after SECONDS.
stop() {
  local file=$1 pid begun
  if alive "$file"; then
    read -r pid begun <"$file"
    kill "$pid" 2>/dev/null || true
    for ((i = 0; i < ${2:-5} * 10; i++)); do alive "$file" || break; sleep 0.1; done
    if alive "$file"; then kill -9 "$pid" 2>/dev/null || true; fi
  fi
  rm -f "$file"
}
