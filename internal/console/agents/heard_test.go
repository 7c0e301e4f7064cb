package agents

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
)

// What is kept in order is what a map would have, sorted, whatever comes in whichever order; and
// what somebody was lent stays what it was.
func TestHeardIsInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h heard
		want := map[uplink.Key]fleet.Heard{}
		type loan struct{ is, was []fleet.Heard }
		var lent []loan
		sorted := func() []fleet.Heard {
			return slices.SortedFunc(maps.Values(want), func(a, b fleet.Heard) int { return fleet.Order(a.Key, b.Key) })
		}
		for i := range rapid.IntRange(0, 40).Draw(t, "steps") {
			k := uplink.Key{Kind: rapid.SampledFrom([]string{"A", "B"}).Draw(t, "kind"), Name: rapid.SampledFrom([]string{"x", "y", "z"}).Draw(t, "name")}
			one := fleet.Heard{Object: uplink.Object{Key: k, Epoch: int64(i)}}
			switch rapid.SampledFrom([]string{"put", "drop", "lend", "replace"}).Draw(t, "step") {
			case "put":
				h.put(one)
				want[k] = one
			case "drop":
				h.drop(k)
				delete(want, k)
			case "lend":
				lent = append(lent, loan{h.lend(), sorted()})
			case "replace":
				h.replace([]fleet.Heard{one})
				want = map[uplink.Key]fleet.Heard{k: one}
			}
			if got, there := h.of(k); there != (want[k].Kind != "") || got.Epoch != want[k].Epoch {
				t.Fatalf("%v: %v, %v", k, got, there)
			}
		}
		for _, one := range append(lent, loan{h.all, sorted()}) {
			if len(one.is)+len(one.was) > 0 && !reflect.DeepEqual(one.is, one.was) {
				t.Fatalf("is %v, was %v", one.is, one.was)
			}
		}
	})
}

// crowded is a project in which so many agents say so many objects each.
func crowded(tb testing.TB, agents, objects int) (*Server, *store.Project) {
	tb.Helper()
	at := time.Date(2026, 11, 28, 9, 0, 0, 0, time.UTC)
	p := &store.Project{Listing: store.Listing{ID: "acme", Name: "acme"}}
	r := &room{ctx: tb.Context(), project: p, agents: map[string]*present{}}
	for i := range agents {
		all := make([]fleet.Heard, 0, objects)
		for j := range objects {
			kind := []string{"Application", "Capsule", "ProtectionPolicy", "RecoveryPlan", "Run"}[j%5]
			all = append(all, fleet.Heard{Heard: at, Object: uplink.Object{
				Key:       uplink.Key{Kind: kind, Namespace: "davit-system", Name: fmt.Sprintf("%s-%04d-%02d", kind, i, j)},
				VaultName: fmt.Sprintf("davit-system.shop-%04d-%02d", i, j), State: "Protected", Foreign: kind == "ProtectionPolicy",
			}})
		}
		one := &present{seen: at}
		one.objects.replace(all)
		r.agents[fmt.Sprintf("site-%04d", i)] = one
	}
	return &Server{rooms: map[string]*room{p.ID: r}}, p
}

// snapshot is what a vault has of that: each agent's applications and site.
func snapshot(all []fleet.Agent) *fleet.Snapshot {
	s := &fleet.Snapshot{}
	for _, a := range all {
		s.Sites = append(s.Sites, fleet.Site{Name: a.Site})
		for _, o := range a.Objects {
			if o.Kind == "Application" {
				s.Applications = append(s.Applications, fleet.Application{Name: o.VaultName, Site: a.Site})
			}
		}
	}
	return s
}

// BenchmarkPage is what every page of a project waits for, with 5,000 agents of 20 objects of
// which each tenth has said something new since the page before: all that they say, beside the
// vault's word. Its measure is against what it took to sort that for each page.
func BenchmarkPage(b *testing.B) {
	s, p := crowded(b, 5000, 20)
	known := fleet.Known{Snapshot: snapshot(s.Known(p))}
	var unsorted []map[uplink.Key]fleet.Heard
	for _, a := range s.Known(p) {
		m := map[uplink.Key]fleet.Heard{}
		for _, o := range a.Objects {
			m[o.Key] = o
		}
		unsorted = append(unsorted, m)
	}
	var ordered, sorted time.Duration
	for b.Loop() {
		n := 0
		for _, a := range s.rooms[p.ID].agents {
			if n++; n%10 == 0 {
				o := a.objects.all[0]
				o.Epoch++
				a.objects.put(o)
			}
		}
		begun := time.Now()
		known.With(s.Known(p))
		ordered += time.Since(begun)
		begun = time.Now()
		for _, m := range unsorted {
			sortedMap(m)
		}
		sorted += time.Since(begun)
	}
	b.ReportMetric(float64(ordered.Microseconds())/1000/float64(b.N), "ms/page")
	b.ReportMetric(float64(sorted)/float64(ordered), "sorted/page")
}

// sortedMap is how it was done before.
func sortedMap(m map[uplink.Key]fleet.Heard) []fleet.Heard {
	return slices.SortedFunc(maps.Values(m), func(a, b fleet.Heard) int { return fleet.Order(a.Key, b.Key) })
}

// Pages stay right while agents report: what a page was given stays as it was, and the next one
// has what was said since, and nobody who went.
func TestKnownWhileAgentsReport(t *testing.T) {
	s, p := crowded(t, 3, 5)
	first := s.Known(p)
	was, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	r := s.rooms[p.ID]
	o := r.agents["site-0001"].objects.all[0]
	o.State = "Lagging"
	r.agents["site-0001"].objects.put(o)
	r.agents["site-0002"].objects.drop(first[2].Objects[0].Key)
	r.agents["site-0000a"], r.sites = &present{}, nil
	if is, err := json.Marshal(first); err != nil || string(is) != string(was) {
		t.Errorf("what was given is another now: %s, %v", is, err)
	}
	next := s.Known(p)
	if len(next) != 4 || next[1].Site != "site-0000a" || next[2].Objects[0].State != "Lagging" || len(next[3].Objects) != 4 {
		t.Errorf("%+v", next)
	}
}
