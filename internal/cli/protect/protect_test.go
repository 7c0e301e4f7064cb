package protect

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"davit.dev/davit/api/v1alpha1"
)

var now = time.Date(2026, 5, 6, 7, 8, 9, 0, time.UTC)

// given is what a command line makes of the objects.
func given(t *testing.T, app *v1alpha1.Application, policy *v1alpha1.ProtectionPolicy, args ...string) error {
	t.Helper()
	var o Flags
	set := pflag.NewFlagSet("protect", pflag.ContinueOnError)
	o.Bind(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	if err := o.Apply(app, policy); err != nil {
		return err
	}
	return o.Check(app, policy, now)
}

// full is a protection in which every flag has said something.
func full(t *testing.T) (*v1alpha1.Application, *v1alpha1.ProtectionPolicy) {
	t.Helper()
	app, policy, err := New("shop")
	if err != nil {
		t.Fatal(err)
	}
	app.Spec.Policy, app.Spec.Vault = "shop", "main"
	err = given(t, app, policy, "--namespace", "shop,shop-*", "--namespace-selector", "team=shop", "--exclude-namespaces", "shop-test",
		"--selector", "a=b", "--selector", "c=d", "--workload", "deployment/web", "--pods", "app=db",
		"--include-kinds", "*.apps", "--exclude-kinds", "secrets", "--volumes", "snapshot-or-live", "--snapshot-class", "fast",
		"--include-volumes", "data-*", "--exclude-volumes", "claims=a,b; class=scratch", "--freeze", "required", "--freeze-window", "5s", "--profiles", "never",
		"--hook", "name=q; pods=app=db; before=true", "--every", "1m", "--time-zone", "Europe/Lisbon", "--rpo", "2m", "--rto", "5m", "--max-age", "24h",
		"--keep-last", "1", "--keep-hourly", "2", "--keep-daily", "3", "--keep-weekly", "4", "--keep-monthly", "5", "--keep-yearly", "6",
		"--verify-every", "1h", "--verify-sample", "10", "--verify-newest", "2",
		"--test-every", "6h", "--test-newest", "2", "--test-timeout", "5m", "--test-probe", "name=front; http=web")
	if err != nil {
		t.Fatal(err)
	}
	return app, policy
}

// A flag changes what it says, and the rest stays.
func TestGivenAgain(t *testing.T) {
	type change func(app *v1alpha1.ApplicationSpec, policy *v1alpha1.ProtectionPolicySpec)
	for args, want := range map[string]change{
		"": func(*v1alpha1.ApplicationSpec, *v1alpha1.ProtectionPolicySpec) {},
		"--keep-daily 14": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			*p.Retention.Daily = 14
		},
		"--keep-daily 0 --rto 0": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Retention.Daily, p.Objectives.RTO = nil, nil
		},
		"--unset every --cron *_*_*_*_*": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Schedule.Every, p.Schedule.Cron = nil, "* * * * *"
		},
		"--cron *_*_*_*_*": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Schedule.Every, p.Schedule.Cron = nil, "* * * * *"
		},
		"--unset every,time-zone": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Schedule = v1alpha1.Schedule{}
		},
		"--every 0": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) { p.Schedule.Every = nil },
		"--hook name=r;pods=a=b;after=true": func(a *v1alpha1.ApplicationSpec, _ *v1alpha1.ProtectionPolicySpec) {
			h := a.Hooks[0].DeepCopy()
			h.Name, h.Before, h.After = "r", nil, h.Before
			h.PodSelector.MatchLabels = map[string]string{"a": "b"}
			a.Hooks = []v1alpha1.Hook{*h}
		},
		"--unset hook --unset selector": func(a *v1alpha1.ApplicationSpec, _ *v1alpha1.ProtectionPolicySpec) {
			a.Hooks, a.Selector, a.Selectors = nil, nil, nil
		},
		"--unset namespace,namespace-selector,exclude-namespaces": func(a *v1alpha1.ApplicationSpec, _ *v1alpha1.ProtectionPolicySpec) {
			a.Namespaces, a.NamespaceSelector, a.ExcludeNamespaces = []string{"shop"}, nil, nil
		},
		"--unset volumes,freeze,freeze-window,profiles": func(a *v1alpha1.ApplicationSpec, _ *v1alpha1.ProtectionPolicySpec) {
			a.Volumes.Mode, a.Volumes.Freeze, a.Volumes.FreezeWindow, a.Profiles = v1alpha1.VolumeSnapshot, v1alpha1.FreezeAuto, nil, v1alpha1.ProfilesAuto
		},
		"--verify-sample 20": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) { *p.Verify.Sample = 20 },
		"--verify-cron *_*_*_*_*": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Verify.Every, p.Verify.Cron = nil, "* * * * *"
		},
		"--verify-every 0": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) { p.Verify = nil },
		"--unset test-probe --test-newest 1": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.RestoreTest.Probes, *p.RestoreTest.Newest = nil, 1
		},
		"--unset test-every": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) { p.RestoreTest = nil },
		"--unset rpo --every 10m": func(_ *v1alpha1.ApplicationSpec, p *v1alpha1.ProtectionPolicySpec) {
			p.Objectives.RPO = nil
			p.Schedule.Every.Duration = 10 * time.Minute
		},
		"--exclude-volumes claims=a,b": func(a *v1alpha1.ApplicationSpec, _ *v1alpha1.ProtectionPolicySpec) {
			a.Volumes.Exclude = []v1alpha1.VolumeRule{{Claims: []string{"a", "b"}}}
		},
	} {
		app, policy := full(t)
		wantApp, wantPolicy := app.DeepCopy(), policy.DeepCopy()
		want(&wantApp.Spec, &wantPolicy.Spec)
		words := strings.Fields(args)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "_", " ")
		}
		if err := given(t, app, policy, words...); err != nil {
			t.Errorf("%q: %v", args, err)
			continue
		}
		if !reflect.DeepEqual(app, wantApp) {
			t.Errorf("%q: application\n%+v, want\n%+v", args, app.Spec, wantApp.Spec)
		}
		if !reflect.DeepEqual(policy, wantPolicy) {
			t.Errorf("%q: policy\n%+v, want\n%+v", args, policy.Spec, wantPolicy.Spec)
		}
	}
}

// What is there counts: a flag that goes with nothing in it is refused.
func TestGivenAgainIsChecked(t *testing.T) {
	for args, want := range map[string]string{
		"--rpo 30s":                              "can never keep",
		"--every 5m":                             "can never keep",
		"--unset every --wait":                   "nothing is captured",
		"--unset verify-every --verify-sample 5": "nothing says when to verify",
		"--unset test-every --test-newest 5":     "nothing says when to test",
		"--unset every --every 1m":               "given and taken back",
		"--unset wait":                           "no such flag",
		"--unset unset":                          "no such flag",
		"--unset file":                           "a file is not kept",
		"--unset nosuch":                         "no such flag",
		"--namespace davit-system":               "Davit's own",
	} {
		app, policy := full(t)
		if err := given(t, app, policy, strings.Fields(args)...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// Every flag that stands in the documents is one that --unset takes back.
func TestUnsetTakesEverythingBack(t *testing.T) {
	app, policy := full(t)
	var o Flags
	set := pflag.NewFlagSet("protect", pflag.ContinueOnError)
	o.Bind(set)
	for name := range o.own {
		if name != "file" && name != "test-probes" {
			o.unset = append(o.unset, name)
		}
	}
	if err := o.Apply(app, policy); err != nil {
		t.Fatal(err)
	}
	if err := o.Check(app, policy, now); err != nil {
		t.Fatal(err)
	}
	freshApp, freshPolicy, err := New("shop")
	if err != nil {
		t.Fatal(err)
	}
	freshApp.Spec.Policy, freshApp.Spec.Vault, freshApp.Spec.Namespaces = "shop", "main", []string{"shop"}
	if !reflect.DeepEqual(policy, freshPolicy) {
		t.Errorf("policy %+v", policy.Spec)
	}
	if !reflect.DeepEqual(app, freshApp) {
		t.Errorf("application %+v, want %+v", app.Spec, freshApp.Spec)
	}
}
