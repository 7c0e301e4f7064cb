package declaration

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan/document"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/vantage"
	"davit.dev/davit/internal/vault"
)

// pair is a store whose listings of epochs are answered only once those of two
// applications are asked for.
type pair struct {
	vault.Store
	mu    sync.Mutex
	asked map[string]bool
	both  chan struct{}
}

func (s *pair) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if strings.Contains(prefix, "epochs/") {
		s.mu.Lock()
		if s.asked[prefix] = true; len(s.asked) == 2 {
			close(s.both)
			s.asked["done"] = true
		}
		s.mu.Unlock()
		select {
		case <-s.both:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Store.List(ctx, prefix, fn)
}

func (w *world) paired() {
	w.project = w.project.Over(func(s vault.Store) vault.Store {
		return &pair{Store: s, asked: map[string]bool{}, both: make(chan struct{})}
	})
}

// TestApplicationsAreReadAtOnce: of a plan with a hundred, one read after the other took as long
// as a look may.
func TestApplicationsAreReadAtOnce(t *testing.T) {
	p := shop()
	p.Spec.Applications = append(p.Spec.Applications, v1alpha1.PlanApplication{Name: "web"})
	w := newWorld(t, p)
	w.arm(1, "east")
	w.paired()
	ctx, cancel := context.WithTimeout(t.Context(), lookTimeout)
	defer cancel()
	if o, err := (gatherer{w.project, w.project, "west", w.d.Now}).gather(ctx, document.Convert(p), nil); err != nil || o.why != "no site ever held web" {
		t.Errorf("%q, %v", o.why, err)
	}
}

// TestPlansAreJudgedAtOnce: what is gathered for one keeps the vantage points of the next not from
// being heard for so long that nothing counts any more.
func TestPlansAreJudgedAtOnce(t *testing.T) {
	w := newWorld(t, shop())
	other := shop()
	other.Name, other.Spec.Applications[0].Name = "web", "web"
	if err := w.client.Create(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	w.paired()
	w.look(t.Context())
	if c, _ := w.says(); c.Reason != ReasonNoSource {
		t.Errorf("%s, %s", c.Reason, c.Message)
	}
}

// TestWhatIsGatheredForLong makes nothing that was heard before any younger.
func TestWhatIsGatheredForLong(t *testing.T) {
	w := newWorld(t, shop())
	w.arm(1, "east")
	w.play(gatherEvery, declare.Alive, "west", "north", "witness")
	w.number++
	for _, name := range []string{"west", "north", "witness"} { // their last words
		if err := vantage.Say(t.Context(), w.project, vantage.Word{Vantage: name, Process: "p", Number: w.number, At: w.now, Views: []vantage.View{{Site: "east", View: declare.Alive}}}); err != nil {
			t.Fatal(err)
		}
	}
	var once sync.Once
	w.project = w.project.Over(func(s vault.Store) vault.Store {
		return &pass{s, func() { once.Do(func() { w.now = w.now.Add(vantage.Fresh + time.Second) }) }}
	})
	w.look(t.Context())
	c, st := w.says()
	if st == nil || len(st.Observers) != 3 || st.Observers[0].View != "silent" {
		t.Errorf("%s: %+v", c.Message, st)
	}
}

// pass is a store in which time passes before the epochs of an application are listed.
type pass struct {
	vault.Store
	time func()
}

func (s *pass) List(ctx context.Context, prefix string, fn func(vault.ObjectInfo) error) error {
	if strings.Contains(prefix, "epochs/") {
		s.time()
	}
	return s.Store.List(ctx, prefix, fn)
}

// TestAPointOfATimeYetToCome is of nobody knows which: what has been lost since is not known either.
func TestAPointOfATimeYetToCome(t *testing.T) {
	for name, c := range map[string]struct {
		of   time.Duration // the point's instant, from now
		late bool
	}{
		"young":       {-time.Second, false},
		"a bit ahead": {2 * time.Second, false}, // the control
		"old":         {-2 * time.Minute, true},
		"yet to come": {24 * time.Hour, true},
	} {
		p := shop()
		p.Spec.Objectives.RPO.Duration = time.Minute
		w := newWorld(t, p)
		w.arm(1, "east")
		w.capture(w.now.Add(c.of))
		words := map[string]vantage.Word{"east": {Vantage: "east", At: w.now}}
		o, err := gatherer{w.project, w.project, "west", w.d.Now}.gather(t.Context(), document.Convert(p), words)
		if err != nil || (len(o.state.Late) == 1) != c.late {
			t.Errorf("%s: late: %v, %v", name, o.state.Late, err)
		}
	}
}

// capture has east make a point of db.
func (w *world) capture(at time.Time) {
	w.t.Helper()
	id, err := point.NewID("db", at, strings.NewReader("aaaaaaaaa"))
	if err != nil {
		w.t.Fatal(err)
	}
	pw, err := w.project.NewWriter(w.t.Context(), "db", id)
	err = errors.Join(err, pw.Publish(w.t.Context(), &point.Manifest{
		FormatVersion: 1, ID: id, Application: "db", Project: w.project.Name(), Site: "east", Epoch: 1, Trigger: "schedule",
		StartedAt: at, Instant: at, CutBy: at, FinishedAt: at, Consistency: point.Crash, Namespaces: []string{"db"},
	}, nil))
	if err != nil {
		w.t.Fatal(err)
	}
}
