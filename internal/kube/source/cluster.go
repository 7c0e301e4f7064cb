// Package source holds the adapters of capture's ports: reading a cluster's
// objects in pages at one revision, running hooks in containers, and cutting
// and reading volumes with CSI snapshots.
package source

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"

	"davit.dev/davit/internal/capture"
	"davit.dev/davit/internal/jsontree"
	"davit.dev/davit/internal/kube"
)

const (
	maxPage     = 1000    // objects
	firstPage   = 100     // while their size is unknown
	pageBytes   = 2 << 20 // aimed at from the second page on; two are held at a time
	pageMost    = 8 << 20 // of a page of more than one object
	pageGrowth  = 2       // at most from one page to the next
	pageShrink  = 4       // of one that is too large
	pageTimeout = 90 * time.Second
	pageTries   = 4
)

// Cluster reads objects for capture.
type Cluster struct {
	clients *kube.Clients
	raw     *rest.RESTClient
}

var _ capture.Cluster = (*Cluster)(nil)

// NewCluster reads through the clients, with their rights.
func NewCluster(clients *kube.Clients) (*Cluster, error) {
	cfg := rest.CopyConfig(clients.RESTConfig)
	cfg.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	cfg.ContentType, cfg.AcceptContentTypes = "application/json", "application/json"
	// Each page on a connection of its own: by HTTP/2 all kinds share one, piece by
	// piece, which costs both sides a good part of what a page takes.
	cfg.NextProtos = []string{"http/1.1"}
	raw, err := rest.UnversionedRESTClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("make cluster reader: %w", err)
	}
	return &Cluster{clients: clients, raw: raw}, nil
}

// Version implements capture.Cluster.
func (c *Cluster) Version(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	return c.clients.ServerVersion(ctx)
}

// Catalog implements capture.Cluster.
func (c *Cluster) Catalog(ctx context.Context) (capture.Catalog, error) {
	groups, lists, err := c.clients.Discovery.ServerGroupsAndResources()
	catalog := capture.Catalog{Broken: map[string]error{}}
	var failed *discovery.ErrGroupDiscoveryFailed
	switch {
	case errors.As(err, &failed):
		for gv, err := range failed.Groups {
			catalog.Broken[gv.String()] = err
		}
	case err != nil:
		return catalog, err
	}
	aggregated, err := c.aggregated(ctx)
	if err != nil {
		return catalog, err
	}
	catalog.Kinds = kindsOf(groups, lists, aggregated)
	return catalog, nil
}

// kindsOf picks for every resource the version that its group prefers among
// those that serve it.
func kindsOf(groups []*metav1.APIGroup, lists []*metav1.APIResourceList, aggregated map[string]bool) []capture.Kind {
	byVersion := map[string][]metav1.APIResource{}
	for _, list := range lists {
		byVersion[list.GroupVersion] = list.APIResources
	}
	var kinds []capture.Kind
	for _, group := range groups {
		at := map[string]int{} // index into kinds by resource
		for _, gv := range versionsOf(group) {
			for _, res := range byVersion[gv.GroupVersion] {
				if strings.Contains(res.Name, "/") {
					continue
				}
				i, known := at[res.Name]
				if !known {
					i = len(kinds)
					at[res.Name] = i
					kinds = append(kinds, capture.Kind{
						Group: group.Name, Version: gv.Version, Kind: res.Kind, Resource: res.Name,
						Namespaced: res.Namespaced, Verbs: res.Verbs, Aggregated: aggregated[gv.GroupVersion],
					})
				}
				kinds[i].Versions = append(kinds[i].Versions, gv.Version)
			}
		}
	}
	return kinds
}

// versionsOf returns a group's versions, the preferred one first.
func versionsOf(group *metav1.APIGroup) []metav1.GroupVersionForDiscovery {
	versions := slices.Clone(group.Versions)
	slices.SortStableFunc(versions, func(a, b metav1.GroupVersionForDiscovery) int {
		switch group.PreferredVersion.GroupVersion {
		case a.GroupVersion:
			return -1
		case b.GroupVersion:
			return 1
		}
		return 0
	})
	return versions
}

// aggregated returns the group versions that other servers serve.
func (c *Cluster) aggregated(ctx context.Context) (map[string]bool, error) {
	set := map[string]bool{}
	k := capture.Kind{Group: "apiregistration.k8s.io", Version: "v1", Kind: "APIService", Resource: "apiservices"}
	_, err := c.List(ctx, capture.Query{Kind: k}, func(page []unstructured.Unstructured) error {
		for _, o := range page {
			if name, _, _ := unstructured.NestedString(o.Object, "spec", "service", "name"); name != "" {
				group, _, _ := unstructured.NestedString(o.Object, "spec", "group")
				version, _, _ := unstructured.NestedString(o.Object, "spec", "version")
				set[schema.GroupVersion{Group: group, Version: version}.String()] = true
			}
		}
		return nil
	})
	if errors.Is(err, capture.ErrUnservable) { // a server without aggregation
		return set, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list aggregated APIs: %w", err)
	}
	return set, nil
}

// Revision implements capture.Cluster.
func (c *Cluster) Revision(ctx context.Context) (string, error) {
	q := capture.Query{Kind: capture.Kind{Version: "v1", Resource: "namespaces"}}
	p, err := c.fetch(ctx, q, cursor{limit: 1})
	if err != nil {
		return "", err
	}
	return p.Metadata.ResourceVersion, nil
}

// cursor says where in a list the next page starts.
type cursor struct {
	limit int
	token string
	exact string // revision of the first page
	bytes int    // that the page will have, about; 0: unknown
}

// page is what a list request answers.
type page struct {
	Metadata metav1.ListMeta
	Items    []map[string]any

	size, limit int
}

// errLarge is a page that would take too much memory: ask for fewer objects.
var errLarge = errors.New("the page is too large")

// List implements capture.Cluster. Pages start small, grow to where their bytes are
// few megabytes, and are never many. While fn works on one, the next one is on its way.
func (c *Cluster) List(ctx context.Context, q capture.Query, fn func([]unstructured.Unstructured) error) (capture.Listed, error) {
	var listed capture.Listed
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	at := cursor{limit: firstPage, exact: q.Revision}
	p, err := c.fetch(asking, q, at)
	for {
		if next, ok := goOn(err, at); ok {
			listed.Late = listed.Late || at.token == ""
			listed.Split = listed.Split || at.token != ""
			at = next
			p, err = c.fetch(asking, q, at)
			continue
		}
		if err != nil {
			return listed, classify(err)
		}
		if listed.Revision == "" {
			listed.Revision = p.Metadata.ResourceVersion
		}
		if p.Metadata.Continue == "" {
			return listed, fn(p.objects(q.Kind))
		}
		at = after(p)
		next := c.ahead(asking, q, at)
		if err := fn(p.objects(q.Kind)); err != nil {
			cancel()
			<-next
			return listed, err
		}
		got := <-next
		p, err = got.page, got.err
	}
}

// fetched is a page that was asked for ahead of its turn.
type fetched struct {
	page *page
	err  error
}

// ahead asks for a page; who asks takes it from the channel.
func (c *Cluster) ahead(ctx context.Context, q capture.Query, at cursor) <-chan fetched {
	next := make(chan fetched, 1)
	go func() {
		p, err := c.fetch(ctx, q, at)
		next <- fetched{p, err}
	}()
	return next
}

// goOn says how a list goes on whose revision the server no longer has: from
// the same place, as things are now.
func goOn(err error, at cursor) (cursor, bool) {
	if at.exact != "" && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || isTooLarge(err)) {
		at.exact = ""
		return at, true
	}
	var status apierrors.APIStatus
	if at.token != "" && apierrors.IsResourceExpired(err) && errors.As(err, &status) {
		if token := status.Status().Continue; token != "" && token != at.token {
			at.token = token
			return at, true
		}
	}
	return at, false
}

// isTooLarge finds a revision that this storage has not reached: the kind is
// kept elsewhere than where the revision was read.
func isTooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) ||
		err != nil && strings.Contains(err.Error(), "required revision is a future revision")
}

// after is where the page after p starts, and how many objects to ask for. p's objects
// say only by and large how big the next ones are: names go by kinds of things, and many
// small ones may be followed by large ones.
func after(p *page) cursor {
	at := cursor{limit: firstPage, token: p.Metadata.Continue}
	if len(p.Items) > 0 {
		each := max(p.size/len(p.Items), 1)
		at.limit = min(max(pageBytes/each, 1), pageGrowth*p.limit, maxPage)
		at.bytes = at.limit * each
	}
	return at
}

func (p *page) objects(k capture.Kind) []unstructured.Unstructured {
	objects := make([]unstructured.Unstructured, 0, len(p.Items))
	version := schema.GroupVersion{Group: k.Group, Version: k.Version}.String()
	for _, item := range p.Items {
		o := unstructured.Unstructured{Object: item}
		o.SetAPIVersion(version) // lists of built-in kinds leave them out
		o.SetKind(k.Kind)
		objects = append(objects, o)
	}
	return objects
}

// fetch gets one page, of fewer objects if they are large, and tries again when the
// server is only busy.
func (c *Cluster) fetch(ctx context.Context, q capture.Query, at cursor) (*page, error) {
	pause := 250 * time.Millisecond
	for try := 1; ; try++ {
		p, err := c.fetchOnce(ctx, q, at)
		for errors.Is(err, errLarge) {
			at.limit = max(at.limit/pageShrink, 1)
			p, err = c.fetchOnce(ctx, q, at)
		}
		if err == nil || try == pageTries || !isBusy(err) || ctx.Err() != nil {
			return p, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// isBusy finds errors that time may heal: no answer at all, or one that says so.
func isBusy(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) {
		return true
	}
	return apierrors.IsServerTimeout(err) || apierrors.IsTimeout(err) && !isTooLarge(err) ||
		apierrors.IsTooManyRequests(err) || apierrors.IsServiceUnavailable(err)
}

func (c *Cluster) fetchOnce(ctx context.Context, q capture.Query, at cursor) (*page, error) {
	ctx, cancel := context.WithTimeout(ctx, pageTimeout)
	defer cancel()
	req := c.raw.Get().AbsPath(pathOf(q)).Param("limit", strconv.Itoa(at.limit))
	if q.Labels != "" {
		req = req.Param("labelSelector", q.Labels)
	}
	if q.Name != "" {
		req = req.Param("fieldSelector", "metadata.name="+q.Name)
	}
	switch {
	case at.token != "":
		req = req.Param("continue", at.token)
	case at.exact != "":
		// A revision that this storage has not reached comes with an invitation
		// to try again, which the client would follow for long.
		req = req.MaxRetries(0).Param("resourceVersion", at.exact).Param("resourceVersionMatch", string(metav1.ResourceVersionMatchExact))
	}
	data, err := read(ctx, req, at)
	if err != nil {
		return nil, err
	}
	list, err := jsontree.ReadList(data)
	if err != nil {
		return nil, fmt.Errorf("decode list: %w", err)
	}
	p := &page{Items: list.Items, size: len(data), limit: at.limit}
	if list.Metadata == nil {
		return p, nil
	}
	if err := json.Unmarshal(list.Metadata, &p.Metadata); err != nil {
		return nil, fmt.Errorf("decode list: %w", err)
	}
	return p, nil
}

// read returns the answer. It stops at what is more than a page may have, where
// fewer objects can be asked for.
func read(ctx context.Context, req *rest.Request, at cursor) (data string, err error) {
	body, err := req.Stream(ctx)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	var src io.Reader = body
	if at.limit > 1 {
		src = io.LimitReader(body, pageMost+1)
	}
	var out strings.Builder
	out.Grow(min(at.bytes+at.bytes/16, pageMost)) // grown step by step, a page would take several times its size
	if _, err := io.Copy(&out, src); err != nil {
		return "", err
	}
	if at.limit > 1 && out.Len() > pageMost {
		return "", errLarge
	}
	return out.String(), nil
}

func pathOf(q capture.Query) string {
	path := "/apis/" + q.Kind.Group + "/" + q.Kind.Version
	if q.Kind.Group == "" {
		path = "/api/" + q.Kind.Version
	}
	if q.Namespace != "" {
		path += "/namespaces/" + q.Namespace
	}
	return path + "/" + q.Kind.Resource
}

// classify turns the API server's errors into those that capture decides on.
func classify(err error) error {
	switch {
	case apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err):
		return fmt.Errorf("%w: %w", capture.ErrUnservable, err)
	case apierrors.IsServiceUnavailable(err) || apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err) || isBusy(err):
		return fmt.Errorf("%w: %w", capture.ErrUnavailable, err)
	}
	return err
}
