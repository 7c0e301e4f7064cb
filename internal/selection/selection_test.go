package selection_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/labels"
	"pgregory.net/rapid"

	"davit.dev/davit/internal/selection"
)

func labelled(t *testing.T, text string) labels.Selector {
	t.Helper()
	s, err := labels.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func name(t *testing.T, text string) selection.Name {
	t.Helper()
	n, err := selection.ParseName(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGlob(t *testing.T) {
	for _, tt := range []struct {
		pattern, text string
		want          bool
	}{
		{"shop", "shop", true},
		{"shop", "shop2", false},
		{"shop*", "shop", true},
		{"*shop", "my-shop", true},
		{"*", "", true},
		{"a*b*c", "aXbYc", true},
		{"a*b*c", "acb", false},
		{"a*a", "a", false},
		{"", "x", false},
		{"**", "x", true},
	} {
		if got := selection.Glob(tt.pattern, tt.text); got != tt.want {
			t.Errorf("Glob(%q, %q) = %v", tt.pattern, tt.text, got)
		}
	}
}

func TestNamespaces(t *testing.T) {
	team := labelled(t, "team=red")
	red, blue := map[string]string{"team": "red"}, map[string]string{"team": "blue"}
	for _, tt := range []struct {
		what  string
		rule  selection.Namespaces
		name  string
		set   map[string]string
		match bool
	}{
		{"by name", selection.Namespaces{Names: []string{"shop"}}, "shop", nil, true},
		{"another", selection.Namespaces{Names: []string{"shop"}}, "shop2", nil, false},
		{"by pattern", selection.Namespaces{Names: []string{"shop-*"}}, "shop-db", nil, true},
		{"by label", selection.Namespaces{Labels: team}, "x", red, true},
		{"by another label", selection.Namespaces{Labels: team}, "x", blue, false},
		{"by either", selection.Namespaces{Names: []string{"x"}, Labels: team}, "x", blue, true},
		{"left out", selection.Namespaces{Names: []string{"shop-*"}, Exclude: []string{"*-test"}}, "shop-test", nil, false},
		{"named and left out", selection.Namespaces{Names: []string{"shop"}, Exclude: []string{"shop"}}, "shop", nil, false},
		{"labelled and left out", selection.Namespaces{Labels: team, Exclude: []string{"x"}}, "x", red, false},
		{"everything", selection.Namespaces{Names: []string{"*"}}, "shop", nil, true},
		{"everything is not the cluster's own", selection.Namespaces{Names: []string{"*"}}, "kube-system", nil, false},
		{"nor is a pattern", selection.Namespaces{Names: []string{"davit-*"}}, "davit-system", nil, false},
		{"nor is a label", selection.Namespaces{Labels: team}, "kube-public", red, false},
		{"its very name is", selection.Namespaces{Names: []string{"kube-system"}}, "kube-system", nil, true},
	} {
		if got := tt.rule.Match(tt.name, tt.set); got != tt.match {
			t.Errorf("%s: Match = %v, want %v", tt.what, got, tt.match)
		}
	}
	rule := selection.Namespaces{Names: []string{"a", "b*", "c*"}, Labels: team}
	unmet := rule.Unmet(map[string]map[string]string{"b1": nil, "x": blue})
	if want := []string{"c*", "labels team=red"}; !slices.Equal(unmet, want) {
		t.Errorf("Unmet = %q, want %q", unmet, want)
	}
	if rule.Static() || !(selection.Namespaces{Names: []string{"a"}}).Static() {
		t.Error("patterns and labels are not static, names are")
	}
}

func TestParseName(t *testing.T) {
	for _, bad := range []string{"", "web", "deployment/", "/web", "a/b/c/d", "*/web", "deployment./x", "Shop/pod/x", "pod/a b", "//"} {
		if _, err := selection.ParseName(bad); !errors.Is(err, selection.ErrInvalid) {
			t.Errorf("ParseName(%q) = %v, want ErrInvalid", bad, err)
		}
	}
	for _, tt := range []struct {
		text, group, kind, namespace, name string
		want                               bool
	}{
		{"deployment/web", "apps", "Deployment", "shop", "web", true},
		{"Deployments/web", "apps", "Deployment", "shop", "web", true},
		{"deploy/web", "apps", "Deployment", "shop", "web", true},
		{"deployment.apps/web", "apps", "Deployment", "shop", "web", true},
		{"deployment.other/web", "apps", "Deployment", "shop", "web", false},
		{"deployment/web", "apps", "Deployment", "shop", "web2", false},
		{"statefulset/pg-*", "apps", "StatefulSet", "shop", "pg-a", true},
		{"shop/pod/db-0", "", "Pod", "shop", "db-0", true},
		{"shop/pod/db-0", "", "Pod", "other", "db-0", false},
		{"shop-*/pod/db-0", "", "Pod", "shop-2", "db-0", true},
		{"networkpolicies/x", "networking.k8s.io", "NetworkPolicy", "shop", "x", true},
		{"ingresses/x", "networking.k8s.io", "Ingress", "shop", "x", true},
		{"gateways.gateway.networking.k8s.io/x", "gateway.networking.k8s.io", "Gateway", "shop", "x", true},
	} {
		if got := name(t, tt.text).Matches(tt.group, tt.kind, tt.namespace, tt.name); got != tt.want {
			t.Errorf("%s matches %s %s/%s: %v", tt.text, tt.kind, tt.namespace, tt.name, got)
		}
	}
}

func TestVolumes(t *testing.T) {
	for _, tt := range []struct {
		what        string
		in, out     []selection.Volume
		claim, want string
	}{
		{what: "no rule", claim: "data", want: "yes"},
		{what: "included", in: []selection.Volume{{Claims: []string{"data*"}}}, claim: "data-db-0", want: "yes"},
		{what: "not included", in: []selection.Volume{{Claims: []string{"data*"}}}, claim: "cache", want: "no"},
		{what: "excluded", out: []selection.Volume{{Claims: []string{"cache"}}}, claim: "cache", want: "no"},
		{what: "excluding wins", in: []selection.Volume{{StorageClass: "fast"}}, out: []selection.Volume{{Claims: []string{"cache"}}}, claim: "cache", want: "no"},
		{what: "by class", out: []selection.Volume{{StorageClass: "fa*"}}, claim: "data", want: "no"},
		{what: "by label", out: []selection.Volume{{Labels: labels.SelectorFromSet(labels.Set{"tier": "scratch"})}}, claim: "data", want: "no"},
		{what: "all that a rule says", out: []selection.Volume{{StorageClass: "fast", Claims: []string{"x"}}}, claim: "data", want: "yes"},
		{what: "with its namespace", out: []selection.Volume{{Claims: []string{"shop/data"}}}, claim: "data", want: "no"},
		{what: "in another namespace", out: []selection.Volume{{Claims: []string{"other/data"}}}, claim: "data", want: "yes"},
	} {
		v := selection.Volumes{Include: tt.in, Exclude: tt.out}
		if got := v.Wants("shop", tt.claim, "fast", map[string]string{"tier": "scratch"}); got != (tt.want == "yes") {
			t.Errorf("%s: Wants = %v", tt.what, got)
		}
	}
	if !(selection.Volume{}).Empty() || (selection.Volume{StorageClass: "x"}).Empty() {
		t.Error("only a rule that says nothing is empty")
	}
}

// three are three PostgreSQLs of one pod each, a ring of three pods, and a web
// front with a replica set.
func three() []selection.Object {
	set := func(n string, replicas int) selection.Object {
		return selection.Object{Group: "apps", Kind: "StatefulSet", Namespace: "db", Name: n, UID: n, Replicas: replicas, Template: map[string]string{"app": "db", "db": n}}
	}
	pod := func(owner string, n int) selection.Object {
		return selection.Object{
			Kind: "Pod", Namespace: "db", Name: fmt.Sprintf("%s-%d", owner, n), UID: fmt.Sprintf("%s-%d", owner, n),
			Labels: map[string]string{"app": "db", "db": owner, "node": fmt.Sprint(n)}, Owner: &selection.Owner{Group: "apps", Kind: "StatefulSet", Name: owner, UID: owner},
		}
	}
	return []selection.Object{
		set("pg-a", 1), pod("pg-a", 0), set("pg-b", 1), pod("pg-b", 0), set("pg-c", 1), pod("pg-c", 0),
		set("ring", 3), pod("ring", 0), pod("ring", 1), pod("ring", 2),
		{Group: "apps", Kind: "Deployment", Namespace: "db", Name: "web", UID: "web", Replicas: 1, Labels: map[string]string{"tier": "front"}, Template: map[string]string{"app": "web"}},
		{Group: "apps", Kind: "ReplicaSet", Namespace: "db", Name: "web-1", UID: "web-1", Replicas: 1, Template: map[string]string{"app": "web"}, Owner: &selection.Owner{Group: "apps", Kind: "Deployment", Name: "web", UID: "web"}},
		{Kind: "Pod", Namespace: "db", Name: "web-1-x", UID: "web-1-x", Labels: map[string]string{"app": "web"}, Owner: &selection.Owner{Group: "apps", Kind: "ReplicaSet", Name: "web-1", UID: "web-1"}},
		{Kind: "Pod", Namespace: "db", Name: "made", UID: "made", Owner: &selection.Owner{Group: "pg.example.com", Kind: "Cluster", Name: "main", UID: "cr"}},
		{Kind: "Pod", Namespace: "db", Name: "bare", UID: "bare", Labels: map[string]string{"tier": "front"}},
	}
}

func covered(c *selection.Cover) string {
	var all []string
	for _, o := range c.Covered() {
		all = append(all, o.Name)
	}
	return strings.Join(all, " ")
}

func TestCover(t *testing.T) {
	for _, tt := range []struct {
		what   string
		rules  selection.Selection
		want   string
		shared string
	}{
		{what: "a workload", rules: selection.Selection{Workloads: []selection.Name{name(t, "sts/pg-a")}}, want: "pg-a pg-a-0"},
		{what: "a deployment", rules: selection.Selection{Workloads: []selection.Name{name(t, "deploy/web")}}, want: "web web-1 web-1-x"},
		{what: "the only pod", rules: selection.Selection{Workloads: []selection.Name{name(t, "pod/pg-b-0")}}, want: "pg-b pg-b-0"},
		{what: "all pods by name", rules: selection.Selection{Workloads: []selection.Name{name(t, "pod/ring-*")}}, want: "ring ring-0 ring-1 ring-2"},
		{what: "one of three", rules: selection.Selection{Workloads: []selection.Name{name(t, "pod/ring-1")}}, want: "ring-1", shared: "ring"},
		{what: "a group of pods", rules: selection.Selection{Pods: []labels.Selector{labelled(t, "db=ring")}}, want: "ring ring-0 ring-1 ring-2"},
		{what: "a group across", rules: selection.Selection{Pods: []labels.Selector{labelled(t, "db in (pg-a,pg-c)")}}, want: "pg-a pg-a-0 pg-c pg-c-0"},
		{what: "a group that is a part", rules: selection.Selection{Pods: []labels.Selector{labelled(t, "node=2")}}, want: "ring-2", shared: "ring"},
		{what: "either", rules: selection.Selection{Any: []labels.Selector{labelled(t, "tier=front"), labelled(t, "db=pg-b")}}, want: "pg-b pg-b-0 web web-1 web-1-x bare"},
		{what: "by its operator", rules: selection.Selection{Workloads: []selection.Name{name(t, "cluster.pg.example.com/main")}}, want: "made"},
		{what: "another namespace", rules: selection.Selection{Workloads: []selection.Name{name(t, "other/sts/pg-a")}}, want: ""},
	} {
		c := tt.rules.Cover(three())
		if got := covered(c); got != tt.want {
			t.Errorf("%s: covered %q, want %q", tt.what, got, tt.want)
		}
		shared := ""
		for _, o := range c.Shared() {
			shared += o.Name
		}
		if shared != tt.shared {
			t.Errorf("%s: shared %q, want %q", tt.what, shared, tt.shared)
		}
	}
	if got := covered(selection.Selection{}.Cover(three())); strings.Count(got, " ") != len(three())-1 {
		t.Errorf("the whole covers %q", got)
	}
}

// A StatefulSet whose pods are away for the moment is told by its names.
func TestCoverWithoutPods(t *testing.T) {
	away := three()[:1]
	one := selection.Selection{Workloads: []selection.Name{name(t, "pod/pg-a-0")}}
	if got := covered(one.Cover(away)); got != "pg-a" {
		t.Errorf("covered %q, want pg-a", got)
	}
	away[0].Replicas = 2
	if got := covered(one.Cover(away)); got != "" {
		t.Errorf("covered %q, want nothing: pg-a-1 is not named", got)
	}
}

func TestMissing(t *testing.T) {
	rules := selection.Selection{
		Workloads: []selection.Name{name(t, "sts/pg-a"), name(t, "sts/gone"), name(t, "pod/no-*")},
		Pods:      []labels.Selector{labelled(t, "db=ring"), labelled(t, "db=gone")},
	}
	named, groups := rules.Missing(three())
	if len(named) != 2 || named[0].String() != "sts/gone" || !slices.Equal(groups, []string{"db=gone"}) {
		t.Errorf("Missing = %v, %v", named, groups)
	}
}

// drawWorld draws controllers with pods, and pods of nobody.
func drawWorld(t *rapid.T) []selection.Object {
	var all []selection.Object
	label := func() map[string]string {
		return map[string]string{"l": rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "label")}
	}
	for i := range rapid.IntRange(0, 4).Draw(t, "controllers") {
		id := fmt.Sprintf("s%d", i)
		pods := rapid.IntRange(0, 3).Draw(t, "pods")
		all = append(all, selection.Object{Group: "apps", Kind: "StatefulSet", Namespace: "n", Name: id, Replicas: pods, Labels: label(), Template: label()})
		for p := range pods {
			all = append(all, selection.Object{
				Kind: "Pod", Namespace: "n", Name: fmt.Sprintf("%s-%d", id, p), Labels: label(),
				Owner: &selection.Owner{Group: "apps", Kind: "StatefulSet", Name: id}, Ended: rapid.IntRange(0, 5).Draw(t, "ended") == 0,
			})
		}
	}
	for i := range rapid.IntRange(0, 2).Draw(t, "bare") {
		all = append(all, selection.Object{Kind: "Pod", Namespace: "n", Name: fmt.Sprintf("bare%d", i), Labels: label()})
	}
	return all
}

// What is covered is closed: a covered controller's pods are covered, a covered
// pod has a covered controller or is alone, and nobody is stopped who has a
// running pod that no rule asks for.
func TestCoverIsClosed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		world := drawWorld(t)
		rules := selection.Selection{}
		pick, _ := labels.Parse("l=" + rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "pick"))
		switch rapid.IntRange(0, 2).Draw(t, "how") {
		case 0:
			rules.Pods = []labels.Selector{pick}
		case 1:
			rules.Any = []labels.Selector{pick}
		default:
			n, _ := selection.ParseName(rapid.SampledFrom([]string{"pod/s0-0", "pod/s1-*", "sts/s0", "pod/bare0"}).Draw(t, "name"))
			rules.Workloads = []selection.Name{n}
		}
		c := rules.Cover(world)
		has := func(o *selection.Object) bool { return c.Has(o.Group, o.Kind, o.Namespace, o.Name) }
		for i := range world {
			o := &world[i]
			if !o.IsPod() {
				continue
			}
			owner := o.Owner != nil && c.Has("apps", "StatefulSet", "n", o.Owner.Name)
			asked := rules.MatchesPod(o.Labels) || rules.Names("", "Pod", "n", o.Name)
			if (owner || asked) != has(o) {
				t.Fatalf("%s: covered %v, its controller %v, asked for %v", o.Name, has(o), owner, asked)
			}
			if has(o) && c.Alone("n", o.Name) == owner {
				t.Fatalf("%s: alone %v, its controller covered %v", o.Name, !owner, owner)
			}
		}
		for i := range world {
			o := &world[i]
			template := len(o.Template) > 0 && rules.MatchesPod(o.Template)
			if o.IsPod() || !has(o) || template || rules.MatchesLabels(o.Labels) || rules.Names("apps", "StatefulSet", "n", o.Name) {
				continue
			}
			for j := range world {
				p := &world[j]
				if p.IsPod() && !p.Ended && p.Owner != nil && p.Owner.Name == o.Name && !rules.MatchesPod(p.Labels) && !rules.Names("", "Pod", "n", p.Name) {
					t.Fatalf("%s is covered for its pods, and %s is none that was asked for", o.Name, p.Name)
				}
			}
		}
	})
}

func TestRank(t *testing.T) {
	names := selection.Namespaces{Names: []string{"shop"}}
	ranks := []selection.Selection{
		{Namespaces: selection.Namespaces{Names: []string{"*"}}},
		{Namespaces: names},
		{Namespaces: names, Pods: []labels.Selector{labelled(t, "a=b")}},
		{Namespaces: names, Workloads: []selection.Name{name(t, "sts/a")}},
	}
	for want, s := range ranks {
		if s.Rank() != want {
			t.Errorf("Rank(%v) = %d, want %d", s, s.Rank(), want)
		}
	}
}
