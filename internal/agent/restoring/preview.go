package restoring

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"davit.dev/davit/internal/recovery"
	"davit.dev/davit/internal/restore/report"
	"davit.dev/davit/internal/uplink"
)

// Bounds of what travels to a console.
const (
	maxDiff   = 16 << 10 // of one difference, in bytes
	maxChecks = 50
	// room is what objects may take, in bytes: the rest is for what else is said.
	room = uplink.MaxResult - 64<<10
	// checked is what checks may take of that.
	checked = 40 << 10
)

// show makes a preview of a dry run's report.
func show(r recovery.Report) uplink.Preview {
	p := uplink.Preview{
		Site: r.Site, Point: r.Point, Instant: r.Instant.UTC(), Consistency: string(r.Consistency), SourceSite: r.SourceSite, Account: Account,
		Epoch: r.PreviousEpoch, Holder: r.EpochSite, Overlays: r.Overlays, Counts: map[string]int{}, Objects: []uplink.Planning{},
	}
	for _, f := range r.Findings {
		p.Checks = append(p.Checks, uplink.Check{Severity: string(f.Severity), Message: clip(f.Message), Remedy: clip(f.Remedy)})
	}
	slices.SortStableFunc(p.Checks, func(a, b uplink.Check) int { return cmp.Compare(a.Severity, b.Severity) })
	n, left := 0, checked
	for n < min(len(p.Checks), maxChecks) && size(p.Checks[n]) <= left {
		left -= size(p.Checks[n])
		n++
	}
	if n < len(p.Checks) {
		p.Checks = append(p.Checks[:n:n], uplink.Check{Severity: string(report.Warning), Message: "there is more: `davit restore --dry-run` at the site shows all"})
	}
	for _, o := range r.Plan {
		p.Counts[string(o.Action)]++
		p.Objects = append(p.Objects, uplink.Planning{Object: o.Object, Action: string(o.Action), Reason: clip(o.Reason), Diff: o.Diff})
	}
	return p
}

// weights say what is shown first where there is no room for all: what is lost
// before what is changed, and last what stays.
var weights = map[string]int{
	string(report.Conflict): 0, string(report.Prune): 1, string(report.RollBack): 2, string(report.Replaced): 3, string(report.Updated): 4,
	string(report.Suspend): 5, string(report.SkipIt): 6, string(report.Create): 7, string(report.Continue): 8, string(report.Unchanged): 9,
}

// bound leaves out what has no room, and says how much that is.
func bound(p uplink.Preview) uplink.Preview {
	slices.SortStableFunc(p.Objects, func(a, b uplink.Planning) int { return cmp.Compare(weights[a.Action], weights[b.Action]) })
	left := room / 2
	for i := range p.Objects { // names first: each says more than a difference does
		o := p.Objects[i]
		o.Diff = ""
		if left -= size(o); left < 0 {
			p.Left = len(p.Objects) - i
			for _, cut := range p.Objects[i:] {
				if cut.Diff != "" {
					p.Cut++
				}
			}
			p.Objects = p.Objects[:i]
			break
		}
	}
	left = max(left, 0) + room/2
	for i := range p.Objects {
		o := &p.Objects[i]
		if len(o.Diff) > maxDiff {
			o.Diff, p.Cut = o.Diff[:strings.LastIndexByte(o.Diff[:maxDiff], '\n')+1]+"(and more)\n", p.Cut+1
		}
		switch n := size(o.Diff); {
		case o.Diff == "":
		case n > left:
			o.Diff, p.Cut = "", p.Cut+1
		default:
			left -= n
		}
	}
	return p
}

// size is how many bytes something takes on its way.
func size(of any) int {
	data, err := json.Marshal(of)
	if err != nil { // texts only
		return uplink.MaxResult
	}
	return len(data) + 1
}
