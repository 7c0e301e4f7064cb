// Package reply sends answers that are whole before the first byte goes out: compressed
// for whoever takes that. Streams do not come by here.
package reply

import (
	"bytes"
	"crypto/rand"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzip"
)

// least is from which size on an answer is compressed, in bytes: below it fills one
// packet either way.
const least = 1 << 10

// mostKept is how large what an answer was compressed into may be to be used again.
const mostKept = 1 << 20

// padding is how much longer a compressed answer may be than it needs to be, in bytes.
// By how much is drawn for each, so that a few of them say little by their length.
const padding = 64

// press is a writer and what it writes into.
type press struct {
	out bytes.Buffer
	zip *gzip.Writer
}

var presses = sync.Pool{New: func() any {
	p := &press{}
	p.zip = gzip.NewWriter(&p.out)
	return p
}}

// Write answers with a body whose type is set already. Answers to GET are compressed;
// others may hold a secret that is shown once, and are not, nor are small ones.
func Write(w http.ResponseWriter, r *http.Request, code int, body []byte) error {
	if r.Method == http.MethodGet {
		w.Header().Add("Vary", "Accept-Encoding")
	}
	if r.Method != http.MethodGet || len(body) < least || !takes(r) {
		return Plain(w, code, body)
	}
	p, _ := presses.Get().(*press)
	defer func() {
		if p.out.Cap() <= mostKept {
			presses.Put(p)
		}
	}()
	if err := p.squeeze(body); err != nil {
		return err
	}
	w.Header().Set("Content-Encoding", "gzip")
	return Plain(w, code, p.out.Bytes())
}

// Plain answers with a body as it is: it holds a secret beside what others may have put
// there, and its length compressed would tell of it.
func Plain(w http.ResponseWriter, code int, body []byte) error {
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		return fmt.Errorf("send answer: %w", err)
	}
	return nil
}

func (p *press) squeeze(body []byte) error {
	p.out.Reset()
	p.zip.Reset(&p.out)
	var longer [1]byte
	if _, err := rand.Read(longer[:]); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	p.zip.Extra = make([]byte, int(longer[0])%padding+1)
	if _, err := p.zip.Write(body); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	if err := p.zip.Close(); err != nil {
		return fmt.Errorf("compress answer: %w", err)
	}
	return nil
}

// takes tells whether whoever asks takes an answer that is compressed by gzip.
func takes(r *http.Request) bool {
	any := false
	for _, one := range strings.Split(strings.Join(r.Header.Values("Accept-Encoding"), ","), ",") {
		name, weight, weighed := strings.Cut(one, ";")
		yes := true
		if weighed {
			value, _ := strings.CutPrefix(strings.TrimSpace(weight), "q=")
			q, err := strconv.ParseFloat(value, 64)
			yes = err == nil && q > 0
		}
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "gzip":
			return yes
		case "*":
			any = yes
		}
	}
	return any
}
