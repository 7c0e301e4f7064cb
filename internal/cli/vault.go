package cli

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/vault"
)

func (e *env) vaultCheckCommand() *cobra.Command {
	var a address
	cmd := &cobra.Command{
		Use:   "check [NAME]",
		Short: "Test a vault from here: reading, writing, conditional writes, keys",
		Long: `Writes, reads, lists and deletes in the vault, races conditional writes against each other, measures latency and clock
skew, and checks that this site's key opens the project. What it writes it removes.`,
		Args: args(cobra.MaximumNArgs(1), "at most one NAME"),
		RunE: func(cmd *cobra.Command, given []string) error {
			if len(given) > 0 {
				e.global.vault = given[0]
			}
			return e.runVaultCheck(cmd, &a)
		},
	}
	a.breakGlass(cmd.Flags())
	return cmd
}

func (e *env) runVaultCheck(cmd *cobra.Command, a *address) error {
	ctx, cancel := e.looking(cmd)
	defer cancel()
	store, open, err := e.checkable(ctx, cmd, a)
	if err != nil {
		return err
	}
	e.progress.Step("testing %s", store)
	report := selfTest(ctx, store, e.now)
	if report.err() == nil {
		report.add("key opens the project", func() (string, error) {
			project, err := open(ctx)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("project %s", project.Name()), project.VerifyMetadata(ctx, nil)
		})
	}
	if err := e.print(report); err != nil {
		return err
	}
	code, hint := verdict(report.err())
	if code != exitOK {
		return &codeError{code, fmt.Errorf("check %s: %w", store, report.err()), hint}
	}
	return nil
}

type opener func(ctx context.Context) (*vault.Project, error)

// checkable opens the store apart from the project, so that each can be told
// from the other.
func (e *env) checkable(ctx context.Context, cmd *cobra.Command, a *address) (vault.Store, opener, error) {
	if a.url != "" {
		cfg, err := e.config(a, cmd.Flags())
		if err != nil {
			return nil, nil, err
		}
		store, err := e.backend.Store(ctx, cfg)
		return store, func(ctx context.Context) (*vault.Project, error) {
			o, err := e.openByAddress(ctx, a, cmd.Flags())
			if err != nil {
				return nil, err
			}
			return o.project, nil
		}, err
	}
	c, err := e.cluster()
	if err != nil {
		return nil, nil, err
	}
	v, err := e.chooseVault(ctx, c, e.global.vault)
	if err != nil {
		return nil, nil, err
	}
	cfg, data, err := storeConfig(ctx, c, v)
	if err != nil {
		return nil, nil, err
	}
	store, err := e.backend.Store(ctx, cfg)
	return store, func(ctx context.Context) (*vault.Project, error) {
		keyring, err := vault.ParseKeyring(data)
		if err != nil {
			return nil, err
		}
		return keyring.Open(ctx, store)
	}, err
}

// testReport is the outcome of a vault's test.
type testReport struct {
	Store  string      `json:"store"`
	Checks []testCheck `json:"checks"`
	errs   []error
}

type testCheck struct {
	Name   string `json:"name"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail,omitempty"`
}

// add carries out one check.
func (r *testReport) add(name string, check func() (string, error)) {
	detail, err := check()
	if err != nil {
		detail = err.Error()
		r.errs = append(r.errs, fmt.Errorf("%s: %w", name, err))
	}
	r.Checks = append(r.Checks, testCheck{Name: name, OK: err == nil, Detail: detail})
}

func (r *testReport) err() error { return errors.Join(r.errs...) }

// Text is a table of the checks.
func (r testReport) Text(t *output.Text) {
	t.Line("%s", r.Store)
	var rows [][]string
	for _, c := range r.Checks {
		state := "ok"
		if !c.OK {
			state = "FAILED"
		}
		rows = append(rows, []string{c.Name, state, c.Detail})
	}
	t.Table("", output.Columns("CHECK", "RESULT", "DETAIL"), rows)
}

// Document is all of it.
func (r testReport) Document() any { return r }

func (e *env) vaultListCommand() *cobra.Command {
	return &cobra.Command{
		Use: "ls", Aliases: []string{"list"}, Short: "List this site's vaults", Args: args(cobra.NoArgs, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := e.looking(cmd)
			defer cancel()
			c, err := e.cluster()
			if err != nil {
				return err
			}
			var all v1alpha1.VaultList
			if err := c.List(ctx, &all); err != nil {
				return fmt.Errorf("list vaults: %w", err)
			}
			views := vaultViews{Vaults: []vaultView{}, now: e.now()}
			for i := range all.Items {
				views.Vaults = append(views.Vaults, viewVault(&all.Items[i]))
			}
			return e.print(views)
		},
	}
}

// vaultView is one vault as `vault ls` and `status` show it.
type vaultView struct {
	Name      string    `json:"name"`
	URL       string    `json:"url"`
	Project   string    `json:"project"`
	Ready     string    `json:"ready"`
	Reason    string    `json:"reason,omitempty"`
	Message   string    `json:"message,omitempty"`
	Checked   time.Time `json:"checked,omitzero"`
	Latency   string    `json:"latency,omitempty"`
	ClockSkew string    `json:"clockSkew,omitempty"`
}

func viewVault(v *v1alpha1.Vault) vaultView {
	view := vaultView{Name: v.Name, URL: v.Spec.URL, Project: v.Spec.Project, Ready: "Unknown", Checked: timeOf(v.Status.LastChecked)}
	if c := meta.FindStatusCondition(v.Status.Conditions, v1alpha1.ConditionReady); c != nil {
		view.Ready, view.Reason, view.Message = string(c.Status), c.Reason, c.Message
	}
	if v.Status.Latency != nil {
		view.Latency = output.Duration(v.Status.Latency.Duration)
	}
	if v.Status.ClockSkew != nil {
		view.ClockSkew = output.Duration(v.Status.ClockSkew.Duration)
	}
	return view
}

type vaultViews struct {
	Vaults []vaultView `json:"vaults"`
	now    time.Time
}

// Text is a table.
func (v vaultViews) Text(t *output.Text) {
	if len(v.Vaults) == 0 {
		t.Line("This site has no vault.")
		return
	}
	var rows [][]string
	for _, x := range v.Vaults {
		rows = append(rows, []string{x.Name, x.Ready, x.Reason, output.Age(x.Checked, v.now), x.Latency, x.ClockSkew, x.Project, x.URL})
	}
	t.Table("", output.Columns("NAME", "READY", "REASON", "CHECKED", "LATENCY", "+SKEW", "PROJECT", "URL"), rows)
	for _, x := range v.Vaults {
		if x.Ready != "True" && x.Message != "" {
			t.Line("%s: %s", x.Name, x.Message)
		}
	}
}

// Document is all of them.
func (v vaultViews) Document() any { return v }
