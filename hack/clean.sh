#!/bin/sh
# Removes a folder of `make run` (default .tandem) with all its data. That includes
# PostgreSQL's data if it is stored elsewhere: a clone in a folder that other
# users cannot enter, such as /root, only has a link to it.
set -eu

dir=${1:-.tandem}
[ -d "$dir" ] || exit 0

if pid=$(cat "$dir/lock" 2>/dev/null) && kill -0 "$pid" 2>/dev/null; then
	echo "tandem: a run (pid $pid) is using $dir: end it first (kill $pid)" >&2
	exit 1
fi
if data=$(readlink "$dir/postgres"); then
	case "$data" in
	*/postgres-????????????) rm -rf "$data" "$data.new" "$data.new.password" ;;
	*) echo "tandem: $dir/postgres is a link to $data, which no run created: not removed" >&2 ;;
	esac
	rmdir "$(dirname "$data")" 2>/dev/null || true # if it is empty now
fi
rm -rf "$dir"
