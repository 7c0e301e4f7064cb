package control

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/exit"
	"davit.dev/davit/internal/cli/order"
	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/cli/remote"
	"davit.dev/davit/internal/console/audit"
)

type auditing struct {
	project, by, action, object string
	since, until                string
	expect                      string
	limit                       int
	refused, follow, verify     bool
	console                     bool
}

func (h Host) auditCommand() *cobra.Command {
	var o auditing
	cmd := &cobra.Command{
		Use:   "audit",
		Short: "Who did what in a project, and whether the log is whole",
		Long: `Prints the newest records of a project's audit log, the oldest of them first; with --of-console those of the console's own log: logins,
users, backups. --by, --action and --object are compared whole, or as a beginning where they end in *; --by takes a name with or without user/
or robot/. --follow goes on with what comes, until it is interrupted.

--verify reads the whole log and checks here, not at the console, that each record continues the hash of the one before. A log whose end was cut off is
whole all the same: note the last line's NUMBER:HASH elsewhere, and give it the next time as --expect.`,
		Example: `  davit audit --since 24h --refused
  davit audit --by robot/* --action document.* -o json
  davit audit --verify --expect 1288:5d1c…`,
		Args: exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error { return h.audit(cmd, o) },
	}
	projectFlag(cmd, &o.project)
	flags := cmd.Flags()
	flags.BoolVar(&o.console, "of-console", false, "the console's own log instead of a project's, for administrators")
	flags.StringVar(&o.by, "by", "", "only what this one did, such as anna, user/anna or robot/*")
	flags.StringVar(&o.action, "action", "", "only this, such as member.set or run.*")
	flags.StringVar(&o.object, "object", "", "only what was done to this")
	flags.BoolVar(&o.refused, "refused", false, "only what was refused")
	flags.StringVar(&o.since, "since", "", "only from this time on, or so long ago: 24h")
	flags.StringVar(&o.until, "until", "", "only up to this time")
	flags.IntVar(&o.limit, "limit", 50, "at most so many of the newest; 0 is all")
	flags.BoolVarP(&o.follow, "follow", "f", false, "go on with what comes")
	flags.BoolVar(&o.verify, "verify", false, "check the whole log instead of printing it")
	flags.StringVar(&o.expect, "expect", "", "NUMBER:HASH of a record that has to be in the log; with --verify")
	return cmd
}

func (h Host) audit(cmd *cobra.Command, o auditing) error {
	query, err := o.query(h.Now())
	if err != nil {
		return err
	}
	wanted, err := parseTail(o.expect)
	switch {
	case err != nil:
		return err
	case o.verify && (o.follow || len(query) > 0):
		return exit.Usage("leave the filters out", "--verify reads the whole log")
	case !o.verify && o.expect != "":
		return exit.Usage("add --verify", "--expect goes with --verify")
	case o.limit < 0:
		return exit.Usage("", "--limit is 0 or more")
	case o.console && o.project != "":
		return exit.Usage("give one of them", "--of-console is of no project")
	}
	bound := h.Looking
	if o.follow || o.verify {
		bound = h.Working
	}
	ctx, cancel := bound(cmd)
	defer cancel()
	s, err := h.opened(o)
	if err != nil {
		return err
	}
	defer s.Close()
	l := auditLog{s: s, project: s.Project, query: query}
	if o.console {
		l.project = ""
	}
	switch {
	case o.verify:
		return h.verify(ctx, l, wanted)
	case o.follow:
		return h.followAudit(ctx, l, o.limit)
	}
	records, err := l.newest(ctx, o.limit)
	if err != nil {
		return h.Explain(err)
	}
	return h.Print(records)
}

func (h Host) opened(o auditing) (*remote.Session, error) {
	if o.console {
		return h.OpenConsole()
	}
	return h.Open(o.project)
}

// query is what the console is asked for.
func (o auditing) query(now time.Time) (url.Values, error) {
	q := url.Values{}
	for name, value := range map[string]string{"by": o.by, "action": o.action, "object": o.object} {
		if value != "" {
			q.Set(name, value)
		}
	}
	if o.refused {
		q.Set("refused", "true")
	}
	for name, text := range map[string]string{"since": o.since, "until": o.until} {
		at, err := order.Instant(text, now)
		if err != nil {
			return nil, err
		}
		if !at.IsZero() {
			q.Set(name, at.UTC().Format(time.RFC3339Nano))
		}
	}
	return q, nil
}

// auditLog reads a log at a console.
type auditLog struct {
	s       *remote.Session
	project string // empty: the console's own
	query   url.Values
}

func (l auditLog) page(ctx context.Context, place string, at int64, limit int) (items []audit.Record, next int64, err error) {
	q := url.Values{}
	for name, values := range l.query {
		q[name] = values
	}
	if place == "after" || at > 0 {
		q.Set(place, strconv.FormatInt(at, 10))
	}
	if limit > 0 {
		q.Set("limit", strconv.Itoa(limit))
	}
	a, err := l.s.Audit(ctx, l.project, q)
	return a.Items, a.Next, err
}

// newest reads the newest records, and returns them oldest first.
func (l auditLog) newest(ctx context.Context, limit int) (all records, err error) {
	for at := int64(0); ; {
		want := 0
		if limit > 0 {
			want = min(limit-len(all), 1000)
		}
		items, next, err := l.page(ctx, "before", at, want)
		if err != nil {
			return nil, err
		}
		all = append(all, items...)
		if next == 0 || limit > 0 && len(all) >= limit {
			slices.Reverse(all)
			return all, nil
		}
		at = next
	}
}

// end is the place of the newest record.
func (l auditLog) end(ctx context.Context) (int64, error) {
	l.query = nil
	items, _, err := l.page(ctx, "before", 0, 1)
	if err != nil || len(items) == 0 {
		return 0, err
	}
	return items[0].Sequence, nil
}

// followAudit prints the newest records and what comes after. The end is looked up
// first: what is written meanwhile comes, and once.
func (h Host) followAudit(ctx context.Context, l auditLog, limit int) error {
	at, err := l.end(ctx)
	if err != nil {
		return h.Explain(err)
	}
	first, err := l.upTo(ctx, at, limit)
	if err != nil {
		return h.Explain(err)
	}
	return follow(ctx, h, func(ctx context.Context) ([]audit.Record, error) {
		if len(first) > 0 {
			all := first
			first = nil
			return all, nil
		}
		items, next, err := l.page(ctx, "after", at, 0)
		if err == nil {
			at = max(at, next)
		}
		return items, err
	}, recordLine)
}

// upTo is newest without what came after a record.
func (l auditLog) upTo(ctx context.Context, at int64, limit int) (records, error) {
	all, err := l.newest(ctx, limit)
	return slices.DeleteFunc(all, func(r audit.Record) bool { return r.Sequence > at }), err
}

func recordLine(r audit.Record) string {
	return strings.TrimRight(fmt.Sprintf("%s  %-18s  %-18s  %s  %s", output.Time(r.At), r.By, r.Action, r.Object, outcome(r)), " ")
}

func outcome(r audit.Record) string {
	if r.Refused != "" {
		return "REFUSED: " + output.OneLine(r.Refused)
	}
	return output.OneLine(r.Detail)
}

// records are a part of an audit log.
type records []audit.Record

// Document implements output.Result.
func (r records) Document() any {
	return struct {
		Items []audit.Record `json:"items"`
	}{append([]audit.Record{}, r...)}
}

// Text implements output.Result.
func (r records) Text(t *output.Text) {
	if len(r) == 0 {
		t.Line("There is no such record.")
		return
	}
	rows := make([][]string, 0, len(r))
	for _, one := range r {
		rows = append(rows, []string{output.Time(one.At), one.By, one.Action, one.Object, outcome(one), one.From, strconv.FormatInt(one.Sequence, 10), one.Hash})
	}
	t.Table("", output.Columns("TIME", "BY", "ACTION", "OBJECT", "DETAIL", "+FROM", "+>NUMBER", "+HASH"), rows)
}

// parseTail reads NUMBER:HASH.
func parseTail(text string) (t audit.Tail, err error) {
	if text == "" {
		return t, nil
	}
	number, hash, _ := strings.Cut(text, ":")
	t.Hash = strings.ToLower(hash)
	if t.Sequence, err = strconv.ParseInt(number, 10, 64); err != nil || t.Sequence < 1 || len(hash) != 64 || strings.Trim(t.Hash, "0123456789abcdef") != "" {
		return t, exit.Usage("as `audit --verify` printed it", "--expect %q is not NUMBER:HASH", text)
	}
	return t, nil
}

// verify reads the whole log.
func (h Host) verify(ctx context.Context, l auditLog, wanted audit.Tail) error {
	h.Progress().Step("reading the audit log")
	v := Verified{Log: "the console"}
	if l.project != "" {
		v.Log = "project " + l.project
	}
	var tail audit.Tail
	seen := wanted == audit.Tail{}
	for more := true; more; {
		items, next, err := l.page(ctx, "after", tail.Sequence, 0)
		if err != nil {
			return h.Explain(err)
		}
		for _, r := range items {
			if tail, err = tail.Follow(r); err != nil {
				return &exit.Error{Code: exit.Damaged, Err: fmt.Errorf("verify audit log of %s: %w", v.Log, err), Hint: "what stands before that record is whole. Keep the console's directory and its backups as they are, and find out who could write there; is this davit older than the console?"}
			}
			seen = seen || tail == wanted
		}
		h.Progress().Detail("%d records", tail.Sequence)
		more = len(items) > 0 || next > tail.Sequence
	}
	if !seen {
		return &exit.Error{Code: exit.Damaged, Err: fmt.Errorf("verify audit log of %s: %w: record %d is not there any more as it was noted, and %d is the newest", v.Log, audit.ErrBroken, wanted.Sequence, tail.Sequence), Hint: "its end was cut off, it was written anew, or it is another log: is it the same console and project?"}
	}
	v.Records, v.Hash = tail.Sequence, tail.Hash
	return h.Print(v)
}

// Verified is what `audit --verify` found.
type Verified struct {
	Log     string `json:"log"`
	Records int64  `json:"records"`
	Hash    string `json:"hash,omitempty"`
}

// Document implements output.Result.
func (v Verified) Document() any { return v }

// Text implements output.Result.
func (v Verified) Text(t *output.Text) {
	t.Line("The audit log of %s is whole: %s. Note the last one elsewhere:", v.Log, output.Plural(v.Records, "record"))
	t.Line("%d:%s", v.Records, v.Hash)
}
