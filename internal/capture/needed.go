package capture

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// findNeededClaims learns, where a selection narrows the capture and before
// anything is cut, which claims the covered objects name. It writes nothing.
func (r *run) findNeededClaims(ctx context.Context) error {
	if r.spec.Select.Whole() {
		return nil
	}
	var kinds []Kind
	for _, k := range r.catalog.Kinds {
		if wantKind(k, r.spec.Filter) || isWorkload(k) {
			kinds = append(kinds, k)
		}
	}
	r.step("finding what the selection covers")
	if err := r.cover(ctx, ""); err != nil {
		return err
	}
	matched := false
	err := r.each(ctx, kinds, func(ctx context.Context, k Kind) error {
		for _, ns := range r.spec.Namespaces {
			for _, q := range r.queries(k, ns) {
				err := r.list(ctx, q, func(o *unstructured.Unstructured) error {
					if !r.selects(k, o) {
						return nil
					}
					r.needs.observe(k, o, false, true)
					r.mu.Lock()
					defer r.mu.Unlock()
					matched = true
					return nil
				})
				if err = r.tolerate(k, err); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err == nil && !matched {
		return fmt.Errorf("selection matches no object in %s: a point of nothing protects nothing: correct the Application's selector, selectors, workloads or podSelectors",
			strings.Join(r.spec.Namespaces, ", "))
	}
	return err
}

// wantsClaim tells whether a claim belongs to the application, where a
// selection narrows it.
func (r *run) wantsClaim(o *unstructured.Unstructured) bool {
	if r.spec.Select.Whole() || r.selects(kindClaim, o) {
		return true
	}
	r.needs.mu.Lock()
	defer r.needs.mu.Unlock()
	if r.needs.refs[ref{"", "PersistentVolumeClaim", o.GetNamespace(), o.GetName()}] {
		return true
	}
	full := o.GetNamespace() + "/" + o.GetName()
	end := strings.LastIndexByte(full, '-')
	return end > 0 && isNumber(full[end+1:]) && r.needs.claimPrefixes[full[:end+1]]
}

func isNumber(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// needed writes, where a selection narrows the capture, what the covered objects need, and what
// that needs in turn, and the rights of their accounts.
func (r *run) needed(ctx context.Context) error {
	r.step("reading what the matched objects need")
	done := map[ref]bool{}
	for {
		pending := r.pending(done)
		if len(pending) == 0 {
			return r.rights(ctx, done)
		}
		for _, want := range pending {
			done[want] = true
			if err := r.fetch(ctx, want); err != nil {
				return err
			}
		}
	}
}

func (r *run) pending(done map[ref]bool) []ref {
	r.needs.mu.Lock()
	defer r.needs.mu.Unlock()
	want := func(key string) { // StatefulSets' claims are named by no one
		ns, name, _ := strings.Cut(key, "/")
		r.needs.refs[ref{"", "PersistentVolumeClaim", ns, name}] = true
	}
	for key := range r.plans {
		want(key)
	}
	for key := range r.left {
		want(key)
	}
	var pending []ref
	for want := range r.needs.refs {
		if !done[want] {
			pending = append(pending, want)
		}
	}
	return pending
}

// fetch writes one needed object, if it exists.
func (r *run) fetch(ctx context.Context, want ref) error {
	for _, k := range r.catalog.Kinds {
		if k.Group != want.group || k.Kind != want.kind || !k.Namespaced || r.spec.Filter.excludes(k.Resource, k.Group) {
			continue
		}
		w := r.writers.of(k)
		if w.has(want.namespace, want.name) {
			return nil
		}
		q := Query{Kind: k, Namespace: want.namespace, Name: want.name, Revision: r.res.Revision}
		err := r.list(ctx, q, func(o *unstructured.Unstructured) error { return r.take(ctx, w, o) })
		return r.tolerate(k, err)
	}
	return nil
}

// rights writes the RoleBindings that name the accounts, and their Roles.
func (r *run) rights(ctx context.Context, done map[ref]bool) error {
	k, ok := r.find(roleBindings)
	if !ok || r.spec.Filter.excludes(k.Resource, k.Group) {
		return nil
	}
	w := r.writers.of(k)
	for _, ns := range r.spec.Namespaces {
		err := r.list(ctx, Query{Kind: k, Namespace: ns, Revision: r.res.Revision}, func(o *unstructured.Unstructured) error {
			if !r.bindsOurs(o) {
				return nil
			}
			return r.take(ctx, w, o)
		})
		if err != nil {
			return fmt.Errorf("read rights: %w", err)
		}
	}
	for _, want := range r.pending(done) {
		if want.kind == "Role" {
			if err := r.fetch(ctx, want); err != nil {
				return err
			}
		}
	}
	return nil
}
