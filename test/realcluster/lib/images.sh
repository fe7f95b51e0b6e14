# Images of static binaries, imported into a cluster's containerd.

# import REF BINARY
import() { "$BIN/mkimage" "$1" "$2" | ctr_ images import - >/dev/null; }

# import_missing REF BINARY [REF BINARY]...: imports missing images, two at a time.
import_missing() {
  local have; have=" $(ctr_ images list -q | tr '\n' ' ') "
  while (($#)); do
    [[ $have == *" $1 "* ]] || printf '%s\0%s\0' "$1" "$2"
    shift 2
  done | xargs -0 -r -n2 -P2 bash -c \
    '"$0/mkimage" "$2" "$3" | ctr --address "$1" --namespace k8s.io images import - >/dev/null' "$BIN" "$S/containerd.sock"
}

cmd_image() {
  [[ $# == 3 ]] || die "usage: realcluster image NAME REF BINARY"
  use_existing "$1"
  [[ -f $3 ]] || die "no such file: $3"
  [[ $2 == *:* && $2 != *:latest ]] || die "use a tag other than latest, as in dev.local/hello:1: kubelet would pull '$2'"
  import "$2" "$3"
  step "$NAME has $2"
}
