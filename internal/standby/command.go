package standby

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/standby/errand"
)

const (
	// jobLook is how often a Job is looked at in the beginning, and jobSeldom in the end: a
	// twentieth of the time that it has been waited for lies between two looks.
	jobLook, jobSeldom = 500 * time.Millisecond, 5 * time.Second
	// jobTail is how long the rest of what an ended Job said is waited for.
	jobTail = 2 * time.Second
	// jobStop is how long whoever listens has to say what he heard once he is asked to.
	jobStop = time.Second
)

// between is how long to wait between two looks at a Job that was waited for since then.
func between(since time.Time) time.Duration {
	return min(max(time.Since(since)/20, jobLook), jobSeldom)
}

// command runs a step's Job, in davit-system: whoever may change a plan decides
// what runs there. A look finds the Job.
func (s *Site) command(ctx context.Context, o execute.Order) execute.Answer {
	what := o.Step.Command
	if o.Action == failover.Undo {
		what = o.Step.Undo
	}
	return s.runs(ctx, o, what)
}

// runs does what a step's Job does, or looks for it. Of a Job that says what came of
// it, in its last line, that is the note.
func (s *Site) runs(ctx context.Context, o execute.Order, what *plan.Command, more ...func(*unstructured.Unstructured)) execute.Answer {
	c := s.o.Recovery.Cluster
	at, err := serving(ctx, c, shape.KindJob)
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if o.Action == failover.Look {
		return s.lookAtJobs(ctx, c, at, errand.ID(o), o.Step)
	}
	if what == nil {
		return execute.Refuse("the step has no command")
	}
	wanted := errand.New(o, s.o.Recovery.VaultName, what)
	for _, change := range more {
		change(wanted)
	}
	name := wanted.GetName()
	if a := s.turn(ctx, c, at, o, name); a.Outcome != failover.NotDone {
		return a
	}
	before := s.hide(ctx, o.Step)
	if a := errand.Begin(ctx, c, at, s.marks, o, wanted); a.Outcome != failover.Done {
		return a
	}
	said, stop := s.follow(ctx, name)
	defer stop()
	begun := time.Now()
	for next := begun.Add(strandedLook); ; {
		live, err := c.Get(ctx, at, v1alpha1.SystemNamespace, name)
		if err == nil {
			switch end := errand.Ended(live); end {
			case "Complete", "Failed":
				return s.outcome(ctx, live, end, s.hide(ctx, o.Step).with(before), said)
			}
		}
		if apierrors.IsNotFound(err) { // else it would be waited for until the step's time is over
			return execute.Refuse("Job %s/%s was deleted before it had ended: see what it did until then, and retry the step when none of its pods is left", v1alpha1.SystemNamespace, name)
		}
		if time.Now().After(next) {
			if why, _ := s.stranded(ctx, c, errand.ID(o)); why != "" { // looks go on from here, and tell people
				return execute.Unknown("Job %s/%s has not ended: %s", v1alpha1.SystemNamespace, name, why)
			}
			next = time.Now().Add(strandedLook)
		}
		select {
		case <-ctx.Done():
			return execute.Unknown("Job %s has not ended", name)
		case <-time.After(between(begun)):
		}
	}
}

// outcome is what came of an act's Job that has ended.
func (s *Site) outcome(ctx context.Context, live *unstructured.Unstructured, end string, h hidden, said func() string) execute.Answer {
	name := live.GetName()
	if end == "Complete" {
		note, text := s.told(ctx, name, h)
		return execute.Answer{Outcome: failover.Done, Note: "Job " + name + note, Guard: execute.Guarded, Said: text}
	}
	why, text := s.lastWords(ctx, name, live, h, said)
	answer := execute.Refuse("Job %s/%s failed: %s", v1alpha1.SystemNamespace, name, why)
	answer.Said = text
	return answer
}

// follow listens to what a Job says from its start: the site takes the pod of one that
// it ends away, and its log with it. said waits for the rest of it, but never for long:
// whoever listens may not notice that he was asked to stop. stop ends it.
func (s *Site) follow(ctx context.Context, name string) (said func() string, stop func()) {
	if s.o.JobTail == nil {
		return unwatched, func() {}
	}
	ctx, stop = context.WithCancel(ctx)
	done := make(chan string, 1)
	go func() { done <- s.o.JobTail(ctx, v1alpha1.SystemNamespace, name) }()
	return func() string {
		for _, patience := range []time.Duration{jobTail, jobStop} {
			select {
			case heard := <-done:
				return heard
			case <-time.After(patience):
				stop()
			}
		}
		return ""
	}, stop
}

// unwatched is what is known of a Job that nobody listened to.
func unwatched() string { return "" }

// told is what a Job that speaks to Davit said last: ": " and the rest of a line that
// begins with "davit: "; and what is kept of all it said.
func (s *Site) told(ctx context.Context, name string, h hidden) (note, kept string) {
	if s.o.JobLog == nil {
		return "", ""
	}
	text, err := s.o.JobLog(ctx, v1alpha1.SystemNamespace, name)
	if err != nil {
		return "", "" // it is done, whatever it said
	}
	kept = h.keep(text)
	said := last(kept)
	if i := strings.LastIndex(said, spoken); i >= 0 {
		note = ": " + said[i+len(spoken):]
	}
	return note, kept
}

// lastWords are why a Job failed, for people: the end of what it said, as a drill's
// clean-up takes its log away. Of one that said nothing it is what the Job says. said is
// what was heard of it while it ran. kept is what is kept of all it said.
func (s *Site) lastWords(ctx context.Context, name string, live *unstructured.Unstructured, h hidden, said func() string) (words, kept string) {
	why := "it said nothing"
	for _, c := range shape.Items(live.Object, "status", "conditions") {
		if shape.Text(c, "type") == "Failed" && shape.Text(c, "message") != "" {
			why += ", and the Job: " + shape.Text(c, "message")
		}
	}
	if s.o.JobLog == nil {
		return "its log says why", ""
	}
	text, err := s.o.JobLog(ctx, v1alpha1.SystemNamespace, name)
	if err != nil || strings.TrimSpace(text) == "" { // its pod is gone
		if heard := said(); strings.TrimSpace(heard) != "" {
			text, err = heard, nil
		}
	}
	switch {
	case err != nil:
		return fmt.Sprintf("what it said is not known: %v", err), ""
	case strings.TrimSpace(text) == "":
		return why, ""
	}
	kept = h.keep(text)
	return last(kept), kept
}

// last are the last lines of a text, in one.
func last(text string) string {
	const lines, runes = 5, 500
	all := slices.DeleteFunc(strings.Split(strings.ToValidUTF8(text, "?"), "\n"), func(line string) bool { return strings.TrimSpace(line) == "" })
	all = all[max(0, len(all)-lines):]
	for i := range all {
		all[i] = strings.Map(func(r rune) rune {
			if unicode.IsControl(r) {
				return ' '
			}
			return r
		}, strings.TrimSpace(all[i]))
	}
	said := []rune(strings.Join(all, " | "))
	if len(said) > runes {
		return "..." + string(said[len(said)-runes:])
	}
	return string(said)
}

// turn waits, before a step is taken back, until no other Job of it runs: what takes it
// back would run beside what it takes back, and that could make all of it once more. NotDone:
// nothing runs. Done: it was taken back before. Acts need no turn, as a look came before.
func (s *Site) turn(ctx context.Context, c restore.Cluster, at restore.Served, o execute.Order, name string) execute.Answer {
	if o.Action != failover.Undo {
		return execute.NotDone("")
	}
	if _, err := c.Get(ctx, at, v1alpha1.SystemNamespace, name); err == nil {
		return execute.NotDone("") // it was its turn, and it is its own
	}
	act := o
	act.Action = failover.Act
	since := time.Now()
	unsettled := func(a execute.Answer) bool { return a.Outcome == failover.Busy || a.Outcome == failover.NoAnswer }
	for {
		found, undone := s.lookAtJobs(ctx, c, at, errand.ID(act), o.Step), s.lookAtJobs(ctx, c, at, errand.ID(o), o.Step)
		if unsettled(undone) {
			found = undone
		}
		switch {
		case !unsettled(found) && undone.Outcome == failover.Done:
			return undone
		case !unsettled(found):
			return execute.NotDone("")
		case found.Stuck:
			return execute.Unknown("it is taken back once no other Job of the step runs: %s", found.Note)
		}
		select {
		case <-ctx.Done():
			return execute.Unknown("it is taken back once no other Job of the step runs, and one has not ended. %s", found.Note)
		case <-time.After(between(since)):
		}
	}
}

// lookAtJobs says what has come of a step's Jobs, with what they said, whoever made them. What
// has not begun never will, whoever is about to begin it: else nobody could say that the step
// was not done.
func (s *Site) lookAtJobs(ctx context.Context, c restore.Cluster, at restore.Served, id string, step plan.Step) execute.Answer {
	answer := execute.NotDone("")
	err := c.List(ctx, at, v1alpha1.SystemNamespace, errand.LabelStep+"="+id, func(u *unstructured.Unstructured) error {
		if none, err := errand.Withdraw(ctx, c, at, u); none || err != nil {
			return err
		}
		switch errand.Ended(u) {
		case "Complete":
			note, text := s.told(ctx, u.GetName(), s.hide(ctx, step))
			answer = execute.Done("Job %s%s", u.GetName(), note)
			answer.Said = text
		case "Failed":
			if answer.Outcome == failover.NotDone {
				why, text := s.lastWords(ctx, u.GetName(), u, s.hide(ctx, step), unwatched)
				answer = execute.NotDone("Job %s/%s failed: %s", v1alpha1.SystemNamespace, u.GetName(), why)
				answer.Said = text
			}
		case "":
			if answer.Outcome != failover.Done {
				answer = execute.Answer{Outcome: failover.Busy}
			}
		}
		return nil
	})
	if err != nil {
		return execute.Unknown("%v", err)
	}
	if answer.Outcome == failover.Busy {
		why, err := s.stranded(ctx, c, id)
		if err != nil {
			return execute.Unknown("its Job has not ended, and whether its pod answers is not known: %v", err)
		}
		if why != "" {
			answer.Note, answer.Stuck = "its Job has not ended: "+why, true
		}
	}
	return answer
}
