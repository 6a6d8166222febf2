//! AS_PATH, in two and four octets (RFC 4271 §5.1.2, RFC 6793).

use std::fmt;

use bytes::{BufMut, BytesMut};
use manx_model::Asn;

use super::open::AS_TRANS;

/// Whether the order of a segment's numbers means something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SegmentKind {
    /// Unordered: what an aggregate went through.
    Set = 1,
    /// Ordered, the nearest AS first.
    Sequence = 2,
}

/// A segment of an AS_PATH. It is never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Segment {
    /// Its kind.
    pub kind: SegmentKind,
    /// Its numbers.
    pub asns: Vec<Asn>,
}

/// The autonomous systems that a route went through; empty for a route of our own AS.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AsPath(pub Vec<Segment>);

impl AsPath {
    /// The length that the decision compares: a set counts as one (RFC 4271 §9.1.2.2 a).
    pub fn length(&self) -> usize {
        self.0
            .iter()
            .map(|segment| match segment.kind {
                SegmentKind::Set => 1,
                SegmentKind::Sequence => segment.asns.len(),
            })
            .sum()
    }

    /// How often an AS is in it: the loop check of RFC 4271 §9.1.2.
    pub fn count(&self, asn: Asn) -> usize {
        self.0.iter().flat_map(|segment| &segment.asns).filter(|each| **each == asn).count()
    }

    /// Whether it begins with these, in this order; the members of a set have none.
    pub fn starts_with(&self, asns: &[Asn]) -> bool {
        let ordered = self.0.iter().take_while(|segment| segment.kind == SegmentKind::Sequence);
        ordered.flat_map(|segment| &segment.asns).take(asns.len()).eq(asns)
    }

    /// The AS next to us; `None` when the path is empty or begins with a set.
    pub fn neighbour(&self) -> Option<Asn> {
        let first = self.0.first().filter(|segment| segment.kind == SegmentKind::Sequence)?;
        first.asns.first().copied()
    }

    /// The path as the AS tells it to others (RFC 4271 §5.1.2 b).
    pub fn prepended(&self, asn: Asn) -> Self {
        let mut segments = self.0.clone();
        match segments.first_mut() {
            Some(first) if first.kind == SegmentKind::Sequence && first.asns.len() < 255 => {
                first.asns.insert(0, asn);
            }
            _ => segments.insert(0, Segment { kind: SegmentKind::Sequence, asns: vec![asn] }),
        }
        Self(segments)
    }

    /// Reads the value; the error says what is wrong with it.
    pub(super) fn decode(mut input: &[u8], four_octet: bool) -> Result<Self, &'static str> {
        let width = if four_octet { 4 } else { 2 };
        let mut segments = Vec::new();
        while let [kind, count, rest @ ..] = input {
            let kind = match kind {
                1 => SegmentKind::Set,
                2 => SegmentKind::Sequence,
                _ => return Err("a segment of AS_PATH is neither a set nor a sequence"),
            };
            let Some((numbers, rest)) = rest.split_at_checked(usize::from(*count) * width) else {
                return Err("a segment of AS_PATH is longer than the attribute");
            };
            if numbers.is_empty() {
                return Err("a segment of AS_PATH is empty");
            }
            let asns = numbers.chunks_exact(width).map(number).collect::<Option<_>>();
            segments.push(Segment { kind, asns: asns.ok_or("AS 0 is in AS_PATH (RFC 7607)")? });
            input = rest;
        }
        if input.is_empty() { Ok(Self(segments)) } else { Err("one octet is left over behind AS_PATH") }
    }

    pub(super) fn encode(&self, four_octet: bool, out: &mut BytesMut) {
        for segment in &self.0 {
            for asns in segment.asns.chunks(255) {
                out.put_u8(segment.kind as u8);
                out.put_u8(asns.len() as u8);
                for asn in asns {
                    if four_octet {
                        out.put_u32(asn.get());
                    } else {
                        out.put_u16(u16::try_from(asn.get()).unwrap_or(AS_TRANS));
                    }
                }
            }
        }
    }

    /// Whether a two-octet peer needs AS4_PATH besides (RFC 6793 §4.2.2).
    pub(super) fn needs_four_octets(&self) -> bool {
        self.0.iter().flat_map(|segment| &segment.asns).any(|asn| asn.get() > 0xffff)
    }

    /// The path of a two-octet peer, with the numbers that AS4_PATH knows (RFC 6793 §4.2.3).
    pub(super) fn merged(self, as4: Self) -> Self {
        let Some(ahead) = self.length().checked_sub(as4.length()) else { return self };
        let mut segments = Vec::new();
        let mut left = ahead;
        for segment in self.0 {
            if left == 0 {
                break;
            }
            match segment.kind {
                SegmentKind::Set => {
                    left -= 1;
                    segments.push(segment);
                }
                SegmentKind::Sequence => {
                    let asns: Vec<_> = segment.asns.into_iter().take(left).collect();
                    left -= asns.len();
                    segments.push(Segment { kind: SegmentKind::Sequence, asns });
                }
            }
        }
        for segment in as4.0 {
            match segments.last_mut() {
                Some(last)
                    if last.kind == SegmentKind::Sequence
                        && segment.kind == SegmentKind::Sequence
                        && last.asns.len() + segment.asns.len() <= 255 =>
                {
                    last.asns.extend(segment.asns);
                }
                _ => segments.push(segment),
            }
        }
        Self(segments)
    }
}

fn number(octets: &[u8]) -> Option<Asn> {
    Asn::new(octets.iter().fold(0, |number, octet| number << 8 | u32::from(*octet)))
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, segment) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(" ")?;
            }
            let asns: Vec<_> = segment.asns.iter().map(Asn::to_string).collect();
            match segment.kind {
                SegmentKind::Sequence => f.write_str(&asns.join(" "))?,
                SegmentKind::Set => write!(f, "{{{}}}", asns.join(" "))?,
            }
        }
        Ok(())
    }
}
