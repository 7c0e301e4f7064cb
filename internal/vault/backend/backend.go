// Package backend opens a vault's store from its address.
package backend

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"davit.dev/davit/internal/vault"
	"davit.dev/davit/internal/vault/fs"
	"davit.dev/davit/internal/vault/limit"
	"davit.dev/davit/internal/vault/lock"
	"davit.dev/davit/internal/vault/mem"
	"davit.dev/davit/internal/vault/retry"
	"davit.dev/davit/internal/vault/s3"
)

// Config says where a vault is and how to get in.
type Config struct {
	// URL is one of
	//
	//	s3://BUCKET[/PREFIX][?endpoint=URL&region=R&pathStyle=true&insecureHTTP=true]
	//	file:///DIRECTORY
	//	mem:
	//
	// It holds no secrets. With an endpoint, pathStyle is true unless it says
	// otherwise. mem: is a new and empty store each time.
	URL string

	AccessKey, SecretKey, SessionToken string
	CA                                 []byte // PEM

	Lock  lock.Policy   // zero: objects are not locked
	Rates limit.Rates   // zero: no limits
	Retry *retry.Policy // nil: retry.Default
}

// Open opens the store with its decorators. It sends nothing to a bucket yet;
// a directory must exist.
func Open(ctx context.Context, cfg Config) (vault.Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open vault: %w", err)
	}
	store, err := open(cfg)
	if err != nil {
		return nil, fmt.Errorf("open vault %s: %w", redact(cfg.URL), err)
	}
	if cfg.Rates != (limit.Rates{}) {
		store = limit.New(store, cfg.Rates)
	}
	policy := retry.Default
	if cfg.Retry != nil {
		policy = *cfg.Retry
	}
	return retry.New(store, policy), nil
}

func open(cfg Config) (vault.Store, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, errAddress
	}
	if u.User != nil {
		return nil, fmt.Errorf("%w: keys do not belong into the address", vault.ErrName)
	}
	switch u.Scheme {
	case "s3":
		opt, err := bucket(u, cfg)
		if err != nil {
			return nil, err
		}
		return s3.Open(opt)
	case "file":
		if u.Host != "" || u.RawQuery != "" {
			return nil, errAddress
		}
		return fs.Open(u.Path)
	case "mem":
		return mem.New(nil), nil
	}
	return nil, errAddress
}

var errAddress = fmt.Errorf("%w: want s3://BUCKET/PREFIX?endpoint=..., or file:///DIRECTORY", vault.ErrName)

// bucket reads an s3 address.
func bucket(u *url.URL, cfg Config) (s3.Options, error) {
	opt := s3.Options{
		Bucket: u.Host, Prefix: u.Path, CA: cfg.CA,
		AccessKey: cfg.AccessKey, SecretKey: cfg.SecretKey, SessionToken: cfg.SessionToken, Lock: cfg.Lock,
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return opt, errAddress
	}
	opt.Endpoint = query.Get("endpoint")
	opt.PathStyle = opt.Endpoint != ""
	for name, values := range query {
		if len(values) != 1 {
			return opt, fmt.Errorf("%w: %s is given %d times", vault.ErrName, name, len(values))
		}
		if err := set(&opt, name, values[0]); err != nil {
			return opt, err
		}
	}
	return opt, nil
}

func set(opt *s3.Options, name, value string) (err error) {
	switch name {
	case "endpoint":
	case "region":
		opt.Region = value
	case "pathStyle":
		opt.PathStyle, err = strconv.ParseBool(value)
	case "insecureHTTP":
		opt.InsecureHTTP, err = strconv.ParseBool(value)
	default:
		return fmt.Errorf("%w: unknown option %q: want endpoint, region, pathStyle or insecureHTTP", vault.ErrName, name)
	}
	if err != nil {
		return fmt.Errorf("%w: option %s=%q: want true or false", vault.ErrName, name, value)
	}
	return nil
}

// redact shows an address without what may stand before an @.
func redact(address string) string {
	if scheme, rest, ok := strings.Cut(address, "://"); ok {
		if _, after, found := strings.Cut(rest, "@"); found {
			return scheme + "://…@" + after
		}
	}
	return address
}
