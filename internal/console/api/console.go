package api

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"time"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/backup"
)

// StatusPath is where every process of a console answers, also one that is not
// the active one.
const StatusPath = Prefix + "/status"

func consoleRoutes() []route {
	return []route{
		{method: "GET", path: "/status", summary: "Whether this process is the active console, or follows it and how far; also one that is passive answers", open: true, out: Status{}, serve: standingNow},
		{method: "GET", path: "/backups", summary: "The console's own backups, for administrators", out: Backups{}, serve: backups},
		{method: "POST", path: "/backups", summary: "Back all databases of the console up now, and bring each back into a scratch directory, for administrators; waited for for a while", out: Backups{}, serve: takeBackups},
	}
}

// Status is what one process of a console is. It names no project.
type Status struct {
	// Role is active, passive, or silent: active, as far as it knows, but the vault
	// has not answered for so long that another may have taken over.
	Role  string `json:"role"`
	Epoch int64  `json:"epoch"` // of the active one, as this one saw it last
	// Active is the address of the active one, as this one saw it last.
	Active string `json:"active,omitempty"`
	// Why says why nothing can be changed here; empty: it can.
	Why string `json:"why,omitempty"`
	// Waiting are changes of the active one that are not in the vault yet.
	Waiting int64 `json:"journalWaiting"`
	// Behind is how long ago the passive one had all that the active one wrote, in
	// milliseconds.
	Behind  int64  `json:"followMillis"`
	Version string `json:"davit"`
}

// StatusHandler answers at StatusPath without the rest of the API.
func StatusHandler(status func(context.Context) Status, log *slog.Logger) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := json.Marshal(status(r.Context()))
		if err != nil {
			log.Error("request failed", "path", r.URL.Path, "err", err)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Cache-Control", "no-store")
		if _, err := w.Write(append(data, '\n')); err != nil {
			log.Debug("an answer was not taken", "err", err)
		}
	})
}

// Backups are the console's own.
type Backups struct {
	Items []Backup `json:"items"`
	// Pending says that what was asked for is still under way.
	Pending bool `json:"pending,omitempty"`
}

// Backup is what is known of the backups of one database.
type Backup struct {
	Project       string    `json:"project,omitempty"` // empty: the console's own
	Number        int64     `json:"number,omitempty"`
	At            time.Time `json:"at,omitzero"`
	Size          int64     `json:"size,omitempty"`
	Fault         string    `json:"fault,omitempty"`
	Checked       time.Time `json:"checked,omitzero"` // when one was last brought back as it should
	CheckedNumber int64     `json:"checkedNumber,omitempty"`
	Records       int64     `json:"records,omitempty"` // of the audit log of what was brought back
	CheckFault    string    `json:"checkFault,omitempty"`
}

func (c *call) backups() Backups {
	out := Backups{Items: []Backup{}}
	for _, s := range c.Backups.States() {
		out.Items = append(out.Items, Backup{
			Project: s.Project, Number: s.Number, At: s.At, Size: s.Size, Fault: s.Fault, Checked: s.Checked, CheckedNumber: s.CheckedNumber, Records: s.Records, CheckFault: s.CheckFault,
		})
	}
	return out
}

func backups(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	return c.backups(), nil
}

// backupWait is how long whoever asks for backups is waited with; they go on after
// it.
const backupWait = 90 * time.Second

func takeBackups(c *call) (any, error) {
	if err := c.administers(); err != nil {
		return nil, err
	}
	if err := c.Door.Console.Witness(c.ctx(), c.Door.Act(c.who, c.r), audit.Record{Action: "backup.take"}); err != nil {
		return nil, err
	}
	taken, err := c.Backups.Take()
	if err != nil {
		return nil, err
	}
	late := time.NewTimer(backupWait)
	defer late.Stop()
	select {
	case <-taken:
		return c.backups(), nil
	case <-late.C:
	case <-c.Done:
	case <-c.ctx().Done():
	}
	out := c.backups()
	out.Pending = true
	return out, nil
}

// Keeper keeps the console's backups.
type Keeper interface {
	States() []backup.State
	// Take has all taken and checked soon; what it returns is closed when that is done.
	Take() (<-chan struct{}, error)
}

func standingNow(c *call) (any, error) { return c.Status(c.ctx()), nil }
