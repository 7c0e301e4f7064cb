// Package speaker tells consoles what a cluster's agent knows: how its objects
// stand, and what happens to them. Which consoles, the Secret davit-console says.
// Nothing else of the agent waits for it.
package speaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/agent/beginning"
	"davit.dev/davit/internal/agent/documents"
	"davit.dev/davit/internal/agent/restoring"
	"davit.dev/davit/internal/agent/stash"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/dial"
	"davit.dev/davit/internal/uplink/outbox"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/version"
)

const (
	// lookEvery is how often it is looked for consoles, and how objects stand.
	lookEvery = 5 * time.Second
	// waiting is how many events may wait to be put into an outbox.
	waiting = 1024
)

// Speaker tells consoles. It runs in the leader only.
type Speaker struct {
	Client client.Client
	// Reader asks the API server itself.
	Reader client.Reader
	// Vaults are asked before what a console made is taken away, and where the
	// active console is.
	Vaults Vaults
	// Access is what dry runs of restores work with.
	Access restoring.Access
	Site   string
	// Dir is where the outboxes are.
	Dir string
	Now func() time.Time
	Log *slog.Logger

	once    sync.Once
	happens chan happening
	dropped atomic.Int64
	lines   map[string]*line // by project
	said    string           // in the condition
	turns   restoring.Turns
}

// Vaults opens vaults by the name of their objects.
type Vaults interface {
	documents.Vaults
	Project(ctx context.Context, name string) (*vault.Project, error)
}

// line is the way to one project's console.
type line struct {
	client *dial.Client
	// stash keeps what waits in the cluster, too.
	stash *stash.Stash
	stop  func()

	mu     sync.Mutex
	status dial.Status
}

func (l *line) tell(s dial.Status) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.status = s
}

func (l *line) says() dial.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

func (s *Speaker) queue() chan happening {
	s.once.Do(func() { s.happens = make(chan happening, waiting) })
	return s.happens
}

// NeedLeaderElection implements manager.LeaderElectionRunnable.
func (s *Speaker) NeedLeaderElection() bool { return true }

// Start speaks until ctx is done.
func (s *Speaker) Start(ctx context.Context) error {
	s.lines, s.turns = map[string]*line{}, restoring.NewTurns()
	defer s.end(ctx)
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	s.look(ctx)
	for {
		select {
		case <-ctx.Done():
			return nil
		case h := <-s.queue():
			s.happened(ctx, h)
		case <-tick.C:
			s.look(ctx)
		}
	}
}

// look opens and closes lines as the Secret says, and says how objects stand.
func (s *Speaker) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var secret corev1.Secret
	err := s.Reader.Get(ctx, client.ObjectKey{Namespace: v1alpha1.SystemNamespace, Name: SecretName}, &secret)
	if client.IgnoreNotFound(err) != nil {
		s.Log.Warn("consoles are not known", "error", err)
		return
	}
	for project := range s.lines {
		if _, ok := secret.Data[project]; !ok {
			s.hangUp(ctx, project, true)
		}
	}
	for project, data := range secret.Data {
		if l := s.lines[project]; l != nil && l.says().Connected {
			if link, err := parse(data); err == nil && link.Token != "" {
				s.hangUp(ctx, project, false) // it was given a new way in
			}
		}
		if s.lines[project] == nil && vault.CheckName(project) == nil {
			if err := s.dial(ctx, project); err != nil {
				s.Log.Warn("a console cannot be told", "project", project, "error", err)
			}
		}
	}
	n := s.dropped.Swap(0)
	for project, l := range s.lines {
		if n > 0 {
			l.client.Outbox.Drop(n)
		}
		if err := l.keep(ctx, s.Now()); err != nil {
			s.Log.Warn("what waits for a console is on the pod's disk alone", "project", project, "error", err)
		}
		objects, err := s.gather(ctx, project)
		if err != nil {
			s.Log.Warn("how objects stand is not known", "project", project, "error", err)
			continue
		}
		l.client.Board.Put(objects)
	}
	if err := s.note(ctx); err != nil {
		s.Log.Warn("how consoles are reached was not noted", "error", err)
	}
}

// dial begins to call a project's console.
func (s *Speaker) dial(ctx context.Context, project string) error {
	box, err := outbox.Open(filepath.Join(s.Dir, project), 0)
	if err != nil {
		return err
	}
	kept, err := stash.Open(ctx, s.Client, s.Reader, project, box)
	if err != nil {
		return errors.Join(err, box.Close())
	}
	l := &line{stash: kept, status: dial.Status{Fault: "it has not been called yet"}}
	l.client = &dial.Client{
		Site: s.Site, Version: version.String(), Keep: &keeper{client: s.Client, reader: s.Reader, project: project},
		Hands:    &documents.Keeper{Client: s.Client, Reader: s.Reader, Vaults: s.Vaults, Site: s.Site, Project: project},
		Begins:   &beginning.Beginner{Client: s.Client, Reader: s.Reader, Site: s.Site, Project: project},
		Restores: &restoring.Restorer{Client: s.Client, Reader: s.Reader, Access: s.Access, Site: s.Site, Project: project, Turns: s.turns, Now: s.Now},
		Vault:    signpost{s, project},
		Board:    dial.NewBoard(), Outbox: box, Left: s.left(project, kept.Left()), Tell: l.tell, Now: s.Now,
	}
	calling, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		l.client.Run(calling)
	}()
	l.stop = func() {
		cancel()
		<-ended
	}
	s.lines[project] = l
	return nil
}

// left takes up what agents have left that are gone.
func (s *Speaker) left(project string, all []stash.Left) (boxes []*outbox.Outbox) {
	for _, one := range all {
		box, err := outbox.Adopt(filepath.Join(s.Dir, project, "left-"+one.ID), one.ID, one.Events)
		if err != nil {
			s.Log.Warn("what another agent left for the console is not told now", "project", project, "error", err)
			continue
		}
		boxes = append(boxes, box)
	}
	return boxes
}

// keep keeps in the cluster what has waited for a while, and lets go what a console has.
// With a zero now it keeps all that waits.
func (l *line) keep(ctx context.Context, now time.Time) error {
	for _, box := range l.client.Left {
		if box.Len() == 0 {
			if err := l.stash.Said(ctx, box.ID()); err != nil {
				return err
			}
		}
	}
	return l.stash.Keep(ctx, now)
}

// hangUp ends a line. What waits is kept for whoever leads next, unless there is nobody
// any more for whom it is.
func (s *Speaker) hangUp(ctx context.Context, project string, gone bool) {
	l := s.lines[project]
	l.stop()
	var err error
	if gone {
		err = l.stash.Clear(ctx)
	} else {
		err = l.keep(ctx, time.Time{})
	}
	for _, box := range append(l.client.Left, l.client.Outbox) {
		err = errors.Join(err, box.Close())
	}
	if err != nil {
		s.Log.Warn("what waits for a console is on the pod's disk alone", "project", project, "error", err)
	}
	delete(s.lines, project)
}

// lastly bounds what is done when an agent ends.
const lastly = 5 * time.Second

// end takes what has happened by now, and keeps it: the pod may go.
func (s *Speaker) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastly)
	defer cancel()
	for {
		select {
		case h := <-s.queue():
			s.happened(ctx, h)
			continue
		default:
		}
		break
	}
	for project := range s.lines {
		s.hangUp(ctx, project, false)
	}
}

// note writes down how consoles are reached, when that changed.
func (s *Speaker) note(ctx context.Context) error {
	c := s.condition()
	said := fmt.Sprint(c.Status, c.Reason, c.Message)
	if said == s.said {
		return nil
	}
	var site v1alpha1.Site
	if err := s.Reader.Get(ctx, client.ObjectKey{Name: s.Site}, &site); err != nil {
		return client.IgnoreNotFound(err)
	}
	old := site.DeepCopy()
	if len(s.lines) == 0 {
		meta.RemoveStatusCondition(&site.Status.Conditions, v1alpha1.ConditionConsole)
	} else {
		meta.SetStatusCondition(&site.Status.Conditions, c)
	}
	if err := s.Client.Status().Patch(ctx, &site, client.MergeFromWithOptions(old, client.MergeFromWithOptimisticLock{})); err != nil {
		return err
	}
	s.said = said
	return nil
}

func (s *Speaker) condition() metav1.Condition {
	c := metav1.Condition{Type: v1alpha1.ConditionConsole, Status: metav1.ConditionTrue, Reason: v1alpha1.ReasonSucceeded}
	var says []string
	for project, l := range s.lines {
		st := l.says()
		text := fmt.Sprintf("project %s: connected to %s, certificate until %s", project, st.URL, st.Ends.UTC().Format(time.DateOnly))
		if !st.Connected {
			c.Status, c.Reason = metav1.ConditionFalse, "NotConnected"
			text = fmt.Sprintf("project %s: not connected: %.300s", project, st.Fault)
			if st.Waiting > 0 {
				text += "; events wait"
			}
		}
		text += papers(l.client.Documents())
		if st.Lost > 0 {
			text += "; events were lost: the outbox was full"
		}
		says = append(says, text)
	}
	slices.Sort(says)
	c.Message = strings.Join(says, "; ")
	return c
}

// papers says how a console's documents stand, and what is wrong with the first.
func papers(all []uplink.Told) string {
	if len(all) == 0 {
		return ""
	}
	var wrong []string
	for _, t := range all {
		if t.State != uplink.Applied {
			name := t.Kind + " " + t.Name
			if t.Namespace != "" {
				name = t.Kind + " " + t.Namespace + "/" + t.Name
			}
			wrong = append(wrong, fmt.Sprintf("%s is %s: %.300s", name, t.State, t.Why))
		}
	}
	if len(wrong) == 0 {
		return fmt.Sprintf("; documents applied: %d", len(all))
	}
	slices.Sort(wrong)
	return fmt.Sprintf("; documents applied: %d of %d, %s", len(all)-len(wrong), len(all), wrong[0])
}

// happened puts an event into the outboxes of the projects that it is of.
func (s *Speaker) happened(ctx context.Context, h happening) {
	for project, l := range s.lines {
		of, err := s.concerns(ctx, h, project)
		if err != nil {
			s.Log.Warn("whose an event is is not known", "object", h.Object.Name, "error", err)
		}
		if !of {
			continue
		}
		if err := l.client.Outbox.Append(h.Event); err != nil {
			s.Log.Warn("an event was not kept for the console", "project", project, "error", err)
		}
	}
}

// concerns tells whether an event is of a project: whose vault the object is in.
func (s *Speaker) concerns(ctx context.Context, h happening, project string) (bool, error) {
	if h.site {
		return true, nil
	}
	var vaults v1alpha1.VaultList
	if err := s.Client.List(ctx, &vaults); err != nil {
		return false, fmt.Errorf("list vaults: %w", err)
	}
	name := h.vault
	if name == "" && h.application != (client.ObjectKey{}) {
		var app v1alpha1.Application
		if err := s.Client.Get(ctx, h.application, &app); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		name = app.Spec.Vault
	}
	if name == "" && h.plan != "" {
		var plan v1alpha1.RecoveryPlan
		if err := s.Client.Get(ctx, client.ObjectKey{Name: h.plan}, &plan); err != nil {
			return false, client.IgnoreNotFound(err)
		}
		name = keptIn(vaults.Items, &plan)
	}
	return of(project, vaults.Items)[name], nil
}

// of are the Vaults of a project.
func of(project string, vaults []v1alpha1.Vault) map[string]bool {
	all := map[string]bool{}
	for _, v := range vaults {
		all[v.Name] = v.Spec.Project == project
	}
	return all
}

// happening is an event on its way to an outbox.
type happening struct {
	uplink.Event
	site        bool   // it is of the whole site
	vault       string // the Vault that it is of, or
	application client.ObjectKey
	plan        string
}
