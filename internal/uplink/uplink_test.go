package uplink

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"
	"time"
)

func TestToken(t *testing.T) {
	want := Token{Project: "acme", ID: strings.Repeat("1", 16), Secret: strings.Repeat("2", 64), Pin: strings.Repeat("3", 64)}
	got, err := ParseToken(" " + want.String() + "\n")
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"", "davit_enrol_acme", want.String() + "_x", strings.Replace(want.String(), "2222", "222g", 1), strings.ToUpper(want.String())} {
		if _, err := ParseToken(bad); !errors.Is(err, ErrToken) || strings.Contains(err.Error(), "2222") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

// Whatever the clocks say that name them, the enrolment that is given later is the newer one.
func TestEnrolmentIsNewer(t *testing.T) {
	ahead, right := time.UnixMilli(1_800_000_000_000), time.UnixMilli(1_700_000_000_000)
	if Enrolment(right, "f", "") > Enrolment(ahead, "a", "") {
		t.Error("the control: by its clock alone the later one is not older")
	}
	last := ""
	for _, at := range []time.Time{right, ahead, right, right, ahead.Add(time.Hour)} {
		next := Enrolment(at, "a", last)
		if next <= last {
			t.Errorf("%s was given after %s", next, last)
		}
		last = next
	}
}

func TestIdentity(t *testing.T) {
	want := Identity{Project: "acme", Site: "east.example", Enrolment: Enrolment(time.UnixMilli(1_700_000_000_000), strings.Repeat("a", 16), "")}
	got, err := IdentityOf(&x509.Certificate{URIs: []*url.URL{want.URL()}})
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{"https://acme/east?enrolment=" + want.Enrolment, "davit://acme/east/west?enrolment=" + want.Enrolment, "davit://acme/east", "davit:///east?enrolment=" + want.Enrolment} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := IdentityOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s is one", bad)
		}
	}
}

func TestFrames(t *testing.T) {
	var all State
	all.Full = true
	for i := range 1201 {
		all.Objects = append(all.Objects, Object{Key: Key{Name: strings.Repeat("x", i%9)}})
	}
	n := 0
	frames := all.Frames()
	for i, f := range frames {
		n += len(f.Objects)
		if !f.Full || f.More != (i < len(frames)-1) {
			t.Errorf("frame %d: full %v, more %v", i, f.Full, f.More)
		}
	}
	if n != 1201 || len((State{Full: true}).Frames()) != 1 {
		t.Error(n)
	}
}

// What objects say fits into frames, however much of it there is.
func TestLargeFrames(t *testing.T) {
	var all State
	for size := 0; size < MaxSpecs; size += MaxSpec {
		o := Object{Key: Key{Name: strings.Repeat("n", 253)}, Why: strings.Repeat("w", 1024), Foreign: true}
		o.Spec = json.RawMessage(`{"text":"` + strings.Repeat("x", MaxSpec-11) + `"}`)
		all.Objects = append(all.Objects, o)
	}
	n := 0
	for _, f := range all.Frames() {
		if n += len(f.Objects); len(f.Objects) == 0 {
			t.Fatal("a frame has nothing")
		}
		if err := Write(io.Discard, Up{State: &f}); err != nil {
			t.Fatal(err)
		}
	}
	if n != len(all.Objects) {
		t.Errorf("%d of %d objects", n, len(all.Objects))
	}
}

func TestReaderRefuses(t *testing.T) {
	for text, want := range map[string]error{
		"{}\n": ErrFrame, "[]\n": ErrFrame, "{\"beat\":{},\"hello\":{}}\n": ErrFrame, "{\"beat\":{}": io.ErrUnexpectedEOF, "": io.EOF,
		strings.Repeat("x", MaxFrame+1) + "\n": ErrFrame,
	} {
		if _, err := NewReader(strings.NewReader(text)).Up(); !errors.Is(err, want) {
			t.Errorf("%.20q: %v, want %v", text, err, want)
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte("{\"beat\":{}}\n{\"event\":{\"seq\":1}}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		up, down := NewReader(bytes.NewReader(data)), NewReader(bytes.NewReader(data))
		for {
			frame, err := up.Up()
			if err != nil {
				break
			}
			var out bytes.Buffer
			if err := Write(&out, frame); err != nil {
				t.Fatal(err)
			}
			if _, err := NewReader(&out).Up(); err != nil {
				t.Fatalf("what was written is not read: %v", err)
			}
		}
		for {
			if _, err := down.Down(); err != nil {
				break
			}
		}
	})
}

func FuzzToken(f *testing.F) {
	f.Add("davit_enrol_a_b_c_d")
	f.Fuzz(func(t *testing.T, text string) {
		if token, err := ParseToken(text); err == nil && token.String() != strings.TrimSpace(text) {
			t.Error("it is another one")
		}
	})
}
