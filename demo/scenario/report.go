package scenario

import (
	"fmt"
	"io"
	"time"
)

// Report prints what was measured and where everything is.
func (r *Run) Report(w io.Writer) {
	fmt.Fprintf(w, `
The shop survived the loss of its cluster.

  Recovery point   %s
  RPO measured     %s   between the point's instant and the kill
  RTO measured     %s   from the kill until the shop was ready in west
  Epoch            %d   held by west; fence: %s
  Restored         %d objects, %.1f MB of volume data

Take-over, step by step
`, r.report.Point, seconds(r.RPO()), seconds(r.RTO()), r.report.Epoch, r.report.Fence,
		r.report.Result.Created, float64(r.report.Result.VolumeBytes)/1e6)
	for _, s := range r.report.Steps {
		if s.Duration < 50*time.Millisecond {
			continue // of no weight; all of them are in the command's own output
		}
		fmt.Fprintf(w, "  %8s  %-16s %s\n", seconds(s.Duration), s.Name, s.Message)
	}
}

// Places says where the demo's parts are, for who keeps them running.
func (r *Run) Places(w io.Writer) {
	fmt.Fprintf(w, `
Where everything is
  Vault            %s
  Recovery key     %s
  Ledger           %s   every acknowledged order, kept outside the clusters
`, r.vaultURL, r.recoveryKey(), r.Stage.LedgerFile())
}
