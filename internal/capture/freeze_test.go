package capture

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/point"
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
	w.freezer, w.pods = f, []Target{{"shop", "db-0", "db"}}
	res, err := w.run(Spec{FreezeWindow: 3 * time.Second, Hooks: []Hook{{Name: "q", Before: []string{"lock"}, After: []string{"unlock"}}}})
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
