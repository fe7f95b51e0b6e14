// Command registry is an OCI registry over plain HTTP that stores images in a
// folder. It answers only this machine and its clusters.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
)

func main() {
	listen := flag.String("listen", ":5000", "address to listen on")
	dir := flag.String("dir", "", "folder that keeps blobs and manifests")
	allow := flag.String("allow", "", "comma-separated prefixes that may connect, beside loopback")
	flag.Parse()
	blobs, manifests := filepath.Join(*dir, "blobs"), filepath.Join(*dir, "manifests")
	for _, d := range []string{blobs, manifests} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			log.Fatal(err)
		}
	}
	var nets []netip.Prefix
	for _, s := range strings.Split(*allow, ",") {
		if s != "" {
			nets = append(nets, netip.MustParsePrefix(s))
		}
	}
	reg := registry.New(registry.WithBlobHandler(registry.NewDiskBlobHandler(blobs)))
	replay(reg, manifests)
	srv := &http.Server{Addr: *listen, ReadHeaderTimeout: 10 * time.Second,
		Handler: only(nets, keep(manifests, reg))}
	log.Print("listening on ", *listen)
	log.Fatal(srv.ListenAndServe())
}

// put is one accepted PUT of a manifest. The library keeps manifests in
// memory only, so each is stored and replayed at the next start.
type put struct {
	At         time.Time
	Path, Type string
	Body       []byte
}

func keep(dir string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/manifests/") {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		rec := httptest.NewRecorder()
		next.ServeHTTP(rec, r)
		if rec.Code == http.StatusCreated {
			p := put{At: time.Now(), Path: r.URL.Path, Type: r.Header.Get("Content-Type"), Body: body}
			if err := write(dir, p); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

func write(dir string, p put) error {
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	name := filepath.Join(dir, strings.ReplaceAll(strings.Trim(p.Path, "/"), "/", "+")+".json")
	if err := os.WriteFile(name+".new", data, 0o644); err != nil {
		return err
	}
	return os.Rename(name+".new", name)
}

func replay(h http.Handler, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.json"))
	var puts []put
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			log.Fatal(err)
		}
		var p put
		if err := json.Unmarshal(data, &p); err != nil {
			log.Printf("skip %s: %v", f, err)
			continue
		}
		puts = append(puts, p)
	}
	// An index is accepted only after the manifests it names.
	sort.Slice(puts, func(i, j int) bool { return puts[i].At.Before(puts[j].At) })
	for _, p := range puts {
		r := httptest.NewRequest(http.MethodPut, p.Path, bytes.NewReader(p.Body))
		r.Header.Set("Content-Type", p.Type)
		h.ServeHTTP(httptest.NewRecorder(), r)
	}
	log.Printf("kept manifests: %d", len(puts))
}

// only forbids clients that are neither on loopback nor in one of the prefixes.
func only(nets []netip.Prefix, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		a, err := netip.ParseAddr(host)
		ok := err == nil && a.Unmap().IsLoopback()
		for _, n := range nets {
			ok = ok || err == nil && n.Contains(a.Unmap())
		}
		if !ok {
			http.Error(w, "this registry serves only its own machine", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}
