package uplink

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Limits of both sides.
const (
	// MaxFrame bounds one frame, and MaxBody one request, in bytes.
	MaxFrame = 1 << 20
	MaxBody  = 64 << 10
	// Beat is how often an agent says that it lives, and Silence how long the other
	// side may say nothing.
	Beat    = 15 * time.Second
	Silence = 45 * time.Second
	// MaxSpec bounds what is told of what one object says, and MaxSpecs of all those of a
	// site, in bytes of JSON.
	MaxSpec  = 64 << 10
	MaxSpecs = 4 << 20
)

// Request asks to be let in, or for a new certificate.
type Request struct {
	Token   string `json:"token,omitempty"`
	Site    string `json:"site,omitempty"`
	Request []byte `json:"request"` // PKCS #10
	Version string `json:"version,omitempty"`
}

// Grant is a certificate, and whom to trust from then on.
type Grant struct {
	Project     string   `json:"project"`
	Site        string   `json:"site"`
	Certificate []byte   `json:"certificate"`
	Authorities [][]byte `json:"authorities"`
}

// Refusal says why something was refused.
type Refusal struct {
	Reason string `json:"reason"`
}

// Key names an object of a cluster.
type Key struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// Object is what an agent says of one object now.
type Object struct {
	Key
	// VaultName is an application's name in the vault.
	VaultName string `json:"vaultName,omitempty"`
	// Git names what makes the object from git; empty: people do, or Davit.
	Git   string `json:"git,omitempty"`
	State string `json:"state,omitempty"`
	Why   string `json:"why,omitempty"`
	Role  string `json:"role,omitempty"`
	// Epoch is the newest that the agent knows of, and Holder the site that has it.
	Epoch  int64  `json:"epoch,omitempty"`
	Holder string `json:"holder,omitempty"`
	// Point is the newest recovery point that may be offered.
	Point   string    `json:"point,omitempty"`
	Instant time.Time `json:"instant,omitzero"`
	Points  int64     `json:"points,omitempty"`
	// Vault is how the site reaches a Vault.
	Vault *Reach `json:"vault,omitempty"`
	// Spec is what a Foreign one says.
	Spec json.RawMessage `json:"spec,omitempty"`
	// Foreign is that no console of the project made it; Spec without it, there was no room
	// for. Agents that do not know of it say neither.
	Foreign bool `json:"foreign,omitempty"`
	// Console is the other project whose console made it, as its label has it.
	Console string `json:"console,omitempty"`
}

// Reach is how a site reaches one of its project's vaults. No address is in it.
type Reach struct {
	// CopyOf is the Vault that this is a second copy of.
	CopyOf  string    `json:"copyOf,omitempty"`
	Checked time.Time `json:"checked,omitzero"`
	// RoundTrip is that of a small write, in microseconds; 0: not measured.
	RoundTrip int64 `json:"roundTripMicros,omitempty"`
	// KeyVersion is the newest of the project's keys that the site knows.
	KeyVersion int64 `json:"keyVersion,omitempty"`
	// Pending counts recovery points that are to be copied yet, since Since, and Fault
	// is what keeps the copy from going on.
	Pending int64     `json:"pending,omitempty"`
	Since   time.Time `json:"since,omitzero"`
	Fault   string    `json:"fault,omitempty"`
}

// Event is something that happened.
type Event struct {
	Seq     int64     `json:"seq"`
	At      time.Time `json:"at"`
	Object  Key       `json:"object"`
	Type    string    `json:"type,omitempty"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	// Lost is how many before it were dropped: the outbox was full, or could not be
	// written.
	Lost int64 `json:"lost,omitempty"`
}

// Hello is an agent's first word.
type Hello struct {
	Version string `json:"version"`
	Outbox  string `json:"outbox"`
	Epoch   int64  `json:"epoch,omitempty"`
	// Documents is up to which revision it holds what it was handed; none: it takes
	// no documents.
	Documents *int64 `json:"documents,omitempty"`
	// Runs says which runs the site lets a console begin: RunsNone, RunsDrill or
	// RunsAll. None: the agent does not know how to begin any.
	Runs string `json:"runs,omitempty"`
	// Restores says what the site lets a console restore: RestoresNone,
	// RestoresClone or RestoresAll. None: the agent does not know how to.
	Restores string `json:"restores,omitempty"`
	// Cancels says that the agent takes restores back.
	Cancels bool `json:"cancels,omitempty"`
}

// Which runs a console may begin at a site.
const (
	RunsNone  = "none"
	RunsDrill = "drill"
	RunsAll   = "all"
)

// State is what an agent says of its cluster.
type State struct {
	Objects []Object `json:"objects,omitempty"`
	Gone    []Key    `json:"gone,omitempty"`
	Full    bool     `json:"full,omitempty"`
	More    bool     `json:"more,omitempty"`
}

// Document is what a console says of a document: what the site is to have of it,
// or that it is to have it no more.
type Document struct {
	// Epoch is that of the console. A lower one than was heard is not obeyed.
	Epoch int64 `json:"epoch"`
	Key
	UID        string          `json:"uid"`
	Revision   int64           `json:"revision"`
	Generation int64           `json:"generation,omitempty"`
	Gone       bool            `json:"gone,omitempty"`
	Body       json.RawMessage `json:"body,omitempty"` // labels, annotations and spec
}

// States of a document at a site.
const (
	Applied  = "applied"
	Waiting  = "waiting"
	Conflict = "conflict" // the object there is another's
	Refused  = "refused"
	Gone     = "gone"
)

// Told is how a document stands at the site.
type Told struct {
	Key
	UID      string `json:"uid"`
	Revision int64  `json:"revision"`
	Gone     bool   `json:"gone,omitempty"`
	State    string `json:"state"`
	Why      string `json:"why,omitempty"`
}

// Held says that there are no more documents up to a revision.
type Held struct {
	Epoch    int64 `json:"epoch"`
	Revision int64 `json:"revision"`
}

// Begin asks a site's agent to begin a run: to make the Run of it. The same again
// begins no second one.
type Begin struct {
	// Epoch is that of the console. A lower one than was heard is not obeyed.
	Epoch int64  `json:"epoch"`
	ID    string `json:"id"`
	// Run is what the run is to be called.
	Run  string `json:"run"`
	Plan string `json:"plan"`
	Verb string `json:"verb"`
	// By is who asks, as runs call people of consoles.
	By     string   `json:"by"`
	Reason string   `json:"reason,omitempty"`
	Lost   []string `json:"lost,omitempty"`
	// Asked accepts that a site was merely asked to stop.
	Asked  bool              `json:"acceptAsked,omitempty"`
	Points map[string]string `json:"points,omitempty"`
	AsOf   time.Time         `json:"asOf,omitzero"`
	// Until is when it is too late to begin, by the console's clock.
	Until time.Time `json:"until"`
}

// States of a run that a console asked for.
const (
	// Created: the Run is there, and its agent carries it.
	Created = "created"
)

// Begun is what became of a Begin.
type Begun struct {
	ID    string `json:"id"`
	State string `json:"state"` // Created or Refused
	Why   string `json:"why,omitempty"`
	// Do is what to do about it.
	Do string `json:"do,omitempty"`
}

// Up is one frame of an agent: one of its members is set.
type Up struct {
	Hello *Hello    `json:"hello,omitempty"`
	State *State    `json:"state,omitempty"`
	Event *Event    `json:"event,omitempty"`
	Beat  *struct{} `json:"beat,omitempty"`
	Told  *Told     `json:"told,omitempty"`
	Begun *Begun    `json:"begun,omitempty"`
	// Only of agents that say what may be restored.
	Restored *Restored `json:"restored,omitempty"`
}

// Console is who speaks for the project.
type Console struct {
	Epoch  int64 `json:"epoch"`
	Active bool  `json:"active"`
}

// Welcome is a console's first word.
type Welcome struct {
	Console
	// ID is the console's: under it the vault says which process of it is active.
	ID    string `json:"id,omitempty"`
	Acked int64  `json:"acked"`
	Every int64  `json:"every"` // milliseconds
	// At is the console's clock when it said this.
	At time.Time `json:"at,omitzero"`
	// Authorities are the pins of those that the project trusts, the newest first: who
	// knows others has his certificate renewed.
	Authorities []string `json:"authorities,omitempty"`
}

// Ack says up to where events are kept.
type Ack struct {
	Seq int64 `json:"seq"`
}

// Down is one frame of a console: one of its members is set.
type Down struct {
	Welcome *Welcome `json:"welcome,omitempty"`
	Ack     *Ack     `json:"ack,omitempty"`
	Beat    *Console `json:"beat,omitempty"`
	// Only to agents that take documents.
	Document *Document `json:"document,omitempty"`
	Held     *Held     `json:"held,omitempty"`
	// Only to agents that say which runs may be begun.
	Begin *Begin `json:"begin,omitempty"`
	// Only to agents that say what may be restored.
	Restore *Restore `json:"restore,omitempty"`
}

// ErrFrame says that what the other side wrote is no frame.
var ErrFrame = errors.New("not a frame of an agent's stream")

// Reader reads frames.
type Reader struct{ r *bufio.Reader }

// NewReader returns a reader of frames.
func NewReader(r io.Reader) *Reader { return &Reader{bufio.NewReaderSize(r, 4096)} }

// line reads one line within the limit.
func (r *Reader) line() ([]byte, error) {
	var whole []byte
	for {
		part, err := r.r.ReadSlice('\n')
		if len(whole)+len(part) > MaxFrame {
			return nil, fmt.Errorf("%w: longer than %d bytes", ErrFrame, MaxFrame)
		}
		if err == nil && whole == nil {
			return part, nil
		}
		whole = append(whole, part...)
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(whole) > 0 {
			return nil, io.ErrUnexpectedEOF
		}
		return whole, err
	}
}

// Up reads a frame of an agent.
func (r *Reader) Up() (Up, error) {
	var f Up
	line, err := r.line()
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if n := count(f.Hello != nil, f.State != nil, f.Event != nil, f.Beat != nil, f.Told != nil, f.Begun != nil, f.Restored != nil); n != 1 {
		return f, fmt.Errorf("%w: it has %d members", ErrFrame, n)
	}
	return f, nil
}

// Down reads a frame of a console.
func (r *Reader) Down() (Down, error) {
	var f Down
	line, err := r.line()
	if err != nil {
		return f, err
	}
	if err := json.Unmarshal(line, &f); err != nil {
		return f, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	if n := count(f.Welcome != nil, f.Ack != nil, f.Beat != nil, f.Document != nil, f.Held != nil, f.Begin != nil, f.Restore != nil); n != 1 {
		return f, fmt.Errorf("%w: it has %d members", ErrFrame, n)
	}
	return f, nil
}

func count(all ...bool) (n int) {
	for _, one := range all {
		if one {
			n++
		}
	}
	return n
}

// Write writes one frame.
func Write(w io.Writer, frame any) error {
	data, err := json.Marshal(frame)
	if err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	if len(data) >= MaxFrame {
		return fmt.Errorf("write frame: %w: longer than %d bytes", ErrFrame, MaxFrame)
	}
	_, err = w.Write(append(data, '\n'))
	return err
}

// Frames cuts what is said of a cluster into frames that are small enough.
func (s State) Frames() []State {
	const most, room = 250, MaxFrame / 4 // each less than 2 KiB, besides its spec
	var all []State
	objects, gone := s.Objects, s.Gone
	for {
		n, m, size := 0, min(most, len(gone)), 0
		for ; n < min(most, len(objects)) && size < room; n++ {
			size += len(objects[n].Spec)
		}
		f := State{Objects: objects[:n], Gone: gone[:m], Full: s.Full}
		objects, gone = objects[n:], gone[m:]
		f.More = len(objects)+len(gone) > 0
		all = append(all, f)
		if !f.More {
			return all
		}
	}
}

// Waiting tells whether more was received already.
func (r *Reader) Waiting() bool { return r.r.Buffered() > 0 }
