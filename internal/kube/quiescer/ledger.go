package quiescer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/util/retry"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/quiesce"
)

const (
	// LabelOwed marks the ConfigMaps in davit-system that say what must still
	// be undone in an application after a cut.
	LabelOwed = "davit.dev/owed"
	owedKey   = "debt.json"
	// maxOwed bounds what is kept of one application: more are of pods that
	// are long gone.
	maxOwed = 1000
	// collectors bounds the applications whose debt is collected at a time.
	collectors = 8
)

// Ledger keeps debts in ConfigMaps of davit-system, one for each application.
// One Ledger serves all captures of a process: it knows which of them live.
type Ledger struct {
	api typed.ConfigMapInterface

	mu    sync.Mutex
	turns map[string]chan struct{} // by application; full while somebody acts
	held  map[string]bool          // by captures
}

var _ quiesce.Ledger = (*Ledger)(nil)

// NewLedger makes one that acts with the rights of a client.
func NewLedger(client kubernetes.Interface) *Ledger {
	return &Ledger{
		api:   client.CoreV1().ConfigMaps(v1alpha1.SystemNamespace),
		turns: map[string]chan struct{}{}, held: map[string]bool{},
	}
}

func (l *Ledger) turn(application string) chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.turns[application] == nil {
		l.turns[application] = make(chan struct{}, 1)
	}
	return l.turns[application]
}

// Owe implements quiesce.Ledger. It waits for whoever collects the debt of the
// application just now.
func (l *Ledger) Owe(ctx context.Context, d quiesce.Debt) error {
	select {
	case l.turn(d.Application) <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait until an older capture's hooks have been undone: %w", ctx.Err())
	}
	l.mu.Lock()
	l.held[d.Application] = true
	l.mu.Unlock()
	return l.change(ctx, d.Application, func(owed []quiesce.Owed) []quiesce.Owed {
		return append(without(owed, d.Owed), d.Owed...)
	})
}

// Leave implements quiesce.Ledger.
func (l *Ledger) Leave(ctx context.Context, application string, done []quiesce.Owed) error {
	err := l.change(ctx, application, func(owed []quiesce.Owed) []quiesce.Owed { return without(owed, done) })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[application] {
		delete(l.held, application)
		<-l.turns[application]
	}
	return err
}

// without leaves out what is in the other list.
func without(owed, done []quiesce.Owed) []quiesce.Owed {
	return slices.DeleteFunc(slices.Clone(owed), func(o quiesce.Owed) bool {
		return slices.ContainsFunc(done, func(d quiesce.Owed) bool { return reflect.DeepEqual(o, d) })
	})
}

// recordName is that of an application's ConfigMap.
func recordName(application string) string {
	sum := sha256.Sum256([]byte(application))
	return "davit-owed-" + hex.EncodeToString(sum[:10])
}

// change changes a record, whoever else changes it, and removes an empty one.
func (l *Ledger) change(ctx context.Context, application string, change func([]quiesce.Owed) []quiesce.Owed) error {
	err := retry.OnError(retry.DefaultBackoff, func(err error) bool {
		return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
	}, func() error { return l.changeOnce(ctx, application, change) })
	if err != nil {
		return fmt.Errorf("write ConfigMap %s/%s: %w", v1alpha1.SystemNamespace, recordName(application), err)
	}
	return nil
}

func (l *Ledger) changeOnce(ctx context.Context, application string, change func([]quiesce.Owed) []quiesce.Owed) error {
	old, err := l.api.Get(ctx, recordName(application), metav1.GetOptions{})
	found := !apierrors.IsNotFound(err)
	if err != nil && found {
		return err
	}
	debt := quiesce.Debt{Application: application}
	if found {
		if debt, err = Read(old); err != nil {
			return err
		}
	}
	debt.Owed = change(debt.Owed)
	switch {
	case len(debt.Owed) > maxOwed:
		return fmt.Errorf("%d commands are owed to %s already: see why they fail in the agent's log", len(debt.Owed), application)
	case len(debt.Owed) == 0 && !found:
		return nil
	case len(debt.Owed) == 0:
		gone := metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &old.UID, ResourceVersion: &old.ResourceVersion}}
		return ignoreNotFound(l.api.Delete(ctx, old.Name, gone))
	}
	text, err := json.Marshal(debt)
	if err != nil {
		return err
	}
	if !found {
		_, err = l.api.Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{
				Name:        recordName(application),
				Labels:      map[string]string{LabelOwed: "true", v1alpha1.LabelManagedBy: "davit"},
				Annotations: map[string]string{v1alpha1.LabelApplication: application},
			},
			Data: map[string]string{owedKey: string(text)},
		}, metav1.CreateOptions{})
		return err
	}
	old.Data = map[string]string{owedKey: string(text)}
	_, err = l.api.Update(ctx, old, metav1.UpdateOptions{})
	return err
}

func ignoreNotFound(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// Read reads a record. One that cannot be read, or is not where the ledger
// keeps it, is for a person: what was in it may still have to be undone.
func Read(record *corev1.ConfigMap) (quiesce.Debt, error) {
	var d quiesce.Debt
	err := json.Unmarshal([]byte(record.Data[owedKey]), &d)
	if err == nil && d.Application == "" {
		err = errors.New("it names no application")
	}
	if err == nil && record.Name != recordName(d.Application) {
		err = fmt.Errorf("it is not where what is owed to %s is kept", d.Application)
	}
	if err != nil {
		return d, fmt.Errorf("read what is owed from ConfigMap %s: %w: undo by hand what the application's hooks did, and remove it", record.Name, err)
	}
	return d, nil
}

// Permits is the Permit for what an application is owed.
type Permits func(ctx context.Context, application string) quiesce.Permit

// Collect undoes what captures that died have done: those of other processes,
// as those of this one that live are left alone, and so is what is not
// permitted. It returns how much could not be undone.
func (l *Ledger) Collect(ctx context.Context, permits Permits, runner quiesce.Runner) (left int, err error) {
	list, err := l.api.List(ctx, metav1.ListOptions{LabelSelector: LabelOwed + "=true"})
	if err != nil {
		return 0, fmt.Errorf("list what is owed to applications: %w", err)
	}
	lefts, errs := make([]int, len(list.Items)), make([]error, len(list.Items))
	var g errgroup.Group
	g.SetLimit(collectors)
	for i := range list.Items {
		g.Go(func() error {
			lefts[i], errs[i] = l.collect(ctx, &list.Items[i], permits, runner)
			return nil
		})
	}
	_ = g.Wait() // errors are in errs
	for _, n := range lefts {
		left += n
	}
	return left, errors.Join(errs...)
}

func (l *Ledger) collect(ctx context.Context, record *corev1.ConfigMap, permits Permits, runner quiesce.Runner) (left int, err error) {
	d, err := Read(record)
	if err != nil {
		return 1, err
	}
	turn := l.turn(d.Application)
	select {
	case turn <- struct{}{}:
	default:
		return 0, nil // a capture of this process answers for it
	}
	defer func() { <-turn }()
	// It may have been settled between the list and our turn.
	if record, err = l.api.Get(ctx, record.Name, metav1.GetOptions{}); err != nil {
		return 0, ignoreNotFound(err)
	}
	if d, err = Read(record); err != nil {
		return 1, err
	}
	done, err := quiesce.Collect(ctx, d, permits(ctx, d.Application), runner)
	if err != nil {
		err = fmt.Errorf("undo what a capture of %s that died has done: %w", d.Application, err)
	}
	settled := l.change(ctx, d.Application, func(owed []quiesce.Owed) []quiesce.Owed { return without(owed, done) })
	return len(d.Owed) - len(done), errors.Join(err, settled)
}
