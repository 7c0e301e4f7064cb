package standby

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/transcript"
)

// hidden are the values that a step's program or call was given as secrets, for they are
// not to be kept of what it says. err says of which Secret they are not known.
type hidden struct {
	values []string
	err    error
}

// secrets are the Secrets that a step's programs are given.
func secrets(step plan.Step) (all []string) {
	for _, c := range []*plan.Command{step.Command, step.Undo} {
		if c != nil {
			all = append(all, c.Secrets...)
		}
	}
	all = append(all, step.Call.Secrets()...)
	if t := step.Terraform; t != nil {
		all = append(all, t.Secrets...)
		if t.Secret != "" {
			all = append(all, t.Secret)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// hide reads what a step's program is given, with the rights with which its Job is made.
func (s *Site) hide(ctx context.Context, step plan.Step) (h hidden) {
	names := secrets(step)
	if len(names) == 0 {
		return h
	}
	at, err := serving(ctx, s.o.Recovery.Cluster, shape.KindSecret)
	for _, name := range names {
		if err != nil {
			break
		}
		var data map[string][]byte
		data, err = s.secret(ctx, at, name)
		for _, value := range data {
			h.values = append(h.values, transcript.Secrets(value)...)
		}
	}
	h.err = err
	return h
}

// secret reads one of davit-system.
func (s *Site) secret(ctx context.Context, at restore.Served, name string) (map[string][]byte, error) {
	secret, err := s.o.Recovery.Cluster.Get(ctx, at, v1alpha1.SystemNamespace, name)
	if err != nil {
		return nil, fmt.Errorf("read Secret %s/%s: %w", v1alpha1.SystemNamespace, name, err)
	}
	data := map[string][]byte{}
	for key := range shape.Child(secret.Object, "data") {
		if value, bad := base64.StdEncoding.DecodeString(shape.Text(secret.Object, "data", key)); bad == nil {
			data[key] = value
		}
	}
	return data, nil
}

// with adds what was known before: a Secret may have been replaced since.
func (h hidden) with(before hidden) hidden {
	h.values = append(h.values, before.values...)
	return h
}

// mask is a text without the values.
func (h hidden) mask(text string) string { return transcript.Mask(text, h.values) }

// keep is what is kept of what a program said.
func (h hidden) keep(text string) string {
	if strings.TrimSpace(text) == "" {
		return ""
	}
	if h.err != nil {
		return fmt.Sprintf("[not kept: it may name secrets, and which is not known: %v]", h.err)
	}
	return transcript.Keep(text, h.values)
}
