package cloud

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"

	"davit.dev/davit/internal/traffic/names"
)

const (
	route53API    = "https://route53.amazonaws.com"
	route53Rights = "allow route53:ListResourceRecordSets and route53:ChangeResourceRecordSets on the hosted zone, for the name and its guard, types A, AAAA, CNAME and TXT"
)

// route53 is a hosted zone. A batch is carried out as a whole or not at all, and
// a DELETE only if the set is exactly as it says.
type route53 struct {
	Options
	keys aws.Credentials
	base string // address of the zone's sets
}

func openRoute53(k keys, o Options) (zone, error) {
	v, err := k.need("access-key-id", "secret-access-key", "hosted-zone-id")
	if err != nil {
		return nil, err
	}
	id := strings.TrimPrefix(v[2], "/hostedzone/")
	if err := plain(id); err != nil {
		return nil, err
	}
	if o.API == "" {
		o.API = route53API
	}
	return &route53{
		Options: o, base: o.API + "/2013-04-01/hostedzone/" + id + "/rrset",
		keys: aws.Credentials{AccessKeyID: v[0], SecretAccessKey: v[1], SessionToken: k.get("session-token")},
	}, nil
}

func (z *route53) text(all []string) string { return quoted(all) }

type route53Value struct{ Value string }

type route53Set struct {
	Name          string
	Type          string
	SetIdentifier string `xml:",omitempty"`
	TTL           int64
	Records       []route53Value            `xml:"ResourceRecords>ResourceRecord"`
	AliasTarget   *struct{ DNSName string } `xml:",omitempty"`
}

// escaped undoes how Route 53 writes what is unusual in a name.
var escaped = strings.NewReplacer(`\052`, "*", `\137`, "_")

func (z *route53) list(ctx context.Context, name string, kinds ...string) ([]set, error) {
	a, err := z.send(ctx, http.MethodGet, "?maxitems=20&name="+url.QueryEscape(name+"."), nil)
	if err != nil {
		return nil, err
	}
	var found struct {
		Sets []route53Set `xml:"ResourceRecordSets>ResourceRecordSet"`
	}
	if err := xml.Unmarshal(a.body, &found); err != nil {
		return nil, fmt.Errorf("read its answer: %w", err)
	}
	var out []set
	for _, s := range found.Sets { // from this name on, in order of names
		if strings.TrimSuffix(escaped.Replace(s.Name), ".") != name || !slices.Contains(kinds, s.Type) {
			continue
		}
		one := set{name: name, kind: s.Type, ttl: s.TTL}
		for _, v := range s.Records {
			one.values = append(one.values, v.Value)
		}
		switch {
		case s.AliasTarget != nil:
			one.odd = "an alias"
		case s.SetIdentifier != "":
			one.odd = "one of several by a routing policy"
		}
		out = append(out, one)
	}
	return out, nil
}

type route53Change struct {
	Action string
	Set    route53Set `xml:"ResourceRecordSet"`
}

func (z *route53) change(ctx context.Context, away, add []set) error {
	var batch struct {
		XMLName xml.Name        `xml:"https://route53.amazonaws.com/doc/2013-04-01/ ChangeResourceRecordSetsRequest"`
		Changes []route53Change `xml:"ChangeBatch>Changes>Change"`
	}
	for _, action := range []string{"DELETE", "CREATE"} {
		sets := away
		if action == "CREATE" {
			sets = add
		}
		for _, s := range sets {
			one := route53Set{Name: s.name + ".", Type: s.kind, TTL: s.ttl}
			for _, v := range s.values {
				one.Records = append(one.Records, route53Value{v})
			}
			batch.Changes = append(batch.Changes, route53Change{action, one})
		}
	}
	body, err := xml.Marshal(batch)
	if err != nil {
		return fmt.Errorf("write batch: %w", err)
	}
	_, err = z.send(ctx, http.MethodPost, "", append([]byte(xml.Header), body...))
	return err
}

// send signs a request and judges its answer.
func (z *route53) send(ctx context.Context, method, query string, body []byte) (answer, error) {
	r, err := request(ctx, method, z.base+query, "application/xml", body)
	if err != nil {
		return answer{}, err
	}
	sum := sha256.Sum256(body)
	if err := v4.NewSigner().SignHTTP(ctx, z.keys, r, hex.EncodeToString(sum[:]), "route53", "us-east-1", z.Now()); err != nil {
		return answer{}, fmt.Errorf("sign request: %w", err)
	}
	a, err := call(z.Client, r)
	if err != nil || a.code == http.StatusOK {
		return a, err
	}
	var said struct {
		Code     string   `xml:"Error>Code"`
		Message  string   `xml:"Error>Message"`
		Messages []string `xml:"Messages>Message"` // of InvalidChangeBatch
	}
	if err := xml.Unmarshal(a.body, &said); err != nil {
		said.Message = string(a.body)
	}
	what := strings.TrimSpace(said.Code + " " + said.Message + " " + strings.Join(said.Messages, " "))
	switch said.Code {
	case "Throttling", "ThrottlingException", "PriorRequestNotComplete":
		a.code = http.StatusTooManyRequests
	case "InvalidClientTokenId", "SignatureDoesNotMatch", "ExpiredToken", "RequestExpired", "MissingAuthenticationToken":
		a.code = http.StatusUnauthorized
	}
	for _, text := range []string{"it was not found", "it already exists", "do not match the current values"} {
		if strings.Contains(what, text) {
			return a, names.ErrChanged
		}
	}
	return a, a.failed(what, route53Rights)
}
