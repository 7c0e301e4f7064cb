package testkit_test

import (
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/testkit"
)

// A schedule leaves much behind and keeps little of it: collecting it seldom makes
// the rest a fifth faster.
func TestMain(m *testing.M) {
	debug.SetGCPercent(400)
	os.Exit(m.Run())
}

// schedules is how many to play: a few in a unit run, DAVIT_SCHEDULES in a soak.
func schedules(t *testing.T, few uint64) uint64 {
	t.Helper()
	if n, err := strconv.ParseUint(os.Getenv("DAVIT_SCHEDULES"), 10, 64); err == nil {
		return n
	}
	return few
}

// spent is the processor time that this process took.
func spent() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// pace tells how fast schedules were played. The machine may have other work, so
// that only the processor's time can be compared.
func pace(t *testing.T, n uint64, took, busy time.Duration) {
	t.Helper()
	t.Logf("%.0f schedules a second, %.0f in one of the processor: 100,000 take %s of its time", float64(n)/took.Seconds(), float64(n)/busy.Seconds(),
		time.Duration(float64(busy)*100_000/float64(n)).Round(time.Second))
}

// failed shows a schedule that broke an invariant, whole.
func failed(t *testing.T, rep testkit.Report) {
	t.Helper()
	again := testkit.Simulate(rep.Seed, testkit.Options{Trace: true})
	t.Fatalf("seed %d: %v\n%s", rep.Seed, rep.Err, strings.Join(again.Trace, "\n"))
}

// each plays schedules on all cores, and returns the first that broke an invariant.
func each(n uint64, play func(seed uint64) testkit.Report, keep func(testkit.Report)) *testkit.Report {
	var next atomic.Uint64
	var mu sync.Mutex
	var broken *testkit.Report
	take := func(rep testkit.Report) (stop bool) {
		mu.Lock()
		defer mu.Unlock()
		keep(rep)
		if rep.Err != nil && (broken == nil || rep.Seed < broken.Seed) {
			broken = &rep
		}
		return broken != nil
	}
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for seed := next.Add(1) - 1; seed < n; seed = next.Add(1) - 1 {
				if take(play(seed)) {
					return
				}
			}
		})
	}
	wg.Wait()
	return broken
}

func TestSchedules(t *testing.T) {
	n := schedules(t, 400)
	begin, before := time.Now(), spent()
	odd, ends, unfinished, runs := map[string]int{}, map[failover.Phase]int{}, []string{}, 0
	broken := each(n, func(seed uint64) testkit.Report { return testkit.Simulate(seed, testkit.Options{}) }, func(rep testkit.Report) {
		for what, times := range rep.Odd {
			odd[what] += times
		}
		for _, phase := range rep.Runs {
			ends[phase]++
			runs++
		}
		unfinished = append(unfinished, rep.Unfinished...)
	})
	if broken != nil {
		failed(t, *broken)
	}
	pace(t, n, time.Since(begin), spent()-before)
	t.Logf("%d schedules, %d runs\nends: %v\nwhat happened: %v\n%d unfinished", n, runs, ends, odd, len(unfinished))
	for i, why := range unfinished {
		if i < 8 {
			t.Log(why)
		}
	}
	// Whether the schedules try what they should.
	for _, what := range []string{
		"activated: proven", "activated: timed-out lease", "activated: none (forced)", "kept by promises", "promised by an older cluster", "lease ran out", "take-over", "deposed",
		"executor died", "executor paused", "was at a third site", "agent paused", "watchdog paused", "site crashed", "link cut", "vault stalled", "cannot be stopped",
		"asked since when it waits", "lost message", "late message", "doubled message", "late put", "lost answer of a put", "refused an old order", "step failed", "look refused",
		"early order superseded", "API server silent", "stood still before a job", "a job was not begun",
		"stood still before a write", "a fill was not begun", "an Application was not changed", "another agent leads", "name moved", "moved on",
		"site flapped", "one way loses", "vault reached from one side only",
		"a name was refused", "a name is led by hand", "a call was not sent", "agent died", "a call was seen to", "a person said yes", "begun anew",
	} {
		if odd[what] == 0 {
			t.Errorf("it never happened: %s", what)
		}
	}
	if ends[failover.Completed] < runs/3 || ends[failover.RolledBack] < runs/20 || len(unfinished) > runs/20 {
		t.Errorf("of %d runs %d are unfinished, the others ended as %v", runs, len(unfinished), ends)
	}
}

// within so many schedules a harm is to be seen. Controls play those that are made for it, so that about
// ten in a thousand show it, or more.
const within = 1000

// harm plays schedules until one shows the harm that is wanted. Which one
// does depends on how each draws its misfortunes, and one that draws once more than it
// did shows another, or another harm first: so no seed counts, and those that break
// otherwise are passed over.
func harm(t *testing.T, want string, play func(seed uint64) error) {
	t.Helper()
	others := 0
	var last error
	for seed := range uint64(within) {
		err := play(seed)
		if err == nil {
			continue
		}
		if strings.Contains(err.Error(), want) {
			t.Logf("seed %d, after %d that broke otherwise: %v", seed, others, err)
			return
		}
		others, last = others+1, err
	}
	t.Errorf("%d schedules without it did not show %q; %d broke otherwise: %v", within, want, others, last)
}

// beside plays what a control takes safety away from, and, where that breaks, the misfortune that was made for
// it with all safety in place. That does no harm: else the control would show nothing.
func beside(t *testing.T, opt testkit.Options, play func(uint64, testkit.Options) testkit.Report) func(seed uint64) error {
	made := testkit.Options{Drowsy: opt.Drowsy, Wakes: opt.Wakes, Isolated: opt.Isolated, Leaning: opt.Leaning, Renamed: opt.Renamed}
	return func(seed uint64) error {
		err := play(seed, opt).Err
		if err != nil && made != (testkit.Options{}) {
			if err := play(seed, made).Err; err != nil {
				t.Errorf("seed %d breaks with all safety in place: %v", seed, err)
			}
		}
		return err
	}
}

// TestControls takes one piece of safety away at a time: the simulator must
// miss it, and soon.
func TestControls(t *testing.T) {
	for name, control := range map[string]struct {
		opt  testkit.Options
		want string
	}{
		"fence":        {testkit.Options{NoFence: true}, "two writers"},
		"nodes' word":  {testkit.Options{NoWord: true}, "two writers"},
		"lease wait":   {testkit.Options{ShortWait: true, Isolated: true}, "two writers"},
		"epoch checks": {testkit.Options{NoEpochCheck: true}, "was known"},
		"floor":        {testkit.Options{NoFloor: true}, "two writers"},
		"numbers":      {testkit.Options{NoNumbers: true}, "was answered with not done"},
		"own claim":    {testkit.Options{OldNews: true}, "superseded by the run's own claim"},
		"own return":   {testkit.Options{OldNews: true}, "is rolled back, and what"},
		"turn":         {testkit.Options{NoTurn: true, Drowsy: plan.KindCommand}, "is rolled back, and what"},
		"two begins":   {testkit.Options{Hasty: true}, "times at"},
		"tasks":        {testkit.Options{NoTask: true, Drowsy: plan.KindRestore, Wakes: "start"}, "is replaced while it runs"},
		"given back":   {testkit.Options{NoReturn: true, Drowsy: plan.KindScale, Wakes: "return"}, "two writers"},
		"still":        {testkit.Options{NoStill: true, Drowsy: plan.KindRestore, Wakes: "start"}, "has started since"},
		"own mark":     {testkit.Options{NoOwnMark: true, Drowsy: plan.KindScale, Wakes: "restore"}, "is bringing"},
		"gates":        {testkit.Options{NoVersion: true, Drowsy: plan.KindGate, Wakes: "change"}, "has taken it back"},
		"holds":        {testkit.Options{NoCurrent: true, Drowsy: plan.KindQuiesce, Wakes: "change"}, "has taken it back"},
		"call again":   {testkit.Options{NoAgain: true, Drowsy: plan.KindHTTP}, "was sent long after"},
		"calls heeded": {testkit.Options{NoHeed: true, Drowsy: plan.KindHTTP}, "is obeyed after"},
		"people":       {testkit.Options{NoAsk: true}, "and 1 of 2 said yes to"},
		"prerequisite": {testkit.Options{NoPrerequisite: true, Drowsy: plan.KindDNS, Wakes: "name"}, "moves a name"},
		"looking":      {testkit.Options{NoLook: true}, "without a look in between"},
		"seal":         {testkit.Options{NoSeal: true}, "was answered with not done"},
		"hold":         {testkit.Options{NoHold: true, Leaning: true}, "two writers"},
		"held anew":    {testkit.Options{Cached: true, Leaning: true}, "two writers"},
		"who is asked": {testkit.Options{NoNames: true, Leaning: true}, "two writers"},
		"who it is":    {testkit.Options{NoClusters: true, Leaning: true, Renamed: true}, "two writers"},
		"rest":         {testkit.Options{NoQuiesce: true}, "lost write"},
		"sandbox":      {testkit.Options{NoSandbox: true}, "touches what is live"},
		"journal":      {testkit.Options{LostEntry: true}, "journal"},
		"reason":       {testkit.Options{Mute: true}, "does not say why it waits"},
		"true clocks":  {testkit.Options{WildClocks: true, Isolated: true}, "two writers"},
	} {
		t.Run(name, func(t *testing.T) {
			harm(t, control.want, beside(t, control.opt, testkit.Simulate))
		})
	}
}

// TestDeclared plays automatic declaration: nothing is declared by one vantage point
// alone, too soon, back again or soon after a run, and no two sites write.
func TestDeclared(t *testing.T) {
	n := max(schedules(t, 150)/4, 150) // they are longer than the others
	begin, before := time.Now(), spent()
	odd, ends := map[string]int{}, map[failover.Phase]int{}
	broken := each(n, func(seed uint64) testkit.Report { return testkit.Declared(seed, testkit.Options{}) }, func(rep testkit.Report) {
		for what, times := range rep.Odd {
			odd[what] += times
		}
		for _, phase := range rep.Runs {
			ends[phase]++
		}
	})
	if broken != nil {
		again := testkit.Declared(broken.Seed, testkit.Options{Trace: true})
		t.Fatalf("seed %d: %v\n%s", broken.Seed, broken.Err, strings.Join(again.Trace, "\n"))
	}
	pace(t, n, time.Since(begin), spent()-before)
	t.Logf("%d schedules\nends: %v\nwhat happened: %v", n, ends, odd)
	for _, what := range []string{"declared", "they agree", "activated: timed-out lease", "site crashed", "link cut", "vault stalled", "agent paused", "lease ran out", "executor died", "site flapped", "only the application is left", "declared while it ran", "probe answered"} {
		if odd[what] == 0 {
			t.Errorf("it never happened: %s", what)
		}
	}
	if ends[failover.Completed] == 0 {
		t.Errorf("no declared run was completed: %v", ends)
	}
}

// TestDeclaredControls takes one piece of safety away at a time.
func TestDeclaredControls(t *testing.T) {
	for name, control := range map[string]struct {
		opt  testkit.Options
		want string
	}{
		"quorum":         {testkit.Options{NoQuorum: true}, "vantage points had said so"},
		"hysteresis":     {testkit.Options{NoHysteresis: true}, "vantage points had said so"},
		"lease wait":     {testkit.Options{ShortWait: true, Isolated: true}, "two writers"},
		"never failback": {testkit.Options{Failback: true}, "had come by a failover"},
		"probe":          {testkit.Options{NoProbe: true}, "had no answer of it"},
	} {
		t.Run(name, func(t *testing.T) {
			harm(t, control.want, beside(t, control.opt, testkit.Declared))
		})
	}
}

// TestSeedsReproduce plays schedules twice.
func TestSeedsReproduce(t *testing.T) {
	for seed := range uint64(20) {
		one, two := testkit.Simulate(seed, testkit.Options{Trace: true}), testkit.Simulate(seed, testkit.Options{Trace: true})
		if strings.Join(one.Trace, "\n") != strings.Join(two.Trace, "\n") || len(one.Trace) == 0 {
			t.Errorf("seed %d went two ways", seed)
		}
	}
}
