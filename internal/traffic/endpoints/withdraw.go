package endpoints

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"davit.dev/davit/internal/traffic"
	"davit.dev/davit/internal/traffic/names"
)

// Withdraw takes away what the DNSEndpoints of a superseded site say, so that its
// external-dns does not lead clients back to it: all that name one of these
// applications under an older epoch. The guard has the newer one from then on, so an
// order that comes late is refused. It returns the names of those that it changed.
// Done again it finds nothing to do.
func Withdraw(ctx context.Context, objects Objects, epochs map[string]int64) ([]string, error) {
	all, err := objects.List(ctx)
	if errors.Is(err, ErrAbsent) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list DNSEndpoints: %w", err)
	}
	var done []string
	var errs []error
	for _, o := range all {
		if o.Guard == "" {
			continue
		}
		guard, err := traffic.ParseGuard(strings.Fields(o.Guard))
		if err != nil {
			errs = append(errs, fmt.Errorf("DNSEndpoint %s/%s: %w", o.Namespace, o.Name, err))
			continue
		}
		if !passed(guard, epochs) {
			continue
		}
		guard.Site = ""
		text, err := guard.Strings()
		if err == nil {
			o.Guard, o.Endpoints = strings.Join(text, " "), nil
			err = objects.Put(ctx, o, false)
		}
		if errors.Is(err, names.ErrChanged) {
			continue // it is looked at again soon
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("withdraw DNSEndpoint %s/%s: %w", o.Namespace, o.Name, err))
			continue
		}
		done = append(done, o.Namespace+"/"+o.Name)
	}
	return done, errors.Join(errs...)
}

// passed raises the epochs of a guard, and tells whether one was older.
func passed(g *traffic.Guard, epochs map[string]int64) bool {
	older := false
	for _, app := range slices.Sorted(maps.Keys(epochs)) {
		if n, named := g.Epochs[app]; named && n < epochs[app] {
			g.Epochs[app], older = epochs[app], true
		}
	}
	return older
}
