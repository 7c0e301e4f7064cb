package cloud

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/oauth2"

	"davit.dev/davit/internal/traffic/names"
)

const (
	callTimeout = 15 * time.Second
	mostBytes   = 1 << 20 // of an answer
)

// answer is what a call was answered with.
type answer struct {
	code int
	body []byte
}

// request makes one; a body is of that type.
func request(ctx context.Context, method, address, kind string, body []byte) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Type", kind)
	}
	return r, nil
}

// call sends a request and reads its answer. An error leaves open what happened.
func call(client *http.Client, r *http.Request) (answer, error) {
	got, err := client.Do(r)
	if err != nil {
		return answer{}, noToken(err)
	}
	defer func() { _ = got.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(got.Body, mostBytes))
	if err != nil {
		return answer{}, fmt.Errorf("read answer: %w", err)
	}
	return answer{got.StatusCode, body}, nil
}

// signedIn is a client that shows tokens, which it gets by the given one.
func signedIn(client *http.Client, source func(context.Context) oauth2.TokenSource) *http.Client {
	ctx := context.WithValue(context.Background(), oauth2.HTTPClient, client)
	return &http.Client{
		Timeout: client.Timeout, CheckRedirect: client.CheckRedirect,
		Transport: &oauth2.Transport{Base: client.Transport, Source: source(ctx)},
	}
}

// noToken tells a refusal by what gives out tokens from silence.
func noToken(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) || refused.Response == nil || refused.Response.StatusCode >= 500 || refused.Response.StatusCode == http.StatusTooManyRequests {
		return err
	}
	return &names.RefusedError{
		What: fmt.Sprintf("gives no token (%d %s)", refused.Response.StatusCode, brief(refused.ErrorCode+" "+refused.ErrorDescription)),
		Do:   "put a valid key into the Secret, and set the clock",
	}
}

// failed says what follows from an answer that is no success. what is the service's own
// word for it.
func (a answer) failed(what, rights string) error {
	what = fmt.Sprintf("(%d %s)", a.code, brief(what))
	switch {
	case a.code == http.StatusTooManyRequests:
		return fmt.Errorf("it throttles %s: others ask with the same account; wait, or retry the step", what)
	case a.code >= 500:
		return fmt.Errorf("it fails %s: wait, and look at the service's status", what)
	case a.code == http.StatusUnauthorized:
		return &names.RefusedError{What: "does not accept the key " + what, Do: "put a valid one into the Secret, and set the clock"}
	case a.code == http.StatusForbidden:
		return &names.RefusedError{What: "does not allow it " + what, Do: rights}
	case a.code == http.StatusNotFound:
		return &names.RefusedError{What: "does not know the zone " + what, Do: "compare the plan's zone and the ids in the Secret with the service's console"}
	}
	return &names.RefusedError{What: "refuses it " + what, Do: "correct the record or the Secret by what it says"}
}

// brief keeps a service's words to one line.
func brief(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > 300 {
		s = s[:300] + "..."
	}
	return strings.ToValidUTF8(s, "?")
}
