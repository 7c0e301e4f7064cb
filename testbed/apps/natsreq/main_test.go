package main

import (
	"bufio"
	"fmt"
	"net"
	"strings"
	"testing"
)

// serve answers on one connection what a script says for each request.
func serve(t *testing.T, answer func(id, payload string) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, "INFO {}\r\n")
		in := bufio.NewScanner(conn)
		for id := ""; in.Scan(); {
			fields := strings.Fields(in.Text())
			switch {
			case fields[0] == "SUB":
				id = fields[2]
			case fields[0] == "PUB" && in.Scan():
				fmt.Fprint(conn, answer(id, fields[1]+" "+in.Text()))
			}
		}
	}()
	return l.Addr().String()
}

func TestRequests(t *testing.T) {
	server := serve(t, func(id, payload string) string {
		late := "MSG x 99 4\r\nlate\r\n"
		return "PING\r\n" + late + fmt.Sprintf("MSG x %s to.ack %d\r\n<%s>\r\n", id, len(payload)+2, payload)
	})
	var out strings.Builder
	if err := run(server, "a.b", false, strings.NewReader("one\ntwo\n"), &out); err != nil || out.String() != "<a.b one>\n<a.b two>\n" {
		t.Errorf("run() = %q, %v", out.String(), err)
	}
}

func TestAcknowledges(t *testing.T) {
	var acked bool
	server := serve(t, func(id, payload string) string {
		acked = acked || payload == "to.ack +ACK"
		return fmt.Sprintf("MSG x %s to.ack 1\r\n.\r\n", id)
	})
	if err := run(server, "a.b", true, strings.NewReader("one\n"), &strings.Builder{}); err != nil || !acked {
		t.Errorf("run() = %v, acknowledged: %v", err, acked)
	}
}

func TestRefusals(t *testing.T) {
	for name, said := range map[string]string{
		"nobody there": "HMSG x 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n",
		"error":        "-ERR 'Authorization Violation'\r\n",
		"no size":      "MSG x 1 much\r\n",
		"huge":         "MSG x 1 99999999\r\n",
		"short":        "MSG\r\n",
	} {
		server := serve(t, func(string, string) string { return said })
		if err := run(server, "a.b", false, strings.NewReader("one\n"), &strings.Builder{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzMessage(f *testing.F) {
	f.Add("MSG a 1 5\r\nhello\r\n")
	f.Add("MSG a 1 reply.to 0\r\n\r\n")
	f.Add("MSG a 1 -1\r\n")
	f.Add("HMSG a 1 2 3\r\n")
	f.Fuzz(func(t *testing.T, said string) {
		server, conn := net.Pipe()
		defer conn.Close()
		go func() {
			defer server.Close()
			for in := bufio.NewScanner(server); in.Scan() && in.Text() != "question"; {
			}
			fmt.Fprint(server, said)
		}()
		c := client{conn: conn, in: bufio.NewReader(conn)}
		if m, err := c.request("a.b", "question"); err == nil && m.subscription != "1" {
			t.Errorf("took %+v for its answer", m)
		}
	})
}
