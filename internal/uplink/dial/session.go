package dial

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"davit.dev/davit/internal/uplink"
	"davit.dev/davit/internal/uplink/outbox"
)

// window is how many events may be under way.
const window = 512

// errSilent says that who was spoken to is dead, or as good as that.
var errSilent = fmt.Errorf("nothing was heard for %s", uplink.Silence)

// session is one stream.
type session struct {
	*Client
	link  Link
	wire  wire
	cert  *x509.Certificate
	box   *outbox.Outbox // whose events are said
	since time.Time
	asked time.Time // when the stream was asked for

	told   map[uplink.Key]uplink.Object // of this stream; nil: nothing yet
	saidOf map[uplink.Key]spoken        // of documents, in this stream
	sent   int64                        // the newest event under way
	acked  atomic.Int64
	acks   chan struct{}

	restores restores
}

// stream speaks and hears until one of the sides ends.
func (s *session) stream(ctx context.Context) (welcomed bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	// What is not heard for too long is dead, from the call on.
	alive := time.AfterFunc(uplink.Silence, func() { end(errSilent) })
	defer alive.Stop()
	out, in := io.Pipe()
	defer out.Close()
	go func() {
		hello := uplink.Hello{Version: s.Version, Outbox: s.box.ID(), Epoch: s.link.Epoch}
		if s.Hands != nil {
			holds := s.desk.holds()
			hello.Documents = &holds
		}
		if s.Begins != nil {
			hello.Runs = permitted(s.link.Runs)
		}
		if s.Restores != nil {
			hello.Restores, hello.Cancels = restorable(s.link.Restores), true
		}
		if err := uplink.Write(in, uplink.Up{Hello: &hello}); err != nil {
			in.CloseWithError(err)
		}
	}()
	s.asked = s.Now()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.wire.base+uplink.StreamPath, out)
	if err != nil {
		return false, err
	}
	answer, err := s.wire.client.Do(r)
	if err != nil {
		return false, cause(ctx, turned(err))
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return false, refusal(answer)
	}
	frames := uplink.NewReader(answer.Body)
	if err := s.welcome(ctx, frames); err != nil {
		return errors.Is(err, errSaid), cause(ctx, err)
	}
	s.acks = make(chan struct{}, 1)
	s.restores.changed = make(chan struct{}, 1)
	defer s.restores.under.Wait() // they end with the stream
	defer end(nil)
	ended := make(chan error, 1)
	go func() { ended <- s.speak(ctx, in) }()
	err = s.hear(ctx, frames, alive)
	end(err)
	_ = out.Close()
	if said := <-ended; err == nil {
		err = said
	}
	return true, cause(ctx, err)
}

// cause is why the stream was ended by ourselves, or else the error.
func cause(ctx context.Context, err error) error {
	if why := context.Cause(ctx); why != nil && why != context.Canceled { //nolint:errorlint // the cause itself
		return why
	}
	return err
}

// welcome hears the console's first word, and does not go on with one that was
// replaced.
func (s *session) welcome(ctx context.Context, frames *uplink.Reader) error {
	f, err := frames.Down()
	if err != nil {
		return err
	}
	if f.Welcome == nil {
		return fmt.Errorf("%w: it does not begin with welcome", uplink.ErrFrame)
	}
	if err := s.heed(f.Welcome.Console); err != nil {
		return err
	}
	if err := s.meet(ctx, f.Welcome.ID); err != nil {
		return err
	}
	if err := s.rise(ctx, f.Welcome.Epoch); err != nil {
		return err
	}
	if err := s.compare(f.Welcome.Authorities); err != nil {
		return err
	}
	s.orders.clock(s.asked, f.Welcome.At)
	s.sent = f.Welcome.Acked
	s.acked.Store(f.Welcome.Acked)
	if err := s.ack(f.Welcome.Acked); err != nil {
		return err
	}
	s.since = s.Now()
	s.tell()
	return nil
}

// errSaid ends a stream in which all was said that another agent had left: the next one is
// of another outbox.
var errSaid = errors.New("all is said that another agent had left")

// ack forgets what the console has.
func (s *session) ack(seq int64) error {
	if err := s.box.Ack(seq); err != nil {
		return err
	}
	if s.box != s.Outbox && s.box.Len() == 0 {
		return errSaid
	}
	return nil
}

// errForeign ends a stream so that the certificate is renewed: the next call does that.
var errForeign = errors.New("the console has other authorities: the certificate is renewed")

// compare has the certificate be renewed if the console trusts other authorities than
// are known here. For each such list that is tried once: a console that says one thing
// and grants another is to be heard all the same.
func (s *session) compare(pins []string) error {
	if len(pins) == 0 || slices.Equal(pins, s.link.pins()) || slices.Equal(pins, s.Client.asked) {
		return nil
	}
	s.foreign, s.Client.asked = pins, pins
	return errForeign
}

// rise keeps an epoch that is higher than all before: a lower one is not obeyed
// from then on, whatever becomes of this process.
func (s *session) rise(ctx context.Context, epoch int64) error {
	if epoch <= s.link.Epoch {
		return nil
	}
	l := s.link
	l.Epoch = epoch
	if err := s.Keep.Save(ctx, l); err != nil {
		return fmt.Errorf("keep the console's epoch: %w", err)
	}
	s.link = l
	return nil
}

// meet keeps which console this is.
func (s *session) meet(ctx context.Context, id string) error {
	if id == "" || id == s.link.Console {
		return nil
	}
	l := s.link
	l.Console = id
	if err := s.Keep.Save(ctx, l); err != nil {
		return fmt.Errorf("keep which console it is: %w", err)
	}
	s.link = l
	return nil
}

func (s *session) tell() {
	st := s.status()
	st.URL, st.Connected, st.Since, st.Ends = s.wire.base, true, s.since, s.cert.NotAfter
	s.Tell(st)
}

// heed goes by who is active.
func (s *session) heed(c uplink.Console) error {
	switch {
	case c.Epoch < s.link.Epoch:
		return fmt.Errorf("%w: its epoch is %d, %d was heard before", ErrStale, c.Epoch, s.link.Epoch)
	case !c.Active:
		return fmt.Errorf("%w: it is not the active one", ErrStale)
	}
	return nil
}

func (s *session) hear(ctx context.Context, frames *uplink.Reader, alive *time.Timer) error {
	for {
		f, err := frames.Down()
		if err != nil {
			return err
		}
		alive.Reset(uplink.Silence)
		switch {
		case f.Ack != nil:
			if f.Ack.Seq < s.acked.Load() {
				return fmt.Errorf("%w: it takes back an acknowledgement", uplink.ErrFrame)
			}
			s.acked.Store(f.Ack.Seq)
			if err := s.ack(f.Ack.Seq); err != nil {
				return err
			}
			select {
			case s.acks <- struct{}{}:
			default:
			}
		case f.Beat != nil:
			if err := errors.Join(s.heed(*f.Beat), s.rise(ctx, f.Beat.Epoch)); err != nil {
				return err
			}
			s.tell()
		case f.Document != nil:
			if err := s.handed(ctx, item{Document: *f.Document}, f.Document.Epoch); err != nil {
				return err
			}
		case f.Held != nil:
			if err := s.handed(ctx, item{held: f.Held}, f.Held.Epoch); err != nil {
				return err
			}
		case f.Begin != nil:
			if err := s.ordered(ctx, *f.Begin); err != nil {
				return err
			}
		case f.Restore != nil:
			if err := s.restore(ctx, *f.Restore); err != nil {
				return err
			}
		default:
			return fmt.Errorf("%w: welcome again", uplink.ErrFrame)
		}
	}
}

// speak says what there is to say until the stream ends.
func (s *session) speak(ctx context.Context, to *io.PipeWriter) error {
	err := s.talk(ctx, to)
	_ = to.CloseWithError(io.EOF)
	return err
}

func (s *session) talk(ctx context.Context, to io.Writer) error {
	beat := time.NewTicker(uplink.Beat)
	defer beat.Stop()
	for {
		objects, set, changed := s.Board.look()
		more := s.box.Changed()
		papers, stand := s.desk.look()
		begun, answered := s.orders.look()
		restored := s.restores.look()
		if set {
			if err := s.state(to, objects); err != nil {
				return err
			}
		}
		if err := errors.Join(s.events(to), s.papers(to, papers), say(to, begun), told(to, restored)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-more:
		case <-stand:
		case <-answered:
		case <-s.restores.changed:
		case <-s.acks:
		case <-beat.C:
			if err := uplink.Write(to, uplink.Up{Beat: &struct{}{}}); err != nil {
				return err
			}
			if s.due() { // the next stream has the new certificate
				return nil
			}
		}
	}
}

// due tells whether the certificate is to be renewed. The stream is ended for
// that: the next one begins with the renewal.
func (s *session) due() bool {
	life := s.cert.NotAfter.Sub(s.cert.NotBefore)
	return s.Now().Sub(s.cert.NotBefore) >= life/3 && s.Now().Sub(s.since) >= time.Hour
}

// state says what changed since it was last said, or all of it.
func (s *session) state(to io.Writer, objects []uplink.Object) error {
	said := uplink.State{Full: s.told == nil}
	now := make(map[uplink.Key]uplink.Object, len(objects))
	for _, o := range objects {
		now[o.Key] = o
		if before, ok := s.told[o.Key]; !ok || !same(before, o) {
			said.Objects = append(said.Objects, o)
		}
	}
	for k := range s.told {
		if _, ok := now[k]; !ok {
			said.Gone = append(said.Gone, k)
		}
	}
	s.told = now
	if !said.Full && len(said.Objects)+len(said.Gone) == 0 {
		return nil
	}
	for _, f := range said.Frames() {
		if err := uplink.Write(to, uplink.Up{State: &f}); err != nil {
			return err
		}
	}
	return nil
}

func same(a, b uplink.Object) bool {
	equal := a.Instant.Equal(b.Instant)
	a.Instant, b.Instant = time.Time{}, time.Time{}
	return equal && reflect.DeepEqual(a, b)
}

// events says what waits, so much at once as may be under way.
func (s *session) events(to io.Writer) error {
	for s.sent-s.acked.Load() < window {
		all, err := s.box.Next(s.sent, window/4)
		if err != nil || len(all) == 0 {
			return err
		}
		for _, e := range all {
			if err := uplink.Write(to, uplink.Up{Event: &e}); err != nil {
				return err
			}
			s.sent = e.Seq
		}
	}
	return nil
}
