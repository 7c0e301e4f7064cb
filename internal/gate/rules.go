package gate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// family is where addresses are in a packet.
type family struct {
	proto               byte
	length              uint32
	source, destination uint32
	kind                nftables.SetDatatype
}

var (
	v4 = family{unix.NFPROTO_IPV4, 4, 12, 16, nftables.TypeIPAddr}
	v6 = family{unix.NFPROTO_IPV6, 16, 8, 24, nftables.TypeIP6Addr}
)

func accept() expr.Any { return &expr.Verdict{Kind: expr.VerdictAccept} }

func equals(register uint32, data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

// loopback accepts what the pod says to itself.
func loopback(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equals(1, name), accept()}
}

// neighbours accepts by what IPv6 finds the next hop: without it no peer is reached.
func neighbours() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals(1, []byte{unix.IPPROTO_ICMPV6}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Cmp{Op: expr.CmpOpGte, Register: 1, Data: []byte{133}},
		&expr.Cmp{Op: expr.CmpOpLte, Register: 1, Data: []byte{137}},
		accept(),
	}
}

func state(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

// direction is 0 for who began a connection, 1 for who answers.
func direction(d byte) []expr.Any {
	return []expr.Any{&expr.Ct{Key: expr.CtKeyDIRECTION, Register: 1}, equals(1, []byte{d})}
}

// established accepts what belongs to a connection that rules let begin, or is
// an error about one.
func established() []expr.Any {
	return append(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept())
}

// answering accepts answers of the pod to who came to it.
func answering() []expr.Any {
	return append(append(state(expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), direction(1)...), accept())
}

// beginning accepts the first packet of a TCP connection to the pod, and no
// other: one in the middle would make an old connection of the pod's own look
// like another's.
func beginning() []expr.Any {
	const syn, all = 0x02, 0x17 // FIN, SYN, RST, ACK
	return append(state(expr.CtStateBitNEW),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals(1, []byte{unix.IPPROTO_TCP}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{all}, Xor: []byte{0}},
		equals(1, []byte{syn}), accept())
}

func toPort(proto byte, port uint16) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, equals(1, []byte{proto}),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
		equals(1, binary.BigEndian.AppendUint16(nil, port)),
	}
}

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return v4
	}
	return v6
}

func of(f family) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equals(1, []byte{f.proto})}
}

func to(a netip.Addr) []expr.Any {
	a = a.Unmap()
	f := familyOf(a)
	return append(of(f),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.destination, Len: f.length}, equals(1, a.AsSlice()))
}

// atOnce bounds the addresses in one message, whose list of them is at most 64 KiB. A longer one
// would be cut, and nobody told.
const atOnce = 1000

// peers are two sets of addresses, one for each family.
type peers struct{ sets map[byte]*nftables.Set }

func newPeers(c *nftables.Conn, t *nftables.Table, all []netip.Addr) (peers, error) {
	p := peers{sets: map[byte]*nftables.Set{}}
	for name, f := range map[string]family{"peers4": v4, "peers6": v6} {
		s := &nftables.Set{Table: t, Name: name, KeyType: f.kind}
		var elements []nftables.SetElement
		for _, a := range unique(all) {
			if familyOf(a).proto == f.proto {
				elements = append(elements, nftables.SetElement{Key: a.AsSlice()})
			}
		}
		err := c.AddSet(s, nil)
		for some := range slices.Chunk(elements, atOnce) {
			err = errors.Join(err, c.SetAddElements(s, some))
		}
		if err != nil {
			return p, fmt.Errorf("isolate a pod: %w", err)
		}
		p.sets[f.proto] = s
	}
	return p, nil
}

func unique(all []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range all {
		if a.IsValid() {
			out = append(out, a.Unmap())
		}
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

func (p peers) match(f family, offset uint32) []expr.Any {
	s := p.sets[f.proto]
	return append(of(f),
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length},
		&expr.Lookup{SourceRegister: 1, SetName: s.Name, SetID: s.ID}, accept())
}
