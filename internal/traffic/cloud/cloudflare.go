package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"davit.dev/davit/internal/traffic/names"
)

const (
	cloudflareAPI    = "https://api.cloudflare.com/client/v4"
	cloudflareRights = "give the token the permission Zone, DNS, Edit for the zone"
)

// cloudflare is a zone. A batch is carried out as a whole or not at all, and
// what it deletes it names by ids that nothing else ever has. What is created twice
// at once is seen afterwards only.
type cloudflare struct {
	client *http.Client
	token  string
	base   string // address of the zone's records
}

func openCloudflare(k keys, o Options) (zone, error) {
	v, err := k.need("api-token", "zone-id")
	if err != nil {
		return nil, err
	}
	if err := plain(v...); err != nil {
		return nil, err
	}
	if o.API == "" {
		o.API = cloudflareAPI
	}
	return &cloudflare{client: o.Client, token: v[0], base: o.API + "/zones/" + v[1] + "/dns_records"}, nil
}

func (z *cloudflare) text(all []string) string { return quoted(all) }

type cloudflareRecord struct {
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`
	Type    string `json:"type,omitempty"`
	Content string `json:"content,omitempty"`
	TTL     int64  `json:"ttl,omitempty"`
	Proxied bool   `json:"proxied,omitempty"`
}

func (z *cloudflare) list(ctx context.Context, name string, kinds ...string) ([]set, error) {
	a, err := z.send(ctx, http.MethodGet, "?per_page=100&name="+url.QueryEscape(name), nil)
	if err != nil {
		return nil, err
	}
	var found struct {
		Result []cloudflareRecord `json:"result"`
	}
	if err := json.Unmarshal(a.body, &found); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	var out []set
	for _, kind := range kinds {
		one := set{name: name, kind: kind}
		for _, r := range found.Result {
			if r.Name == name && r.Type == kind {
				one.ttl, one.proxied = r.TTL, one.proxied || r.Proxied
				one.values, one.handles = append(one.values, r.Content), append(one.handles, r.ID)
			}
		}
		if len(one.values) > 0 {
			out = append(out, one)
		}
	}
	return out, nil
}

func (z *cloudflare) change(ctx context.Context, away, add []set) error {
	batch := map[string][]cloudflareRecord{}
	for _, s := range away {
		for _, id := range s.handles {
			batch["deletes"] = append(batch["deletes"], cloudflareRecord{ID: id})
		}
	}
	for _, s := range add {
		for _, v := range s.values {
			r := cloudflareRecord{Name: s.name, Type: s.kind, Content: v, TTL: max(60, s.ttl), Proxied: s.proxied}
			if s.proxied {
				r.TTL = 1 // it chooses
			}
			batch["posts"] = append(batch["posts"], r)
		}
	}
	body, err := json.Marshal(batch)
	if err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	_, err = z.send(ctx, http.MethodPost, "/batch", body)
	return err
}

// changedCodes say that a record is no longer there, or that one is in the way.
var changedCodes = []int{81044, 81053, 81054, 81057, 81058}

func (z *cloudflare) send(ctx context.Context, method, path string, body []byte) (answer, error) {
	r, err := request(ctx, method, z.base+path, "application/json", body)
	if err != nil {
		return answer{}, err
	}
	r.Header.Set("Authorization", "Bearer "+z.token)
	a, err := call(z.client, r)
	if err != nil {
		return a, err
	}
	var said struct {
		Success bool `json:"success"`
		Errors  []struct {
			Code    int    `json:"code"`
			Message string `json:"message"`
		} `json:"errors"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil && a.code == http.StatusOK {
		return a, fmt.Errorf("read its answer: %w", err)
	}
	if a.code == http.StatusOK && said.Success {
		return a, nil
	}
	var what []string
	for _, e := range said.Errors {
		what = append(what, fmt.Sprintf("%d %s", e.Code, e.Message))
		switch {
		case slices.Contains(changedCodes, e.Code):
			return a, names.ErrChanged
		case e.Code == 10000 || e.Code == 9109:
			a.code = http.StatusForbidden
		case e.Code == 6003 || e.Code == 6111 || e.Code == 9106:
			a.code = http.StatusUnauthorized
		case e.Code == 7003:
			a.code = http.StatusNotFound
		}
	}
	return a, a.failed(strings.Join(what, "; "), cloudflareRights)
}
