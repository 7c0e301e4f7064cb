package view

import (
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/vault"
)

// Vault is one vault as `vault ls` and `status` show it.
type Vault struct {
	Name      string    `json:"name"`
	URL       string    `json:"url"`
	Project   string    `json:"project"`
	Ready     string    `json:"ready"`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	Checked   time.Time `json:"checked,omitzero"`
	Latency   string    `json:"latency,omitempty"`
	ClockSkew string    `json:"clockSkew,omitempty"`
	// ClocksApart says that the vault's clock and this site's differ by more
	// than is safe to read ages by.
	ClocksApart bool `json:"clocksApart,omitempty"`
	// CopyOf is the vault of which this is a second copy, Copy how far it is.
	CopyOf string `json:"copyOf,omitempty"`
	// Lock is how far the locks of kept points reach; nil where none are set.
	Lock *v1alpha1.LockStatus `json:"lock,omitempty"`
	Copy *v1alpha1.CopyStatus `json:"copy,omitempty"`
	// NoOverwrite says that this site's credentials are to destroy nothing there.
	NoOverwrite bool `json:"noOverwrite,omitempty"`
	// Keeping is whether that was proven; nil where it is not asked for.
	Keeping *v1alpha1.KeepingStatus `json:"keeping,omitempty"`
}

// OfVaultObject reads a Vault object.
func OfVaultObject(v *v1alpha1.Vault) Vault {
	view := Vault{
		Name: v.Name, URL: v.Spec.URL, Project: v.Spec.Project, Ready: "Unknown", Checked: TimeOf(v.Status.LastChecked),
		CopyOf: v.Spec.CopyOf, Copy: v.Status.Copy, NoOverwrite: v.Spec.NoOverwrite,
	}
	if v.Spec.Immutability != nil {
		if view.Lock = v.Status.Lock; view.Lock == nil {
			view.Lock = &v1alpha1.LockStatus{}
		}
	}
	if v.Spec.NoOverwrite {
		view.Keeping = v.Status.Keeping
	}
	if c := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		view.Ready, view.Reason, view.Message = string(c.Status), c.Reason, c.Message
	}
	if v.Status.Latency != nil {
		view.Latency = output.Duration(v.Status.Latency.Duration)
	}
	if v.Status.ClockSkew != nil {
		view.ClockSkew = output.Duration(v.Status.ClockSkew.Duration)
		view.ClocksApart = v.Status.ClockSkew.Abs() > vault.SafeSkew
	}
	return view
}

// Copying says how far a second copy is; "" for a vault that is none.
func (v Vault) Copying(now time.Time) string {
	switch c := v.Copy; {
	case v.CopyOf == "":
		return ""
	case c == nil || c.LookedAt == nil && c.Error == "":
		return "copying has not begun"
	case c.Error != "" && c.LookedAt == nil:
		return c.Error
	default:
		var points int64
		for _, a := range c.Applications {
			points += a.Points
		}
		text := fmt.Sprintf("%s copied", output.Plural(points, "point"))
		if c.Pending > 0 {
			text += fmt.Sprintf(", %d to go, the oldest %s old", c.Pending, output.Age(TimeOf(c.PendingSince), now))
		}
		text += fmt.Sprintf("; compared %s", output.Ago(c.LookedAt.Time, now))
		if c.Error != "" {
			text += "; FAILED: " + c.Error
		}
		return text
	}
}

// Locked says how far locks reach; "" where none are set.
func (v Vault) Locked(now time.Time) string {
	switch l := v.Lock; {
	case l == nil:
		return ""
	case l.Error != "":
		return "LOCKS ARE NOT PROLONGED: " + l.Error
	case l.Until == nil:
		return "kept points are locked as they are written; their locks were not prolonged yet"
	default:
		return fmt.Sprintf("kept points are locked until %s, prolonged %s", output.Time(l.Until.Time), output.Ago(TimeOf(l.ExtendedAt), now))
	}
}

// Kept says whether the store keeps what this site's credentials overwrite or
// delete; "" where that is not asked for.
func (v Vault) Kept(now time.Time) string {
	switch k := v.Keeping; {
	case !v.NoOverwrite:
		return ""
	case k != nil && k.Error != "":
		return "IT IS NOT PROVEN THAT NOTHING CAN BE DESTROYED: " + k.Error
	case k == nil || k.ProvenAt == nil:
		return "the store keeps what is overwritten or deleted; the agent has not proven it again yet"
	default:
		return fmt.Sprintf("the store keeps what is overwritten or deleted, proven %s", output.Ago(k.ProvenAt.Time, now))
	}
}

// Vaults are several.
type Vaults struct {
	Vaults []Vault   `json:"vaults"`
	Now    time.Time `json:"-"`
}

// Text is a table.
func (v Vaults) Text(t *output.Text) {
	if len(v.Vaults) == 0 {
		t.Line("This site has no vault.")
		return
	}
	var rows [][]string
	for _, x := range v.Vaults {
		rows = append(rows, []string{x.Name, x.Ready, x.Reason, output.Age(x.Checked, v.Now), x.Latency, x.ClockSkew, x.Project, x.URL})
	}
	t.Table("", output.Columns("NAME", "READY", "REASON", "CHECKED", "LATENCY", "+SKEW", "PROJECT", "URL"), rows)
	for _, x := range v.Vaults {
		if x.Ready != "True" && x.Message != "" {
			t.Line("%s: %s", x.Name, x.Message)
		}
		if text := x.Copying(v.Now); text != "" {
			t.Line("%s, second copy of %s: %s", x.Name, x.CopyOf, text)
		}
		if text := x.Locked(v.Now); text != "" {
			t.Line("%s: %s", x.Name, text)
		}
		if text := x.Kept(v.Now); text != "" {
			t.Line("%s: %s", x.Name, text)
		}
		if x.ClocksApart {
			t.Line("%s: its clock minus this site's is %s: ages and RPO are wrong by as much; mend time synchronisation", x.Name, x.ClockSkew)
		}
	}
}

// Document is all of them.
func (v Vaults) Document() any { return v }

// VaultAdded is what `vault add` did.
type VaultAdded struct {
	Vault   *v1alpha1.Vault
	Site    string
	KeyFile string
	Joined  bool
	DryRun  bool
}

// Text says what to do with the recovery key.
func (v VaultAdded) Text(t *output.Text) {
	if v.DryRun {
		t.Line("The vault is usable. Nothing was kept.")
		return
	}
	if v.Vault.Spec.CopyOf != "" && v.Joined {
		t.Line("Site %s reads vault %s, a second copy of vault %s: see `points --from-vault --vault %[2]s`, `restore --as-clone --vault %[2]s`.", v.Site, v.Vault.Name, v.Vault.Spec.CopyOf)
		return
	}
	if v.Vault.Spec.CopyOf != "" {
		t.Line("Vault %s is a second copy of vault %s. The agent copies its recovery points: see `vault ls` and `points`.", v.Vault.Name, v.Vault.Spec.CopyOf)
		t.Line("Add it at every site that has vault %s: each copies what it may write.", v.Vault.Spec.CopyOf)
		return
	}
	t.Line("Site %s has vault %s, project %s.", v.Site, v.Vault.Name, v.Vault.Spec.Project)
	if strings.HasPrefix(v.Vault.Spec.URL, "file:") {
		t.Line("It is a directory: every node of every site has to see the same one under this path.")
	}
	if v.Joined {
		t.Line("Recovery points of the other sites appear in a moment: see `points`.")
		return
	}
	t.Line("")
	t.Line("The recovery key is in %s, and nowhere else.", v.KeyFile)
	t.Line("  1. Put it into your safe: outside all sites, and not into the vault.")
	t.Line("  2. Use it once at each further site: vault add %s … --recovery-key-file FILE --join", v.Vault.Name)
	t.Line("  3. Then remove it from this machine.")
	t.Line("When every site is lost, this file and the vault bring everything back. Without it, nothing can.")
}

// Document is the Vault object, or what was done.
func (v VaultAdded) Document() any {
	if v.DryRun {
		return v.Vault
	}
	return struct {
		Vault           string `json:"vault"`
		Project         string `json:"project"`
		URL             string `json:"url"`
		Site            string `json:"site"`
		Joined          bool   `json:"joined"`
		RecoveryKeyFile string `json:"recoveryKeyFile"`
		CopyOf          string `json:"copyOf,omitempty"`
	}{v.Vault.Name, v.Vault.Spec.Project, v.Vault.Spec.URL, v.Site, v.Joined, v.KeyFile, v.Vault.Spec.CopyOf}
}
