package carrier

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/evidence"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
	"davit.dev/davit/internal/kube/permit"
	"davit.dev/davit/internal/mailbox"
	"davit.dev/davit/internal/register"
	"davit.dev/davit/internal/settlement"
	"davit.dev/davit/internal/vault"
)

// settleEvery is how often one of the runs that are over and left something to people is
// looked at: people may settle it at any site, and as late as they like.
const settleEvery = vaultEvery

// bygone is a run that is over and left something to people, as this process follows it.
type bygone struct {
	reader *journal.Reader
	shown  int64 // the record up to which its object shows it
}

// unsettled looks at the next run of this vault that is over, and of which the object says that
// something is left to people. What others have written of it since is shown; what they asked
// for through the vault is written here, at the run's target.
func (d *desk) unsettled(ctx context.Context) error {
	now := d.c.Now()
	if now.Sub(d.settled) < settleEvery {
		return nil
	}
	d.settled = now
	o, err := d.nextUnsettled(ctx)
	if err != nil || o == nil {
		return err
	}
	b := d.bygone[o.Name]
	if b == nil {
		b = &bygone{reader: journal.Follow(d.project, o.Name)}
		if d.bygone == nil {
			d.bygone = map[string]*bygone{}
		}
		d.bygone[o.Name] = b
	}
	s, err := b.reader.Next(ctx)
	switch {
	case errors.Is(err, vault.ErrNotFound): // the vault was replaced: people see to the object
		return nil
	case register.Unreadable(err):
		d.c.Log.Debug("runs: the journal of a run that left something cannot be read", "vault", d.vault, "run", o.Name, "error", err)
		return nil
	case err != nil:
		return err
	}
	if s.Spec.To == d.c.Site {
		if err := d.settle(ctx, s); err != nil {
			return fmt.Errorf("settle what run %s left: %w", o.Name, err)
		}
		if s, err = b.reader.Next(ctx); err != nil {
			return err
		}
	}
	if s.Sequence == b.shown || !s.Phase.Over() {
		return nil
	}
	old := o.DeepCopy()
	Status(o, s, nil)
	if err := d.c.Client.Status().Patch(ctx, o, client.MergeFrom(old)); client.IgnoreNotFound(err) != nil {
		return fmt.Errorf("show what run %s left: %w", o.Name, err)
	}
	if o.Status.Next == "" {
		d.c.Events.Event(o, corev1.EventTypeNormal, v1alpha1.ConditionSettled, "people have seen to all that the run left")
	}
	b.shown = s.Sequence
	return nil
}

// nextUnsettled is the one after that of the last look, in the order of their names; nil: there
// is none. So many runs cost no more than one.
func (d *desk) nextUnsettled(ctx context.Context) (*v1alpha1.Run, error) {
	var list v1alpha1.RunList
	if err := d.c.Client.List(ctx, &list); err != nil {
		return nil, fmt.Errorf("list Runs: %w", err)
	}
	var names []string
	found := map[string]*v1alpha1.Run{}
	for i := range list.Items {
		o := &list.Items[i]
		if !ended(o) || o.Status.Next == "" || o.Status.Sequence == 0 || !o.DeletionTimestamp.IsZero() {
			continue
		}
		of, err := d.vaultOf(ctx, o)
		if err != nil {
			return nil, err
		}
		if of == d.vault {
			names = append(names, o.Name)
			found[o.Name] = o.DeepCopy()
		}
	}
	for name := range d.bygone {
		if found[name] == nil {
			delete(d.bygone, name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	slices.Sort(names)
	at, here := slices.BinarySearch(names, d.turn)
	if here {
		at++
	}
	d.turn = names[at%len(names)]
	return found[d.turn], nil
}

// settle writes into the journal of a run that is over what people asked for through the vault, as
// far as they may.
func (d *desk) settle(ctx context.Context, s *failover.State) error {
	run := s.Spec.Run
	people := permit.Requests{Requests: mailbox.New(d.project), Client: d.c.Client, Plan: s.Spec.Plan, Steps: s.Spec.Steps}
	for {
		r, err := people.Next(ctx, run)
		if err != nil || r == nil {
			return err
		}
		whyNot := r.Denied
		switch {
		case r.Kind != failover.Settle:
			whyNot = "the run is over: " + string(s.Phase)
		case whyNot == "":
			w := settlement.Word{By: r.By, Reason: r.Note, Step: r.Step, Request: r.Number}
			if _, whyNot, err = settlement.Write(ctx, d.project, run, d.c.Process, w, d.c.Now); err != nil {
				return err
			}
			if _, err := evidence.Publish(ctx, d.project, run); err != nil { // it can be made later
				d.c.Log.Warn("runs: report", "vault", d.vault, "run", run, "error", err)
			}
		}
		if err := people.Reply(ctx, run, r.Number, whyNot); err != nil {
			return err
		}
	}
}
