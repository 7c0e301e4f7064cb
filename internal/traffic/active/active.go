// Package active answers load balancers: whether this site is the one to send
// clients to. It asks nobody outside of its cluster, so that no silence of the
// vault stops production.
package active

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/traffic"
)

// Path is where the handler is served, and PlanPath what of it asks about all of a plan.
const (
	Path     = "/active/"
	PlanPath = Path + "plan/"
)

// gateKind is the kind of traffic that is a gate.
const gateKind = "gate"

// most bounds the applications and the Services in one question.
const most = 256

// Handler serves Path.
type Handler struct {
	Applications client.Reader // a cache, of RecoveryPlans too
	Services     client.Reader // the API server
	Now          func() time.Time
	// Fenced tells whether the machine that answers keeps an application from
	// running, and why. It hears of the epochs by itself. Nil: nobody tells.
	Fenced func(application string) (why string, fenced bool)

	memory memory
}

// ServeHTTP answers 200 where the site is active for all that are named, else
// 503 with the reason: GET /active/shop,cart?service=shop/web or
// GET /active/plan/shop?service=shop/web
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	names := strings.Split(strings.TrimPrefix(r.URL.Path, Path), ",")
	services, gates := r.URL.Query()["service"], r.URL.Query()["gate"]
	if r.Method != http.MethodGet && r.Method != http.MethodHead || len(names) > most || len(services) > most || len(gates) > most {
		http.Error(w, "GET "+Path+"APPLICATION[,APPLICATION...][?service=NAMESPACE/NAME][&gate=NAME], or "+PlanPath+"NAME", http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	asked := same(gates)
	ok, why := true, ""
	if name, is := strings.CutPrefix(r.URL.Path, PlanPath); is {
		if names, asked, why = h.plan(ctx, name, gates); why != "" {
			ok = false
		}
	}
	if ok {
		ok, why = h.ask(ctx, names, services, asked)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	if !ok {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "passive: "+why+"\n")
		return
	}
	_, _ = io.WriteString(w, "active\n")
}

// gates are those that have to stand open on an application.
type gates func(application string) []string

func same(all []string) gates { return func(string) []string { return all } }

// plan is what a plan of this cluster asks: for all of its applications, and for those
// of its gates that are named, or else all. A plan that is not here is passive.
func (h *Handler) plan(ctx context.Context, name string, named []string) (apps []string, asked gates, why string) {
	var p v1alpha1.RecoveryPlan
	err := h.Applications.Get(ctx, client.ObjectKey{Name: name}, &p)
	if apierrors.IsNotFound(err) {
		return nil, nil, fmt.Sprintf("this site has no plan %q: apply it here, too", name)
	}
	if err != nil {
		return nil, nil, fmt.Sprintf("plan %q was not read yet: %v", name, err)
	}
	for i := range p.Spec.Applications {
		apps = append(apps, p.Spec.Applications[i].Name)
	}
	own := func(app string) (all []string) {
		for i := range p.Spec.Traffic {
			t := &p.Spec.Traffic[i]
			if t.Kind == gateKind && (t.Application == "" || t.Application == app) {
				all = append(all, t.Object)
			}
		}
		return all
	}
	if len(named) == 0 {
		return apps, own, ""
	}
	return apps, func(app string) []string {
		return slices.DeleteFunc(own(app), func(g string) bool { return !slices.Contains(named, g) })
	}, unknownGate(&p, named)
}

// unknownGate says that somebody asks for a gate that a plan does not have, which would
// stand open for ever.
func unknownGate(p *v1alpha1.RecoveryPlan, named []string) string {
	for _, gate := range named {
		if !slices.ContainsFunc(p.Spec.Traffic, func(t v1alpha1.PlanTraffic) bool { return t.Kind == gateKind && t.Object == gate }) {
			return fmt.Sprintf("plan %q has no gate %q", p.Name, gate)
		}
	}
	return ""
}

func (h *Handler) ask(ctx context.Context, names, services []string, asked gates) (bool, string) {
	var all v1alpha1.ApplicationList
	if err := h.Applications.List(ctx, &all); err != nil {
		return false, fmt.Sprintf("the applications were not read yet: %v", err)
	}
	var standings []traffic.Standing
	var namespaces []string
	for _, name := range names {
		if h.Fenced != nil {
			if why, is := h.Fenced(name); is {
				return false, fmt.Sprintf("%s: this node fences it: %s", name, why)
			}
		}
		s := traffic.Standing{Application: name}
		if i := slices.IndexFunc(all.Items, func(a v1alpha1.Application) bool { return a.VaultName() == name }); i >= 0 {
			s = standing(&all.Items[i])
			s.Closed = closed(&all.Items[i], asked(name))
			namespaces = append(namespaces, all.Items[i].CapturedNamespaces()...)
		}
		standings = append(standings, s)
	}
	if ok, why := traffic.Active(standings); !ok {
		return false, why
	}
	keys := make([]client.ObjectKey, 0, len(services))
	for _, ref := range services {
		namespace, name, _ := strings.Cut(ref, "/")
		if name == "" || !slices.Contains(namespaces, namespace) {
			return false, fmt.Sprintf("service %q is not one of these applications': write NAMESPACE/NAME, with a namespace that an application names", ref)
		}
		keys = append(keys, client.ObjectKey{Namespace: namespace, Name: name})
	}
	return h.ready(ctx, keys)
}

// closed names a gate that does not stand open on the application.
func closed(a *v1alpha1.Application, gates []string) string {
	for _, gate := range gates {
		if a.Annotations[v1alpha1.AnnotationGate+gate] == "" {
			return gate
		}
	}
	return ""
}

func standing(a *v1alpha1.Application) traffic.Standing {
	return traffic.Standing{
		Application: a.VaultName(), Known: a.Status.Role != "" && a.Status.Role != v1alpha1.RoleUnknown,
		Active: a.Status.Role == v1alpha1.RoleActive, Epoch: a.Status.Epoch, Holder: a.Status.EpochSite,
		Restoring: a.Annotations[v1alpha1.AnnotationRestoring] != "", Held: a.Annotations[v1alpha1.AnnotationHeldBy] != "",
	}
}
