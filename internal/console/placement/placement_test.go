package placement

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"davit.dev/davit/internal/console/store"
)

var revision int64

func doc(kind, name, sites, spec string) store.Document {
	revision++
	body := json.RawMessage(fmt.Sprintf(`{"metadata":{"annotations":{"davit.dev/sites":%q}},"spec":%s}`, sites, spec))
	if sites == "" {
		body = json.RawMessage(fmt.Sprintf(`{"metadata":{},"spec":%s}`, spec))
	}
	namespace := "davit-system"
	if kind == "RecoveryPlan" {
		namespace = ""
	}
	return store.Document{Key: store.Key{Kind: kind, Namespace: namespace, Name: name}, UID: "u-" + name, Revision: revision, Generation: 1, Body: body}
}

func names(all []Task) (out []string) {
	for _, task := range all {
		name := task.Name
		if task.Gone {
			name = "-" + name
		}
		out = append(out, name)
	}
	return out
}

// A policy goes where the applications that name it go, a plan to the sites of
// its spec, and what names no site goes nowhere.
func TestWhere(t *testing.T) {
	docs := []store.Document{
		doc("ProtectionPolicy", "hourly", "", `{}`), doc("ProtectionPolicy", "unused", "", `{}`), doc("ProtectionPolicy", "early", " north , east", `{}`),
		doc("Application", "shop", "east", `{"vault":"main","policy":"hourly"}`), doc("Application", "lost", "", `{"vault":"main","policy":"hourly"}`),
		doc("RecoveryPlan", "all", "", `{"sites":[{"name":"east"},{"name":"west"}]}`),
	}
	x := New(docs, revision)
	for site, want := range map[string][]string{"east": {"hourly", "early", "shop", "all"}, "west": {"all"}, "north": {"early"}, "south": nil} {
		if got := names(x.Tasks(site, nil, true)); !slices.Equal(got, want) {
			t.Errorf("%s gets %v, want %v", site, got, want)
		}
	}
	for _, s := range x.Standings(docs, nil, func(string) string { return "" }) {
		if (s.State == Nowhere) != (s.Name == "unused" || s.Name == "lost") || s.State == Nowhere && s.Why == "" {
			t.Errorf("%+v", s)
		}
	}
}

// What was answered is not asked again, but all of it by an agent that begins
// anew; what is there no more is taken away, once.
func TestTasks(t *testing.T) {
	shop, wiki := doc("Application", "shop", "east", `{}`), doc("Application", "wiki", "east", `{}`)
	x := New([]store.Document{shop, wiki}, revision)
	handed := func(d store.Document, state string) store.Handed {
		return store.Handed{Site: "east", Key: d.Key, UID: d.UID, Revision: d.Revision, State: state}
	}
	for name, c := range map[string]struct {
		handed []store.Handed
		all    bool
		want   []string
	}{
		"new":        {nil, false, []string{"shop", "wiki"}},
		"answered":   {[]store.Handed{handed(shop, "applied"), handed(wiki, "conflict")}, false, nil},
		"unanswered": {[]store.Handed{handed(shop, "applied"), handed(wiki, "")}, false, []string{"wiki"}},
		"anew":       {[]store.Handed{handed(shop, "applied"), handed(wiki, "applied")}, true, []string{"shop", "wiki"}},
		"older":      {[]store.Handed{handed(shop, "applied"), {Site: "east", Key: wiki.Key, UID: wiki.UID, Revision: 1, State: "applied"}}, false, []string{"wiki"}},
		"another":    {[]store.Handed{handed(shop, "applied"), {Site: "east", Key: wiki.Key, UID: "x", Revision: wiki.Revision, State: "applied"}}, false, []string{"wiki"}},
	} {
		if got := names(x.Tasks("east", c.handed, c.all)); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	left := New([]store.Document{shop}, revision+1)
	tasks := left.Tasks("east", []store.Handed{handed(shop, "applied"), handed(wiki, "applied")}, false)
	if got := names(tasks); !slices.Equal(got, []string{"-wiki"}) || tasks[0].Revision <= wiki.Revision || tasks[0].UID != wiki.UID {
		t.Fatalf("%+v", tasks)
	}
	asked := tasks[0].Handed
	asked.State = "waiting"
	if again := left.Tasks("east", []store.Handed{handed(shop, "applied"), asked}, false); len(again) != 0 {
		t.Errorf("%v is asked again while the agent sees to it", names(again))
	}
	if all := left.Standings([]store.Document{shop}, []store.Handed{handed(shop, "applied"), asked}, func(string) string { return "" }); len(all) != 2 || !all[1].Gone || all[1].State != Waiting {
		t.Errorf("%+v", all)
	}
}

// An answer of an older version says nothing of the newest.
func TestStandings(t *testing.T) {
	d := doc("Application", "shop", "east", `{}`)
	x := New([]store.Document{d}, revision)
	for h, want := range map[store.Handed]string{
		{Site: "east", Key: d.Key, UID: d.UID, Revision: d.Revision, State: "applied"}:     "applied",
		{Site: "east", Key: d.Key, UID: d.UID, Revision: d.Revision - 1, State: "applied"}: Waiting,
		{Site: "west", Key: d.Key, UID: d.UID, Revision: d.Revision, State: "applied"}:     Waiting,
	} {
		all := x.Standings([]store.Document{d}, []store.Handed{h}, func(string) string { return "it is away" })
		if all[0].State != want || want == Waiting && all[0].Why != "it is away" {
			t.Errorf("%+v: %+v", h, all)
		}
	}
}
