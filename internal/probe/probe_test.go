package probe

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"davit.dev/davit/internal/plan"
)

// cluster answers what it is told to, and remembers what was asked.
type cluster struct {
	asked  []string
	status int
	body   string
	err    error
}

func (c *cluster) HTTP(_ context.Context, namespace, service, port, scheme, path string) (int, string, error) {
	c.asked = append(c.asked, scheme+" "+namespace+"/"+service+":"+port+path)
	return c.status, c.body, c.err
}

func (c *cluster) Exec(_ context.Context, at Place, command []string) (string, error) {
	c.asked = append(c.asked, at.Namespace+"/"+at.Service+at.Labels+"/"+at.Container+" "+strings.Join(command[min(len(command)-1, 3):], " "))
	return c.body, c.err
}

func check(k plan.CheckKind, target, expect string) plan.Check {
	return plan.Check{Kind: k, Target: target, Expect: expect, Timeout: time.Minute}
}

func TestAsk(t *testing.T) {
	copies := func(ns string) (string, bool) { return "copy-" + ns, ns == "shop" }
	sql := check(plan.CheckSQL, "postgres://app@db.shop/orders", "^7$")
	sql.Query, sql.Container = "SELECT count(*) FROM orders", "pg"
	run := check(plan.CheckCommand, "shop/app=db", "")
	run.Command = []string{"cat", "/data/sum"}
	behind := run
	behind.Target = "db.shop"
	for name, test := range map[string]struct {
		check plan.Check
		drill bool
		c     cluster
		asked string
		want  string // of the answer, or of the error
		fails bool
	}{
		"http":                       {check(plan.CheckHTTP, "http://web.shop:8080/x?y", "ok"), false, cluster{status: 200, body: "ok"}, "http shop/web:8080/x?y", "200 ok", false},
		"http of a clone":            {check(plan.CheckHTTP, "https://web.shop.svc/", ""), true, cluster{status: 204}, "https copy-shop/web:443/", "204", false},
		"a bad status":               {check(plan.CheckHTTP, "http://web.shop/", ""), false, cluster{status: 500}, "http shop/web:80/", "status 500", true},
		"another answer":             {check(plan.CheckHTTP, "http://web.shop/", "^ok$"), false, cluster{status: 200, body: "no"}, "http shop/web:80/", `does not match "^ok$": no`, true},
		"out of the sandbox":         {check(plan.CheckHTTP, "http://www.example.com/", ""), true, cluster{status: 200}, "", ErrOutside.Error(), true},
		"another's namespace":        {check(plan.CheckHTTP, "http://web.bank/", ""), true, cluster{status: 200}, "", ErrOutside.Error(), true},
		"tcp out of the sandbox":     {check(plan.CheckTCP, "192.0.2.1:5432", ""), true, cluster{}, "", ErrOutside.Error(), true},
		"tcp of a clone":             {check(plan.CheckTCP, "db.shop:5432", ""), true, cluster{status: 503, body: "error trying to reach service: EOF"}, "http copy-shop/db:5432/", "connected", false},
		"tcp of a clone, refused":    {check(plan.CheckTCP, "db.shop:5432", ""), true, cluster{status: 503, body: "error trying to reach service: dial tcp: connection refused"}, "http copy-shop/db:5432/", "refused", true},
		"sql":                        {sql, false, cluster{body: "7\n"}, "shop/db/pg psql -U app -c SELECT count(*) FROM orders -d orders", "7", false},
		"sql of a clone":             {sql, true, cluster{body: "7"}, "copy-shop/db/pg psql -U app -c SELECT count(*) FROM orders -d orders", "7", false},
		"sql with another answer":    {sql, false, cluster{body: "8"}, "shop/db/pg psql -U app -c SELECT count(*) FROM orders -d orders", "does not match", true},
		"mysql asks a least thing":   {check(plan.CheckSQL, "mysql://db.shop", ""), false, cluster{body: "1"}, "shop/db/ mysql -u root -e SELECT 1", "1", false},
		"command":                    {run, true, cluster{body: "abc"}, "copy-shop/app=db/ /data/sum", "abc", false},
		"command behind a Service":   {behind, false, cluster{err: errors.New("exit code 2")}, "shop/db/ /data/sum", "exit code 2", true},
		"command out of the sandbox": {check(plan.CheckCommand, "bank/app=db", ""), true, cluster{}, "", ErrOutside.Error(), true},
	} {
		t.Run(name, func(t *testing.T) {
			a := Asker{Cluster: &test.c}
			if test.drill {
				a.To = copies
			}
			answer, err := a.Ask(t.Context(), test.check)
			if err != nil {
				answer = err.Error()
			}
			if (err != nil) != test.fails || !strings.Contains(answer, test.want) || strings.Join(test.c.asked, ",") != test.asked {
				t.Errorf("%v, %q, asked %q", err, answer, test.c.asked)
			}
		})
	}
}

// TestAll: what leads out of a drill is told and does not fail it; what fails does.
func TestAll(t *testing.T) {
	c := &cluster{status: 200, body: "ok"}
	a := Asker{Cluster: c, To: func(ns string) (string, bool) { return "copy", ns == "shop" }}
	checks := []plan.Check{check(plan.CheckHTTP, "http://web.shop/", ""), check(plan.CheckHTTP, "http://www.example.com/", "")}
	answer, err := a.All(t.Context(), checks)
	if err != nil || !strings.Contains(answer, "200 ok") || !strings.Contains(answer, ErrOutside.Error()) {
		t.Errorf("%v %q", err, answer)
	}
	c.status = 500
	if _, err := a.All(t.Context(), checks); err == nil {
		t.Error("a failure passed")
	}
}

func TestServicesOfTheCluster(t *testing.T) {
	for host, want := range map[string]string{"web.shop": "web/shop", "web.shop.svc": "web/shop", "web.shop.svc.cluster.local": "web/shop", "www.example.com": "", "10.0.0.1": "", "web": ""} {
		service, namespace, ok := inCluster(host)
		if got := service + "/" + namespace; ok != (want != "") || ok && got != want {
			t.Errorf("%s: %s %v", host, got, ok)
		}
	}
}
