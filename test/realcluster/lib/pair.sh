# pair: two clusters for the time of one command, which is make e2e.

cmd_pair() {
  (($#)) || die "usage: realcluster pair CMD…"
  local me=$KIT/realcluster name
  "$me" install
  OURS=() # what was not there before is wiped
  alive "$HOME_DIR/registry/pid" || OURS+=("registry down --wipe")
  for name in east west; do
    [[ -d $HOME_DIR/run/$name ]] || OURS+=("down $name --wipe")
  done
  trap wipe_ours EXIT
  "$me" registry up
  "$me" up east
  "$me" up west

  mkdir -p "$HOME_DIR/path"
  ln -sf "$BIN/kubectl" "$HOME_DIR/path/kubectl"
  export PATH=$PATH:$HOME_DIR/path
  export EAST=$HOME_DIR/run/east/admin.kubeconfig WEST=$HOME_DIR/run/west/admin.kubeconfig
  export HOST_FROM_PODS=host.rc.internal REGISTRY=${REGISTRY:-localhost:$REGISTRY_PORT/tandem}
  export CUT_EAST="$me cut east" HEAL_EAST="$me heal east" CUT_WEST="$me cut west" HEAL_WEST="$me heal west"
  "$@"
}

wipe_ours() {
  local args
  if [[ -n ${KEEP:-} ]]; then step "KEEP is set: the clusters stay up"; return; fi
  for args in "${OURS[@]}"; do
    # shellcheck disable=SC2086
    "$KIT/realcluster" $args || true
  done
}
