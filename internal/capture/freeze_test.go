package capture

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/quiesce"
)

// fakeFreezer holds, or does not.
type fakeFreezer struct {
	w    *world
	got  point.Freeze
	deny bool // does not cut
	req  FreezeRequest
}

func (f *fakeFreezer) Together(ctx context.Context, req FreezeRequest, cut func(context.Context) error) (point.Freeze, error) {
	f.req = req
	if f.deny {
		return f.got, nil
	}
	_ = f.w.note("freeze")
	err := cut(ctx)
	_ = f.w.note("thaw")
	return f.got, err
}

// twoVolumes is the shop with a second volume.
const twoVolumes = shop + `---
kind: PersistentVolumeClaim
metadata: {name: files, namespace: shop, uid: c2}
spec: {storageClassName: reflink, volumeName: pv-2}
status: {phase: Bound, capacity: {storage: 1Gi}}
`

func TestVolumesAreCutTogether(t *testing.T) {
	held := point.Freeze{Held: true, Frozen: time.Second, Nodes: 1}
	broken := point.Freeze{Reason: "node n: shared with the node"}
	for _, tt := range []struct {
		name    string
		objects string
		mode    FreezeMode
		freezer *fakeFreezer
		live    string
		want    point.Consistency
		reason  string
		err     error
	}{
		{"held", twoVolumes, "", &fakeFreezer{got: held}, "", point.Crash, "", nil},
		{"held, required", twoVolumes, FreezeRequired, &fakeFreezer{got: held}, "", point.Crash, "", nil},
		{"not held", twoVolumes, FreezeAuto, &fakeFreezer{got: broken}, "", point.PerVolume, "shared with the node", nil},
		{"not held, required", twoVolumes, FreezeRequired, &fakeFreezer{got: broken, deny: true}, "", "", "", ErrNotTogether},
		{"never", twoVolumes, FreezeNever, &fakeFreezer{got: held}, "", point.PerVolume, "switched off", nil},
		{"one volume needs none", shop, FreezeRequired, &fakeFreezer{got: broken}, "", point.Crash, "", nil},
		{"a live read", twoVolumes, FreezeAuto, &fakeFreezer{got: held}, "files", point.Fuzzy, "shop/files is read while it is in use", nil},
		{"a live read, required", twoVolumes, FreezeRequired, &fakeFreezer{got: held}, "files", "", "", ErrNotTogether},
		{"nothing can freeze", twoVolumes, FreezeAuto, nil, "", point.PerVolume, "nothing here can freeze", nil},
		{"nothing can freeze, required", twoVolumes, FreezeRequired, nil, "", "", "", ErrNotTogether},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.objects)
			w.live[tt.live] = true
			if tt.freezer != nil {
				tt.freezer.w, w.freezer = w, tt.freezer
			}
			res, err := w.run(Spec{Freeze: tt.mode})
			if tt.err != nil {
				if !errors.Is(err, tt.err) || strings.Contains(strings.Join(w.calls, " "), "read ") {
					t.Fatalf("got %v after %v, want %v and nothing read", err, w.calls, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if res.Consistency != tt.want {
				t.Errorf("consistency is %s, want %s", res.Consistency, tt.want)
			}
			reason := ""
			if res.Freeze != nil {
				reason = res.Freeze.Reason
			}
			if !strings.Contains(reason, tt.reason) || tt.reason == "" && reason != "" {
				t.Errorf("reason is %q, want %q", reason, tt.reason)
			}
		})
	}
}

func TestCutsAreInsideTheFreezeAndTheHooks(t *testing.T) {
	w := newWorld(t, twoVolumes)
	f := &fakeFreezer{w: w, got: point.Freeze{Held: true}}
	w.freezer, w.pods = f, []quiesce.Pod{{Namespace: "shop", Name: "db-0", Containers: []quiesce.Container{{Name: "db"}}}}
	hooked := hookSpec("lock", "unlock")
	hooked.FreezeWindow = 3 * time.Second
	res, err := w.run(hooked)
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(w.calls, ", ")
	for _, want := range []string{"exec lock, revision, freeze, cut", "thaw, exec unlock"} {
		if !strings.Contains(got, want) {
			t.Errorf("calls are %s; want %q", got, want)
		}
	}
	if f.req.Window != 3*time.Second || len(f.req.Plans) != 2 || res.Freeze.Volumes != 2 || res.Freeze.Window != f.req.Window {
		t.Errorf("request %+v, result %+v", f.req, res.Freeze)
	}
}

// fakeHold is a session that notes what is asked of it.
type fakeHold struct {
	w      *world
	answer error
}

func (f *fakeHold) Held(context.Context) error  { return f.w.note("held") }
func (f *fakeHold) Ask(context.Context) error   { _ = f.w.note("ask"); return f.answer }
func (f *fakeHold) Close(context.Context) error { return f.w.note("let go") }
func (f *fakeHold) Output() string              { return "" }

func TestPointOfAnApplicationThatWasHeldAtRest(t *testing.T) {
	held, broken := point.Freeze{Held: true}, point.Freeze{Reason: "node n: shared with the node"}
	for _, tt := range []struct {
		name    string
		objects string
		freezer *fakeFreezer
		answer  error
		nowhere bool
		want    point.Consistency
		reason  string
	}{
		{"one volume", shop, nil, nil, false, point.Application, ""},
		{"two volumes, frozen", twoVolumes, &fakeFreezer{got: held}, nil, false, point.Application, ""},
		{"two volumes, not frozen", twoVolumes, &fakeFreezer{got: broken}, nil, false, point.PerVolume, ""},
		{"lost the lock", shop, nil, errors.New("the server has gone away"), false, point.Crash, "the server has gone away"},
		{"no pod", shop, nil, nil, true, point.Crash, "ran nowhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, tt.objects)
			if tt.freezer != nil {
				tt.freezer.w, w.freezer = w, tt.freezer
			}
			if !tt.nowhere {
				w.pods = []quiesce.Pod{{Namespace: "shop", Name: "db-0", Containers: []quiesce.Container{{Name: "db"}}}}
			}
			w.session = &fakeHold{w, tt.answer}
			spec := hookSpec("flush", "resume")
			spec.Hooks[0].Hold = &quiesce.Hold{Command: []string{"lock"}}
			res, err := w.run(spec)
			if err != nil {
				t.Fatal(err)
			}
			if res.Consistency != tt.want {
				t.Errorf("consistency is %s, want %s: %+v", res.Consistency, tt.want, res.Quiesce)
			}
			if q := res.Quiesce; q == nil || q.Held != (tt.reason == "") || !strings.Contains(q.Reason, tt.reason) {
				t.Errorf("quiesce is %+v, want reason %q", q, tt.reason)
			}
			if tt.nowhere {
				return
			}
			m := point.Manifest{Consistency: res.Consistency, Volumes: res.Volumes}
			for _, v := range m.Volumes {
				if point.Weakest(m.Consistency, v.Consistency) != m.Consistency {
					t.Errorf("a volume of a point of %s is %s", m.Consistency, v.Consistency)
				}
			}
			if got := strings.Join(w.calls, ", "); !strings.Contains(got, "exec flush, hold, held, revision") || !strings.Contains(got, "ask, let go, exec resume") {
				t.Errorf("calls are %s", got)
			}
		})
	}
}
