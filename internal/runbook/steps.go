package runbook

import (
	"fmt"
	"net/url"
	"strings"

	"davit.dev/davit/internal/plan"
)

// item is how a person does a step.
func (in Input) item(s plan.Step, from, to string) Item {
	app := s.Application
	switch s.Kind {
	case plan.KindOutside, plan.KindProbe:
		return in.probe(s, to)
	case plan.KindDNS, plan.KindGate:
		return in.traffic(s, to)
	case plan.KindQuiesce, plan.KindSync, plan.KindPin, plan.KindCatchUp, plan.KindDemote:
		return in.atSource(s, from)
	case plan.KindCommand, plan.KindHTTP, plan.KindManual, plan.KindApproval, plan.KindSuspend, plan.KindResume, plan.KindInfra:
		return own(s, from, to)
	case plan.KindHold:
		return Item{Why: "The target promises no other site any more to stay passive.", See: "Nothing: only a run does this.", Otherwise: "Without a run, make sure by other means that " + from + " has stopped."}
	case plan.KindFence:
		return Item{
			Why:       "No writer may run at " + from + " when one starts at " + to + ".",
			Commands:  []string{"kubectl --kubeconfig FILE get pods" + in.namespaces(app) + "    # if it answers: none of " + app},
			See:       "Nothing of it runs there and nothing starts it, or the site is switched off, and somebody has seen it.",
			Otherwise: "Switch its machines off, or cut its storage and its network. Do not go on before.",
		}
	case plan.KindSandbox, plan.KindCleanup, plan.KindClone:
		return Item{Why: "Of a drill: copies, apart from what runs.", Commands: []string{"davit restore-test " + or(app, "APPLICATION")}, See: "The copy comes up, answers, and is removed.", Otherwise: "davit restore-test --sweep removes what was left."}
	}
	return in.atTarget(s, from, to)
}

// atTarget are the steps that bring an application up.
func (in Input) atTarget(s plan.Step, from, to string) Item {
	app := s.Application
	spaces := in.namespaces(app)
	switch s.Kind {
	case plan.KindClaim:
		return Item{
			Why:      "Whoever holds the newest epoch may write. By hand, apply/" + app + " claims it, when its turn comes.",
			Commands: []string{"davit points " + app + " --from-vault"}, See: "The newest point is of when you want to go on from.",
			Otherwise: "Without the vault nothing comes back: davit vault check.",
		}
	case plan.KindRestore, plan.KindPromote:
		return Item{
			Why: "Its volumes are filled from the newest recovery point that may be offered" + in.point(app) + ". By hand, apply/" + app + " does that.",
			See: "Nothing yet.", Otherwise: "davit verify POINT says whether the point is whole; davit restore " + app + " --take-over --as-of TIME takes an older one.",
		}
	case plan.KindApply:
		existing := ""
		if in.Verb == plan.Failback || in.Verb == plan.Restore {
			existing = " --existing exact"
		}
		return Item{
			Why: "It is claimed, its volumes are filled, its objects made, and its workloads started. From here on " + from + " is fenced as soon as it can read the vault: " +
				"make sure first that nothing of it runs there, as the step fence/" + app + " says.",
			Commands: []string{"davit restore " + app + " --take-over" + existing, "davit describe " + app, "kubectl get pvc" + spaces},
			See:      "It says that " + app + " is restored. " + to + " is the holder, and every claim is Bound.",
			Otherwise: "Give it again: it continues. Volumes from when it ran here before are in the way: --existing exact rolls them back to the point. " +
				"If another site claimed meanwhile, stop: somebody else is doing this too.",
		}
	case plan.KindScale:
		return Item{
			Why: "Its workloads are started.", Commands: []string{"kubectl get all" + spaces, "kubectl get events" + spaces + " --sort-by=.lastTimestamp | tail"},
			See: "The workloads are there, with the replicas that they had.", Otherwise: "Give davit restore " + app + " --take-over again: it continues.",
		}
	case plan.KindReady:
		return Item{
			Why: "What starts after it needs it.", Commands: []string{"kubectl get pods" + spaces, "kubectl describe pod POD" + spaces},
			See: "All pods are Running and ready.", Otherwise: "The events of a pod say what it lacks: an image (davit images " + app + "), room (kubectl describe nodes), a Secret.",
		}
	}
	return Item{Why: "A step of the kind " + string(s.Kind) + ".", See: "It is done.", Otherwise: "Stop and decide."}
}

// atSource are steps at a source that lives.
func (in Input) atSource(s plan.Step, from string) Item {
	app := s.Application
	switch s.Kind {
	case plan.KindQuiesce:
		const ctl = "kubectl --kubeconfig FILE"
		return Item{
			Why: "Nothing may write at " + from + " when the last point is taken. Its agent stops it, and starts it again when it is let go. Do not scale it yourself: the point would have it so.",
			Commands: []string{
				annotate(ctl, app, heldBy+"=by-hand"),
				fmt.Sprintf("%s -n %s wait %s %s --for=jsonpath='{.status.rest.stopped}'=true --timeout=%s", ctl, space(app), applications, object(app), s.Timeout),
			},
			See:       "condition met: no pod of " + app + " is left at " + from + ".",
			Otherwise: "davit describe " + app + " --kubeconfig FILE says what still runs, or why it cannot be held. To take it back: " + annotate(ctl, app, heldBy+"-"),
		}
	case plan.KindSync:
		return Item{Why: "What was written last is captured.", Commands: []string{"davit backup " + app + " --kubeconfig FILE --wait"}, See: "A new recovery point, later than the stop.", Otherwise: "davit logs backup POINT says why."}
	case plan.KindCatchUp:
		return Item{Why: "It shortens the time for which the applications rest.", See: "Nothing: only a run does this.", Otherwise: "Go on."}
	case plan.KindPin:
		return Item{
			Why: "What only the old side has is kept.",
			Commands: []string{
				"P=$(kubectl create -o name -f - <<END\n" + fmt.Sprintf(`{"apiVersion":"davit.dev/v1alpha1","kind":"RecoveryPoint","metadata":{"namespace":%q,"name":"%s-$(date -u +%%Y%%m%%d-%%H%%M%%S)000-byhand"},"spec":{"application":%q,"trigger":"Manual","pinned":true,"diverged":true}}`,
					space(app), app, object(app)) + "\nEND\n)",
				fmt.Sprintf("kubectl -n %s wait $P --for=jsonpath='{.status.phase}'=Quarantined --timeout=%s", space(app), s.Timeout),
				"davit points " + app + " --from-vault --all",
			},
			See: "A new point of it, pinned and Quarantined.", Otherwise: "davit logs backup POINT says why. Do not go on: going back would lose it.",
		}
	}
	return Item{Why: "The volumes at " + from + " become replicas.", See: "They can no longer be written.", Otherwise: "Stop and decide."}
}

// probe asks whether something answers.
func (in Input) probe(s plan.Step, to string) Item {
	item := Item{Why: "What is ready need not work.", See: "It answers as expected.", Otherwise: "Look into the logs of what does not answer: kubectl logs."}
	checks := s.Checks
	if s.Kind == plan.KindOutside {
		item.Why = "The applications need it, and no site runs it."
		for _, o := range in.Plan.Outside {
			if c, found := o.Probes[in.To]; o.Name == s.Object && found {
				checks = append(checks, c)
			}
		}
	}
	for _, c := range checks {
		command := question(c, to)
		if c.Expect != "" {
			command += "    # the answer matches: " + remark(c.Expect)
			item.See = "Each answers as said beside it."
		}
		item.Commands = append(item.Commands, command)
	}
	return item
}

// remark keeps a text within the line whose end it is: what follows on a line of its own
// would be run. To a regular expression \n is the line's end as well.
func remark(s string) string { return strings.NewReplacer("\n", `\n`, "\r", `\r`).Replace(s) }

// question is how a person asks what a check of the plan asks.
func question(c plan.Check, to string) string {
	switch c.Kind {
	case plan.CheckTCP:
		return "nc -z " + strings.Replace(c.Target, ":", " ", 1)
	case plan.CheckSQL:
		return query(c)
	case plan.CheckCommand:
		words := make([]string, 0, len(c.Command))
		for _, w := range c.Command {
			words = append(words, quote(w))
		}
		return inside(c.Target, c.Container) + strings.Join(words, " ")
	}
	return "curl -fsS --max-time 10 " + quote(c.Target) + "    # from a pod at " + to + ", if it is a Service"
}

// query asks a database in its own container, as a run does.
func query(c plan.Check) string {
	u, err := url.Parse(c.Target)
	if err != nil {
		return remark("# ask " + c.Target + ": " + c.Query)
	}
	ask, base := quote(or(c.Query, "SELECT 1")), quote(strings.TrimPrefix(u.Path, "/"))
	if u.Scheme == "postgres" || u.Scheme == "postgresql" {
		return inside(u.Hostname(), c.Container) + "psql -U " + quote(or(u.User.Username(), "postgres")) + " -d " + base + " -c " + ask
	}
	return inside(u.Hostname(), c.Container) + u.Scheme + " -u " + quote(or(u.User.Username(), "root")) + " -p -D " + base + " -e " + ask
}

// inside is the beginning of a command in a pod behind SERVICE.NAMESPACE, or of NAMESPACE/LABEL=VALUE.
func inside(target, container string) string {
	of := ""
	if container != "" {
		of = " -c " + quote(container)
	}
	if space, label, found := strings.Cut(target, "/"); found {
		return fmt.Sprintf("kubectl -n %s exec -it%s $(kubectl -n %[1]s get pod -l %[3]s -o name | head -n 1) -- ", quote(space), of, quote(label))
	}
	service, space, _ := strings.Cut(target, ".")
	space, _, _ = strings.Cut(space, ".")
	return fmt.Sprintf("kubectl -n %s exec -it%s svc/%s -- ", quote(space), of, quote(service))
}

// traffic moves clients.
func (in Input) traffic(s plan.Step, to string) Item {
	if s.Record == nil {
		item := Item{Why: "Clients are let in: load balancers ask " + to + " for this gate.", See: "Clients reach " + to + ", and nothing else."}
		gated := names(in.Plan)
		if s.Application != "" {
			gated = []string{s.Application}
		}
		for _, app := range gated {
			item.Commands = append(item.Commands, annotate("kubectl", app, gate+s.Object+"=open --overwrite"))
			item.Otherwise += annotate("kubectl", app, gate+s.Object+"-") + " closes it again. "
		}
		return item
	}
	r := s.Record
	item := Item{Why: fmt.Sprintf("Clients find %s by %s. Resolvers keep the old address for up to %s.", or(s.Application, "the applications"), s.Object, r.Life())}
	item.Commands = in.updates(s.Object, r)
	if r.Provider == plan.ProviderExternalDNS {
		namespace, name, _ := plan.EndpointKey(r.Endpoint)
		records := make([]string, 0, len(r.To[in.To]))
		for _, v := range r.To[in.To] {
			records = append(records, fmt.Sprintf(`{"dnsName":%q,"recordType":%q,"recordTTL":%d,"targets":[%q]}`, s.Object, plan.RecordKind(v), int(r.Life().Seconds()), v))
		}
		item.Commands = append(item.Commands, "# at "+to+"; at the other sites with [] instead, or their external-dns leads clients back",
			fmt.Sprintf(`kubectl -n %s patch dnsendpoint %s --type=merge -p '{"spec":{"endpoints":[%s]}}'`, namespace, name, strings.Join(records, ",")))
	} else if r.Provider != plan.ProviderRFC2136 {
		for _, v := range r.To[in.To] {
			item.Commands = append(item.Commands, fmt.Sprintf("# at %s, by its console or tool: %s %d IN %s %s, and nothing else at this name    # a key is in Secret %s of davit-system", r.Provider, s.Object, int(r.Life().Seconds()), recordType(v), v, r.Secret))
		}
		item.Commands = append(item.Commands, "dig +short "+s.Object)
	}
	if r.Provider == plan.ProviderExternalDNS {
		item.See = "Within a minute every server answers " + or(strings.Join(r.To[in.To], ", "), "the target's address") + "."
		item.Otherwise = "See the log of external-dns there: another txt-owner-id than the record's, or a policy other than upsert-only (docs/traffic.md). The annotation davit.dev/name-guard is Davit's: leave it."
		return item
	}
	item.See = "Every server answers " + or(strings.Join(r.To[in.To], ", "), "the target's address") + "."
	item.Otherwise = "REFUSED: the key may not update the name. A TXT record beside the name is Davit's guard (docs/traffic.md): leave it, or later runs do not know who is active."
	return item
}

// updates tell every server of a name that takes updates where it leads now, and then ask all
// of them.
func (in Input) updates(name string, r *plan.Record) (all []string) {
	var asks []string
	for _, server := range r.Servers {
		host, port, found := strings.Cut(server.Address, ":")
		if found {
			port = " -p " + port
		}
		asks = append(asks, fmt.Sprintf("dig +short @%s%s %s", host, port, name))
		if server.Watch {
			continue
		}
		lines := []string{"nsupdate -k <(" + keyFile(r.Secret) + ") <<'END'", "server " + strings.Replace(server.Address, ":", " ", 1), "zone " + r.Zone}
		for _, kind := range []string{"A", "AAAA", "CNAME"} {
			lines = append(lines, "update delete "+name+" "+kind)
		}
		for _, v := range r.To[in.To] {
			lines = append(lines, fmt.Sprintf("update add %s %d %s %s", name, int(r.Life().Seconds()), recordType(v), v))
		}
		all = append(all, strings.Join(append(lines, "send", "END"), "\n"))
	}
	return append(all, asks...)
}

// keyFile writes the key of a Secret as nsupdate reads it: neither a file nor the list of processes
// has it.
func keyFile(secret string) string {
	const key = `key "{{index .data "name" | base64decode}}" { algorithm {{with index .data "algorithm"}}{{. | base64decode}}{{else}}hmac-sha256{{end}}; secret "{{index .data "secret" | base64decode}}"; };`
	return "kubectl -n davit-system get secret " + quote(secret) + " -o go-template=" + quote(key) + " | tr -d '\\n'"
}

func recordType(value string) string {
	switch {
	case strings.Contains(value, ":"):
		return "AAAA"
	case strings.Trim(value, "0123456789.") == "":
		return "A"
	}
	return "CNAME"
}

// own are steps of people.
func own(s plan.Step, from, to string) Item {
	item := Item{Why: "A step of the plan's own, of the kind " + string(s.Kind) + ".", See: "It ends well.", Otherwise: "Ask whoever wrote it into the plan."}
	switch s.Kind {
	case plan.KindInfra:
		if s.Command == nil {
			return infrastructure(s, to)
		}
		fallthrough
	case plan.KindCommand:
		args := ""
		for _, a := range s.Command.Args {
			args += " " + quote(a)
		}
		item.Commands = []string{"kubectl -n davit-system run by-hand --rm -i --restart=Never --image=" + quote(s.Command.Image) + " --" + args}
		if len(s.Command.Secrets) > 0 {
			item.Why += " It needs the environment of Secrets " + strings.Join(s.Command.Secrets, ", ") + "."
		}
		item.See = "It exits with 0."
	case plan.KindHTTP:
		item.Commands = []string{curl(s.Call)}
		item.See = fmt.Sprintf("It prints %d.", s.Call.Expect)
		if secrets := s.Call.Secrets(); len(secrets) > 0 {
			item.Why += " It takes what is secret from " + strings.Join(secrets, ", ") + " of davit-system."
		}
	case plan.KindManual, plan.KindApproval:
		item.Why, item.See = s.Prompt, "It is done, and whoever did it says so."
		if s.Approvers != nil {
			item.Why += fmt.Sprintf(" It takes %d of %s.", max(s.Approvers.Count, 1), s.Approvers.Who())
		}
	case plan.KindSuspend, plan.KindResume:
		return reconciler(s, from, to)
	}
	return item
}

// reconciler suspends or resumes what makes objects from git, or stops what a restore replaces.
func reconciler(s plan.Step, from, to string) Item {
	resource, namespace, name, err := plan.Reconciler(s.Object)
	if err != nil { // the application itself, by a step that no plan has written
		return Item{
			Why: s.Object + " is stopped at " + to + ", where it is about to be replaced. By hand, apply/" + s.Object + " stops what mounts its volumes.", See: "Nothing yet.",
			Otherwise: "If something starts it again while it is restored, as an operator may, stop that first.",
		}
	}
	ctl, at := "kubectl", to
	if s.Side == plan.Source {
		ctl, at = "kubectl --kubeconfig FILE", from
	}
	off := s.Kind == plan.KindSuspend
	patch := fmt.Sprintf(`{"spec":{"suspend":%t}}`, off)
	item := Item{Why: "What makes objects from git at " + at + " keeps its hands off.", See: "patched.", Otherwise: "If it is not there, go on."}
	if !off {
		item.Why = "What makes objects from git at " + at + " goes on."
	}
	if resource == plan.ArgoCD {
		patch = `{"metadata":{"annotations":{"argocd.argoproj.io/skip-reconcile":null}}}`
		if off {
			patch = `{"metadata":{"annotations":{"argocd.argoproj.io/skip-reconcile":"true"}},"spec":{"syncPolicy":{"automated":null}}}`
			item.Otherwise += " Write down its spec.syncPolicy.automated first: whoever resumes it puts that back."
		} else {
			item.Otherwise += " Put back the spec.syncPolicy.automated that it had."
		}
	}
	item.Commands = []string{fmt.Sprintf("%s -n %s patch %s %s --type=merge -p '%s'", ctl, quote(or(namespace, "NAMESPACE")), resource, quote(name), patch)}
	return item
}

// curl makes a call as a run does, in Bash. What is secret goes from the Secret to it alone:
// neither the page nor the list of processes has it.
func curl(c *plan.Call) string {
	line := "curl -sS -o /dev/null -w '%{http_code}\\n' -X " + quote(c.Method)
	if c.Method == "HEAD" {
		line = "curl -sS -o /dev/null -w '%{http_code}\\n' --head"
	}
	typed := false
	for _, h := range c.Headers {
		typed = typed || strings.EqualFold(h.Name, "Content-Type")
		if h.From == nil {
			line += " -H " + quote(h.Name+": "+h.Value)
			continue
		}
		line += fmt.Sprintf(" -H @<(printf '%%s%%s\\n' %s \"$(%s)\")", quote(h.Name+": "+h.Value), reading(*h.From))
	}
	if !typed && (c.Body != "" || c.BodyFrom != nil) {
		line += " -H Content-Type:" // curl would say that it is a form
	}
	switch {
	case c.BodyFrom != nil:
		line = reading(*c.BodyFrom) + " | " + line + " --data-binary @-"
	case c.Body != "":
		line += " --data-raw " + quote(c.Body)
	}
	if c.URLFrom != nil {
		return line + fmt.Sprintf(" -K <(printf 'url = \"%%s\"\\n' \"$(%s)\")", reading(*c.URLFrom))
	}
	return line + " " + quote(c.URL)
}

// reading writes the value of a Secret's key.
func reading(k plan.SecretKey) string {
	return fmt.Sprintf("kubectl -n davit-system get secret %s -o go-template=%s", quote(k.Secret), quote(fmt.Sprintf("{{index .data %q | base64decode}}", k.Key)))
}

// infrastructure is made by the tool that the step names.
func infrastructure(s plan.Step, to string) Item {
	item := Item{Why: "What the applications at " + to + " need around them is made."}
	if t := s.Terraform; t != nil {
		item.Commands = t.ByHand()
		item.See = "Apply complete! or No changes."
		item.Otherwise = "A state lock that a dead run left: see that nobody works on it, then " + t.Runs() + " force-unlock ID. All else: what it says after Error:."
		if len(t.Secrets) > 0 {
			item.Why += " It needs the environment of Secrets " + strings.Join(t.Secrets, ", ") + " of davit-system."
		}
		return item
	}
	a := s.ClusterAPI
	ctl := "kubectl"
	if a.Kubeconfig != "" {
		ctl += " --kubeconfig FILE"
		item.Why += " The kubeconfig of the management cluster is in Secret " + a.Kubeconfig + " of davit-system."
	}
	for _, raw := range a.Apply {
		item.Commands = append(item.Commands, ctl+" apply --server-side -f - <<'END'\n"+string(raw)+"\nEND")
	}
	for _, m := range a.Scale {
		if resource, namespace, name, err := plan.Machinery(m.Object); err == nil {
			item.Commands = append(item.Commands, fmt.Sprintf("%s -n %s scale %s %s --replicas=%d    # unless it has more", ctl, quote(namespace), quote(resource), quote(name), m.Replicas))
		}
	}
	for _, w := range a.Wait {
		resource, namespace, name, err := plan.Machinery(w.Object)
		if err != nil {
			continue
		}
		conditions := w.Conditions
		if len(conditions) == 0 {
			conditions = []string{"Ready"}
		}
		for _, c := range conditions {
			item.Commands = append(item.Commands, fmt.Sprintf("%s -n %s wait %s %s --for=condition=%s --timeout=%s", ctl, quote(namespace), quote(resource), quote(name), quote(c), s.Timeout))
		}
	}
	item.See = "The machines are ready, and the conditions true."
	item.Otherwise = "clusterctl describe cluster NAME -n NAMESPACE names what is not ready; the log of the infrastructure provider says why."
	return item
}

// What people set by hand of an Application.
const (
	applications = "applications.davit.dev"
	heldBy       = "davit.dev/held-by"
	gate         = "gate.davit.dev/"
)

// annotate is how a person sets or takes off an annotation of an application's object.
func annotate(ctl, app, what string) string {
	return fmt.Sprintf("%s -n %s annotate %s %s %s", ctl, space(app), applications, object(app), what)
}

// space and object are where the Application of a name in the vault is.
func space(app string) string {
	if namespace, _, found := strings.Cut(app, "."); found {
		return namespace
	}
	return "davit-system"
}

func object(app string) string {
	if _, name, found := strings.Cut(app, "."); found {
		return name
	}
	return app
}

func (in Input) namespaces(app string) string {
	for _, n := range in.Needs {
		if n.Application == app && len(n.Namespaces) == 1 {
			return " -n " + n.Namespaces[0]
		}
	}
	return " -n NAMESPACE"
}

func (in Input) point(app string) string {
	for _, n := range in.Needs {
		if n.Application == app && n.Point != "" {
			return ", when this was written " + n.Point
		}
	}
	return ""
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// quote makes a word one word of a shell.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
