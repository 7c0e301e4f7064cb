package apps

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	prometheusHours  = 12
	prometheusSeries = 5
)

var prometheus = App{
	Name: "prometheus", Images: []string{"app-prometheus"},
	Loaded:    "12 hours of 5 series in blocks, and what it scrapes itself in the write-ahead log, with a recording rule; it finds its targets through the cluster's DNS",
	workloads: []string{"deployment/weather", "statefulset/prometheus"},
	load:      loadPrometheus, check: checkPrometheus,
}

// prometheusKnown is what was asked before the capture, and the answers.
type prometheusKnown struct {
	at      int64 // the end of the range
	answers map[string]string
}

// prometheusRanges are asked over what lies before the capture.
var prometheusRanges = []struct {
	query   string
	span    int64 // seconds
	samples int   // at least
}{
	{"tide", 24 * 3600, prometheusHours * 60 * prometheusSeries},
	{"celsius", 8, 10},
	{"weather:celsius:max", 8, 3},
}

func loadPrometheus(ctx context.Context, p Place) (any, error) {
	end := time.Now().UTC().Truncate(2 * time.Hour).Add(-4 * time.Hour) // whole blocks, behind those of the head
	var in strings.Builder
	in.WriteString("# TYPE tide gauge\n")
	for minute := range prometheusHours * 60 {
		at := end.Add(time.Duration(minute-prometheusHours*60) * time.Minute).Unix()
		for s := range prometheusSeries {
			fmt.Fprintf(&in, "tide{gauge=\"g%d\"} %d %d\n", s, (minute*(s+3))%97, at)
		}
	}
	in.WriteString("# EOF\n")
	if _, err := p.feed(ctx, "prometheus-0", in.String(), "sh", "-c", "cat > /tmp/tide && promtool tsdb create-blocks-from openmetrics /tmp/tide /data/tsdb >&2"); err != nil {
		return nil, err
	}
	known := prometheusKnown{answers: map[string]string{}}
	// The server looks for new blocks once a minute; a start finds them at once.
	if _, err := p.run(ctx, "", "delete", "pod", "prometheus-0", "--timeout=60s"); err != nil {
		return nil, err
	}
	if _, err := p.run(ctx, "", "rollout", "status", "statefulset/prometheus", "--timeout=2m"); err != nil {
		return nil, err
	}
	err := until(ctx, func(ctx context.Context) error {
		known.at = time.Now().Unix() - 2
		for _, r := range prometheusRanges {
			answer, err := prometheusAsk(ctx, p, r.query, known.at, r.span)
			if n := strings.Count(answer, "@["); err != nil || n < r.samples {
				return errors.Join(err, fmt.Errorf("%s has %d samples, want %d", r.query, n, r.samples))
			}
			known.answers[r.query] = answer
		}
		return nil
	})
	return known, err
}

// prometheusAsk returns raw samples of a span that ends at an instant.
func prometheusAsk(ctx context.Context, p Place, query string, at, span int64) (string, error) {
	// An answer at one instant with a range gives samples as they are stored, not steps between them.
	out, err := p.sh(ctx, "prometheus-0", fmt.Sprintf("promtool query instant --time=%d http://127.0.0.1:9090 '%s[%ds]'", at, query, span))
	series := strings.Split(out, "\n"+query)
	slices.Sort(series[1:])
	return strings.Join(series, "\n"+query), err
}

func checkPrometheus(ctx context.Context, p Place, known any) error {
	before, _ := known.(prometheusKnown)
	if len(before.answers) == 0 {
		return errors.New("nothing is known of what it had")
	}
	for _, r := range prometheusRanges {
		got, err := prometheusAsk(ctx, p, r.query, before.at, r.span)
		if err != nil || got != before.answers[r.query] {
			return errors.Join(err, fmt.Errorf("samples of %s: %.300q, want %.300q", r.query, got, before.answers[r.query]))
		}
	}
	// It measures again what it finds here, both pods, and evaluates its rule. For five minutes it also answers with
	// the last samples of the pods that were lost.
	since := time.Now().Unix()
	return until(ctx, func(ctx context.Context) error {
		for query, want := range map[string]string{
			"count(timestamp(up) >= %d and up == 1)": "2",
			"count(timestamp(celsius) >= %d)":        "2",
			"timestamp(weather:celsius:max)>=%d":     "",
		} {
			query = strings.ReplaceAll(query, "%d", strconv.FormatInt(since, 10))
			got, err := p.sh(ctx, "prometheus-0", "promtool query instant http://127.0.0.1:9090 '"+query+"'")
			if err != nil || !strings.Contains(got, "=> "+want) {
				return errors.Join(err, fmt.Errorf("%s: %.200q, want %q", query, got, want))
			}
		}
		return nil
	})
}
