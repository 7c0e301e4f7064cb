// Package restoration is how restores are asked for at a console, and what they would
// do: it looks whether whoever asks may, and whether the site could, keeps what is
// asked, and waits a little for what the site's agent says of it. The site decides;
// what is known here only spares people the way.
package restoration

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/internal/console/account"
	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/entry"
	"davit.dev/davit/internal/console/fleet"
	"davit.dev/davit/internal/console/quota"
	"davit.dev/davit/internal/console/store"
	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/vault"
)

const (
	// Life is how long a site may take to begin what it is asked for.
	Life = 2 * time.Minute
	// Patience is how long whoever asks waits for the site's answer.
	Patience = 10 * time.Second
	maxText  = 1024
	maxNames = 256
)

// Need is what it takes to restore, and to see what a restore would do: that shows
// what is in a cluster.
const Need = account.Recover

// Ask is what somebody asks for.
type Ask struct {
	// ID makes the same again be the same request.
	ID          string
	Application string
	Point       string // empty: the newest that may be offered
	Site        string // empty: that which holds the application
	DryRun      bool
	// Clone makes a copy in other Namespaces.
	Clone          bool
	Namespaces     map[string]string
	StorageClasses map[string]string
	Existing       string // skip, update, replace or exact; empty: skip
	Reason         string
}

// Policies are the words for what happens to what is there.
func Policies() []string { return []string{"skip", "update", "replace", "exact"} }

// Overwrites tells whether live data may be lost.
func (a Ask) Overwrites() bool { return a.Existing == "replace" || a.Existing == "exact" }

// Desk takes what people ask for.
type Desk struct {
	Door  *entry.Door
	Fleet func(p *store.Project) fleet.Known
	// Open opens a project's vault.
	Open func(ctx context.Context, p *store.Project) (*vault.Project, error)
}

// Take keeps what somebody asks for, and returns what the site says of it if it does
// so soon.
func (d *Desk) Take(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, a Ask) (store.Restoration, error) {
	if err := a.check(); err != nil {
		return store.Restoration{}, err
	}
	if err := d.Door.May(ctx, who, p, Need); err != nil {
		return store.Restoration{}, err
	}
	// What was asked before is answered as it stands.
	if old, err := p.Restoration(ctx, a.ID); err == nil && old.By == act.By && a.same(old) {
		return d.await(ctx, p, old)
	}
	k := d.Fleet(p)
	app, err := know(k, a.Application)
	if err != nil {
		return store.Restoration{}, err
	}
	if a, err = a.fill(app); err != nil {
		return store.Restoration{}, err
	}
	if why := Unable(k, a.Site, a.Clone); why != "" {
		return store.Restoration{}, fmt.Errorf("%w: %s. Restore there: `%s`", store.ErrRefused, why, a.Command())
	}
	r, what, err := a.request(who.InRuns(p.Name), app.Epoch, act.At)
	if err != nil {
		return r, err
	}
	put := func() error {
		r, err = p.Restore(ctx, act, r, what)
		return err
	}
	if a.DryRun {
		err = put()
	} else {
		err = quota.Take(ctx, p, quota.Restores, act.At, put)
	}
	if err != nil {
		return r, err
	}
	return d.await(ctx, p, r)
}

// Cancel has the site take a restore back that has not begun there, and returns how it
// stands then.
func (d *Desk) Cancel(ctx context.Context, p *store.Project, who entry.Who, act audit.Act, id string) (store.Restoration, error) {
	if err := d.Door.May(ctx, who, p, Need); err != nil {
		return store.Restoration{}, err
	}
	r, err := p.Restoration(ctx, id)
	if err != nil {
		return r, err
	}
	for _, a := range d.Fleet(p).Agents {
		if a.Site == r.Site && a.Connected && !a.Cancels {
			return r, fmt.Errorf("%w: the agent of site %s is too old to take a restore back: `kubectl -n davit-system delete restore %s` there does", store.ErrRefused, r.Site, r.Name)
		}
	}
	if err := p.Withdraw(ctx, act, id); err != nil {
		return r, err
	}
	s, err := entry.Await(ctx, d.Door, p, Patience, func(ctx context.Context) (settling, error) {
		r, err := p.Restoration(ctx, id)
		return settling{r}, err
	})
	return s.Restoration, err
}

// settling is a restore that is to be taken back.
type settling struct{ store.Restoration }

// Open tells whether nobody knows yet whether it was.
func (s settling) Open(time.Time) bool { return !s.Over() && !begun(s.Restoration) }

// begun tells whether a site said that it began to restore.
func begun(r store.Restoration) bool {
	var o uplink.Outcome
	return len(r.Outcome) > 0 && json.Unmarshal(r.Outcome, &o) == nil && !o.Started.IsZero()
}

// same tells whether a request that was kept is this one.
func (a Ask) same(old store.Restoration) bool {
	var was uplink.Restore
	if err := json.Unmarshal(old.Body, &was); err != nil {
		return false
	}
	return old.Application == a.Application && old.Dry == a.DryRun && old.Point == cmp.Or(a.Point, old.Point) && old.Site == cmp.Or(a.Site, old.Site) &&
		was.Clone == a.Clone && maps.Equal(was.Namespaces, a.Namespaces) && maps.Equal(was.StorageClasses, a.StorageClasses) &&
		was.Existing == cmp.Or(a.Existing, "skip") && was.Reason == a.Reason
}

// await waits a little: for a dry run's end, and for a restore's beginning.
func (d *Desk) await(ctx context.Context, p *store.Project, r store.Restoration) (store.Restoration, error) {
	return entry.Await(ctx, d.Door, p, Patience, func(ctx context.Context) (store.Restoration, error) { return p.Restoration(ctx, r.ID) })
}

// know finds an application.
func know(k fleet.Known, name string) (*fleet.Application, error) {
	if k.Snapshot == nil {
		return nil, fmt.Errorf("%w: the console has not read the vault yet: ask again in a minute, or restore at the site", store.ErrRefused)
	}
	a, ok := k.Snapshot.Application(name)
	if !ok {
		return nil, fmt.Errorf("find application %s: %w", name, store.ErrNotFound)
	}
	return a, nil
}

// Unable says why a site's agent cannot be asked now; empty: it can.
func Unable(k fleet.Known, site string, clone bool) string {
	i := slices.IndexFunc(k.Agents, func(a fleet.Agent) bool { return a.Site == site })
	const allow = "; `davit enrol --restores clone` or `--restores all` at the site, with a new token, lets it"
	switch {
	case i < 0:
		return fmt.Sprintf("no agent of site %s calls this console", site)
	case !k.Agents[i].Connected:
		return fmt.Sprintf("the agent of site %s is not connected", site)
	case k.Agents[i].Restores == "":
		return fmt.Sprintf("the agent of site %s is too old to be asked for restores", site)
	case k.Agents[i].Restores == uplink.RestoresAll, k.Agents[i].Restores == uplink.RestoresClone && clone:
		return ""
	case k.Agents[i].Restores == uplink.RestoresClone:
		return fmt.Sprintf("site %s lets the console restore copies only", site) + allow
	}
	return fmt.Sprintf("site %s does not let the console restore", site) + allow
}

// Command is what restores without the console, with the site's kubeconfig.
func (a Ask) Command() string {
	words := []string{"davit", "restore", cmp.Or(a.Point, a.Application)}
	if a.Clone {
		words = append(words, "--as-clone")
	}
	for _, from := range slices.Sorted(maps.Keys(a.Namespaces)) {
		words = append(words, "--map-namespace", from+"="+a.Namespaces[from])
	}
	for _, from := range slices.Sorted(maps.Keys(a.StorageClasses)) {
		words = append(words, "--map-storage-class", from+"="+a.StorageClasses[from])
	}
	if a.Existing != "" && a.Existing != "skip" {
		words = append(words, "--existing", a.Existing)
	}
	if a.DryRun {
		words = append(words, "--dry-run", "--diff")
	}
	for i, word := range words {
		words[i] = quote(word)
	}
	return strings.Join(words, " ")
}

// quote makes a word one word of a shell: a link to a page may have put it there.
func quote(word string) string {
	if strings.Trim(word, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.=") == "" {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// check refuses what makes no sense, whatever is known of the fleet.
func (a Ask) check() error {
	var why string
	names := slices.Concat(slices.Collect(maps.Keys(a.Namespaces)), slices.Collect(maps.Values(a.Namespaces)), slices.Collect(maps.Keys(a.StorageClasses)), slices.Collect(maps.Values(a.StorageClasses)))
	switch {
	case !entry.ValidID(a.ID, 16):
		why = "the request's id has other than 16 to 64 letters, digits, dashes and underscores"
	case len(a.Reason) > maxText:
		why = fmt.Sprintf("the reason has more than %d bytes", maxText)
	case a.Existing != "" && !slices.Contains(Policies(), a.Existing):
		why = fmt.Sprintf("what is there cannot be treated as %.32q says: only skip, update, replace and exact", a.Existing)
	case a.Clone && a.Existing != "" && a.Existing != "skip":
		why = "a copy goes into new namespaces, and overwrites nothing"
	case a.Clone && len(a.Namespaces) == 0:
		why = "a copy needs other namespaces: say which one each is to have"
	case !a.Clone && len(a.Namespaces) > 0:
		why = "what comes back in place keeps its namespaces: ask for a copy to have others"
	case len(names) > 4*maxNames:
		why = "it maps too many names"
	}
	for _, name := range names {
		if why == "" && vault.CheckName(name) != nil {
			why = fmt.Sprintf("%.64q is no name of a namespace or storage class", name)
		}
	}
	if why != "" {
		return fmt.Errorf("%w: %s", store.ErrRefused, why)
	}
	return nil
}

// fill settles the point and the site, and refuses what the application cannot be
// asked for.
func (a Ask) fill(app *fleet.Application) (Ask, error) {
	a.Site, a.Existing = cmp.Or(a.Site, app.Site), cmp.Or(a.Existing, "skip")
	if a.Site == "" {
		return a, fmt.Errorf("%w: no site holds %s: say at which site", store.ErrRefused, app.Name)
	}
	if !a.Clone && app.Site != "" && app.Site != a.Site {
		return a, fmt.Errorf("%w: site %s holds %s, and may be writing: only there it comes back in place. A failover of its plan moves it to %s; a copy can be restored at any site", store.ErrRefused, app.Site, app.Name, a.Site)
	}
	if a.Point == "" {
		newest, ok := app.Newest()
		if !ok {
			return a, fmt.Errorf("%w: no recovery point of %s may be offered", store.ErrRefused, app.Name)
		}
		a.Point = newest.ID
	}
	i := slices.IndexFunc(app.Points, func(p fleet.Point) bool { return p.ID == a.Point })
	switch {
	case i < 0:
		return a, fmt.Errorf("find point %s of %s: %w", a.Point, app.Name, store.ErrNotFound)
	case !app.Points[i].Good:
		return a, fmt.Errorf("%w: point %s is not offered: %s", store.ErrRefused, a.Point, app.Points[i].Why)
	}
	return a, nil
}

// name is what the Restore is called: an application's name may be as long as one.
func name(app, id string, at time.Time) string {
	const most = 200
	tail := fmt.Sprintf("-console-%s-%.6s", at.UTC().Format("20060102-150405"), strings.Trim(strings.ToLower(strings.ReplaceAll(id, "_", "-")), "-"))
	return strings.Trim(app[:min(len(app), most)], "-.") + strings.TrimRight(tail, "-")
}

// request is what is kept, and what the audit log says of it.
func (a Ask) request(by string, seen int64, at time.Time) (store.Restoration, string, error) {
	body, err := json.Marshal(uplink.Restore{
		Clone: a.Clone, Namespaces: a.Namespaces, StorageClasses: a.StorageClasses, Existing: a.Existing, Seen: seen, By: by, Reason: a.Reason,
	})
	r := store.Restoration{
		ID: a.ID, Site: a.Site, Application: a.Application, Point: a.Point, Name: name(a.Application, a.ID, at), Dry: a.DryRun, Body: body, Until: at.Add(Life).UTC().Truncate(time.Millisecond),
	}
	what := a.Command() + " at site " + a.Site + " for " + by
	if a.Reason != "" {
		what += ": " + a.Reason
	}
	return r, what, err
}
