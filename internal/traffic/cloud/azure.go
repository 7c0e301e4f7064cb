package cloud

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"davit.dev/davit/internal/traffic/names"
)

const (
	azureAPI     = "https://management.azure.com"
	azureLogin   = "https://login.microsoftonline.com"
	azureVersion = "?api-version=2018-05-01"
	azureRights  = "give the application the role DNS Zone Contributor on the zone"
)

// azure is a zone. Each set is changed by itself, if its etag is still the one
// that was read: first the guard, then what the name leads to.
type azure struct {
	client *http.Client
	base   string // address of the zone
	zone   string
}

func openAzure(k keys, o Options) (zone, error) {
	v, err := k.need("tenant-id", "client-id", "client-secret", "subscription-id", "resource-group")
	if err != nil {
		return nil, err
	}
	if err := plain(v[0], v[1], v[3], v[4], k.zone); err != nil {
		return nil, err
	}
	if o.API == "" {
		o.API = azureAPI
	}
	if o.Login == "" {
		o.Login = azureLogin
	}
	login := clientcredentials.Config{
		ClientID: v[1], ClientSecret: v[2], TokenURL: o.Login + "/" + v[0] + "/oauth2/v2.0/token",
		Scopes: []string{azureAPI + "/.default"}, AuthStyle: oauth2.AuthStyleInParams,
	}
	return &azure{
		client: signedIn(o.Client, login.TokenSource), zone: k.zone,
		base: fmt.Sprintf("%s/subscriptions/%s/resourceGroups/%s/providers/Microsoft.Network/dnsZones/%s", o.API, v[3], v[4], k.zone),
	}, nil
}

// text keeps the strings apart by spaces, which none of them holds.
func (z *azure) text(all []string) string { return strings.Join(all, " ") }

type azureSet struct {
	Etag       string          `json:"etag,omitempty"`
	Properties azureProperties `json:"properties"`
}

type azureProperties struct {
	Metadata map[string]string `json:"metadata,omitempty"`
	TTL      int64             `json:"TTL"`
	A        []azureV4         `json:"ARecords,omitempty"`
	AAAA     []azureV6         `json:"AAAARecords,omitempty"`
	CNAME    *azureName        `json:"CNAMERecord,omitempty"`
	TXT      []azureText       `json:"TXTRecords,omitempty"`
	Target   *azureTarget      `json:"targetResource,omitempty"`
}

type (
	azureV4 struct {
		Address string `json:"ipv4Address"`
	}
	azureV6 struct {
		Address string `json:"ipv6Address"`
	}
	azureName struct {
		Name string `json:"cname"`
	}
	azureText struct {
		Value []string `json:"value"`
	}
	azureTarget struct {
		ID string `json:"id,omitempty"`
	}
)

// at is the address of a set.
func (z *azure) at(kind, name string) string {
	relative := strings.TrimSuffix(name, "."+z.zone)
	if name == z.zone {
		relative = "@"
	}
	return z.base + "/" + kind + "/" + relative + azureVersion
}

func (z *azure) list(ctx context.Context, name string, kinds ...string) ([]set, error) {
	var out []set
	for _, kind := range kinds {
		a, err := z.send(ctx, http.MethodGet, z.at(kind, name), "", nil)
		if err != nil {
			return nil, err
		}
		if a.code == http.StatusNotFound {
			continue
		}
		var s azureSet
		if err := json.Unmarshal(a.body, &s); err != nil {
			return nil, fmt.Errorf("read its answer: %w", err)
		}
		out = append(out, s.decode(name, kind))
	}
	return out, nil
}

func (s azureSet) decode(name, kind string) set {
	p := s.Properties
	one := set{name: name, kind: kind, ttl: p.TTL, handles: []string{s.Etag}, meta: p.Metadata}
	for _, a := range p.A {
		one.values = append(one.values, a.Address)
	}
	for _, a := range p.AAAA {
		one.values = append(one.values, a.Address)
	}
	if p.CNAME != nil {
		one.values = append(one.values, p.CNAME.Name)
	}
	for _, t := range p.TXT {
		one.values = append(one.values, strings.Join(t.Value, " "))
	}
	if p.Target != nil && p.Target.ID != "" {
		one.odd = "an alias"
	}
	return one
}

func encodeAzure(s set) azureSet {
	p := azureProperties{TTL: s.ttl, Metadata: s.meta}
	for _, v := range s.values {
		switch s.kind {
		case "A":
			p.A = append(p.A, azureV4{v})
		case "AAAA":
			p.AAAA = append(p.AAAA, azureV6{v})
		case "CNAME":
			p.CNAME = &azureName{v}
		case "TXT":
			p.TXT = append(p.TXT, azureText{strings.Fields(v)})
		}
	}
	return azureSet{Properties: p}
}

// change replaces the guard first, so that others find what goes on. Then it takes away
// sets of kinds that do not stay, and writes the others.
func (z *azure) change(ctx context.Context, away, add []set) error {
	old, stays := map[string]set{}, map[string]bool{}
	for _, s := range away {
		old[s.kind] = s
	}
	for _, s := range add {
		stays[s.kind] = true
	}
	if len(add) > 0 {
		if err := z.put(ctx, old, add[0]); err != nil {
			return err
		}
	}
	for _, s := range away {
		if stays[s.kind] {
			continue
		}
		if _, err := z.send(ctx, http.MethodDelete, z.at(s.kind, s.name), s.handles[0], nil); err != nil {
			return err
		}
	}
	for i, s := range add {
		if i == 0 {
			continue
		}
		if err := z.put(ctx, old, s); err != nil {
			return err
		}
	}
	return nil
}

func (z *azure) put(ctx context.Context, old map[string]set, s set) error {
	body, err := json.Marshal(encodeAzure(s))
	if err != nil {
		return fmt.Errorf("write record set: %w", err)
	}
	etag := ""
	if was, is := old[s.kind]; is {
		etag = was.handles[0]
	}
	_, err = z.send(ctx, http.MethodPut, z.at(s.kind, s.name), etag, body)
	return err
}

// send asks for a set, or changes it if its etag is that, or, without one, if there is none.
func (z *azure) send(ctx context.Context, method, address, etag string, body []byte) (answer, error) {
	r, err := request(ctx, method, address, "application/json", body)
	if err != nil {
		return answer{}, err
	}
	switch {
	case method == http.MethodGet:
	case etag != "":
		r.Header.Set("If-Match", etag)
	default:
		r.Header.Set("If-None-Match", "*")
	}
	a, err := call(z.client, r)
	if err != nil {
		return a, err
	}
	var said struct {
		Error struct {
			Code    string `json:"code"`
			Message string `json:"message"`
		} `json:"error"`
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	switch a.code {
	case http.StatusOK, http.StatusCreated, http.StatusNoContent:
		return a, nil
	case http.StatusPreconditionFailed, http.StatusConflict:
		return a, names.ErrChanged
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		said.Message = string(a.body)
	}
	code := said.Code + said.Error.Code
	if a.code == http.StatusNotFound && code == "NotFound" { // the set; else it is ResourceNotFound, of the zone
		if method == http.MethodGet {
			return a, nil
		}
		return a, names.ErrChanged
	}
	return a, a.failed(code+" "+said.Message+said.Error.Message, azureRights)
}
