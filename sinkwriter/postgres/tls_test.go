package postgres_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tandem-fn/tandem/eventing/devcluster"
	"github.com/tandem-fn/tandem/eventing/devcluster/pgtest"
	"github.com/tandem-fn/tandem/eventing/devcluster/sinktest"
	"github.com/tandem-fn/tandem/sinkwriter/postgres"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "private CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key, pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// sign writes a certificate and its key.
func (a *authority) sign(t *testing.T, name, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER}))
}

// write writes a file with the owner of its folder.
func write(t *testing.T, file string, content []byte) {
	t.Helper()
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(filepath.Dir(file))
	if err != nil {
		t.Fatal(err)
	}
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && os.Geteuid() == 0 {
		if err := os.Chown(file, int(owner.Uid), int(owner.Gid)); err != nil {
			t.Fatal(err)
		}
	}
}

// startTLS configures a server to accept connections over TLS only, with these lines of
// pg_hba.conf.
func startTLS(t *testing.T, server *devcluster.Postgres, ca *authority, hba ...string) {
	t.Helper()
	dir := server.DataDir()
	ca.sign(t, "localhost", filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key"))
	write(t, filepath.Join(dir, "root.crt"), ca.pem)
	admin, err := pgx.Connect(t.Context(), server.AdminURL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(t.Context()) //nolint:errcheck // nothing is open on it
	write(t, filepath.Join(dir, "pg_hba.conf"), []byte("host all postgres 127.0.0.1/32 scram-sha-256\n"+strings.Join(hba, "\n")+"\n"))
	for _, sql := range []string{"alter system set ssl = on", "alter system set ssl_ca_file = 'root.crt'", "select pg_reload_conf()"} {
		_, err := admin.Exec(t.Context(), sql)
		if pg := (*pgconn.PgError)(nil); errors.As(err, &pg) && pg.Code == "22023" && strings.HasSuffix(sql, "ssl = on") {
			t.Skip("this PostgreSQL was built without TLS")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTLSWithAPrivateCAAndClientCertificates(t *testing.T) {
	t.Parallel()
	server := pgtest.Server(t)
	ca, other := newAuthority(t), newAuthority(t)
	startTLS(t, server, ca, "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full")
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	write(t, file("ca.crt"), ca.pem)
	write(t, file("other.crt"), other.pem)
	ca.sign(t, "tandem", file("tandem.crt"), file("tandem.key"))
	ca.sign(t, "somebody", file("somebody.crt"), file("somebody.key"))

	base := strings.Replace(server.URL(), "sslmode=disable", "channel_binding=require", 1)
	with := func(mode, ca, cert string) string {
		return fmt.Sprintf("%s&sslmode=%s&sslrootcert=%s&sslcert=%s&sslkey=%s", base, mode, file(ca), file(cert+".crt"), file(cert+".key"))
	}
	try := func(url string) error {
		conn, err := postgres.Connect(t.Context(), url, 5*time.Second)
		if err == nil {
			_ = conn.Close(t.Context())
		}
		return err
	}
	sinktest.Eventually(t, "the server speaks TLS, and SCRAM is bound to the channel", func() bool { return try(with("verify-full", "ca.crt", "tandem")) == nil })
	for what, tt := range map[string]struct{ url, want string }{
		"another CA":               {with("verify-full", "other.crt", "tandem"), "unknown authority"},
		"somebody's certificate":   {with("verify-full", "ca.crt", "somebody"), "authentication failed"},
		"no client certificate":    {base + "&sslmode=verify-full&sslrootcert=" + file("ca.crt"), "client certificate"},
		"no TLS":                   {base + "&sslmode=disable", "pg_hba.conf"},
		"a host of no certificate": {strings.Replace(with("verify-full", "ca.crt", "tandem"), "127.0.0.1", "127.0.0.2", 1), ""},
	} {
		if err := try(tt.url); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", what, err, tt.want)
		}
	}

	// Certificates are replaced: new connections use the new ones.
	pool, err := pgxpool.NewWithConfig(t.Context(), parse(t, with("verify-full", "ca.crt", "tandem")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(pool.Close)
	if err := pool.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	startTLS(t, server, other, "hostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-full")
	write(t, file("ca.crt"), other.pem)
	other.sign(t, "tandem", file("tandem.crt"), file("tandem.key"))
	sinktest.Eventually(t, "new connections use the new certificates", func() bool {
		pool.Reset()
		return pool.Ping(t.Context()) == nil
	})
}
