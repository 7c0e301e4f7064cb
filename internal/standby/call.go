package standby

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"unicode"

	"davit.dev/davit/internal/execute"
	"davit.dev/davit/internal/failover"
	"davit.dev/davit/internal/plan"
	"davit.dev/davit/internal/restore/shape"
	"davit.dev/davit/internal/transcript"
)

// maxAnswer is how much of an answer is read, toldAnswer how much of it a note has.
const maxAnswer, toldAnswer = 1 << 20, 200

// call makes the HTTP call of a step. Nobody can see whether one was made
// before, so that a call without answer is for a person to settle. Its headers say whose order it is.
func (s *Site) call(ctx context.Context, o execute.Order) execute.Answer {
	if o.Action == failover.Undo {
		return s.command(ctx, o)
	}
	c := o.Step.Call
	h := s.hide(ctx, o.Step)
	request, err := s.request(ctx, o, &h)
	if err != nil {
		return execute.Refuse("%s %s was not sent: %v", c.Method, c.Address(), err)
	}
	if late := execute.Late(ctx, s.marks, s.newest, o); late != nil { // it may have stood still until now
		return *late
	}
	status, body, err := send(request)
	var refused *net.OpError
	var stranger *tls.CertificateVerificationError
	switch {
	case errors.As(err, &refused) && refused.Op == "dial", errors.As(err, &stranger): // nothing was sent
		return execute.Refuse("%s %s: %s", c.Method, c.Address(), h.mask(err.Error()))
	case err != nil:
		return execute.Unknown("%s %s: %s", c.Method, c.Address(), h.mask(err.Error()))
	}
	said := h.keep(fmt.Sprintf("status %d\n%s", status, body))
	if status != c.Expect {
		why := beginning(h.keep(beginning(h.mask(body), transcript.Most/2)), toldAnswer)
		return execute.Refuse("%s %s: status %d, not %d: %s", c.Method, c.Address(), status, c.Expect, strings.TrimSpace(why)).Saying(said)
	}
	return execute.Answer{Outcome: failover.Done, Guard: execute.Guarded}.Saying(said)
}

// beginning is that of a text, from which secrets are out: a cut before that could leave
// half of one.
func beginning(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

// request is what a call sends, with what it takes from Secrets, which is hidden from
// then on, whatever becomes of the Secrets.
func (s *Site) request(ctx context.Context, o execute.Order, h *hidden) (*http.Request, error) {
	c, body := o.Step.Call, o.Step.Call.Body
	if c.BodyFrom != nil {
		value, err := s.value(ctx, *c.BodyFrom, h)
		if err != nil {
			return nil, err
		}
		body = string(value)
	}
	to, err := s.address(ctx, c, h)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, c.Method, to, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	for _, header := range c.Headers {
		value := header.Value
		if header.From != nil {
			secret, err := s.value(ctx, *header.From, h)
			if err != nil {
				return nil, err
			}
			line := strings.TrimRight(string(secret), "\r\n") // files end with one
			if strings.ContainsFunc(line, unicode.IsControl) {
				return nil, fmt.Errorf("header %s: key %s of Secret %s has more than one line, or control characters: no header can say it", header.Name, header.From.Key, header.From.Secret)
			}
			value += line
		}
		request.Header.Set(header.Name, value)
	}
	told := o.Told()
	maps.Copy(told, c.Told)
	for key, value := range told {
		request.Header.Set(key, value)
	}
	return request, nil
}

// address is where a call goes. Of one that is secret its path is, too, as those whom it leads to say it.
func (s *Site) address(ctx context.Context, c *plan.Call, h *hidden) (string, error) {
	if c.URLFrom == nil {
		return c.URL, nil
	}
	value, err := s.value(ctx, *c.URLFrom, h)
	if err != nil {
		return "", err
	}
	text := strings.TrimSpace(string(value)) // files end with a line end
	if err := plan.CheckURL(text); err != nil {
		return "", fmt.Errorf("what key %s of Secret %s has is no url: %w", c.URLFrom.Key, c.URLFrom.Secret, err)
	}
	u, err := url.Parse(text)
	if err != nil { // it was looked at
		return "", errors.New("it cannot be called")
	}
	for _, part := range []string{u.String(), u.RequestURI(), u.EscapedPath(), u.Path, u.RawQuery} {
		h.values = append(h.values, transcript.Secrets([]byte(part))...)
	}
	return text, nil
}

// value is what a key of a Secret of davit-system has.
func (s *Site) value(ctx context.Context, from plan.SecretKey, h *hidden) ([]byte, error) {
	at, err := serving(ctx, s.o.Recovery.Cluster, shape.KindSecret)
	if err != nil {
		return nil, err
	}
	data, err := s.secret(ctx, at, from.Secret)
	if err != nil {
		return nil, err
	}
	value, found := data[from.Key]
	if !found {
		return nil, fmt.Errorf("Secret davit-system/%s has no key %s: put it there, and retry the step", from.Secret, from.Key) //nolint:revive,staticcheck // the kind's name
	}
	h.values = append(h.values, transcript.Secrets(value)...)
	return value, nil
}

// send sends once, over a connection of its own: on one that served before, Go sends some
// requests again, and others are lost to a server that closes it meanwhile. It follows
// nowhere: that would be a call that nobody wrote down, and could take the secrets elsewhere.
func send(request *http.Request) (int, string, error) {
	transport := http.DefaultTransport.(*http.Transport).Clone() //nolint:forcetypeassert // it is one
	transport.DisableKeepAlives = true
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	return response.StatusCode, string(body), err
}
