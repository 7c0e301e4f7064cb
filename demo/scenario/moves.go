package scenario

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"davit.dev/davit/demo/stage"
)

// Move plays what comes after the main job, and wants its outcome: the shop runs in
// west, and east has come back from the dead. The shop takes orders all the time,
// while a drill runs beside it, while it fails back to east, though the command that
// carries that is killed, and while it is switched over to west; then west dies, and
// east takes over by the plan.
func (r *Run) Move(ctx context.Context) error {
	return r.perform(ctx, []act{
		{name: "drill in east, beside the shop that runs in west", run: r.drill},
		{name: "check: the drill told nobody of orders, none is missing", run: r.checkOrders},
		{name: "fail back to east; the command is killed half way", run: r.failBack},
		{name: "check: no order was lost on the way back", run: r.checkOrders},
		{name: "check: what only east had is kept, moved was the difference", run: r.checkFailedBack},
		{name: "check: the writer goes on in east", run: r.checkWriter},
		{name: "switch over to west", run: r.switchOver},
		{name: "check: no order was lost in the switchover", run: r.checkOrders},
		{name: "check: an order that is missing would be found", run: r.checkJudge},
		{name: "check: the writer goes on in west", run: r.checkWriter},
		{name: "a recovery point of west is there", run: r.pointOfActive},
		{name: "KILL WEST: processes killed, link cut", run: r.killWest},
		{name: "fail over to east, by the plan", run: r.failOver},
		{name: "check: what was lost is said, and no more", run: r.checkLoss},
		{name: "check: pg_amcheck finds the database sound", run: r.checkDatabase},
		{name: "check: the writer goes on in east", run: r.checkWriter},
		{name: "revive west: it must step back by itself", run: r.reviveWest},
		{name: "check: east was not touched", run: r.checkWriter},
	})
}

// planText moves the shop, and asks its database whether all orders are as they were placed.
const planText = `apiVersion: davit.dev/v1alpha1
kind: RecoveryPlan
metadata: {name: shop}
spec:
  vault: main
  sites: [{name: east}, {name: west}]
  applications:
    - name: shop
      probes:
        - {kind: sql, target: "postgres://shop@db.shop/shop", query: "select count(*) > 0 and bool_and(checksum = encode(sha256(payload::bytea), 'hex')) from orders", expect: "^t$", timeout: 10s}
  fence: {timeout: %s}
  objectives: {rpo: 1m, rto: 1m}
`

// plan writes the plan with steps of its own, which waits so long for a fence.
func (r *Run) plan(fence string, steps ...string) (string, error) {
	text := fmt.Sprintf(planText, fence)
	if len(steps) > 0 {
		text += "  steps:\n    - " + strings.Join(steps, "\n    - ") + "\n"
	}
	file := filepath.Join(r.Stage.Work, "shop-plan.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write plan: %w", err)
	}
	return file, nil
}

// drill tries the plan on a clone in east. The clone must have every order that was
// acknowledged before its point, and the control, which asks for one that was placed
// after it, must fail.
func (r *Run) drill(ctx context.Context) (string, error) {
	point, err := r.newest(ctx)
	if err != nil {
		return "", err
	}
	acks, err := r.ledger.All(ctx)
	if err != nil {
		return "", err
	}
	known, before, after := r.around(acks, point.Instant)
	if known == 0 || after.ID == 0 {
		return "", fmt.Errorf("the ledger knows of %d orders before %s, and of order %d after it", known, point.Instant, after.ID)
	}
	ask := func(name, query, expect, rest string) string {
		return fmt.Sprintf(`{name: %s, kind: probe, verbs: [drill], after: [ready/shop]%s, checks: [{kind: sql, target: "postgres://shop@db.shop/shop", query: "%s", expect: "%s", timeout: 10s}]}`,
			name, rest, query, expect)
	}
	const one = "select checksum from orders where id = %d"
	file, err := r.plan("5s",
		ask("orders", fmt.Sprintf("select count(*) >= %d from orders where id <= %d", known, before.ID), "^t$", ", timeout: 1m"),
		ask("newest", fmt.Sprintf(one, before.ID), "^"+before.Checksum+"$", ", timeout: 1m"),
		ask("control", fmt.Sprintf(one, after.ID), "^"+after.Checksum+"$", ", timeout: 5s, onError: continue"))
	if err != nil {
		return "", err
	}
	m, err := r.command(ctx, lost, "drill", "-f", file, "--point", app+"="+point.ID)
	if err != nil {
		return "", err
	}
	if m.State != "Completed" || m.status("orders") != "Succeeded" || m.status("newest") != "Succeeded" {
		return "", fmt.Errorf("the drill ended as %s: %+v", m.State, m.Steps)
	}
	if got := m.status("control"); got != "Failed" {
		return "", fmt.Errorf("the control, which asks for an order of after the point, is %s", got)
	}
	left, err := r.Stage.Kubectl(ctx, lost, "get", "namespaces", "-l", "davit.dev/sandbox", "-o", "name")
	if err != nil || left != "" {
		return "", errors.Join(err, fmt.Errorf("the drill left %q", left))
	}
	return fmt.Sprintf("%d orders by SQL", known), nil
}

// around splits a ledger at an instant: how many orders that are not lost were
// acknowledged before it, the last of them, and the newest of all.
func (r *Run) around(acks []Ack, instant time.Time) (known int, before, after Ack) {
	for _, a := range acks {
		switch {
		case anyHas(r.gone, a.At):
		case a.At.Before(instant):
			known++
			if a.ID > before.ID {
				before = a
			}
		case a.ID > after.ID:
			after = a
		}
	}
	return known, before, after
}

// point is a recovery point as davit prints it.
type point struct {
	ID      string    `json:"id"`
	Phase   string    `json:"phase"`
	Site    string    `json:"site"`
	Instant time.Time `json:"instant"`
	Pinned  bool      `json:"pinned"`
}

func (r *Run) offered(ctx context.Context) ([]point, error) {
	var all struct {
		Points []point `json:"points"`
	}
	err := r.Stage.DavitJSON(ctx, &all, r.active, "points", app, "--all")
	return all.Points, err
}

// newest is the newest point that the site which runs the shop has made.
func (r *Run) newest(ctx context.Context) (point, error) {
	all, err := r.offered(ctx)
	if err != nil {
		return point{}, err
	}
	var newest point
	for _, p := range all {
		if p.Phase == "Available" && p.Site == r.active && p.Instant.After(newest.Instant) {
			newest = p
		}
	}
	if newest.ID == "" {
		return point{}, fmt.Errorf("%s has no recovery point of its own: %+v", r.active, all)
	}
	return newest, nil
}

// pointOfActive waits for a point that the site made since the shop came there last: it
// has points of before, too.
func (r *Run) pointOfActive(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	came := r.moves[len(r.moves)-1].ended
	return "", stage.Wait(ctx, r.active+" has captured", func(ctx context.Context) (bool, string, error) {
		p, err := r.newest(ctx)
		return err == nil && p.Instant.After(came), fmt.Sprint(p.ID, " ", p.Instant, " ", err), nil
	})
}

// moveReport is what davit runs report says of a run.
type moveReport struct {
	Run          string    `json:"run"`
	Verb         string    `json:"verb"`
	State        string    `json:"state"`
	Fence        string    `json:"fence"`
	Asked        time.Time `json:"asked"`
	Until        time.Time `json:"until"`
	Applications []struct {
		Epoch    int64         `json:"epoch"`
		Point    string        `json:"point"`
		Instant  time.Time     `json:"instant"`
		RPO      time.Duration `json:"rpo"`
		Lossless bool          `json:"lossless"`
		RTO      time.Duration `json:"rto"`
	} `json:"applications"`
	Steps    []moveStep `json:"steps"`
	Carriers []struct {
		Name  string    `json:"name"`
		Since time.Time `json:"since"`
	} `json:"carriers"`
	Events []struct {
		At   time.Time `json:"at"`
		Kind string    `json:"kind"`
		Step string    `json:"step"`
	} `json:"events"`
}

type moveStep struct {
	Name   string `json:"name"`
	Kind   string `json:"kind"`
	Status string `json:"status"`
	Point  string `json:"point"`
	Moved  *struct{ Bytes, Of int64 }
	Spans  []struct {
		Begin time.Time `json:"begin"`
		End   time.Time `json:"end"`
	} `json:"spans"`
}

func (m moveReport) step(name string) moveStep {
	for _, s := range m.Steps {
		if s.Name == name {
			return s
		}
	}
	return moveStep{}
}

func (m moveReport) status(name string) string { return m.step(name).Status }

// command has a site carry a run out, and returns its report.
func (r *Run) command(ctx context.Context, site, verb string, args ...string) (moveReport, error) {
	args = append([]string{verb}, args...)
	if verb != "drill" {
		args = append(args, "--yes")
	}
	began := time.Now()
	var said struct{ Run string }
	if err := r.Stage.DavitJSON(ctx, &said, site, args...); err != nil {
		return moveReport{}, err
	}
	return r.told(ctx, site, said.Run, began, time.Now())
}

// told reads a run's report, and notes its figures.
func (r *Run) told(ctx context.Context, site, run string, began, ended time.Time) (moveReport, error) {
	out, err := r.Stage.Davit(ctx, site, "runs", "report", run, "-o", "json")
	if err != nil {
		return moveReport{}, err
	}
	var m moveReport
	if err := json.Unmarshal(out, &m); err != nil {
		return moveReport{}, fmt.Errorf("read report of %s: %w", run, err)
	}
	if m.Verb != "drill" && len(m.Applications) != 1 {
		return m, fmt.Errorf("%s moved %d applications", run, len(m.Applications))
	}
	r.moves = append(r.moves, move{moveReport: m, began: began, ended: ended})
	return m, nil
}

// arrived checks how a move ended, and commits it.
func (r *Run) arrived(ctx context.Context, site string, m moveReport, fence string) (string, error) {
	if m.State != "AwaitingCommit" || m.Fence != fence {
		return "", fmt.Errorf("%s is %s, with the fence %s, want %s", m.Run, m.State, m.Fence, fence)
	}
	r.active = site
	_, err := r.Stage.Davit(ctx, site, "runs", "commit", m.Run)
	return fmt.Sprintf("epoch %d, fence %s, RTO %s", m.Applications[0].Epoch, m.Fence, seconds(m.Applications[0].RTO)), err
}

// failBack brings the shop to east again. The command that carries the run is
// killed when the shop in west has been told to stop; east's agent goes on.
func (r *Run) failBack(ctx context.Context) (string, error) {
	file, err := r.plan("60s")
	if err != nil {
		return "", err
	}
	began := time.Now()
	run, err := r.killedAtRest(ctx, "failback", "-f", file, "--to", lost, "--yes")
	if err != nil {
		return "", err
	}
	killed := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err = stage.Wait(ctx, "east's agent has carried the failback on", func(ctx context.Context) (bool, string, error) {
		var now struct{ State, Executor string }
		err := r.Stage.DavitJSON(ctx, &now, lost, "runs", "show", run)
		return now.State == "AwaitingCommit", now.State + " " + now.Executor, err
	})
	if err != nil {
		return "", err
	}
	m, err := r.told(ctx, lost, run, began, time.Now())
	if err != nil {
		return "", err
	}
	r.moves[len(r.moves)-1].left = killed
	// An agent that stood still for long may have been followed by itself.
	if n := len(m.Carriers); n < 2 || !strings.HasPrefix(m.Carriers[1].Name, "agent ") {
		return "", fmt.Errorf("the run was carried by %+v, want the command and then an agent", m.Carriers)
	}
	return r.arrived(ctx, lost, m, "proven")
}

// killedAtRest begins a run at east, and kills the command that carries it once west
// holds the shop at rest for it. It returns the run.
func (r *Run) killedAtRest(ctx context.Context, args ...string) (string, error) {
	cmd := r.Stage.Command(ctx, lost, args...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return "", fmt.Errorf("start davit %s: %w", args[0], err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	var run string
	limit, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	err := stage.Wait(limit, "west holds the shop at rest", func(ctx context.Context) (bool, string, error) {
		out, err := r.Stage.Kubectl(ctx, r.active, "-n", "davit-system", "get", "application", app, "-o", "jsonpath={.status.rest.runs[0]}")
		run = out
		return out != "", out, err
	})
	_ = cmd.Process.Kill()
	var exit *exec.ExitError
	if died := <-ended; err == nil && (!errors.As(died, &exit) || exit.Exited()) {
		err = fmt.Errorf("davit %s ended before it was killed: %w", args[0], died)
	}
	if err != nil {
		return "", fmt.Errorf("%w; it said: %s", err, said.String())
	}
	return run, nil
}

// checkFailedBack: what only east had is a pinned point that nothing offers, and of
// the volume only what differed was moved.
func (r *Run) checkFailedBack(ctx context.Context) (string, error) {
	m := r.moves[len(r.moves)-1]
	all, err := r.offered(ctx)
	if err != nil {
		return "", err
	}
	pin := m.step("pin/" + app).Point
	if !slices.ContainsFunc(all, func(p point) bool { return p.ID == pin && p.Phase == "Quarantined" && p.Pinned }) {
		return "", fmt.Errorf("what only east had, %q, is not pinned and quarantined: %+v", pin, all)
	}
	moved := ""
	for _, name := range []string{"catch-up/" + app, "data/" + app} {
		s := m.step(name).Moved
		if s == nil || s.Bytes >= s.Of {
			return "", fmt.Errorf("%s moved %+v", name, s)
		}
		moved += fmt.Sprintf(", %s %.1f of %.1f MB", strings.TrimSuffix(name, "/"+app), float64(s.Bytes)/1e6, float64(s.Of)/1e6)
	}
	return pin + moved, nil
}

func (r *Run) switchOver(ctx context.Context) (string, error) {
	file, err := r.plan("60s")
	if err != nil {
		return "", err
	}
	m, err := r.command(ctx, survivor, "switchover", "-f", file, "--to", survivor)
	if err != nil {
		return "", err
	}
	if !m.Applications[0].Lossless {
		return "", fmt.Errorf("the switchover says that it lost %s", m.Applications[0].RPO)
	}
	return r.arrived(ctx, survivor, m, "proven")
}

func (r *Run) killWest(ctx context.Context) (string, error) {
	if err := r.Stage.Bed.Kill(ctx, survivor); err != nil {
		return "", err
	}
	r.westDied = time.Now()
	acks, err := r.ledger.All(ctx)
	return fmt.Sprintf("%d orders were acknowledged", tally(acks, verdict{}, span{to: r.westDied}).before), err
}

func (r *Run) failOver(ctx context.Context) (string, error) {
	file, err := r.plan("5s")
	if err != nil {
		return "", err
	}
	m, err := r.command(ctx, lost, "failover", "-f", file, "--to", lost, "--lost", survivor)
	if err != nil {
		return "", err
	}
	r.moves[len(r.moves)-1].killed = r.westDied
	return r.arrived(ctx, lost, m, "none (forced)")
}

// checkLoss: every order is there that was acknowledged before the point's instant,
// and since the new site runs; some in between are not, which the check finds when
// it is not told of the loss; and the run says a loss that is at least as long.
func (r *Run) checkLoss(ctx context.Context) (string, error) {
	m := r.moves[len(r.moves)-1]
	a := m.Applications[0]
	var found *lostError
	if _, err := r.judge(ctx, OrdersQuery, r.gone); !errors.As(err, &found) {
		return "", fmt.Errorf("a site died with its newest orders, and the check says: %w", err)
	}
	gap := span{from: a.Instant, to: r.westDied}
	if !gap.has(found.order.At) {
		return "", fmt.Errorf("the point's instant is %s, and %w", a.Instant, found)
	}
	r.gone = append(r.gone, gap)
	v, err := r.judge(ctx, OrdersQuery, r.gone)
	if err != nil {
		return "", err
	}
	for _, order := range v.lost {
		if lost := m.Asked.Sub(order.At); gap.has(order.At) && lost > a.RPO {
			return "", fmt.Errorf("order %d, acknowledged %s before the run, is lost, and the run says %s", order.ID, lost, a.RPO)
		}
	}
	s := tally(v.all, v, gap)
	return s.text(gap) + "; the run says " + seconds(a.RPO), nil
}

func (r *Run) reviveWest(ctx context.Context) (string, error) {
	return "Superseded, scaled to zero", r.comesBackFenced(ctx, survivor)
}
