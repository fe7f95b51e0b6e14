#!/bin/sh
# Installs missing requirements of Tandem with the system's package manager, after a
# message. Fast and silent if everything is installed.
#
#   hack/install.sh postgres      a PostgreSQL server, 15 or newer; without one, Tandem
#                                 downloads a build of its own and needs no root
#   hack/install.sh cc            a C compiler, for the race detector
#   hack/install.sh pgbouncer     a connection pooler, for tests
#   hack/install.sh func          Knative's func, which deploys functions, into bin/;
#                                 the first build takes minutes
#
# No server keeps running: Tandem starts its own, with its own data.
set -eu

least=15

say() { echo "tandem: $*" >&2; }
die() { say "$*"; exit 1; }

as_root() {
	if [ "$(id -u)" -eq 0 ]; then
		"$@"
	elif command -v sudo >/dev/null 2>&1; then
		sudo "$@"
	else
		die "installing needs root and there is no sudo: run as root: $*"
	fi
}

# The folders are those of eventing/devcluster/pgbin/find.go.
have_postgres() {
	[ -z "${TANDEM_PG_BIN:-}" ] || return 0 # the run itself reports an invalid one
	for dir in "$(pg_config --bindir 2>/dev/null || true)" \
		"$(dirname "$(command -v initdb 2>/dev/null || echo /nowhere/x)")" \
		/usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* \
		/usr/lib/postgresql*/bin /opt/homebrew/opt/postgresql@*/bin \
		/usr/local/opt/postgresql@*/bin /home/linuxbrew/.linuxbrew/opt/postgresql@*/bin \
		/opt/local/lib/postgresql*/bin /Applications/Postgres.app/*/*/*/bin \
		/usr/local/pgsql/bin /run/current-system/sw/bin /usr/bin; do
		[ -x "$dir/initdb" ] && [ -x "$dir/pg_ctl" ] && [ -x "$dir/postgres" ] || continue
		major=$("$dir/postgres" --version 2>/dev/null | sed -n 's/^postgres (PostgreSQL) \([0-9]*\).*/\1/p')
		[ "${major:-0}" -lt "$least" ] || return 0
	done
	return 1
}

# Debian's package creates a database cluster and starts it, unless its configuration
# forbids that during the installation.
apt_postgres() {
	as_root apt-get update -q
	offered=$(apt-cache depends postgresql 2>/dev/null | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
	if [ "${offered:-0}" -lt "$least" ]; then
		die "this system's PostgreSQL is ${offered:-missing}, Tandem needs $least or newer: add postgresql.org's packages (apt-get install postgresql-common; /usr/share/postgresql-common/pgdg/apt.postgresql.org.sh), or set DATABASE_URL to a server you have"
	fi
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql-common
	conf=/etc/postgresql-common/createcluster.conf
	as_root cp -p "$conf" "$conf.tandem"
	as_root sh -c "echo 'create_main_cluster = false' >>$conf"
	status=0
	as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql || status=$?
	as_root mv "$conf.tandem" "$conf"
	return "$status"
}

install_postgres() {
	if command -v apt-get >/dev/null 2>&1; then
		say "no PostgreSQL server $least or newer found: installing one with apt-get"
		apt_postgres
	elif command -v dnf >/dev/null 2>&1; then
		say "no PostgreSQL server $least or newer found: installing one with dnf"
		as_root dnf install -y postgresql-server
	elif command -v apk >/dev/null 2>&1; then
		say "no PostgreSQL server $least or newer found: installing one with apk"
		as_root apk add --no-cache "$(apk search -q -x 'postgresql1[5-9]' | sort | tail -n 1)"
	elif command -v brew >/dev/null 2>&1; then
		say "no PostgreSQL server $least or newer found: installing one with brew"
		brew install postgresql@17
	else
		die "no PostgreSQL server $least or newer found, and none of apt-get, dnf, apk and brew to install one: install it, set its folder in TANDEM_PG_BIN, or set DATABASE_URL to a server you have"
	fi
	have_postgres || die "the installed package is not a PostgreSQL server $least or newer: install one, set its folder in TANDEM_PG_BIN, or set DATABASE_URL to a server you have"
}

install_cc() {
	if command -v apt-get >/dev/null 2>&1; then
		say "no C compiler found, which the race detector needs: installing gcc with apt-get"
		as_root apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends gcc libc6-dev
	elif command -v dnf >/dev/null 2>&1; then
		say "no C compiler found, which the race detector needs: installing gcc with dnf"
		as_root dnf install -y gcc
	elif command -v apk >/dev/null 2>&1; then
		say "no C compiler found, which the race detector needs: installing gcc with apk"
		as_root apk add --no-cache gcc musl-dev
	else
		die "no C compiler found, which the race detector needs: install gcc or clang (on macOS: xcode-select --install)"
	fi
}

have_pgbouncer() {
	command -v pgbouncer >/dev/null 2>&1 || [ -x /usr/sbin/pgbouncer ]
}

# Debian's package starts PgBouncer. Prevent that, and disable its service.
install_pgbouncer() {
	if command -v apt-get >/dev/null 2>&1; then
		say "no PgBouncer found, which tests need: installing it with apt-get"
		as_root apt-get update -q
		as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -q -y --no-install-recommends pgbouncer
		if command -v systemctl >/dev/null 2>&1; then
			as_root systemctl disable --now pgbouncer >/dev/null 2>&1 || true
		fi
	elif command -v dnf >/dev/null 2>&1; then
		say "no PgBouncer found, which tests need: installing it with dnf"
		as_root dnf install -y pgbouncer
	elif command -v apk >/dev/null 2>&1; then
		say "no PgBouncer found, which tests need: installing it with apk"
		as_root apk add --no-cache pgbouncer
	elif command -v brew >/dev/null 2>&1; then
		say "no PgBouncer found, which tests need: installing it with brew"
		brew install pgbouncer
	else
		die "no PgBouncer found, which tests need, and none of apt-get, dnf, apk and brew to install it: install it"
	fi
	have_pgbouncer || die "PgBouncer was installed, but is neither in PATH nor /usr/sbin/pgbouncer"
}

here=$(cd "$(dirname "$0")" && pwd)

func_version() {
	sed -n 's/^require knative.dev\/func //p' "$here/func/go.mod"
}

have_func() {
	[ "$("$here/../bin/func" version 2>/dev/null || true)" = "$(func_version)" ]
}

# Not go install, which rejects a module with replace directives.
install_func() {
	say "building func $(func_version) into bin/"
	(cd "$here/func" && GOWORK=off GOFLAGS=-mod=readonly go build -buildvcs=false -o ../../bin/func \
		-ldflags "-s -X knative.dev/func/pkg/version.Vers=$(func_version)" knative.dev/func/cmd/func)
	have_func || die "bin/func was built, but reports version $("$here/../bin/func" version)"
}

[ "$#" -gt 0 ] || die "usage: hack/install.sh postgres|cc|pgbouncer|func ..."
for what in "$@"; do
	case "$what" in
	postgres) have_postgres || install_postgres ;;
	cc) command -v "$(go env CC 2>/dev/null || echo cc)" >/dev/null 2>&1 || install_cc ;;
	pgbouncer) have_pgbouncer || install_pgbouncer ;;
	func) have_func || install_func ;;
	*) die "cannot install $what: want postgres, cc, pgbouncer or func" ;;
	esac
done
