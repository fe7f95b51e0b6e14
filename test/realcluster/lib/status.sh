# status: prints the processes of each cluster, their age and memory.

cmd_status() {
  local dir f
  for dir in "$HOME_DIR"/run/*/; do
    [[ -e $dir/idx ]] || continue
    use_cluster "$(basename "$dir")"
    echo "$NAME (index $IDX, host at $HOST_IP)$(is_cut && echo ', cut off')"
    local total=0
    for f in "$R"/pids/*; do [[ -e $f ]] && process_line "$f"; done
    local pods=/sys/fs/cgroup/memory/rc-$NAME/memory.usage_in_bytes
    [[ -e $pods ]] || pods=/sys/fs/cgroup/rc-$NAME/memory.current
    if [[ -e $pods ]]; then
      local mb=$(($(cat "$pods") / 1048576)); ((total += mb)) || true
      printf '  %-24s %25s %6d MiB\n' 'all pods' '' "$mb"
    fi
    printf '  %-24s %25s %6d MiB\n' together '' "$total"
    if alive "$R/pids/kube-apiserver" 2>/dev/null; then
      kube_inside get pods -A --no-headers --request-timeout=5s 2>/dev/null |
        awk '{n[$4]++} END {printf "  pods:"; for (s in n) printf " %d %s", n[s], s; print ""}' || true
    fi
  done
  [[ -e $HOME_DIR/registry/pid ]] && { echo registry; process_line "$HOME_DIR/registry/pid"; }
  free -m | awk '/^Mem:/ {printf "machine: %d of %d MiB in use, %d available\n", $3, $2, $7}'
}

process_line() { # process_line PIDFILE; adds to total
  local pid mb name=${1##*/}
  [[ $name == pid ]] && name="localhost:$REGISTRY_PORT"
  if ! alive "$1"; then printf '  %-24s dead\n' "$name"; return; fi
  read -r pid _ <"$1"
  mb=$(($(awk '/^VmRSS:/ {print $2}' "/proc/$pid/status") / 1024)); ((total += mb)) || true
  printf '  %-24s pid %-7d %12s %6d MiB\n' "$name" "$pid" "$(ps -o etime= -p "$pid" | tr -d ' ')" "$mb"
}
