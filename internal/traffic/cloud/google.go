package cloud

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/jwt"

	"davit.dev/davit/internal/traffic/names"
)

const (
	googleAPI    = "https://dns.googleapis.com"
	googleLogin  = "https://oauth2.googleapis.com/token"
	googleScope  = "https://www.googleapis.com/auth/ndev.clouddns.readwrite"
	googleRights = "give the account the role dns.admin on the managed zone, or the rights to list, create and delete dns.resourceRecordSets and to create dns.changes"
)

// google is a managed zone. A change is carried out as a whole or not at all, and
// only if what it deletes is exactly as it says.
type google struct {
	client *http.Client
	base   string // address of the zone
}

func openGoogle(k keys, o Options) (zone, error) {
	v, err := k.need("service-account", "managed-zone")
	if err != nil {
		return nil, err
	}
	var account struct {
		Email   string `json:"client_email"`
		Key     string `json:"private_key"`
		KeyID   string `json:"private_key_id"`
		Project string `json:"project_id"`
	}
	if err := json.Unmarshal([]byte(v[0]), &account); err != nil || account.Email == "" || account.Key == "" {
		return nil, errors.New("service-account is not the JSON key of a service account: create one and put its file there")
	}
	if own := k.get("project"); own != "" {
		account.Project = own
	}
	if err := plain(account.Project, v[1]); err != nil {
		return nil, err
	}
	if o.API == "" {
		o.API = googleAPI
	}
	if o.Login == "" {
		o.Login = googleLogin
	}
	login := &jwt.Config{Email: account.Email, PrivateKey: []byte(account.Key), PrivateKeyID: account.KeyID, Scopes: []string{googleScope}, TokenURL: o.Login}
	return &google{
		client: signedIn(o.Client, func(ctx context.Context) oauth2.TokenSource { return login.TokenSource(ctx) }),
		base:   fmt.Sprintf("%s/dns/v1/projects/%s/managedZones/%s", o.API, account.Project, v[1]),
	}, nil
}

func (z *google) text(all []string) string { return quoted(all) }

type googleSet struct {
	Kind  string          `json:"kind"`
	Name  string          `json:"name"`
	Type  string          `json:"type"`
	TTL   int64           `json:"ttl"`
	Data  []string        `json:"rrdatas"`
	Route json.RawMessage `json:"routingPolicy,omitempty"`
}

func (z *google) list(ctx context.Context, name string, kinds ...string) ([]set, error) {
	a, err := z.send(ctx, http.MethodGet, "/rrsets?name="+url.QueryEscape(name+"."), nil)
	if err != nil {
		return nil, err
	}
	var found struct {
		Sets []googleSet `json:"rrsets"`
	}
	if err := json.Unmarshal(a.body, &found); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	var out []set
	for _, s := range found.Sets {
		if strings.TrimSuffix(s.Name, ".") != name || !slices.Contains(kinds, s.Type) {
			continue
		}
		one := set{name: name, kind: s.Type, ttl: s.TTL, values: s.Data}
		if len(s.Route) > 0 {
			one.odd = "led by a routing policy"
		}
		out = append(out, one)
	}
	return out, nil
}

// googleSets are sets as Cloud DNS writes them: names end with a dot.
func googleSets(all []set) []googleSet {
	out := make([]googleSet, 0, len(all))
	for _, s := range all {
		one := googleSet{Kind: "dns#resourceRecordSet", Name: s.name + ".", Type: s.kind, TTL: s.ttl}
		for _, v := range s.values {
			if s.kind == "CNAME" {
				v = strings.TrimSuffix(v, ".") + "."
			}
			one.Data = append(one.Data, v)
		}
		out = append(out, one)
	}
	return out
}

func (z *google) change(ctx context.Context, away, add []set) error {
	body, err := json.Marshal(map[string]any{"kind": "dns#change", "deletions": googleSets(away), "additions": googleSets(add)})
	if err != nil {
		return fmt.Errorf("write change: %w", err)
	}
	_, err = z.send(ctx, http.MethodPost, "/changes", body)
	return err
}

func (z *google) send(ctx context.Context, method, path string, body []byte) (answer, error) {
	r, err := request(ctx, method, z.base+path, "application/json", body)
	if err != nil {
		return answer{}, err
	}
	a, err := call(z.client, r)
	if err != nil || a.code == http.StatusOK {
		return a, err
	}
	var said struct {
		Error struct {
			Message string `json:"message"`
			Errors  []struct {
				Reason  string `json:"reason"`
				Message string `json:"message"`
			} `json:"errors"`
		} `json:"error"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		said.Error.Message = string(a.body)
	}
	what := said.Error.Message
	for _, e := range said.Error.Errors {
		what += " " + e.Reason
		switch {
		case e.Reason == "rateLimitExceeded" || e.Reason == "userRateLimitExceeded":
			a.code = http.StatusTooManyRequests
		// The documentation calls it preconditionFailed, and others have seen conditionNotMet.
		case e.Reason == "conditionNotMet", e.Reason == "preconditionFailed", e.Reason == "alreadyExists", e.Reason == "notFound" && strings.Contains(e.Message, "entity.change"):
			return a, names.ErrChanged
		}
	}
	return a, a.failed(what, googleRights)
}
