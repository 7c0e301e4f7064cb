// Package past brings what people have defined in a console back to what it was at a time. That is
// made of changes like any other, which are in the audit log and the journal: nothing is cut off
// there, who follows the console follows this too, and sites are asked for what changes.
//
// What has happened stays: audit logs, events, what was asked of sites, which sites were let in or
// shut out. And so does what was withdrawn for safety's sake: tokens that were revoked and
// passwords that were changed do not come to count again.
package past

import (
	"bytes"
	"context"
	"fmt"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// Change is one thing that is not as it was.
type Change struct {
	Object string `json:"object"` // such as "ProtectionPolicy/hourly" or "member anna"
	Do     string `json:"do"`     // what is done with it, for people
	carry  func(ctx context.Context, act audit.Act) error
}

// Carry carries it out.
func (c Change) Carry(ctx context.Context, act audit.Act) error {
	if err := c.carry(ctx, act); err != nil {
		return fmt.Errorf("go back with %s: %w", c.Object, err)
	}
	return nil
}

// Project is what is to be done for a project to be as it was then. Who may do something is
// let in before others are shut out: there is an admin at each instant.
func Project(ctx context.Context, now, then *store.Project) ([]Change, error) {
	documents, err := documents(ctx, now, then)
	if err != nil {
		return nil, err
	}
	members, err := members(ctx, now, then)
	if err != nil {
		return nil, err
	}
	tokens, err := tokens(ctx, now, then)
	return append(append(documents, members...), tokens...), err
}

func documents(ctx context.Context, now, then *store.Project) (all []Change, err error) {
	was, _, err := then.Documents(ctx, "", "")
	if err != nil {
		return nil, err
	}
	is, _, err := now.Documents(ctx, "", "")
	if err != nil {
		return nil, err
	}
	extra := map[store.Key]store.Document{}
	for _, d := range is {
		extra[d.Key] = d
	}
	for _, d := range was {
		here, found := extra[d.Key]
		delete(extra, d.Key)
		do := "made again, as it was"
		if found {
			do = "changed back"
		}
		if found && bytes.Equal(here.Body, d.Body) {
			continue
		}
		all = append(all, Change{d.String(), do, func(ctx context.Context, act audit.Act) error {
			_, err := now.Apply(ctx, act, d.Key, d.Body, store.Expect{})
			return err
		}})
	}
	for _, d := range is {
		if _, there := extra[d.Key]; !there {
			continue
		}
		all = append(all, Change{d.String(), "removed: it was made since", func(ctx context.Context, act audit.Act) error {
			_, err := now.Delete(ctx, act, d.Key, store.Expect{})
			return err
		}})
	}
	return all, nil
}

func members(ctx context.Context, now, then *store.Project) (all []Change, err error) {
	was, err := then.Members(ctx)
	if err != nil {
		return nil, err
	}
	is, err := now.Members(ctx)
	if err != nil {
		return nil, err
	}
	extra := map[string]store.Member{}
	for _, m := range is {
		extra[m.User] = m
	}
	for _, m := range was {
		here, found := extra[m.User]
		delete(extra, m.User)
		if found && here.Role == m.Role && here.Vouched == m.Vouched {
			continue
		}
		all = append(all, Change{"member " + m.Name, "has the role " + string(m.Role) + " again", func(ctx context.Context, act audit.Act) error {
			return now.SetMember(ctx, act, m)
		}})
	}
	for _, m := range is {
		if _, there := extra[m.User]; !there {
			continue
		}
		all = append(all, Change{"member " + m.Name, "has no role any more: it was given since", func(ctx context.Context, act audit.Act) error {
			return now.RemoveMember(ctx, act, m.Name)
		}})
	}
	return all, nil
}

func tokens(ctx context.Context, now, then *store.Project) (all []Change, err error) {
	was, err := then.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	is, err := now.Tokens(ctx)
	if err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, t := range was {
		known[t.ID] = true
	}
	for _, t := range is {
		if known[t.ID] || !t.Revoked.IsZero() {
			continue
		}
		all = append(all, Change{"token " + t.Name, "revoked: it was made since", func(ctx context.Context, act audit.Act) error {
			return now.RevokeToken(ctx, act, t.ID)
		}})
	}
	return all, nil
}

// Users is what is to be done for those to be let in who were then. Accounts are
// never removed: who came since is shut out.
func Users(ctx context.Context, now, then *store.Console) ([]Change, error) {
	was, err := then.Users(ctx)
	if err != nil {
		return nil, err
	}
	is, err := now.Users(ctx)
	if err != nil {
		return nil, err
	}
	in := map[string]bool{}
	for _, u := range was {
		in[u.ID] = !u.Disabled
	}
	var all, out []Change
	for _, u := range is {
		if in[u.ID] == !u.Disabled {
			continue
		}
		c := Change{"user " + u.Name, "let in again", nil}
		if !in[u.ID] {
			c.Do = "shut out, as then or because the account was made since"
		}
		c.carry = func(ctx context.Context, act audit.Act) error { return now.SetDisabled(ctx, act, u, !in[u.ID]) }
		if in[u.ID] {
			all = append(all, c)
		} else {
			out = append(out, c)
		}
	}
	return append(all, out...), nil
}
