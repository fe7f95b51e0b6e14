# registry: one OCI registry on the host for all clusters, plain HTTP.

cmd_registry() {
  local dir=$HOME_DIR/registry
  case "${1:-} ${2:-}" in
    'up ')
      need_built
      mkdir -p "$dir"
      launch "$dir/pid" "$dir/log" "$BIN/registry" -listen ":$REGISTRY_PORT" -dir "$dir" \
        -allow 10.201.0.0/16,10.80.0.0/12
      wait_for 20 "registry ($dir/log)" curl -fsS "http://localhost:$REGISTRY_PORT/v2/"
      alive "$dir/pid" || die "another program listens on port $REGISTRY_PORT: set REALCLUSTER_REGISTRY_PORT"
      echo "localhost:$REGISTRY_PORT"
      ;;
    'down ') stop "$dir/pid" 3; step "registry is down" ;;
    'down --wipe') stop "$dir/pid" 3; rm -rf "$dir"; step "registry is wiped" ;;
    *) die "usage: realcluster registry up|down [--wipe]" ;;
  esac
}
