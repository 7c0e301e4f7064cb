package vantage

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/declare"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/mem"
)

// world is a vault with vantage points whose clock the test sets.
type world struct {
	t       *testing.T
	project *vault.Project
	now     time.Time
	posts   map[string]*Post
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, now: time.Date(2026, 11, 27, 8, 0, 0, 0, time.UTC), posts: map[string]*Post{}}
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	if w.project, err = vault.CreateProject(t.Context(), mem.New(func() time.Time { return w.now }), "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	for name, cluster := range map[string]string{"east": "e", "west": "w", "witness": ""} {
		w.posts[name] = w.post(name, cluster)
	}
	return w
}

func (w *world) post(name, cluster string) *Post {
	return &Post{
		Name: name, Cluster: cluster, Now: func() time.Time { return w.now }, Log: slog.New(slog.DiscardHandler),
		Plans: func(context.Context, *vault.Project) ([]*plan.Plan, error) { return []*plan.Plan{shop()}, nil },
	}
}

func shop() *plan.Plan {
	return &plan.Plan{Name: "shop", Declaration: plan.Declaration{Automatic: true, Probes: map[string]plan.Check{"east": {Kind: plan.CheckHTTP, Target: "http://shop", Timeout: time.Second}}}}
}

// play has the named ones look every five seconds, for so long.
func (w *world) play(length time.Duration, names ...string) {
	w.t.Helper()
	for end := w.now.Add(length); w.now.Before(end); w.now = w.now.Add(Every) {
		for _, name := range names {
			if err := w.posts[name].Look(w.t.Context(), w.project); err != nil {
				w.t.Fatalf("%s: %v", name, err)
			}
		}
	}
}

// sees is what one says of east.
func (w *world) sees(name string) declare.View {
	w.t.Helper()
	words, bad, err := Hear(w.t.Context(), w.project)
	if err != nil || len(bad) > 0 {
		w.t.Fatal(bad, err)
	}
	word := words[name]
	s, _ := word.Sighting("shop", "east", false)
	return s.View
}

func TestASiteThatFallsSilentIsLost(t *testing.T) {
	w := newWorld(t)
	w.play(time.Minute, "east", "west", "witness")
	for _, name := range []string{"west", "witness"} {
		if got := w.sees(name); got != declare.Alive {
			t.Fatalf("%s says %s while east lives", name, got)
		}
	}
	w.play(20*time.Second, "west", "witness")
	if got := w.sees("west"); got != declare.Alive {
		t.Errorf("%s after a short silence", got)
	}
	w.play(20*time.Second, "west", "witness")
	for _, name := range []string{"west", "witness"} {
		if got := w.sees(name); got != declare.Lost {
			t.Errorf("%s says %s of a silent site", name, got)
		}
	}
	w.play(10*time.Second, "east", "west", "witness")
	if got := w.sees("witness"); got != declare.Alive {
		t.Errorf("%s when it came back", got)
	}
	words, _, _ := Hear(t.Context(), w.project)
	if word := words["west"]; len(word.Views) != 1 {
		t.Errorf("a witness is no site, and nobody watches himself: %+v", word.Views)
	}
}

// TestAVaultThatWasSilentSaysNothingOfSites: when it answers again, the site's
// last word is old for everyone. Whoever counted that silence would call it lost.
func TestAVaultThatWasSilentSaysNothingOfSites(t *testing.T) {
	for name, forget := range map[string]func(*Watch, time.Duration){
		"as it is": func(*Watch, time.Duration) {},
		"negative control: silence not watched counts": func(w *Watch, now time.Duration) { w.begun, w.last = true, now },
	} {
		w := newWorld(t)
		w.play(time.Minute, "east", "west")
		west := w.posts["west"]
		west.miss()
		w.now = w.now.Add(5 * time.Minute)
		forget(west.watch, w.now.Sub(west.begun))
		w.play(Every, "west") // before east had the time to say a word
		want := declare.Blind
		if strings.HasPrefix(name, "negative") {
			want = declare.Lost
		}
		if got := w.sees("west"); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
		w.play(10*time.Second, "east", "west")
		if got := w.sees("west"); got != declare.Alive {
			t.Errorf("%s: then %s", name, got)
		}
	}
}

// TestAPauseIsNobodysSilence: a process that stood still has not watched.
func TestAPauseIsNobodysSilence(t *testing.T) {
	w := newWorld(t)
	w.play(time.Minute, "east", "west")
	w.now = w.now.Add(time.Hour)
	w.play(Every, "west")
	if got := w.sees("west"); got != declare.Blind {
		t.Errorf("after a pause: %s", got)
	}
	w.play(time.Minute, "west")
	if got := w.sees("west"); got != declare.Lost {
		t.Errorf("when it has watched long enough: %s", got)
	}
}

// TestOldWordsAreNoSignsOfLife, and the number grows when the object was deleted.
func TestOldWordsAreNoSignsOfLife(t *testing.T) {
	w := newWorld(t)
	w.play(20*time.Second, "east", "west")
	words, _, _ := Hear(t.Context(), w.project)
	old := words["east"]
	w.play(20*time.Second, "east", "west")
	for range 10 {
		if err := Say(t.Context(), w.project, old); err != nil {
			t.Fatal(err)
		}
		w.play(Every, "west")
	}
	if got := w.sees("west"); got != declare.Lost {
		t.Errorf("old words keep it %s", got)
	}
	if err := w.project.Store().Delete(t.Context(), prefix(w.project)+"east"); err != nil {
		t.Fatal(err)
	}
	w.play(Every, "west")
	if got := w.sees("west"); got != "" {
		t.Errorf("of a site that says nothing at all: %s", got)
	}
	w.posts["east"] = w.post("east", "e") // another process
	w.play(2*Every, "east", "west")
	if got := w.sees("west"); got != declare.Alive {
		t.Errorf("it begins anew: %s", got)
	}
}

// TestAProbeThatIsAnsweredKeepsASite although it says nothing in the vault.
func TestAProbeThatIsAnsweredKeepsASite(t *testing.T) {
	w := newWorld(t)
	w.play(time.Minute, "east", "west")
	answer := error(nil)
	w.posts["west"].Ask = func(_ context.Context, c plan.Check) error {
		if c.Target != "http://shop" {
			t.Errorf("asks %s", c.Target)
		}
		return answer
	}
	w.play(time.Minute, "west")
	if got := w.sees("west"); got != declare.Alive {
		t.Errorf("it answers, and is %s", got)
	}
	words, _, _ := Hear(t.Context(), w.project)
	west := words["west"]
	if s, ok := west.Sighting("other", "east", false); !ok || s.View != declare.Lost {
		t.Errorf("for a plan without probe: %+v", s)
	}
	answer = errors.New("refused")
	w.play(Every, "west")
	words, _, _ = Hear(t.Context(), w.project)
	west = words["west"]
	if s, _ := west.Sighting("shop", "east", true); s.View != declare.Lost || !strings.Contains(s.Why, "refused") {
		t.Errorf("it answers no more: %+v", s)
	}
}

// TestWhoDoesNotAskAProbeDoesNotVote: a vantage point that cannot read a plan asks no
// probe of it, and knows too little to call the site lost for that plan.
func TestWhoDoesNotAskAProbeDoesNotVote(t *testing.T) {
	w := newWorld(t)
	w.play(time.Minute, "east", "west")
	w.posts["west"].Ask = func(context.Context, plan.Check) error { return errors.New("refused") }
	w.play(time.Minute, "west")
	votes := func(name string, probed bool) declare.View {
		words, _, _ := Hear(t.Context(), w.project)
		west := words["west"]
		s, _ := west.Sighting(name, "east", probed)
		return s.View
	}
	if got := votes("unread", true); got != declare.Blind {
		t.Errorf("of a plan whose probe it never asked: %s", got)
	}
	if votes("shop", true) != declare.Lost || votes("unread", false) != declare.Lost {
		t.Errorf("negative control: %s, %s", votes("shop", true), votes("unread", false))
	}
	w.posts["west"].Ask = nil
	w.play(Every, "west")
	if got := votes("shop", true); got != declare.Blind {
		t.Errorf("one that asks nothing: %s", got)
	}
}

// TestOneOfTwoProcessesSpeaks under a name, and the other goes on when it dies.
func TestOneOfTwoProcessesSpeaks(t *testing.T) {
	w := newWorld(t)
	w.posts["east-2"] = w.post("east", "e")
	w.play(time.Minute, "east", "east-2", "west")
	words, _, _ := Hear(t.Context(), w.project)
	if words["east"].Process != w.posts["east"].process {
		t.Error("the second one spoke")
	}
	if len(w.posts["east-2"].Views()) != 0 {
		t.Error("it claims to have said something")
	}
	w.play(time.Minute, "east-2", "west")
	words, _, _ = Hear(t.Context(), w.project)
	if words["east"].Process != w.posts["east-2"].process || w.sees("west") != declare.Alive {
		t.Error("the second one does not go on")
	}
}

func TestNothingIsSaidWithoutAPlan(t *testing.T) {
	w := newWorld(t)
	w.posts["west"].Idle = func() bool { return true }
	w.posts["west"].Plans = func(context.Context, *vault.Project) ([]*plan.Plan, error) { return nil, nil }
	w.play(time.Minute, "west")
	if words, _, err := Hear(t.Context(), w.project); err != nil || len(words) != 0 {
		t.Errorf("%+v, %v", words, err)
	}
}

// TestPlansThatCannotBeReadSilenceNobody who has spoken, also as another process,
// and nothing is said of others meanwhile: it may be that their probe must be asked.
func TestPlansThatCannotBeReadSilenceNobody(t *testing.T) {
	w := newWorld(t)
	refused := errors.New("refused")
	for _, name := range []string{"west", "north"} {
		w.posts[name] = w.post(name, "a site")
		w.posts[name].Idle = func() bool { return false }
	}
	w.play(time.Minute, "east", "west")
	fresh := w.post("west", "a site")
	fresh.Idle = w.posts["west"].Idle
	for _, post := range []*Post{w.posts["west"], fresh, w.posts["north"]} {
		post.Plans = func(context.Context, *vault.Project) ([]*plan.Plan, error) { return nil, refused }
	}
	number := func() int64 {
		words, _, err := Hear(t.Context(), w.project)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := words["north"]; ok {
			t.Error("one that never spoke speaks without a plan")
		}
		if number := words["west"].Number; number > 0 && len(words["west"].Views) == 0 {
			return number
		}
		return 0
	}
	for _, post := range []*Post{w.posts["west"], fresh} {
		before := number()
		for end := w.now.Add(time.Minute); w.now.Before(end); w.now = w.now.Add(Every) {
			for _, post := range []*Post{post, w.posts["north"]} {
				if err := post.Look(t.Context(), w.project); !errors.Is(err, refused) {
					t.Fatal(err)
				}
			}
		}
		if after := number(); after <= before {
			t.Errorf("it fell silent: %d, then %d", before, after)
		}
	}
}

// deaf is a store that does not give out one word.
type deaf struct {
	vault.Store
	to string
}

var errDeaf = errors.New("refused")

func (d *deaf) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if d.to != "" && strings.HasSuffix(key, "vantage/"+d.to) {
		return nil, errDeaf
	}
	return d.Store.Get(ctx, key, offset, length)
}

// TestTheSignOfLifeWaitsForNobody: one word that cannot be read silences no site.
// What it sees of others is not said then.
func TestTheSignOfLifeWaitsForNobody(t *testing.T) {
	w := newWorld(t)
	key, err := vault.NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	store := &deaf{Store: mem.New(func() time.Time { return w.now })}
	if w.project, err = vault.CreateProject(t.Context(), store, "default", key.Recipient()); err != nil {
		t.Fatal(err)
	}
	w.play(time.Minute, "east", "west", "witness")
	store.to = "witness"
	for end := w.now.Add(time.Minute); w.now.Before(end); w.now = w.now.Add(Every) {
		if err := w.posts["east"].Look(t.Context(), w.project); !errors.Is(err, errDeaf) {
			t.Fatal(err)
		}
	}
	store.to = ""
	words, _, err := Hear(t.Context(), w.project)
	if err != nil {
		t.Fatal(err)
	}
	if east := words["east"]; w.now.Sub(east.At) > Every || len(east.Views) != 0 {
		t.Errorf("it said nothing for %s: %+v", w.now.Sub(east.At), east)
	}
}

func TestParse(t *testing.T) {
	good := Word{FormatVersion: 1, Vantage: "west", Process: "p", Number: 1, Views: []View{{Site: "east", View: declare.Lost}}}
	for want, change := range map[string]func(*Word){
		"":                    func(*Word) {},
		"newer davit":         func(w *Word) { w.FormatVersion = 2 },
		"out of bounds":       func(w *Word) { w.Number = 0 },
		`site "west"`:         func(w *Word) { w.Views[0].Site = "west" },
		`site east is "dead"`: func(w *Word) { w.Views[0].View = "dead" },
		`site "east"`:         func(w *Word) { w.Views = append(w.Views, w.Views[0]) },
	} {
		w := good
		w.Views = []View{good.Views[0]}
		change(&w)
		data, _ := json.Marshal(w)
		_, err := Parse(data)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", want, err)
		}
	}
}

// TestAWordUnderAnothersNameIsNotHeard: nobody votes twice.
func TestAWordUnderAnothersNameIsNotHeard(t *testing.T) {
	w := newWorld(t)
	data, _ := json.Marshal(Word{FormatVersion: 1, Vantage: "west", Process: "p", Number: 1})
	if err := w.project.WriteSealed(t.Context(), prefix(w.project)+"north", data); err != nil {
		t.Fatal(err)
	}
	words, bad, err := Hear(t.Context(), w.project)
	if err != nil || len(words) != 0 || !errors.Is(bad["north"], vault.ErrDamaged) {
		t.Errorf("%+v, %v, %v", words, bad, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"formatVersion":1,"vantage":"west","process":"p","number":1,"views":[{"site":"east","view":"lost"}]}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := Parse(data)
		if err == nil && (w.check() != nil || w.Number < 1) {
			t.Errorf("%+v", w)
		}
	})
}
