package cli

import (
	"context"
	"fmt"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/access"
	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/reports"
	"davit.dev/davit/internal/cli/view"
	"davit.dev/davit/internal/cli/waiting"
	"davit.dev/davit/internal/recovery"
)

// endGrace is how long a restore whose time is over may take to say why.
const endGrace = time.Minute

// restoreInBackground has the agent restore, and follows it.
func (e *env) restoreInBackground(ctx context.Context, c client.WithWatch, in *access.Opened, o *order.Restore) error {
	o.Limit = e.global.timeout
	if o.Limit > 0 { // the restore ends by itself then, and says why
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, o.Limit+e.grace, fmt.Errorf("%w after %s", exit.ErrTimeout, output.Duration(o.Limit+e.grace)))
		defer cancel()
	}
	r := o.Object(in.VaultName, e.now())
	standing, err := in.Protector(e.now).Standing(ctx, o.Options.Application)
	if err != nil {
		return err
	}
	r.Spec.Epoch = &standing.Current.Number // an agent that comes to it late must not fight over a newer one
	if err := c.Create(ctx, r); err != nil {
		return fmt.Errorf("ask for a restore: %w", err)
	}
	e.progress.Step("restore %s", r.Name)
	err = waiting.For(ctx, c, r, func(ctx context.Context) (bool, error) {
		if err := c.Get(ctx, client.ObjectKeyFromObject(r), r); err != nil {
			return false, fmt.Errorf("look at restore %s: %w", r.Name, err)
		}
		if r.Status.Step != "" {
			e.progress.Step("%s", r.Status.Step)
		}
		return view.Ended(r), nil
	})
	if err != nil {
		return exit.Hint(fmt.Errorf("follow restore %s: %w", r.Name, err), "it goes on by itself: `logs restore "+r.Name+"`")
	}
	if err := e.print(view.RestoreObject{Restore: r}); err != nil {
		return err
	}
	switch r.Status.Phase {
	case v1alpha1.RestoreFailed:
		return e.failedRestore(r)
	case v1alpha1.RestoreWarned:
		return exit.Quietly(exit.Warnings)
	}
	return nil
}

// failedRestore gives a background restore the exit code it would have had in
// the foreground: one that did not begin was refused.
func (e *env) failedRestore(r *v1alpha1.Restore) error {
	why := fmt.Errorf("restore %s: %s", r.Name, view.Condition(r.Status.Conditions, v1alpha1.ConditionReady))
	code := exit.Failed
	if r.Status.Restored == 0 && r.Status.Epoch == 0 {
		code = exit.Refused
	}
	return &exit.Error{Code: code, Err: why, Hint: "`logs restore " + r.Name + "` tells more"}
}

// keepReport keeps a foreground restore's report in davit-system, for `logs
// restore`. Without the right to do so it is only printed.
func (e *env) keepReport(ctx context.Context, c client.Client, report *recovery.Report) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := reports.Keep(ctx, c, report); err != nil {
		e.progress.Note("note: the report is not kept in the cluster: %v", err)
	}
}
