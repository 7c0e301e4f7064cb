package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Orphan is what a capture or a deletion that died left behind.
type Orphan struct {
	Application string
	ID          string
	Objects     int
	Bytes       int64
	// Idle is how long ago the last of it was written, by the vault's clock
	// at both ends.
	Idle time.Duration
}

// Orphans finds recovery points that have objects or marks but no manifest,
// and have not been written to for longer than olderThan. A capture in
// progress counts as one unless it writes or calls PointWriter.Touch more often.
func (p *Project) Orphans(ctx context.Context, olderThan time.Duration) ([]Orphan, error) {
	clock, err := p.Clock(ctx)
	if err != nil {
		return nil, fmt.Errorf("find orphans: %w", err)
	}
	var found []Orphan
	for _, prefix := range []string{p.at.objects(""), p.at.marks("")} {
		if found, err = p.group(ctx, prefix, clock, found); err != nil {
			return nil, fmt.Errorf("find orphans: %w", err)
		}
	}
	published, err := p.published(ctx)
	if err != nil {
		return nil, fmt.Errorf("find orphans: %w", err)
	}
	var orphans []Orphan
	for _, o := range found {
		if o.Idle > olderThan && !published[o.Application+"/"+o.ID] {
			orphans = append(orphans, o)
		}
	}
	return orphans, nil
}

// Clock returns the vault's present time, by writing to it.
func (p *Project) Clock(ctx context.Context) (time.Time, error) {
	if err := p.store.Put(ctx, p.at.clock(), bytes.NewReader(nil), 0); err != nil {
		return time.Time{}, fmt.Errorf("write %s: %w", p.at.clock(), err)
	}
	o, err := p.store.Stat(ctx, p.at.clock())
	if err != nil {
		return time.Time{}, fmt.Errorf("look at %s: %w", p.at.clock(), err)
	}
	return o.Modified, nil
}

// group adds every point that has objects under the prefix to found. Points
// come in one piece because the list is sorted.
func (p *Project) group(ctx context.Context, prefix string, clock time.Time, found []Orphan) ([]Orphan, error) {
	index := map[string]int{}
	for i, o := range found {
		index[o.Application+"/"+o.ID] = i
	}
	err := p.store.List(ctx, prefix, func(o ObjectInfo) error {
		app, id, _, ok := splitPoint(strings.TrimPrefix(o.Key, prefix))
		if !ok {
			return nil
		}
		i, known := index[app+"/"+id]
		if !known {
			i = len(found)
			index[app+"/"+id] = i
			found = append(found, Orphan{Application: app, ID: id, Idle: 1<<63 - 1})
		}
		found[i].Objects++
		found[i].Bytes += o.Size
		found[i].Idle = min(found[i].Idle, clock.Sub(o.Modified))
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", prefix, err)
	}
	return found, nil
}

// published returns "<app>/<id>" of every point that has a manifest.
func (p *Project) published(ctx context.Context) (map[string]bool, error) {
	tails, err := listKeys(ctx, p.store, p.at.manifests(""))
	if err != nil {
		return nil, err
	}
	set := make(map[string]bool, len(tails))
	for _, tail := range tails {
		set[tail] = true
	}
	return set, nil
}

// Sweep removes the orphans and returns those it removed. It marks each before
// it touches it and then looks for a manifest once more, so a capture that
// comes back to life meanwhile either publishes a whole point or learns ErrSwept.
func (p *Project) Sweep(ctx context.Context, olderThan time.Duration) ([]Orphan, error) {
	orphans, err := p.Orphans(ctx, olderThan)
	if err != nil {
		return nil, err
	}
	var swept []Orphan
	var errs []error
	for _, o := range orphans {
		removed, err := p.sweep(ctx, o)
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep %s: %w", o.ID, err))
		}
		if removed {
			swept = append(swept, o)
		}
	}
	return swept, errors.Join(errs...)
}

func (p *Project) sweep(ctx context.Context, o Orphan) (removed bool, err error) {
	m := Mark{Kind: MarkDeleting, At: now(), By: "sweep", Note: "capture died"}
	if m.Ordinal, err = ordinal(m.At); err != nil {
		return false, err
	}
	mark := p.at.mark(o.Application, o.ID, m.Kind, m.Ordinal)
	if err := p.writeJSONOnce(ctx, mark, m); err != nil {
		return false, err
	}
	_, err = p.store.Stat(ctx, p.at.manifest(o.Application, o.ID))
	if err == nil { // published after all: take our mark back
		return false, p.store.Delete(ctx, mark)
	}
	if !errors.Is(err, ErrNotFound) {
		return false, err
	}
	return true, p.removePoint(ctx, o.Application, o.ID)
}
