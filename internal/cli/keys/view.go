package keys

import (
	"context"
	"fmt"
	"slices"
	"time"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/console/authority"
	"davit.dev/davit/internal/vault"
)

// Version is one data key of the project.
type Version struct {
	Version int64     `json:"version"`
	KeyID   string    `json:"keyID"`
	Created time.Time `json:"created,omitzero"`
	// Volumes says that sites began new volume repositories with it.
	Volumes bool `json:"volumes,omitempty"`
	Removed int  `json:"removed,omitempty"` // recipients left out
}

// Recipient is a key that opens the project.
type Recipient struct {
	Recipient string `json:"recipient"`
	// Site is empty for recovery keys, and for keys that a site had before.
	Site string `json:"site,omitempty"`
	// Console is the machine of the console whose key it is.
	Console string `json:"console,omitempty"`
	// Version is the newest that the site has taken up; 0 for one whose agent
	// knows no versions.
	Version int64     `json:"version,omitempty"`
	Seen    time.Time `json:"seen,omitzero"` // the site's newest sign of life
	lives   bool
}

func (r Recipient) name() string {
	if r.Site != "" {
		return "site " + r.Site + " (" + r.Recipient + ")"
	}
	if r.Console != "" {
		return "the console of " + r.Console + " (" + r.Recipient + ")"
	}
	return r.Recipient
}

// Keys is what `vault keys` shows.
type Keys struct {
	Project    string      `json:"project"`
	Versions   []Version   `json:"versions"` // oldest first
	Recipients []Recipient `json:"recipients"`
	// Older are sites that live and whose agents know no key versions.
	Older    []string `json:"olderAgents,omitempty"`
	Rotated  bool     `json:"rotated,omitempty"`
	Removed  []string `json:"removed,omitempty"`
	Admitted string   `json:"admitted,omitempty"`
	KeyFile  string   `json:"recoveryKeyFile,omitempty"`
	DryRun   bool     `json:"dryRun,omitempty"`

	now time.Time
}

// look reads who has which key.
func look(ctx context.Context, p *vault.Project, now time.Time) (*Keys, error) {
	if err := p.Refresh(ctx); err != nil {
		return nil, err
	}
	k := &Keys{Project: p.Name(), now: now}
	numbers := map[string]int64{}
	for _, v := range p.KeyVersions() {
		numbers[v.KeyID] = v.Number
		k.Versions = append(k.Versions, Version{Version: v.Number, KeyID: v.KeyID, Created: v.Created, Volumes: v.Volumes, Removed: len(v.Removed)})
	}
	recipients, err := p.Recipients(ctx)
	if err != nil {
		return nil, err
	}
	sites, err := p.Sites(ctx)
	if err != nil {
		return nil, err
	}
	consoles, err := authority.Consoles(ctx, p)
	if err != nil {
		return nil, err
	}
	for _, s := range sites {
		if s.KeyID == "" && now.Sub(s.Written) < lives {
			k.Older = append(k.Older, s.Site)
		}
	}
	for _, r := range recipients {
		seen := Recipient{Recipient: r.String()}
		for _, s := range sites {
			if s.Recipient == r.String() {
				seen.Site, seen.Version, seen.Seen, seen.lives = s.Site, numbers[s.KeyID], s.Written, now.Sub(s.Written) < lives
			}
		}
		for _, c := range consoles {
			if c.Recipient == r.String() {
				seen.Console = c.Name
			}
		}
		k.Recipients = append(k.Recipients, seen)
	}
	slices.SortStableFunc(k.Recipients, func(a, b Recipient) int {
		switch {
		case a.Site == b.Site:
			return 0
		case a.Site == "":
			return 1
		case b.Site == "" || a.Site < b.Site:
			return -1
		}
		return 1
	})
	return k, nil
}

func (k *Keys) newest() int64 { return k.Versions[len(k.Versions)-1].Version }

func (k *Keys) olderSites() []string { return k.Older }

// behind are the sites that live and have not taken up the newest key.
func (k *Keys) behind() []string {
	var names []string
	for _, r := range k.Recipients {
		if r.Site != "" && r.lives && r.Version < k.newest() {
			names = append(names, r.Site)
		}
	}
	return names
}

// find is the recipient that a person named.
func (k *Keys) find(named string) (Recipient, error) {
	for _, r := range k.Recipients {
		if r.Recipient == named || r.Site == named {
			return r, nil
		}
	}
	return Recipient{}, exit.Refuse("`vault keys ls` lists them; a site that never ran this version is named by its key, age1...", "%s is no recipient of the newest data key", named)
}

// Document implements output.Result.
func (k Keys) Document() any { return k }

// Text implements output.Result.
func (k Keys) Text(t *output.Text) {
	switch {
	case k.DryRun:
		t.Line("Nothing was changed. Now:")
	case k.Rotated:
		t.Line("Version %d of the data key of project %s is in use.", k.newest(), k.Project)
	case k.Admitted != "":
		t.Line("%s can open project %s.", k.Admitted, k.Project)
	}
	var rows [][]string
	for _, v := range k.Versions {
		note := ""
		if v.Volumes {
			note = "volumes stored anew"
		}
		if v.Removed > 0 {
			note = fmt.Sprintf("%s removed, %s", output.Plural(int64(v.Removed), "recipient"), note)
		}
		rows = append(rows, []string{fmt.Sprint(v.Version), v.KeyID, output.Age(v.Created, k.now), note})
	}
	t.Table("", output.Columns(">VERSION", "KEY", "AGE", "NOTE"), rows)
	t.Section("Recipients of the newest:")
	rows = nil
	for _, r := range k.Recipients {
		version := ""
		if r.Site != "" {
			version = fmt.Sprint(r.Version)
		}
		name := r.Site
		if r.Console != "" {
			name = "(console of " + r.Console + ")"
		}
		rows = append(rows, []string{name, version, output.Age(r.Seen, k.now), r.Recipient})
	}
	t.Table("  ", output.Columns("SITE", ">HAS", "SEEN", "RECIPIENT"), rows)
	t.Line("Without a site: recovery keys, keys that a site had before, and sites that have not run this version yet.")
	if len(k.Older) > 0 {
		t.Line("The agents of these sites know no key versions: upgrade them before the key is rotated: %v", k.Older)
	}
	if behind := k.behind(); k.Rotated && len(behind) > 0 {
		t.Line("Not taken up yet by: %v. Until then they seal with the key before.", behind)
	}
	for _, gone := range k.Removed {
		t.Line("Removed: %s. What was written before stays readable for whoever kept its key. Change the store's credentials too.", gone)
	}
	if k.KeyFile != "" {
		t.Line("Its key is in %s: keep it outside all sites.", k.KeyFile)
	}
}
