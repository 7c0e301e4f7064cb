package execute_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
)

// counter is an actuator that sees whether it acted, and counts.
type counter struct {
	acts, undos int
	there       bool
}

func (c *counter) Do(_ context.Context, o execute.Order) execute.Answer {
	switch o.Action {
	case failover.Act:
		c.acts, c.there = c.acts+1, true
	case failover.Undo:
		c.undos, c.there = c.undos+1, false
	default:
		if !c.there {
			return execute.NotDone("")
		}
	}
	return execute.Done("")
}

func order(a failover.Action, n int64) execute.Order {
	return execute.Order{
		Action: a, Run: "r", Step: plan.Step{Name: "scale/shop", Kind: plan.KindScale, Application: "shop"},
		Token: failover.Token{Run: "r", Sequence: n, Epochs: map[string]int64{"shop": 2}},
	}
}

func aged(inner execute.Actuator) *execute.Aged {
	return &execute.Aged{Inner: inner, Marks: &execute.Memory{}, Newest: func(context.Context, string) (int64, error) { return 2, nil }}
}

func want(t *testing.T, what string, got execute.Answer, outcome failover.Outcome) {
	t.Helper()
	if got.Outcome != outcome {
		t.Fatalf("%s: %s (%s), not %s", what, got.Outcome, got.Note, outcome)
	}
}

func TestALookSealsWhatItSaid(t *testing.T) {
	for _, sealed := range []bool{true, false} {
		c := &counter{}
		a := aged(c)
		if sealed {
			want(t, "look", a.Do(t.Context(), order(failover.Look, 5)), failover.NotDone)
		}
		answer := a.Do(t.Context(), order(failover.Act, 5)) // late
		if sealed && (answer.Outcome != failover.NoAnswer || c.acts != 0) {
			t.Fatalf("an order that a look had said was not done was carried out: %+v", answer)
		}
		if !sealed && c.acts != 1 { // the control: nothing else refuses it
			t.Fatalf("without the look it is refused too: %+v", answer)
		}
	}
}

func TestALateActDoesNotUndoAnUndo(t *testing.T) {
	c := &counter{}
	a := aged(c)
	want(t, "act", a.Do(t.Context(), order(failover.Act, 5)), failover.Done)
	want(t, "the same again", a.Do(t.Context(), order(failover.Act, 5)), failover.Done)
	want(t, "undo", a.Do(t.Context(), order(failover.Undo, 9)), failover.Done)
	want(t, "late act", a.Do(t.Context(), order(failover.Act, 5)), failover.NoAnswer)
	want(t, "late act with a number between", a.Do(t.Context(), order(failover.Act, 8)), failover.NoAnswer)
	if c.acts != 1 || c.undos != 1 || c.there {
		t.Fatalf("%+v", c)
	}
}

// TestAnUndoIsOrderedAgain under its number until it is known to be done: nobody looks at
// one. An act is not, as a look may have said since that it was not done.
func TestAnUndoIsOrderedAgain(t *testing.T) {
	for action, want := range map[failover.Action]failover.Outcome{failover.Undo: failover.Done, failover.Act: failover.NoAnswer} {
		tries := 0
		a := aged(execute.Func(func(context.Context, execute.Order) execute.Answer {
			if tries++; tries == 1 {
				return execute.Unknown("the API server is silent")
			}
			return execute.Done("")
		}))
		if got := a.Do(t.Context(), order(action, 5)); got.Outcome != failover.NoAnswer {
			t.Fatalf("%s: %+v", action, got)
		}
		if got := a.Do(t.Context(), order(action, 5)); got.Outcome != want {
			t.Errorf("%s again: %+v, want %s", action, got, want)
		}
		if got := a.Do(t.Context(), order(action, 4)); got.Outcome != failover.NoAnswer {
			t.Errorf("an older %s: %+v", action, got)
		}
	}
}

func TestAnOlderEpochIsRefused(t *testing.T) {
	c := &counter{}
	a := aged(c)
	o := order(failover.Act, 5)
	o.Token.Epochs["shop"] = 1
	want(t, "act", a.Do(t.Context(), o), failover.Superseded)
	o.Action, o.Step.Kind = failover.Undo, plan.KindQuiesce
	want(t, "letting go", a.Do(t.Context(), o), failover.Done)
	if c.acts != 0 {
		t.Fatal("it was carried out")
	}
}

func TestADrillThatIsCleanedUpStaysClean(t *testing.T) {
	c := &counter{}
	a := aged(c)
	clone, clean := order(failover.Act, 5), order(failover.Act, 7)
	clone.Sandbox, clean.Sandbox = "r", "r"
	clean.Step = plan.Step{Name: "cleanup", Kind: plan.KindCleanup}
	want(t, "cleanup", a.Do(t.Context(), clean), failover.Done)
	want(t, "late clone", a.Do(t.Context(), clone), failover.Refused)
	if c.acts != 1 {
		t.Fatal("a clone came after its cleanup")
	}
}

func TestWhoCannotSeeSaysWhatTheMarksSay(t *testing.T) {
	c := &counter{}
	marks := &execute.Memory{}
	a := &execute.Aged{Inner: c, Marks: marks, Blind: true}
	want(t, "before", a.Do(t.Context(), order(failover.Look, 1)), failover.NotDone)
	want(t, "act", a.Do(t.Context(), order(failover.Act, 2)), failover.Done)
	want(t, "after", a.Do(t.Context(), order(failover.Look, 2)), failover.Done)
	// Another one was begun, and its process died.
	if err := marks.Save(t.Context(), "r", "scale/web", execute.Mark{Seen: 4, Began: 4, Last: failover.Act}); err != nil {
		t.Fatal(err)
	}
	o := order(failover.Look, 4)
	o.Step.Name = "scale/web"
	want(t, "after a crash", a.Do(t.Context(), o), failover.NoAnswer)
}

var errSilent = errors.New("the API server is silent")

// failing is marks that fail at one of their calls to Save, or more, or while they are not to be read.
type failing struct {
	execute.Memory
	at, saves, times int   // times: 0 is 1
	with             error // nil: the API server is silent
	unread           bool
}

func (f *failing) Load(ctx context.Context, run, step string) (execute.Mark, error) {
	if f.unread {
		return execute.Mark{}, errSilent
	}
	return f.Memory.Load(ctx, run, step)
}

func (f *failing) Save(ctx context.Context, run, step string, m execute.Mark) error {
	if f.saves++; f.at > 0 && f.saves >= f.at && f.saves < f.at+max(f.times, 1) {
		return cmp.Or(f.with, errSilent)
	}
	return f.Memory.Save(ctx, run, step, m)
}

// TestWhatCouldNotBeNotedIsNotDoneForTheBlind: the step's point is in the marks
// alone, and who comes later would miss it for ever.
func TestWhatCouldNotBeNotedIsNotDoneForTheBlind(t *testing.T) {
	for _, blind := range []bool{true, false} {
		point := &failover.Point{}
		inner := execute.Func(func(context.Context, execute.Order) execute.Answer {
			return execute.Answer{Outcome: failover.Done, Point: point}
		})
		a := &execute.Aged{Inner: inner, Marks: &failing{at: 2}, Blind: blind, Again: true}
		if !blind {
			want(t, "who sees", a.Do(t.Context(), order(failover.Act, 2)), failover.Done)
			continue
		}
		want(t, "act", a.Do(t.Context(), order(failover.Act, 2)), failover.NoAnswer)
		want(t, "look", a.Do(t.Context(), order(failover.Look, 2)), failover.NotDone)
		want(t, "act again", a.Do(t.Context(), order(failover.Act, 3)), failover.Done)
		if got := a.Do(t.Context(), order(failover.Look, 3)); got.Outcome != failover.Done || got.Point != point {
			t.Errorf("the point is lost: %+v", got)
		}
	}
}

// TestWhatWasSupersededBeforeItWasSentIsNotDone: a step that runs beside the run's own claim may
// be superseded between its mark and its call. Nothing was sent, so it is ordered again under
// the newer epoch, and no person is asked what came of it.
func TestWhatWasSupersededBeforeItWasSentIsNotDone(t *testing.T) {
	marks, newest, sent := &execute.Memory{}, int64(2), 0
	known := func(context.Context, string) (int64, error) { return newest, nil }
	doze := func() { newest = 3 }
	a := &execute.Aged{Marks: marks, Newest: known, Blind: true, Inner: execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
		doze()
		if late := execute.Late(ctx, marks, known, o); late != nil {
			return *late
		}
		sent++
		return execute.Unknown("the answer is lost")
	})}
	want(t, "act", a.Do(t.Context(), order(failover.Act, 5)), failover.Superseded)
	want(t, "look", a.Do(t.Context(), order(failover.Look, 5)), failover.NotDone)
	o := order(failover.Act, 6)
	o.Token.Epochs["shop"] = 3
	want(t, "act again", a.Do(t.Context(), o), failover.NoAnswer)
	want(t, "look at what was sent", a.Do(t.Context(), order(failover.Look, 6)), failover.NoAnswer) // the control
	if sent != 1 {
		t.Errorf("it was sent %d times", sent)
	}
}

// TestWhatWasNotSentIsOrderedAgain: the vault, or the API server, is silent for a moment just before a call. Nothing
// was sent, which the mark says as soon as it can be changed, and no person is asked. The control is one whose mark cannot
// be changed either.
func TestWhatWasNotSentIsOrderedAgain(t *testing.T) {
	for name, c := range map[string]struct {
		vault, api, forget bool // is silent
		want               failover.Outcome
	}{
		"the vault":           {vault: true, want: failover.NoAnswer},
		"the API server":      {api: true, want: failover.NoAnswer},
		"nor can it be noted": {vault: true, forget: true, want: failover.Refused},
	} {
		t.Run(name, func(t *testing.T) {
			marks, sent, silent := &failing{}, 0, true
			if c.forget {
				marks.at = 2
			}
			known := func(context.Context, string) (int64, error) {
				if c.vault && silent {
					return 0, errors.New("the vault is silent")
				}
				return 2, nil
			}
			a := &execute.Aged{Marks: marks, Blind: true, Inner: execute.Func(func(ctx context.Context, o execute.Order) execute.Answer {
				marks.unread = c.api && silent
				late := execute.Late(ctx, marks, known, o)
				marks.unread = false
				if late != nil {
					return *late
				}
				sent++
				return execute.Done("")
			})}
			want(t, "act", a.Do(t.Context(), order(failover.Act, 5)), c.want)
			if silent = false; c.want == failover.Refused {
				return
			}
			want(t, "look", a.Do(t.Context(), order(failover.Look, 5)), failover.NotDone)
			want(t, "act again", a.Do(t.Context(), order(failover.Act, 6)), failover.Done)
			if sent != 1 {
				t.Errorf("it was sent %d times", sent)
			}
		})
	}
}

// TestWhoIsLookedForMeanwhileIsNoted: another process looks for a step while it is carried out, and changes its mark when that
// is about to say that it has ended.
func TestWhoIsLookedForMeanwhileIsNoted(t *testing.T) {
	for times, outcome := range map[int]failover.Outcome{1: failover.Done, 2: failover.NoAnswer} { // who is never let through gives up
		marks := &failing{at: 2, times: times, with: execute.ErrMarked}
		a := &execute.Aged{Marks: marks, Blind: true, Inner: execute.Func(func(context.Context, execute.Order) execute.Answer { return execute.Done("") })}
		want(t, "act", a.Do(t.Context(), order(failover.Act, 5)), outcome)
		want(t, "look", a.Do(t.Context(), order(failover.Look, 5)), outcome)
	}
}

// TestEpochsFitIntoAHeader, or are left out whole.
func TestEpochsFitIntoAHeader(t *testing.T) {
	for n, there := range map[int]bool{1: true, 100: true, 1000: false} {
		o := order(failover.Act, 5)
		o.Token.Epochs = map[string]int64{}
		for i := range n {
			o.Token.Epochs[fmt.Sprintf("app-%d", i)] = 3
		}
		told := o.Told()
		if got, is := told["Davit-Epochs"]; is != there || len(got) > 4<<10 || is && strings.Count(got, "=") != n || told["Davit-Order"] != "5" {
			t.Errorf("%d applications: %q", n, told)
		}
	}
}
