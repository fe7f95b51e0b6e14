// Command kingress is a small Knative ingress for tests. It watches the Ingress
// objects of one class, marks them ready, and forwards HTTP by host, path,
// headers and traffic split to the Services behind them. It stands in for
// Kourier, Istio or Contour, and leaves out TLS, HTTP/2 and timeouts.
package main

import (
	"context"
	"flag"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"knative.dev/networking/pkg/apis/networking"
	"knative.dev/networking/pkg/apis/networking/v1alpha1"
	"knative.dev/networking/pkg/client/clientset/versioned"
	"knative.dev/networking/pkg/client/informers/externalversions"
)

// retryDelay is the delay before a status update is retried.
const retryDelay = 300 * time.Millisecond

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` with the address and credentials of the API server")
	class := flag.String("class", "rc.ingress.networking.knative.dev", "ingress `class` to serve")
	listen := flag.String("listen", ":8090", "`address` to listen on")
	domain := flag.String("domain-internal", "kingress.knative-serving.svc.cluster.local", "`name` of the Service in front of this process")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	client, err := versioned.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	table := &atomic.Pointer[routes]{}
	table.Store(&routes{})
	c := controller{client: client, class: *class, domain: *domain, table: table, changed: make(chan struct{}, 1)}
	go c.run(context.Background())

	log.Print("listening on ", *listen)
	log.Fatal(http.ListenAndServe(*listen, newProxy(table)))
}

// routes holds the paths of each host.
type routes map[string][]v1alpha1.HTTPIngressPath

// controller keeps the routes and the status of Ingress objects up to date.
type controller struct {
	client        versioned.Interface
	class, domain string
	table         *atomic.Pointer[routes]
	changed       chan struct{} // has room for one signal
}

func (c controller) run(ctx context.Context) {
	factory := externalversions.NewSharedInformerFactory(c.client, 0)
	ingresses := factory.Networking().V1alpha1().Ingresses().Informer()
	_, err := ingresses.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { c.signal() },
		UpdateFunc: func(any, any) { c.signal() },
		DeleteFunc: func(any) { c.signal() },
	})
	if err != nil {
		log.Fatal(err)
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	c.signal()
	for range c.changed {
		c.sync(ctx, ingresses.GetStore())
	}
}

func (c controller) signal() {
	select {
	case c.changed <- struct{}{}:
	default: // one is waiting
	}
}

// sync replaces the routes, then marks the Ingress objects behind them ready.
func (c controller) sync(ctx context.Context, store cache.Store) {
	table := routes{}
	var served []*v1alpha1.Ingress
	for _, object := range store.List() {
		ingress, ok := object.(*v1alpha1.Ingress)
		if !ok || ingress.Annotations[networking.IngressClassAnnotationKey] != c.class || ingress.DeletionTimestamp != nil {
			continue
		}
		served = append(served, ingress)
		for _, rule := range ingress.Spec.Rules {
			if rule.HTTP == nil {
				continue
			}
			for _, host := range rule.Hosts {
				table[host] = append(table[host], rule.HTTP.Paths...)
			}
		}
	}
	c.table.Store(&table)
	for _, ingress := range served {
		c.markReady(ctx, ingress)
	}
}

func (c controller) markReady(ctx context.Context, ingress *v1alpha1.Ingress) {
	ready := ingress.DeepCopy()
	ready.Status.InitializeConditions()
	ready.Status.MarkNetworkConfigured()
	balancer := []v1alpha1.LoadBalancerIngressStatus{{DomainInternal: c.domain}}
	ready.Status.MarkLoadBalancerReady(balancer, balancer)
	ready.Status.ObservedGeneration = ready.Generation
	if equality.Semantic.DeepEqual(ready.Status, ingress.Status) {
		return
	}
	if _, err := c.client.NetworkingV1alpha1().Ingresses(ready.Namespace).UpdateStatus(ctx, ready, metav1.UpdateOptions{}); err != nil {
		log.Print(err)
		time.AfterFunc(retryDelay, c.signal)
		return
	}
	log.Print("ready ", ready.Namespace, "/", ready.Name)
}

// newProxy returns a handler that forwards each request by the routes of table.
func newProxy(table *atomic.Pointer[routes]) http.Handler {
	transport := &http.Transport{
		DialContext:         (&net.Dialer{Timeout: 5 * time.Second}).DialContext,
		MaxIdleConnsPerHost: 100,
		IdleConnTimeout:     20 * time.Second,
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}
		path := best((*table.Load())[host], r)
		if path == nil {
			http.Error(w, "no route for "+host, http.StatusNotFound)
			return
		}
		split := draw(path.Splits)
		target := &url.URL{Scheme: "http", Host: split.ServiceName + "." + split.ServiceNamespace + ".svc.cluster.local:" + split.ServicePort.String()}
		proxy := &httputil.ReverseProxy{Transport: transport, FlushInterval: -1, Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Host = p.In.Host
			if path.RewriteHost != "" {
				p.Out.Host = path.RewriteHost
			}
			p.SetXForwarded()
			for _, headers := range []map[string]string{path.AppendHeaders, split.AppendHeaders} {
				for name, value := range headers {
					p.Out.Header.Set(name, value)
				}
			}
		}}
		proxy.ServeHTTP(w, r)
	})
}

// best returns the path that matches r with the most headers, then the longest
// prefix; nil if none matches.
func best(paths []v1alpha1.HTTPIngressPath, r *http.Request) *v1alpha1.HTTPIngressPath {
	var found *v1alpha1.HTTPIngressPath
	for i := range paths {
		path := &paths[i]
		if !strings.HasPrefix(r.URL.Path, path.Path) || !hasHeaders(r, path) {
			continue
		}
		if found == nil || len(path.Headers) > len(found.Headers) ||
			len(path.Headers) == len(found.Headers) && len(path.Path) > len(found.Path) {
			found = path
		}
	}
	return found
}

func hasHeaders(r *http.Request, path *v1alpha1.HTTPIngressPath) bool {
	for name, match := range path.Headers {
		if r.Header.Get(name) != match.Exact {
			return false
		}
	}
	return true
}

// draw returns one of the splits, each as often as its percentage.
func draw(splits []v1alpha1.IngressBackendSplit) v1alpha1.IngressBackendSplit {
	n := rand.IntN(100)
	for _, split := range splits {
		if n < split.Percent {
			return split
		}
		n -= split.Percent
	}
	return splits[len(splits)-1]
}
