package vault

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"davit.dev/davit/internal/point"
)

// Finding is the verdict on one object of the vault.
type Finding struct {
	Key  string
	Size int64 // sealed bytes read
	Err  error // nil: as it was written
}

// VerifyObjects reads a point back: every pack of its objects, its log and its
// marks. It calls report, one call at a time, for each and returns what was
// wrong with any. Volume data is the volume engine's to verify.
func (p *Project) VerifyObjects(ctx context.Context, m *point.Manifest, report func(Finding)) error {
	packs := m.Packs()
	errs := make([]error, len(packs)+1)
	var mu sync.Mutex
	each(len(packs), parallelUploads, func(i int) {
		err := p.verifyPack(ctx, m, packs[i])
		errs[i] = err
		mu.Lock()
		defer mu.Unlock()
		if report != nil {
			report(Finding{Key: packs[i].Key, Size: packs[i].Size, Err: err})
		}
	})
	_, errs[len(packs)] = p.Marks(ctx, m.Application, m.ID)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("verify %s: %w", m.ID, err)
	}
	return nil
}

func (p *Project) verifyPack(ctx context.Context, m *point.Manifest, pack point.Pack) error {
	if m.Log != nil && pack.Key == m.Log.Key {
		_, err := p.Log(ctx, m)
		return err
	}
	return p.readPack(ctx, pack, func([]byte) error { return nil })
}

// VerifyMetadata reads everything of the project that belongs to no single
// point: marker, keys, epochs, documents, journals of runs and signs of life.
func (p *Project) VerifyMetadata(ctx context.Context, report func(Finding)) error {
	var errs []error
	check := func(key string, err error) {
		if report != nil {
			report(Finding{Key: key, Err: err})
		}
		errs = append(errs, err)
	}
	_, _, err := Identify(ctx, p.store)
	check(markerKey, err)
	check(p.at.project(), p.verifyProject(ctx))
	check(p.at.keyVersions(), p.verifyVersions(ctx))
	check(p.at.epochs(""), p.verifyNumbered(ctx, p.at.epochs(""), p.verifyEpoch))
	check(p.at.apps(""), p.verifyNumbered(ctx, p.at.apps(""), p.verifyDocument))
	check(p.at.runs(""), p.verifyNumbered(ctx, p.at.runs(""), p.verifyRun))
	_, err = p.Sites(ctx)
	check(p.at.sites(), err)
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("verify project %s: %w", p.name, err)
	}
	return nil
}

// VerifyKeys reads project.json and every wrapped key, so that nothing that
// opens no project is passed on.
func (p *Project) VerifyKeys(ctx context.Context) error {
	if err := p.verifyProject(ctx); err != nil {
		return err
	}
	return p.verifyVersions(ctx)
}

// verifyVersions reads all versions of the data key again, and who has each.
func (p *Project) verifyVersions(ctx context.Context) error {
	if err := p.load(ctx, p.KeyID()); err != nil {
		return err
	}
	var errs []error
	for _, v := range p.KeyVersions() {
		_, err := p.recipients(ctx, p.ring.get(v.id))
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func (p *Project) verifyProject(ctx context.Context) error {
	f, err := p.readProject(ctx)
	if err != nil {
		return err
	}
	if !authentic(p.ring.firstKey(), "project", f.MAC, f.unsigned()) || f.KeyID != p.KeyID() {
		return fmt.Errorf("read %s: %w: does not authenticate", p.at.project(), ErrDamaged)
	}
	return nil
}

// verifyNumbered checks that each application's numbers run 1, 2, 3, ...
// without a gap and that each document opens.
func (p *Project) verifyNumbered(ctx context.Context, prefix string, open func(ctx context.Context, app string, n int64) error) error {
	tails, err := listKeys(ctx, p.store, prefix)
	if err != nil {
		return err
	}
	expected := map[string]int64{}
	var errs []error
	for _, tail := range tails {
		app, digits, rest, ok := splitPoint(tail)
		n, err := parseNumber(digits)
		if !ok || rest != "" || err != nil {
			errs = append(errs, fmt.Errorf("list %s: %w: stray object %q", prefix, ErrDamaged, tail))
			continue
		}
		expected[app]++
		if n != expected[app] {
			errs = append(errs, fmt.Errorf("list %s%s: %w: number %d is missing", prefix, app, ErrDamaged, expected[app]))
			expected[app] = n
		}
		errs = append(errs, open(ctx, app, n))
	}
	return errors.Join(errs...)
}

func (p *Project) verifyRun(ctx context.Context, run string, n int64) error {
	_, err := p.ReadRun(ctx, run, n)
	return err
}

func (p *Project) verifyEpoch(ctx context.Context, app string, n int64) error {
	var body any
	return p.ReadEpoch(ctx, app, n, &body)
}

func (p *Project) verifyDocument(ctx context.Context, app string, n int64) error {
	return p.readDocument(ctx, app, n, &Document{})
}

// each calls fn with 0 to n-1, at most parallel calls at a time.
func each(n, parallel int, fn func(i int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, parallel)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			fn(i)
		})
	}
	wg.Wait()
}
