// Package stash keeps events that wait for a console in the cluster too, while they wait
// long: what is on the disk of the agent's pod goes with that. Who leads after it says
// them under the name of the outbox that they were in, and so the console takes each once,
// whichever of the two had begun to say them.
package stash

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"davit.dev/davit/api/v1alpha1"
	"davit.dev/davit/internal/uplink"
)

const (
	// Patience is how long an event waits before it is kept here: a console that is there
	// has it by then.
	Patience = 10 * time.Second
	// partSize is about how much is in one ConfigMap, in bytes before it is compressed, and
	// maxParts how many of them a project has at most.
	partSize = 256 << 10
	maxParts = 64
	// maxData bounds what is read of one, in bytes.
	maxData = 8 << 20

	label     = "davit.dev/outbox"    // the project's
	annotated = "davit.dev/outbox-id" // of the outbox
	data      = "events"              // gzip of JSON, one event a line
)

// Box is where the events wait.
type Box interface {
	ID() string
	// Next returns the events after a number, oldest first, at most so many.
	Next(after int64, most int) ([]uplink.Event, error)
}

// Stash keeps the events of one project's outbox. It is used by one goroutine.
type Stash struct {
	writes client.Client
	reads  client.Reader
	box    Box
	// project is its name as a label has it.
	project string
	parts   []*part // of the box, by number
	left    []Left
}

// Left is what an agent that is gone has left.
type Left struct {
	ID     string
	Events []uplink.Event
	parts  []*part
}

// part is one ConfigMap.
type part struct {
	name        string
	id          string
	first, last int64
	made        bool
	// events are what is in it while more may come, and size that of them.
	events []uplink.Event
	size   int
}

// Open reads what is kept of a project. reads asks the API server itself.
func Open(ctx context.Context, writes client.Client, reads client.Reader, project string, box Box) (*Stash, error) {
	s := &Stash{writes: writes, reads: reads, box: box, project: uplink.ProjectLabel(project)}
	var all corev1.ConfigMapList
	if err := reads.List(ctx, &all, client.InNamespace(v1alpha1.SystemNamespace), client.MatchingLabels{label: s.project}); err != nil {
		return nil, fmt.Errorf("read events that wait: %w", err)
	}
	left := map[string]*Left{}
	for i := range all.Items {
		p, events, err := read(&all.Items[i])
		if err != nil { // it says nothing to anybody, and would come again each time
			if err := s.remove(ctx, &part{name: all.Items[i].Name}); err != nil {
				return nil, err
			}
			continue
		}
		if p.id == box.ID() {
			s.parts = append(s.parts, p)
			continue
		}
		l := left[p.id]
		if l == nil {
			l = &Left{ID: p.id}
			left[p.id] = l
		}
		l.parts, l.Events = append(l.parts, p), append(l.Events, events...)
	}
	byNumber := func(a, b *part) int { return cmp.Compare(a.first, b.first) }
	slices.SortFunc(s.parts, byNumber)
	for _, l := range left {
		slices.SortFunc(l.parts, byNumber)
		slices.SortStableFunc(l.Events, func(a, b uplink.Event) int { return cmp.Compare(a.Seq, b.Seq) })
		l.Events = slices.CompactFunc(l.Events, func(a, b uplink.Event) bool { return a.Seq == b.Seq })
		s.left = append(s.left, *l)
	}
	slices.SortFunc(s.left, func(a, b Left) int {
		return cmp.Or(a.Events[0].At.Compare(b.Events[0].At), cmp.Compare(a.ID, b.ID))
	})
	return s, nil
}

// Left is what agents have left that are gone, the oldest first.
func (s *Stash) Left() []Left { return slices.Clone(s.left) }

func read(m *corev1.ConfigMap) (*part, []uplink.Event, error) {
	p := &part{name: m.Name, id: m.Annotations[annotated], made: true}
	z, err := gzip.NewReader(bytes.NewReader(m.BinaryData[data]))
	if err != nil {
		return nil, nil, err
	}
	in := json.NewDecoder(io.LimitReader(z, maxData))
	var events []uplink.Event
	for {
		var e uplink.Event
		err := in.Decode(&e)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, nil, err
		}
		if e.Seq <= p.last {
			return nil, nil, fmt.Errorf("event %d is out of order", e.Seq)
		}
		if p.first == 0 {
			p.first = e.Seq
		}
		p.last, events = e.Seq, append(events, e)
	}
	if raw, err := hex.DecodeString(p.id); err != nil || len(raw) != 16 || len(events) == 0 {
		return nil, nil, errors.New("it has no events of an outbox")
	}
	return p, events, nil
}

// Keep keeps what has waited for longer than Patience, or with a zero now all that waits,
// and lets go what a console has by now.
func (s *Stash) Keep(ctx context.Context, now time.Time) error {
	waits, err := s.box.Next(0, 1)
	if err != nil {
		return err
	}
	for len(s.parts) > 0 && (len(waits) == 0 || s.parts[0].last < waits[0].Seq) {
		if err := s.remove(ctx, s.parts[0]); err != nil {
			return err
		}
		s.parts = s.parts[1:]
	}
	kept := int64(0)
	if n := len(s.parts); n > 0 {
		kept = s.parts[n-1].last
	}
	for {
		events, err := s.box.Next(kept, 256)
		if err != nil {
			return err
		}
		if i := slices.IndexFunc(events, func(e uplink.Event) bool { return !now.IsZero() && now.Sub(e.At) < Patience }); i >= 0 {
			events = events[:i]
		}
		if len(events) == 0 {
			return nil
		}
		if kept, err = s.add(ctx, events); err != nil {
			return err
		}
	}
}

// add keeps events in the part that is open, or another, and returns the last that it took.
func (s *Stash) add(ctx context.Context, events []uplink.Event) (last int64, err error) {
	var p *part
	if n := len(s.parts); n > 0 && s.parts[n-1].size < partSize && s.parts[n-1].events != nil {
		p = s.parts[n-1]
	} else {
		if err := s.makeRoom(ctx); err != nil {
			return 0, err
		}
		id := s.box.ID()
		p = &part{name: fmt.Sprintf("davit-outbox-%s-%d", id, events[0].Seq), id: id, first: events[0].Seq}
	}
	was := *p
	for _, e := range events {
		if p.size >= partSize {
			break
		}
		p.events, p.last = append(p.events, e), e.Seq
		p.size += 256 + len(e.Message)
	}
	if err := s.write(ctx, p); err != nil {
		*p = was
		return 0, err
	}
	if !was.made {
		p.made = true
		s.parts = append(s.parts, p)
	}
	return p.last, nil
}

func (s *Stash) write(ctx context.Context, p *part) error {
	var text bytes.Buffer
	z := gzip.NewWriter(&text)
	out := json.NewEncoder(z)
	for _, e := range p.events {
		if err := out.Encode(e); err != nil {
			return fmt.Errorf("keep events that wait: %w", err)
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("keep events that wait: %w", err)
	}
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Namespace: v1alpha1.SystemNamespace, Annotations: map[string]string{annotated: p.id},
			Labels: map[string]string{label: s.project, v1alpha1.LabelManagedBy: "davit"},
		},
		BinaryData: map[string][]byte{data: text.Bytes()},
	}
	err := s.writes.Update(ctx, m)
	if apierrors.IsNotFound(err) {
		err = s.writes.Create(ctx, m)
	}
	if err != nil {
		return fmt.Errorf("keep events that wait: %w", err)
	}
	return nil
}

func (s *Stash) remove(ctx context.Context, p *part) error {
	m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: p.name, Namespace: v1alpha1.SystemNamespace}}
	if err := client.IgnoreNotFound(s.writes.Delete(ctx, m)); err != nil {
		return fmt.Errorf("let go events that waited: %w", err)
	}
	return nil
}

// makeRoom drops the oldest part of all when there are as many as may be: what an agent left, or else
// of the box, on whose disk they are still.
func (s *Stash) makeRoom(ctx context.Context) error {
	n := len(s.parts)
	for _, l := range s.left {
		n += len(l.parts)
	}
	if n < maxParts {
		return nil
	}
	for i := range s.left {
		l := &s.left[i]
		if len(l.parts) == 0 {
			continue
		}
		if err := s.remove(ctx, l.parts[0]); err != nil {
			return err
		}
		l.parts = l.parts[1:]
		return nil
	}
	if err := s.remove(ctx, s.parts[0]); err != nil {
		return err
	}
	s.parts = s.parts[1:]
	return nil
}

// Said lets go what an agent had left: the console has it.
func (s *Stash) Said(ctx context.Context, id string) error {
	i := slices.IndexFunc(s.left, func(l Left) bool { return l.ID == id })
	if i < 0 {
		return nil
	}
	for l := &s.left[i]; len(l.parts) > 0; l.parts = l.parts[1:] {
		if err := s.remove(ctx, l.parts[0]); err != nil {
			return err
		}
	}
	s.left = slices.Delete(s.left, i, i+1)
	return nil
}

// Clear lets go everything: there is no console any more.
func (s *Stash) Clear(ctx context.Context) error {
	for len(s.left) > 0 {
		if err := s.Said(ctx, s.left[0].ID); err != nil {
			return err
		}
	}
	for ; len(s.parts) > 0; s.parts = s.parts[1:] {
		if err := s.remove(ctx, s.parts[0]); err != nil {
			return err
		}
	}
	return nil
}
