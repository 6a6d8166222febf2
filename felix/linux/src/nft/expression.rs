//! The kernel's language: a rule is a list of expressions that load into registers, compare, and end in a verdict.

use super::attributes::{Writer, number};
use crate::parse::{Attributes, text};

/// NF_DROP.
pub(super) const DROP: u32 = 0;
/// NFT_META_IIFNAME.
pub(super) const INPUT_DEVICE: u32 = 6;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY: a port that nobody can guess and two CPUs hardly choose at once. Every kernel that has
/// masquerading in nftables has it (3.14).
pub(super) const FULLY_RANDOM: u32 = 16;

const NFPROTO_IPV4: u32 = 2;
const NFT_REG_VERDICT: u32 = 0;
/// NFT_PAYLOAD_NETWORK_HEADER.
const NETWORK_HEADER: u32 = 1;
const NFT_CMP_EQ: u32 = 0;
const NFT_LOOKUP_F_INV: u32 = 1;
const NFT_NAT_SNAT: u32 = 0;
/// The flags of NAT that are asked for; the kernel adds those that follow from the registers.
const NAT_FLAGS: u32 = 4 | 8 | FULLY_RANDOM;

/// A register, NFT_REG_1 to NFT_REG_4: 16 bytes.
pub(super) type Register = u32;

/// One expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expression {
    /// Loads something about the packet.
    Meta { key: u32, to: Register },
    /// Loads bytes of the IP header.
    Payload { offset: u32, length: u32, to: Register },
    /// Loads a constant.
    Immediate { value: Vec<u8>, to: Register },
    /// Goes on if the register begins with this.
    Equal { value: Vec<u8>, from: Register },
    /// Goes on if the register is in the set, or is not.
    Lookup { set: String, within: bool, from: Register },
    /// Counts.
    Counter,
    /// Ends with a verdict.
    Verdict(u32),
    /// Translates the source to the node's address.
    Masquerade { flags: u32, ports: Option<(Register, Register)> },
    /// Translates the source to the address in a register.
    Translate { address: Register, flags: u32, ports: Option<(Register, Register)> },
}

/// NFTA_DATA_VALUE.
const VALUE: u16 = 1;

impl Expression {
    /// As the content of an NFTA_LIST_ELEM.
    pub(super) fn write(&self) -> Writer {
        let (name, data) = match self {
            Self::Meta { key, to } => ("meta", Writer::default().number(1, *to).number(2, *key)),
            Self::Payload { offset, length, to } => (
                "payload",
                Writer::default()
                    .number(1, *to)
                    .number(2, NETWORK_HEADER)
                    .number(3, *offset)
                    .number(4, *length),
            ),
            Self::Immediate { value, to } => {
                let value = Writer::default().bytes(VALUE, value);
                ("immediate", Writer::default().number(1, *to).nested(2, value))
            }
            Self::Equal { value, from } => {
                let value = Writer::default().bytes(VALUE, value);
                ("cmp", Writer::default().number(1, *from).number(2, NFT_CMP_EQ).nested(3, value))
            }
            Self::Lookup { set, within, from } => {
                let inverted = if *within { 0 } else { NFT_LOOKUP_F_INV };
                ("lookup", Writer::default().text(1, set).number(2, *from).number(5, inverted))
            }
            Self::Counter => ("counter", Writer::default()),
            Self::Verdict(code) => {
                let verdict = Writer::default().nested(2, Writer::default().number(1, *code));
                ("immediate", Writer::default().number(1, NFT_REG_VERDICT).nested(2, verdict))
            }
            Self::Masquerade { flags, ports } => {
                ("masq", with_ports(Writer::default().number(1, *flags), *ports, 2))
            }
            Self::Translate { address, flags, ports } => {
                let writer = Writer::default().number(1, NFT_NAT_SNAT).number(2, NFPROTO_IPV4);
                let writer = writer.number(3, *address).number(4, *address);
                ("nat", with_ports(writer, *ports, 5).number(7, *flags))
            }
        };
        Writer::default().text(1, name).nested(2, data)
    }

    /// Reads the content of an NFTA_LIST_ELEM; `None` for what we never write.
    pub(super) fn read(element: &[u8]) -> Option<Self> {
        let of = Fields(element);
        let data = Fields(of.bytes(2).unwrap_or_default());
        match of.text(1)?.as_str() {
            "meta" => Some(Self::Meta { key: data.number(2)?, to: data.number(1)? }),
            "payload" if data.number(2)? == NETWORK_HEADER => {
                Some(Self::Payload { offset: data.number(3)?, length: data.number(4)?, to: data.number(1)? })
            }
            "immediate" => {
                let (to, value) = (data.number(1)?, Fields(data.bytes(2)?));
                match to {
                    NFT_REG_VERDICT => Fields(value.bytes(2)?).number(1).map(Self::Verdict),
                    _ => Some(Self::Immediate { value: value.bytes(VALUE)?.to_vec(), to }),
                }
            }
            "cmp" if data.number(2)? == NFT_CMP_EQ => {
                let value = Fields(data.bytes(3)?).bytes(VALUE)?.to_vec();
                Some(Self::Equal { value, from: data.number(1)? })
            }
            // With a destination register it is a map.
            "lookup" if data.bytes(3).is_none() => {
                let within = data.number(5).unwrap_or(0) & NFT_LOOKUP_F_INV == 0;
                Some(Self::Lookup { set: data.text(1)?, within, from: data.number(2)? })
            }
            "counter" => Some(Self::Counter),
            "masq" => {
                let flags = data.number(1).unwrap_or(0) & NAT_FLAGS;
                Some(Self::Masquerade { flags, ports: data.number(2).zip(data.number(3)) })
            }
            "nat" if data.number(1)? == NFT_NAT_SNAT && data.number(3) == data.number(4) => {
                let flags = data.number(7).unwrap_or(0) & NAT_FLAGS;
                let ports = data.number(5).zip(data.number(6));
                Some(Self::Translate { address: data.number(3)?, flags, ports })
            }
            _ => None,
        }
    }
}

fn with_ports(writer: Writer, ports: Option<(Register, Register)>, kind: u16) -> Writer {
    match ports {
        Some((first, last)) => writer.number(kind, first).number(kind + 1, last),
        None => writer,
    }
}

/// Attributes, to be asked by their kind.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes(self, kind: u16) -> Option<&'a [u8]> {
        Attributes::new(self.0).find(|(found, _)| *found == kind).map(|(_, value)| value)
    }

    pub(super) fn number(self, kind: u16) -> Option<u32> {
        number(self.bytes(kind)?)
    }

    pub(super) fn text(self, kind: u16) -> Option<String> {
        self.bytes(kind).map(text)
    }
}
