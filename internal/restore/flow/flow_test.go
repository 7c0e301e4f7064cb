package flow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"pgregory.net/rapid"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/restore/index"
	"davit.dev/davit/internal/restore/sequence"
)

// memory is a point in memory, which counts how often each kind is read.
type memory struct {
	raw   map[string][]string
	mu    sync.Mutex
	reads map[string]int
}

func (m *memory) ReadResource(ctx context.Context, res point.Resource, fn func([]byte) error) error {
	m.mu.Lock()
	m.reads[res.Kind]++
	m.mu.Unlock()
	for _, o := range m.raw[res.Kind] {
		if err := errors.Join(ctx.Err(), fn([]byte(o))); err != nil {
			return err
		}
	}
	return nil
}
func (*memory) CheckObjects(context.Context, *point.Manifest) error { return nil }
func (*memory) CheckVolume(context.Context, point.Volume) error     { return nil }

// object is one of a random point: a kind, and what it is owned by.
type object struct {
	kind   string
	owners []int
}

func (o object) json(i int) string {
	refs := []any{}
	for _, owner := range o.owners {
		refs = append(refs, map[string]any{"uid": fmt.Sprint("u", owner), "kind": "Any", "name": "any"})
	}
	raw, _ := json.Marshal(map[string]any{"metadata": map[string]any{
		"name": fmt.Sprint("o", i), "namespace": "ns", "uid": fmt.Sprint("u", i), "ownerReferences": refs,
	}})
	return string(raw)
}

var groups = map[string]string{"Till": "shop.example.com", "Drawer": "shop.example.com", "Deployment": "apps"}

func flowOf(t interface{ Fatal(...any) }, objects []object) (Flow, *memory) {
	m, src := &point.Manifest{ID: "p"}, &memory{raw: map[string][]string{}, reads: map[string]int{}}
	for i, o := range objects {
		if len(src.raw[o.kind]) == 0 {
			m.Resources = append(m.Resources, point.Resource{Group: groups[o.kind], Kind: o.kind})
		}
		src.raw[o.kind] = append(src.raw[o.kind], o.json(i))
	}
	x, err := index.Reader{Source: src, Manifest: m, LeftOut: func(point.Resource) string { return "" }}.Read(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	s, err := sequence.Build(x)
	if err != nil {
		t.Fatal(err)
	}
	clear(src.reads)
	return Flow{
		Sequence: s, Index: x, Manifest: m, Source: src, Workers: 4, Fillers: 2,
		Fills: func(en *index.Entry) bool { return s.KindOf(en).Kind == "PersistentVolumeClaim" },
		Gate:  func(context.Context, sequence.Point, []*index.Entry) error { return nil },
	}, src
}

var kinds = []string{"Secret", "Service", "PersistentVolumeClaim", "Till", "Drawer", "Pod", "ConfigMap", "Deployment"}

func drawObjects(t *rapid.T) []object {
	n := rapid.IntRange(1, 40).Draw(t, "objects")
	objects := make([]object, n)
	for i := range objects {
		objects[i] = object{
			rapid.SampledFrom(kinds).Draw(t, "kind"),
			rapid.SliceOfN(rapid.IntRange(0, n-1), 0, 2).Draw(t, "owners"),
		}
	}
	return objects
}

// Whatever the objects, however few bytes may be kept: each is restored once,
// as it is in the point, after all that it needs.
func TestEverythingOnceInOrder(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		objects := drawObjects(rt)
		kept := rapid.SampledFrom([]int{1, 200, 1 << 20}).Draw(rt, "kept")
		workers := rapid.IntRange(1, 4).Draw(rt, "workers")
		synctest.Test(t, func(t *testing.T) {
			f, src := flowOf(t, objects)
			f.Kept, f.Workers = kept, workers
			var mu sync.Mutex
			done := map[int32]bool{}
			f.Object = func(_ context.Context, en *index.Entry, raw []byte) error {
				mu.Lock()
				defer mu.Unlock()
				if done[en.Node] {
					rt.Fatalf("%s is restored twice", en.Name)
				}
				for _, need := range f.Sequence.Graph.Needs(en.Node) {
					if _, hub := f.Sequence.PointOf(need.To); !hub && !done[need.To] {
						rt.Fatalf("%s before %s", en.Name, f.Sequence.Entries[need.To].Name)
					}
				}
				if !slices.Contains(src.raw[f.Sequence.KindOf(en).Kind], string(raw)) {
					rt.Fatalf("%s is restored as %s", en.Name, raw)
				}
				done[en.Node] = true
				return nil
			}
			if err := f.Run(t.Context()); err != nil || len(done) != len(objects) {
				rt.Fatalf("%d of %d objects: %v", len(done), len(objects), err)
			}
		})
	})
}

// A chain that lies the wrong way round in the point is not read once per link
// while its objects can be kept.
func TestReadsAreBounded(t *testing.T) {
	const n = 500
	objects := make([]object, n)
	for i := range objects {
		objects[i] = object{kind: "Till"}
		if i+1 < n {
			objects[i].owners = []int{i + 1}
		}
	}
	for _, c := range []struct{ kept, most int }{{1 << 20, 1}, {20_000, n / 50}} {
		synctest.Test(t, func(t *testing.T) {
			f, src := flowOf(t, objects)
			f.Kept = c.kept
			f.Object = func(context.Context, *index.Entry, []byte) error { return nil }
			if err := f.Run(t.Context()); err != nil || src.reads["Till"] > c.most {
				t.Errorf("%d bytes kept: read %d times, want %d at most (%v)", c.kept, src.reads["Till"], c.most, err)
			}
		})
	}
}

// Of many objects, those that a workload mounts come first.
func TestNamedComeFirst(t *testing.T) {
	objects := make([]object, 3*many)
	for i := range objects {
		objects[i] = object{kind: "Secret"}
	}
	synctest.Test(t, func(t *testing.T) {
		f, _ := flowOf(t, objects)
		wanted := f.Sequence.Entries[len(objects)-1].Node
		f.Sequence.Named[wanted] = true
		var mu sync.Mutex
		place, n := -1, 0
		f.Object = func(_ context.Context, en *index.Entry, _ []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if n++; en.Node == wanted {
				place = n
			}
			return nil
		}
		if err := f.Run(t.Context()); err != nil || n != len(objects) || place > 3*f.Workers {
			t.Errorf("it came as number %d of %d: %v", place, n, err)
		}
	})
}

var errStop = errors.New("stop")

// An error of a worker, a gate, the source or the context ends all, and nothing
// hangs.
func TestErrorsEndIt(t *testing.T) {
	objects := []object{{kind: "Secret"}, {kind: "Till"}, {kind: "Deployment"}, {kind: "PersistentVolumeClaim"}}
	for name, spoil := range map[string]func(*Flow, *memory, context.CancelCauseFunc){
		"object": func(f *Flow, _ *memory, _ context.CancelCauseFunc) {
			f.Object = func(context.Context, *index.Entry, []byte) error { return errStop }
		},
		"gate": func(f *Flow, _ *memory, _ context.CancelCauseFunc) {
			f.Gate = func(context.Context, sequence.Point, []*index.Entry) error { return errStop }
		},
		"fewer objects": func(_ *Flow, src *memory, _ context.CancelCauseFunc) { src.raw["Secret"] = nil },
		"more objects":  func(_ *Flow, src *memory, _ context.CancelCauseFunc) { src.raw["Till"] = append(src.raw["Till"], "{}") },
		"stopped": func(f *Flow, _ *memory, cancel context.CancelCauseFunc) {
			f.Object = func(ctx context.Context, _ *index.Entry, _ []byte) error { cancel(errStop); <-ctx.Done(); return nil }
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, src := flowOf(t, objects)
				f.Object = func(context.Context, *index.Entry, []byte) error { return nil }
				ctx, cancel := context.WithCancelCause(t.Context())
				defer cancel(nil)
				spoil(&f, src, cancel)
				if err := f.Run(ctx); err == nil {
					t.Error("no error")
				}
			})
		})
	}
}

// What is not within it stays undone, and ends nothing.
func TestWithin(t *testing.T) {
	objects := []object{{kind: "Secret"}, {kind: "PersistentVolumeClaim"}, {kind: "Deployment"}}
	synctest.Test(t, func(t *testing.T) {
		f, _ := flowOf(t, objects)
		var mu sync.Mutex
		var done []string
		f.Within = f.Sequence.Within(sequence.Data)
		f.Object = func(_ context.Context, en *index.Entry, _ []byte) error {
			mu.Lock()
			defer mu.Unlock()
			done = append(done, en.Name)
			return nil
		}
		if err := f.Run(t.Context()); err != nil || !slices.Equal(done, []string{"o1"}) {
			t.Errorf("%v: %v", done, err)
		}
	})
}
