package capture

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"davit.dev/davit/internal/point"
)

// grouping is a world whose driver cuts several volumes by one act.
type grouping struct {
	*world
	classes map[string]string
	short   bool // answers for one volume less
	hang    bool // answers when nobody waits any more
	asked   string
	grouped []string          // claims, as they were released
	nodes   map[string]string // that alone reach a claim's volume
	parts   []string          // what each group had
}

func (g *grouping) Plan(ctx context.Context, c Claim, opts VolumeOptions) (VolumePlan, error) {
	p, err := g.world.Plan(ctx, c, opts)
	p.Node = g.nodes[c.Name]
	return p, err
}

func (g *grouping) GroupClasses(_ context.Context, drivers []string, asked string) (map[string]string, error) {
	g.asked = asked
	return g.classes, g.note("classes of %s", strings.Join(drivers, ","))
}

func (g *grouping) CutGroup(ctx context.Context, class string, plans []VolumePlan) ([]Cut, error) {
	if err := g.note("group %s", class); err != nil {
		return nil, err
	}
	if g.hang {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	var part []string
	for _, p := range plans {
		part = append(part, p.Node+"/"+p.Claim.Name)
	}
	g.mu.Lock()
	g.parts = append(g.parts, strings.Join(part, " "))
	g.mu.Unlock()
	cuts := make([]Cut, len(plans))
	if g.short {
		cuts = cuts[1:]
	}
	return cuts, nil
}

func (g *grouping) Release(ctx context.Context, p VolumePlan) error {
	if p.Group != "" {
		g.mu.Lock()
		g.grouped = append(g.grouped, p.Claim.Key())
		g.mu.Unlock()
	}
	return g.world.Release(ctx, p)
}

func TestVolumesOfADriverAreCutByOneGroupSnapshot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		objects string
		spec    Spec
		change  func(*grouping)
		grouped bool // by one act
		tried   bool
		warns   string
	}{
		{name: "two volumes", objects: twoVolumes, grouped: true, tried: true},
		{name: "a driver without groups", objects: twoVolumes, change: func(g *grouping) { g.classes = nil }},
		{name: "one volume", objects: shop},
		{name: "a snapshot class was named", objects: twoVolumes, spec: Spec{SnapshotClass: "fast"}},
		{name: "both classes were named", objects: twoVolumes, spec: Spec{SnapshotClass: "fast", GroupSnapshotClass: "groups"}, grouped: true, tried: true},
		{name: "no freeze is wanted", objects: twoVolumes, spec: Spec{Freeze: FreezeNever}},
		{
			name: "the driver refuses", objects: twoVolumes, tried: true, warns: "its driver made no group snapshot, so the volumes were cut one by one: not in one pool",
			change: func(g *grouping) { g.fail["group groups"] = errors.New("not in one pool") },
		},
		{name: "a volume is missing", objects: twoVolumes, tried: true, warns: "it holds 1 volumes, not 2", change: func(g *grouping) { g.short = true }},
		{
			name: "nobody answers", objects: twoVolumes, spec: Spec{FreezeWindow: 2}, tried: true, warns: "it was not cut within 1ns",
			change: func(g *grouping) { g.hang = true },
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := &grouping{world: newWorld(t, tt.objects), classes: map[string]string{"csi.example.com": "groups"}}
			if tt.change != nil {
				tt.change(g)
			}
			g.volumes, g.freezer = g, &fakeFreezer{w: g.world, got: point.Freeze{Held: true}}
			res, err := g.run(tt.spec)
			if err != nil {
				t.Fatal(err)
			}
			calls := strings.Join(g.calls, ", ")
			if single := strings.Contains(calls, "cut shop/"); single == tt.grouped || strings.Contains(calls, "group groups") != tt.tried {
				t.Errorf("calls are %s", calls)
			}
			for _, v := range res.Volumes {
				if (v.Method == MethodGroup) != tt.grouped {
					t.Errorf("volume %s was captured by %s", v.Claim, v.Method)
				}
			}
			promise := point.Crash
			if tt.spec.Freeze == FreezeNever {
				promise = point.PerVolume
			}
			if tt.tried != (len(g.grouped) == 2) || res.Consistency != promise {
				t.Errorf("groups of %v were released, the point is %s", g.grouped, res.Consistency)
			}
			warned := slices.ContainsFunc(res.Warnings, func(w point.Warning) bool { return strings.Contains(w.Message, tt.warns) })
			if tt.warns != "" && !warned || tt.warns == "" && len(res.Warnings) > 0 && strings.Contains(res.Warnings[0].Message, "group") {
				t.Errorf("warnings are %v", res.Warnings)
			}
		})
	}
}

// TestEachNodeHasAGroupOfItsOwn: volumes on the disks of two nodes cannot be cut
// by one act; one that is alone on its node is cut by itself.
func TestEachNodeHasAGroupOfItsOwn(t *testing.T) {
	objects := shop
	for _, name := range []string{"b", "c", "d", "e"} {
		objects += strings.Replace(strings.TrimPrefix(twoVolumes, shop), "files, namespace: shop, uid: c2", name+", namespace: shop, uid: "+name, 1)
	}
	g := &grouping{world: newWorld(t, objects), classes: map[string]string{"csi.example.com": "groups"}}
	g.nodes = map[string]string{"data-db-0": "n1", "b": "n1", "c": "n2", "d": "n2", "e": "n3"}
	g.volumes, g.freezer = g, &fakeFreezer{w: g.world, got: point.Freeze{Held: true}}
	res, err := g.run(Spec{})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(g.parts)
	if got := strings.Join(g.parts, ", "); got != "n1/b n1/data-db-0, n2/c n2/d" {
		t.Errorf("groups are %s", got)
	}
	if calls := strings.Join(g.calls, ", "); strings.Count(calls, "cut shop/") != 1 || !strings.Contains(calls, "cut shop/e") || res.Consistency != point.Crash {
		t.Errorf("the point is %s after %s", res.Consistency, calls)
	}
}

// TestAGroupClassThatDoesNotFitFailsBeforeAnythingIsDone: a name that a person
// wrote is not passed over.
func TestAGroupClassThatDoesNotFitFailsBeforeAnythingIsDone(t *testing.T) {
	g := &grouping{world: newWorld(t, twoVolumes)}
	g.volumes, g.fail["classes of csi.example.com"] = g, errors.New("no such class")
	_, err := g.run(Spec{GroupSnapshotClass: "gone"})
	if err == nil || !strings.Contains(err.Error(), "no such class") || g.asked != "gone" {
		t.Errorf("got %v, asked %q", err, g.asked)
	}
	if calls := strings.Join(g.calls, ", "); strings.Contains(calls, "revision") || strings.Contains(calls, "cut") {
		t.Errorf("calls are %s", calls)
	}
}
