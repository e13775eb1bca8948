package webhookpub_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/backstay-go/backstay/outbox"
	"github.com/backstay-go/backstay/outbox/cloudevents"
	"github.com/backstay-go/backstay/outbox/webhookpub"
)

var events = cloudevents.New(cloudevents.Config{Source: "/test"})

func newMessage(payload string) *outbox.Message {
	return &outbox.Message{ID: outbox.NewID(), Topic: "order.created", Key: "k", Payload: []byte(payload)}
}

func publish(t *testing.T, p outbox.Publisher, m *outbox.Message) error {
	t.Helper()
	result := []error{outbox.ErrNoResult}
	p.Publish(t.Context(), []*outbox.Message{m}, result)
	return result[0]
}

// names answers every question with the next of its addresses, and stays with the last. It is a DNS server over a pipe.
type names struct {
	mu    sync.Mutex
	addrs []netip.Addr
}

func (n *names) next(question uint16) (netip.Addr, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	addr := n.addrs[0]
	if addr.Is4() != (question == 1) { // an A record for IPv4, an AAAA record for IPv6
		return addr, false
	}
	if len(n.addrs) > 1 {
		n.addrs = n.addrs[1:]
	}
	return addr, true
}

func (n *names) resolver(t *testing.T) *net.Resolver {
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	return &net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		wg.Go(func() {
			defer server.Close()
			for {
				var size [2]byte
				if _, err := io.ReadFull(server, size[:]); err != nil {
					return
				}
				query := make([]byte, binary.BigEndian.Uint16(size[:]))
				if _, err := io.ReadFull(server, query); err != nil {
					return
				}
				answer := n.answer(query)
				if _, err := server.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
					return
				}
			}
		})
		return client, nil
	}}
}

func (n *names) answer(query []byte) []byte {
	end := 12
	for query[end] != 0 {
		end += int(query[end]) + 1
	}
	end++
	kind := binary.BigEndian.Uint16(query[end:])
	end += 4
	answer := append([]byte{}, query[:end]...)
	copy(answer[2:12], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	addr, ok := n.next(kind)
	if !ok {
		return answer
	}
	answer[7] = 1
	raw := addr.AsSlice()
	answer = append(answer, 0xc0, 12)
	answer = binary.BigEndian.AppendUint16(answer, kind)
	answer = append(answer, 0, 1, 0, 0, 0, 0)
	answer = binary.BigEndian.AppendUint16(answer, uint16(len(raw)))
	return append(answer, raw...)
}

func TestSpecialAddresses(t *testing.T) {
	for _, text := range []string{
		"127.8.9.10", "172.16.0.1", "192.168.1.1", "100.64.0.1", "0.1.2.3", "224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.0.170", "240.0.0.1",
		"::", "fe80::1", "fc00::1", "ff02::1", "::ffff:10.0.0.1", "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2001::1",
		"2001:db8::1", "fec0::1",
	} {
		if webhookpub.Public(netip.MustParseAddr(text)) {
			t.Errorf("got %s taken, want it refused", text)
		}
	}
}

func TestPrivateAddresses(t *testing.T) {
	for _, text := range []string{"127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fd00:ec2::254", "::ffff:127.0.0.1", "::ffff:169.254.169.254"} {
		t.Run(text, func(t *testing.T) {
			names := &names{addrs: []netip.Addr{netip.MustParseAddr(text)}}
			p := webhookpub.New(webhookpub.Config{Endpoint: webhookpub.Endpoint{URL: "https://hooks.example:1/x"}, Events: events, Resolver: names.resolver(t)})
			defer p.Close()
			var private *webhookpub.AddressError
			if err := publish(t, p, newMessage("x")); !errors.As(err, &private) {
				t.Errorf("by name: got %v, want an AddressError", err)
			}
			direct := webhookpub.New(webhookpub.Config{
				Endpoint: webhookpub.Endpoint{URL: (&url.URL{Scheme: "https", Host: net.JoinHostPort(text, "1")}).String()}, Events: events,
			})
			defer direct.Close()
			if err := publish(t, direct, newMessage("x")); !errors.As(err, &private) {
				t.Errorf("by address: got %v, want an AddressError", err)
			}
		})
	}
}

func TestPublicAddress(t *testing.T) {
	for _, text := range []string{"8.8.8.8", "2606:4700:4700::1111", "192.0.1.1", "172.32.0.1", "100.128.0.1"} {
		if !webhookpub.Public(netip.MustParseAddr(text)) {
			t.Errorf("got %s refused, want it public", text)
		}
	}
}

// A name that its owner moves to another address after the first look is refused all the same: the check is made on the address dialled.
func TestRebind(t *testing.T) {
	var trapped atomic.Int32
	good, err := net.Listen("tcp", "127.0.0.2:0")
	if err != nil {
		t.Skipf("SKIPPED: no second loopback address: %v", err)
	}
	port := good.Addr().(*net.TCPAddr).Port
	trap, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Skipf("SKIPPED: the port is taken at the other address: %v", err)
	}
	served := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") }))
	_ = served.Listener.Close()
	served.Listener = good
	served.Start()
	defer served.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer trap.Close()
	wg.Go(func() {
		for {
			c, err := trap.Accept()
			if err != nil {
				return
			}
			trapped.Add(1)
			_ = c.Close()
		}
	})
	names := &names{addrs: []netip.Addr{netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1")}}
	p := webhookpub.New(webhookpub.Config{
		Endpoint: webhookpub.Endpoint{URL: (&url.URL{Scheme: "http", Host: net.JoinHostPort("hooks.example", strconv.Itoa(port)), Path: "/"}).String()},
		Events:   events, PlainHTTP: true, Resolver: names.resolver(t), Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")},
	})
	defer p.Close()
	if err := publish(t, p, newMessage("x")); err != nil {
		t.Fatalf("at the first address: got %v, want nil", err)
	}
	var private *webhookpub.AddressError
	if err := publish(t, p, newMessage("x")); !errors.As(err, &private) {
		t.Errorf("at the second address: got %v, want an AddressError", err)
	}
	if n := trapped.Load(); n != 0 {
		t.Errorf("got %d connections at the second address, want none", n)
	}
}
