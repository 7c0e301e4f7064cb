// Command bed-tls ends TLS in front of a plain TCP server.
//
// The S3 server decides conditional writes under a lock inside its process. A second server over the same directory
// for HTTPS would have a lock of its own, and two writers could both win; a relay keeps one lock for both ports.
package main

import (
	"crypto/tls"
	"flag"
	"io"
	"log"
	"net"
	"sync"
)

func main() {
	listen := flag.String("listen", ":7443", "address to serve TLS on")
	to := flag.String("to", "127.0.0.1:7070", "address to relay to")
	cert := flag.String("cert", "", "certificate file (PEM)")
	key := flag.String("key", "", "key file (PEM)")
	flag.Parse()
	pair, err := tls.LoadX509KeyPair(*cert, *key)
	if err != nil {
		log.Fatalf("load certificate: %v", err)
	}
	l, err := tls.Listen("tcp", *listen, &tls.Config{
		Certificates: []tls.Certificate{pair},
		MinVersion:   tls.VersionTLS12,
		NextProtos:   []string{"http/1.1"},
	})
	if err != nil {
		log.Fatalf("listen: %v", err)
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatalf("accept: %v", err)
		}
		go relay(conn, *to)
	}
}

func relay(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		log.Printf("dial %s: %v", to, err)
		return
	}
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { pipe(server, client) })
	both.Go(func() { pipe(client, server) })
	both.Wait()
}

// pipe copies one direction and passes on its end.
func pipe(dst, src net.Conn) {
	_, _ = io.Copy(dst, src)
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
	}
}
