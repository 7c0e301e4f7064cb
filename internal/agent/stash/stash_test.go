package stash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/process"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/outbox"
)

// rig is a cluster in which writes may fail, and a time.
type rig struct {
	t     *testing.T
	c     client.Client
	now   time.Time
	fails error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, now: time.Date(2026, 11, 28, 3, 0, 0, 0, time.UTC)}
	r.c = fake.NewClientBuilder().WithScheme(process.Scheme()).WithInterceptorFuncs(interceptor.Funcs{
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			return errors.Join(r.fails, c.Create(ctx, o, opts...)) // it may have come to be all the same
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if r.fails != nil {
				return r.fails
			}
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	return r
}

func (r *rig) box() *outbox.Outbox {
	r.t.Helper()
	box, err := outbox.Open(filepath.Join(r.t.TempDir(), "box"), 0)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = box.Close() })
	return box
}

func (r *rig) open(box Box) *Stash {
	r.t.Helper()
	s, err := Open(r.t.Context(), r.c, r.c, "acme", box)
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

func (r *rig) keep(s *Stash) {
	r.t.Helper()
	if err := s.Keep(r.t.Context(), r.now); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) happen(box *outbox.Outbox, from, to int, message string) {
	r.t.Helper()
	for i := from; i <= to; i++ {
		if err := box.Append(uplink.Event{At: r.now, Reason: fmt.Sprint(i), Message: message}); err != nil {
			r.t.Fatal(err)
		}
	}
}

// maps are the ConfigMaps that there are.
func (r *rig) maps() []corev1.ConfigMap {
	r.t.Helper()
	var all corev1.ConfigMapList
	if err := r.c.List(r.t.Context(), &all, client.InNamespace(v1alpha1.SystemNamespace)); err != nil {
		r.t.Fatal(err)
	}
	return all.Items
}

// left is what whoever comes next finds: the ids and the reasons.
func (r *rig) left() (ids, reasons []string) {
	r.t.Helper()
	for _, l := range r.open(r.box()).Left() {
		ids = append(ids, l.ID)
		for _, e := range l.Events {
			reasons = append(reasons, e.Reason)
		}
	}
	return ids, reasons
}

func numbers(from, to int) (all []string) {
	for i := from; i <= to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

// What waits for long is kept, in order, once, under the name of its outbox; what a console
// has is let go; and what failed is made good.
func TestKept(t *testing.T) {
	r := newRig(t)
	box := r.box()
	s := r.open(box)
	r.happen(box, 1, 5, "")
	r.keep(s)
	if got := r.maps(); len(got) != 0 {
		t.Errorf("what has not waited is kept: %v", got)
	}
	r.now = r.now.Add(Patience)
	r.happen(box, 6, 7, "")
	r.fails = errors.New("the API server is away")
	if err := s.Keep(t.Context(), r.now); !errors.Is(err, r.fails) {
		t.Error(err)
	}
	r.fails = nil
	r.keep(s)
	if ids, got := r.left(); !slices.Equal(got, numbers(1, 5)) || !slices.Equal(ids, []string{box.ID()}) {
		t.Errorf("%v of %v", got, ids)
	}
	if err := s.Keep(t.Context(), time.Time{}); err != nil { // the agent ends
		t.Fatal(err)
	}
	if _, got := r.left(); !slices.Equal(got, numbers(1, 7)) {
		t.Errorf("%v", got)
	}
	again := r.open(box) // a process that begins anew in the same pod
	if len(again.Left()) != 0 {
		t.Error("its own are another's")
	}
	r.happen(box, 8, 9, "")
	if err := again.Keep(t.Context(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	if _, got := r.left(); !slices.Equal(got, numbers(1, 9)) {
		t.Errorf("%v", got)
	}
	if err := box.Ack(7); err != nil {
		t.Fatal(err)
	}
	r.keep(again)
	if _, got := r.left(); !slices.Equal(got, numbers(8, 9)) {
		t.Errorf("what the console has is still there: %v", got)
	}
	if err := box.Ack(9); err != nil {
		t.Fatal(err)
	}
	r.keep(again)
	if got := r.maps(); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// However much waits, it comes back whole and in order, each project's by itself; what
// cannot be read is done away with.
func TestParts(t *testing.T) {
	r := newRig(t)
	box := r.box()
	s := r.open(box)
	r.happen(box, 1, 600, strings.Repeat("m", 2000))
	if err := s.Keep(t.Context(), time.Time{}); err != nil {
		t.Fatal(err)
	}
	parts := r.maps()
	if len(parts) < 4 {
		t.Errorf("%d parts", len(parts))
	}
	torn := parts[0].DeepCopy()
	torn.ObjectMeta = metav1.ObjectMeta{Namespace: torn.Namespace, Name: "davit-outbox-torn", Labels: torn.Labels, Annotations: torn.Annotations}
	torn.BinaryData = map[string][]byte{data: torn.BinaryData[data][:40]}
	nameless := parts[0].DeepCopy()
	nameless.ObjectMeta = metav1.ObjectMeta{Namespace: torn.Namespace, Name: "davit-outbox-nameless", Labels: torn.Labels, Annotations: map[string]string{annotated: strings.Repeat("n", 100)}}
	for _, m := range []*corev1.ConfigMap{torn, nameless} {
		if err := r.c.Create(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if _, got := r.left(); !slices.Equal(got, numbers(1, 600)) {
		t.Errorf("%d came back", len(got))
	}
	if got := len(r.maps()); got != len(parts) {
		t.Errorf("%d parts, were %d", got, len(parts))
	}
	other, err := Open(t.Context(), r.c, r.c, "other", r.box())
	if err != nil || len(other.Left()) != 0 {
		t.Errorf("another project is told: %v, %v", other, err)
	}
	next := r.open(r.box())
	if err := next.Said(t.Context(), box.ID()); err != nil || len(r.maps()) != 0 || len(next.Left()) != 0 {
		t.Errorf("%d are left, %v", len(r.maps()), err)
	}
}

// There is a bound, whoever left it, and the oldest goes first.
func TestBound(t *testing.T) {
	r := newRig(t)
	for i := range 5 {
		box := r.box()
		r.happen(box, 1600*i+1, 1600*(i+1), strings.Repeat("m", 2000))
		if err := r.open(box).Keep(t.Context(), time.Time{}); err != nil {
			t.Fatal(err)
		}
		r.now = r.now.Add(time.Hour)
	}
	if got := len(r.maps()); got != maxParts {
		t.Errorf("%d parts", got)
	}
	_, got := r.left()
	if n := len(got); n < 4000 || got[n-1] != "8000" || slices.Contains(got, "1") || !slices.Equal(got, numbers(8001-n, 8000)) {
		t.Errorf("%d are left", n)
	}
}
