package webhookpub

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// AddressError refuses a connection to an address that an endpoint's name must not lead to: loopback, private, link-local (cloud
// metadata among them), and everything else that is not a public unicast address. No byte was sent. A name that its owner moves to
// such an address later is refused in the same way, because the check is made on the address about to be dialled, after resolution.
type AddressError struct {
	Addr netip.Addr
}

func (e *AddressError) Error() string {
	return fmt.Sprintf("webhookpub: address %s is not public", e.Addr)
}

// special are the blocks of the IANA special-purpose registries that netip has no method for and that lead, or may lead, back
// inside: RFC 6890 and its updates. Blocks that embed an IPv4 address (NAT64, 6to4, Teredo) are refused whole.
var special = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"),       // this network
	netip.MustParsePrefix("100.64.0.0/10"),   // carrier-grade NAT
	netip.MustParsePrefix("192.0.0.0/24"),    // IETF protocol assignments
	netip.MustParsePrefix("192.0.2.0/24"),    // documentation
	netip.MustParsePrefix("192.88.99.0/24"),  // 6to4 relay anycast, deprecated
	netip.MustParsePrefix("198.18.0.0/15"),   // benchmarking
	netip.MustParsePrefix("198.51.100.0/24"), // documentation
	netip.MustParsePrefix("203.0.113.0/24"),  // documentation
	netip.MustParsePrefix("240.0.0.0/4"),     // reserved, and the limited broadcast
	netip.MustParsePrefix("::/96"),           // IPv4-compatible, deprecated
	netip.MustParsePrefix("64:ff9b::/96"),    // NAT64
	netip.MustParsePrefix("64:ff9b:1::/48"),  // NAT64, local use
	netip.MustParsePrefix("100::/64"),        // discard only
	netip.MustParsePrefix("2001::/23"),       // IETF protocol assignments, Teredo among them
	netip.MustParsePrefix("2001:db8::/32"),   // documentation
	netip.MustParsePrefix("2002::/16"),       // 6to4
	netip.MustParsePrefix("3fff::/20"),       // documentation
	netip.MustParsePrefix("5f00::/16"),       // segment routing
	netip.MustParsePrefix("fec0::/10"),       // site-local, deprecated
}

// public reports whether addr is an ordinary address of the internet. An IPv4 address inside an IPv6 one counts as itself.
func public(addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLoopback() || addr.IsLinkLocalUnicast() {
		return false
	}
	for _, p := range special {
		if p.Contains(addr) {
			return false
		}
	}
	return true
}

// guard returns the check that net.Dialer makes on each address just before it connects.
func guard(allow []netip.Prefix) func(context.Context, string, string, syscall.RawConn) error {
	return func(_ context.Context, _, address string, _ syscall.RawConn) error {
		host, _, err := net.SplitHostPort(address)
		if err != nil {
			return err
		}
		addr, err := netip.ParseAddr(host)
		if err != nil {
			return err
		}
		plain := addr.Unmap().WithZone("")
		for _, p := range allow {
			if p.Contains(plain) {
				return nil
			}
		}
		if !public(addr) {
			return &AddressError{Addr: plain}
		}
		return nil
	}
}
