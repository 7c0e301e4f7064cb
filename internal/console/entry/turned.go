package entry

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"davit.dev/davit/internal/console/audit"
	"davit.dev/davit/internal/console/store"
)

// refusedAction is what the log calls what somebody asked for and may not.
const refusedAction = "request"

// mostPath bounds what of an address is noted, in bytes: it is whatever was asked for.
const mostPath = 200

// Turned notes that somebody who is known asked for what his role or scope does not
// permit, or for a project that is not his, as err says. It is in the log of the project
// where he may know of that, else in the console's; in each so many of a person or robot one
// by one, as of logins, and the rest is counted. Other errors are nobody's fault, and not
// noted.
func (d *Door) Turned(r *http.Request, who Who, err error) {
	project := r.PathValue("project")
	forbidden := errors.Is(err, ErrForbidden)
	if who.Name == "" || !forbidden && (project == "" || !errors.Is(err, store.ErrNotFound)) {
		return
	}
	ctx, act := context.WithoutCancel(r.Context()), d.Act(who, r) // he may hang up
	of := who.Name
	if forbidden && project != "" { // robots of two projects may have one name, and no project is told of another
		of += " of " + project
	}
	left := d.turned.take(of)
	if !d.turned.limit.Allow(of, act.At) {
		d.turned.add(of, left+1)
		return
	}
	path := r.URL.EscapedPath()
	record := audit.Record{Action: refusedAction, Object: r.Method + " " + path[:min(len(path), mostPath)], Refused: err.Error(), Detail: leftOut(left)}
	if err := d.noteTurned(ctx, act, record, project, forbidden); err != nil {
		d.turned.add(of, left+1)
		d.Log.Error("a request that was refused was not noted", "by", who.Name, "path", path, "err", err)
	}
}

func (d *Door) noteTurned(ctx context.Context, act audit.Act, record audit.Record, project string, known bool) error {
	if !known || project == "" {
		return d.Console.Note(ctx, act, record)
	}
	p, err := d.Console.Project(ctx, project)
	if err != nil {
		return fmt.Errorf("find project %s: %w", project, err)
	}
	return p.Note(ctx, act, record)
}
