package words

import (
	"slices"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"davit.dev/davit/internal/cli/output"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/journal"
)

func TestSaid(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	all := []journal.Words{
		{Step: "net", At: at, Kind: failover.Ended, Status: failover.Broke, Text: "no such zone\n\n100%s"},
		{Step: "mail", At: at, Kind: failover.Undone, Text: "sent"},
	}
	var b output.Text
	Of("r", "net", all).Text(&b)
	Of("r", "mail", all).Text(&b)
	Of("r", "dns", all).Text(&b)
	Of("r", "", nil).Text(&b)
	const want = "net, Failed, 2026-01-02 03:04:05Z\n  no such zone\n\n  100%s\n\nmail, taken back, 2026-01-02 03:04:05Z\n  sent\nStep dns of run r has said nothing that is kept.\nThe steps of run r have said nothing that is kept.\n"
	if got := b.String(); got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestOperands(t *testing.T) {
	for _, tc := range []struct {
		args []string
		step string
		ok   bool
	}{
		{[]string{"r"}, "", true},
		{[]string{"r", "--logs"}, "", true},
		{[]string{"r", "--logs", "net"}, "net", true},
		{[]string{"r", "net"}, "", false},
		{[]string{"--logs"}, "", false},
		{[]string{"r", "net", "mail", "--logs"}, "", false},
	} {
		step := ""
		cmd := &cobra.Command{SilenceErrors: true, SilenceUsage: true, RunE: func(cmd *cobra.Command, given []string) error {
			var wanted bool
			if step, wanted = Wanted(cmd, given); wanted != slices.Contains(tc.args, "--logs") {
				t.Errorf("%v: wanted %t", tc.args, wanted)
			}
			return nil
		}}
		Offer(cmd)
		cmd.SetArgs(tc.args)
		if err := cmd.Execute(); (err == nil) != tc.ok || step != tc.step {
			t.Errorf("%v: %q, %v", tc.args, step, err)
		}
	}
}
