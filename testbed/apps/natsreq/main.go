// Command natsreq is a client of NATS for the bed's image of it, as Debian has none: it sends each line of standard input as a
// request to a subject and prints each answer on a line. JetStream needs no more: its API is subjects, and a message
// that is published is answered with its number.
//
//	natsreq [-ack] SERVER SUBJECT < lines
//
// $NATS_USER and $NATS_PASSWORD are the account.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"time"
)

// patience is how long one answer may take: JetStream answers once a majority has the message on disk.
const patience = 15 * time.Second

func main() {
	ack := flag.Bool("ack", false, "acknowledge each answer, as the consumer of a stream does")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: natsreq [-ack] SERVER SUBJECT < lines")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), *ack, os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "natsreq:", err)
		os.Exit(1)
	}
}

func run(server, subject string, ack bool, in io.Reader, out io.Writer) error {
	conn, err := net.DialTimeout("tcp", server, patience)
	if err != nil {
		return fmt.Errorf("reach %s: %w", server, err)
	}
	defer conn.Close()
	c := client{conn: conn, in: bufio.NewReader(conn)}
	if err := c.hello(); err != nil {
		return err
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		answer, err := c.request(subject, lines.Text())
		if err != nil {
			return err
		}
		if ack {
			// The acknowledgement is itself answered, once the consumer's members have it.
			if _, err := c.request(answer.reply, "+ACK"); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintln(out, answer.body); err != nil {
			return err
		}
	}
	return lines.Err()
}

type client struct {
	conn net.Conn
	in   *bufio.Reader
	id   int // of the last request: a late answer to another is not taken for its own
}

// hello reads who is there and gives the account.
func (c *client) hello() error {
	if _, err := c.line(); err != nil { // INFO
		return err
	}
	options, err := json.Marshal(map[string]any{
		"verbose": false, "pedantic": false, "lang": "go", "version": "0", "protocol": 1,
		"user": os.Getenv("NATS_USER"), "pass": os.Getenv("NATS_PASSWORD"), "headers": true, "no_responders": true,
	})
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(c.conn, "CONNECT %s\r\n", options)
	return err
}

// message is what came for a subscription, and where it wants its answer.
type message struct {
	subscription, reply, body string
}

func (c *client) request(subject, payload string) (message, error) {
	c.id++
	inbox := fmt.Sprintf("_INBOX.natsreq.%d.%d", os.Getpid(), c.id)
	ask := fmt.Sprintf("SUB %s %d\r\nUNSUB %d 1\r\nPUB %s %s %d\r\n%s\r\n", inbox, c.id, c.id, subject, inbox, len(payload), payload)
	if _, err := io.WriteString(c.conn, ask); err != nil {
		return message{}, err
	}
	for {
		line, err := c.line()
		if err != nil {
			return message{}, fmt.Errorf("wait for the answer of %s: %w", subject, err)
		}
		word, rest, _ := strings.Cut(line, " ")
		switch word {
		case "PING":
			if _, err := io.WriteString(c.conn, "PONG\r\n"); err != nil {
				return message{}, err
			}
		case "-ERR":
			return message{}, errors.New(rest)
		case "MSG":
			m, err := c.message(rest)
			if err != nil || m.subscription == strconv.Itoa(c.id) {
				return m, err
			}
		case "HMSG":
			return message{}, fmt.Errorf("nobody answers %s, or nothing is there", subject)
		}
	}
}

// message reads what a line "subject subscription [reply] size" announced.
func (c *client) message(announced string) (message, error) {
	fields := strings.Fields(announced)
	if len(fields) < 3 {
		return message{}, fmt.Errorf("read answer: %q", announced)
	}
	size, err := strconv.Atoi(fields[len(fields)-1])
	if err != nil || size < 0 || size > 8<<20 {
		return message{}, fmt.Errorf("read answer: size of %q", announced)
	}
	data := make([]byte, size+len("\r\n"))
	_, err = io.ReadFull(c.in, data)
	m := message{subscription: fields[1], body: string(data[:size])}
	if len(fields) == 4 {
		m.reply = fields[2]
	}
	return m, err
}

func (c *client) line() (string, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := c.in.ReadString('\n')
	return strings.TrimRight(line, "\r\n"), err
}
