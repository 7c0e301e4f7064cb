package lease

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"davit.dev/davit/internal/vault"
)

// Verify reads all that stands beside the epochs: statements that leases are kept,
// people's words, and what sites noted as they came over from a lost vault. It calls
// report, if given, once for each kind, and returns what is wrong with any: what cannot be
// opened, is another object than its name says, or does not fit the epoch that it is about.
func Verify(ctx context.Context, p *vault.Project, report func(vault.Finding)) error {
	v := &verifier{p: p, histories: map[string][]Epoch{}}
	var all []error
	for _, kind := range []struct {
		dir   string
		check func(ctx context.Context, tail string) error
	}{{"kept/", v.kept}, {"stopped/", v.word}, {"moved/", v.moved}} {
		err := v.each(ctx, p.Root()+kind.dir, kind.check)
		if report != nil {
			report(vault.Finding{Key: p.Root() + kind.dir, Err: err})
		}
		all = append(all, err)
	}
	if err := errors.Join(all...); err != nil {
		return fmt.Errorf("verify project %s: %w", p.Name(), err)
	}
	return nil
}

// verifier remembers the epochs of the applications, as they were after the objects of a
// kind were listed: each was written before what is about it.
type verifier struct {
	p         *vault.Project
	histories map[string][]Epoch
}

// each checks every object under a prefix by what follows it in the name.
func (v *verifier) each(ctx context.Context, prefix string, check func(ctx context.Context, tail string) error) error {
	var tails []string
	err := v.p.Store().List(ctx, prefix, func(o vault.ObjectInfo) error {
		tails = append(tails, strings.TrimPrefix(o.Key, prefix))
		return nil
	})
	if err != nil {
		return fmt.Errorf("list %s: %w", prefix, err)
	}
	clear(v.histories)
	var errs []error
	for _, tail := range tails {
		if err := check(ctx, tail); err != nil {
			errs = append(errs, fmt.Errorf("%s%s: %w", prefix, tail, err))
		}
	}
	return errors.Join(errs...)
}

var errStray = fmt.Errorf("%w: nothing of Davit's has such a name", vault.ErrDamaged)

// epoch finds the epoch that "<app>/<n>" is about.
func (v *verifier) epoch(ctx context.Context, tail string) (app string, e Epoch, err error) {
	app, digits, _ := strings.Cut(tail, "/")
	n, err := strconv.ParseInt(digits, 10, 64)
	if vault.CheckName(app) != nil || err != nil || n < 1 || digits != fmt.Sprintf("%020d", n) {
		return "", e, errStray
	}
	history, err := v.history(ctx, app)
	if err != nil {
		return "", e, err
	}
	if n > int64(len(history)) {
		return "", e, fmt.Errorf("%w: it is about epoch %d, and the newest is %d", vault.ErrDamaged, n, len(history))
	}
	return app, history[n-1], nil
}

func (v *verifier) history(ctx context.Context, app string) ([]Epoch, error) {
	if known, ok := v.histories[app]; ok {
		return known, nil
	}
	history, err := New(v.p).History(ctx, app)
	if err == nil {
		v.histories[app] = history
	}
	return history, err
}

func (v *verifier) kept(ctx context.Context, tail string) error {
	app, e, err := v.epoch(ctx, tail)
	if err != nil {
		return err
	}
	k, err := ReadKept(ctx, v.p, app, e.Number)
	if err == nil && (k.Site != e.Claim.Site || k.Cluster != e.Claim.Cluster || e.Claim.Terms == nil) {
		err = fmt.Errorf("%w: it is of site %s, cluster %s, and that epoch was not claimed by it under a lease", vault.ErrDamaged, k.Site, k.Cluster)
	}
	return err
}

func (v *verifier) word(ctx context.Context, tail string) error {
	app, e, err := v.epoch(ctx, tail)
	if err != nil {
		return err
	}
	w, err := readWord(ctx, v.p, app, e.Number)
	nobodys := e.Claim.Promotion != nil && e.Claim.Promotion.Seen == 0
	if err == nil && (!nobodys || !w.about(app, e)) {
		err = fmt.Errorf("%w: it is not about that epoch, or of another promotion", vault.ErrDamaged)
	}
	return err
}

func (v *verifier) moved(ctx context.Context, tail string) error {
	app, of, ok := parseMover(tail)
	if !ok {
		return errStray
	}
	m, err := ReadMoved(ctx, v.p, app, of)
	if err != nil {
		return err
	}
	history, err := v.history(ctx, app)
	if err != nil {
		return err
	}
	for _, e := range history {
		if word := e.Claim.Promotion; word != nil && word.Seen == 0 && (word.From != m.Lost || e.Claim.Request != m.Request) {
			return fmt.Errorf("%w: it is of another promotion than epoch %d", vault.ErrDamaged, e.Number)
		}
	}
	return nil
}
