// Package demand reads from the vault what an application needs of a site: its
// newest recovery point, the pods and kinds in it, its policy and its epochs.
package demand

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/lease"
	"davit.dev/davit/internal/point"
	"davit.dev/davit/internal/preflight"
	"davit.dev/davit/internal/vault"
)

// Demand is what the vault says of an application.
type Demand struct {
	preflight.Need
	// Points are those that may be offered, oldest first.
	Points []vault.PointInfo
	// Object and Policy are as the vault has them; nil: it has none.
	Object     *v1alpha1.Application
	Policy     *v1alpha1.ProtectionPolicy
	DocumentAt time.Time // when the two last changed
}

// Read reads what an application needs. What is wrong with its points is in
// Need.Why; an error says that the vault did not answer.
func Read(ctx context.Context, p *vault.Project, app string) (*Demand, error) {
	d := &Demand{Need: preflight.Need{Application: app}}
	infos, err := p.Points(ctx, app)
	if err != nil {
		return nil, fmt.Errorf("read what %s needs: %w", app, err)
	}
	newest, err := d.read(ctx, p, infos)
	switch {
	case err == nil && newest == nil:
		d.Why = "it has no recovery point that may be offered"
	case errors.Is(err, vault.ErrDamaged) || errors.Is(err, vault.ErrNotFound): // others suffer nothing from it
		d.Why = "what the vault has of it cannot be read: " + err.Error()
	case err != nil:
		return nil, fmt.Errorf("read what %s needs: %w", app, err)
	}
	return d, nil
}

// read reads epochs, documents and the newest point, which it returns; nil: there is none.
func (d *Demand) read(ctx context.Context, p *vault.Project, infos []vault.PointInfo) (*point.Manifest, error) {
	history, err := lease.New(p).History(ctx, d.Application) // after the points: see point.Quarantined
	if err != nil {
		return nil, err
	}
	word, said, err := lease.Said(ctx, p, d.Application, history)
	if err != nil {
		return nil, err
	}
	namesake, _ := lease.Namesake(history)
	for _, e := range history {
		d.Epochs = append(d.Epochs, preflight.Epoch{
			Number: e.Number, Site: e.Claim.Site, Vouched: said && e.Claim.Site == word.Site, Shared: namesake.Number > 0 && e.Number == namesake.Number,
		})
	}
	movers, err := lease.Movers(ctx, p, d.Application)
	if err != nil {
		return nil, err
	}
	d.Moved = lease.Holders(nil, movers[d.Application])
	newest := d.offered(infos, history)
	if err := d.documents(ctx, p, d.Application); err != nil {
		return nil, err
	}
	if newest == nil {
		return nil, nil
	}
	return newest, d.fill(ctx, p, newest)
}

// offered keeps the points that may be offered, and returns the newest.
func (d *Demand) offered(infos []vault.PointInfo, history []lease.Epoch) *point.Manifest {
	var points []point.Point
	for _, i := range infos {
		points = append(points, i.Point())
	}
	points = point.Quarantine(points, lease.Summaries(history))
	for i, p := range points {
		if p.Good() {
			d.Points = append(d.Points, infos[i])
		}
	}
	newest, found := point.Newest(points, time.Time{})
	if !found {
		return nil
	}
	i := slices.IndexFunc(infos, func(i vault.PointInfo) bool { return i.ID == newest.ID })
	return infos[i].Manifest
}

// documents reads the application and its policy.
func (d *Demand) documents(ctx context.Context, p *vault.Project, app string) error {
	doc, err := p.GetDocument(ctx, app)
	if errors.Is(err, vault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	d.DocumentAt = doc.At
	for _, raw := range doc.Objects {
		var kind struct {
			Kind string `json:"kind"`
		}
		if json.Unmarshal(raw, &kind) != nil {
			continue // what reads the documents to use them says so
		}
		switch kind.Kind {
		case "Application":
			d.Object = &v1alpha1.Application{}
			err = json.Unmarshal(raw, d.Object)
		case "ProtectionPolicy":
			d.Policy = &v1alpha1.ProtectionPolicy{}
			err = json.Unmarshal(raw, d.Policy)
		}
		if err != nil {
			return fmt.Errorf("read document of %s: %w: %w", app, vault.ErrDamaged, err)
		}
	}
	if d.Policy != nil && d.Policy.Spec.Objectives.RPO != nil {
		d.RPO = d.Policy.Spec.Objectives.RPO.Duration
	}
	return nil
}

// fill reads the newest point.
func (d *Demand) fill(ctx context.Context, p *vault.Project, m *point.Manifest) error {
	d.Point, d.Instant, d.Consistency, d.Site, d.Namespaces = m.ID, m.Instant, string(m.Consistency), m.Site, m.Namespaces
	for _, i := range m.Images {
		d.Images = append(d.Images, preflight.Image(i))
	}
	for _, v := range m.Volumes {
		d.Volumes = append(d.Volumes, preflight.Volume{Namespace: v.Namespace, Claim: v.Claim, Class: v.StorageClass, Bytes: max(v.Capacity, 0)})
	}
	defined := map[string]bool{}
	for _, res := range m.Resources {
		name := full(res)
		err := p.ReadResource(ctx, reading(res, name), func(object []byte) error {
			if name == definitions {
				defined[nameOf(object)] = true
				return nil
			}
			if isDoor(name) {
				return d.door(name, object)
			}
			pods, err := podsOf(name, object)
			if pods.Count > 0 {
				d.Pods = append(d.Pods, pods)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, res := range m.Resources {
		if res.Count > 0 {
			d.Kinds = append(d.Kinds, preflight.Kind{Resource: full(res), Version: res.Version, Count: res.Count, Defined: defined[full(res)]})
		}
	}
	slices.SortFunc(d.Kinds, func(a, b preflight.Kind) int { return cmp.Compare(a.Resource, b.Resource) })
	return nil
}

const definitions = "customresourcedefinitions.apiextensions.k8s.io"

func full(res point.Resource) string {
	return strings.TrimSuffix(res.Resource+"."+res.Group, ".")
}

// reading leaves out the packs of kinds of which only the name is needed.
func reading(res point.Resource, name string) point.Resource {
	if _, runs := workloads[name]; !runs && name != definitions && !isDoor(name) {
		res.Packs = nil
	}
	return res
}

func nameOf(object []byte) string {
	var o struct {
		Metadata struct {
			Name string `json:"name"`
		} `json:"metadata"`
	}
	_ = json.Unmarshal(object, &o) // without a name it defines nothing
	return o.Metadata.Name
}
