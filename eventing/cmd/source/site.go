package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"

	"github.com/tandem-fn/tandem/sinkwriter/lease"
)

const (
	// rootCA is where Kubernetes mounts the certificate of a cluster's own authority, which
	// differs between clusters.
	rootCA = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"

	// machineID is the id of a machine.
	machineID = "/etc/machine-id"

	// unknownSite is the site if neither file exists.
	unknownSite = "unknown"
)

// holder returns the site of this process, and its name there.
func (c config) holder() (lease.Holder, error) {
	site := c.Site
	if site == "" {
		site = findSite(rootCA, machineID)
	}
	host, err := os.Hostname()
	if err != nil && c.Replica == "" {
		return lease.Holder{}, fmt.Errorf("find the host's name: %w; set TANDEM_REPLICA", err)
	}
	return lease.Holder{Site: site, Replica: cmp.Or(c.Replica, host)}, nil
}

// findSite returns the SHA-256 of a cluster's root certificate, or else the machine's id.
func findSite(ca, machine string) string {
	if certificate, err := os.ReadFile(ca); err == nil {
		sum := sha256.Sum256(certificate)
		return hex.EncodeToString(sum[:])
	}
	id, _ := os.ReadFile(machine)
	return cmp.Or(strings.TrimSpace(string(id)), unknownSite)
}
