//! OPEN received: is this the right peer (RFC 4271 §6.2), what do both sides know, and which of two connections
//! stays (§6.8).

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::connection::{Established, Stage};
use super::{COLLISION_WINDOW, ConnectionId, Output, Reason, Session, SessionConfig};
use crate::wire::{Context, ErrorCode, Family, GracefulRestart, Notification, Open, WireError};

/// What both sides agreed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's OPEN, with all capabilities that it announced.
    pub open: Open,
    /// What UPDATEs look like.
    pub context: Context,
    /// The smaller of both hold times; 0 means that no KEEPALIVE is sent or expected.
    pub hold_time: Duration,
    /// The peer may be asked to repeat its routes.
    pub route_refresh: bool,
    /// What the peer said about graceful restart.
    pub graceful: Option<GracefulRestart>,
    /// Our address on the connection: the next hop of what we originate.
    pub local: IpAddr,
    /// The peer's BGP identifier.
    pub router_id: Ipv4Addr,
}

impl Negotiated {
    /// The peer can restart without loss: its routes outlive the connection (RFC 4724 §4.2).
    pub fn keeps_routes(&self) -> bool {
        self.graceful.as_ref().is_some_and(|graceful| graceful.family(Family::IPV4_UNICAST).is_some())
    }
}

impl Session {
    pub(super) fn opened(&mut self, now: Instant, id: ConnectionId, open: Open) {
        if let Err(error) = validate(&self.config, &open) {
            return self.misbehaved(now, id, error);
        }
        let Some(connection) = self.connection(id) else { return };
        let (dialled, local) = (connection.dialled, connection.local);
        let negotiated = Box::new(negotiate(&self.config, open, local));
        if !self.survives_collision(now, id, dialled, &negotiated.open) {
            return;
        }
        if let Some(connection) = self.connection(id) {
            connection.stage = Stage::OpenConfirm(negotiated);
            connection.heard(now);
        }
        // A second connection would only collide.
        self.stop_dialling();
        self.send_keepalive(now, id);
    }

    /// Compares with the other connection, closes the loser, and says whether this one stays.
    fn survives_collision(&mut self, now: Instant, id: ConnectionId, dialled: bool, open: &Open) -> bool {
        let Some(other) = self.connections.iter().find(|each| each.id != id) else { return true };
        let (other, collision) = (other.id, Notification::new(ErrorCode::CONNECTION_COLLISION));
        let stays = match &self.connections.iter().find(|each| each.id == other).map(|each| &each.stage) {
            None | Some(Stage::OpenSent) => return true,
            Some(Stage::OpenConfirm(_)) => dialled == self.dominates(open),
            Some(Stage::Established(established)) => {
                let old = now.saturating_duration_since(established.since) >= COLLISION_WINDOW;
                if old && established.negotiated.keeps_routes() {
                    // RFC 4724 §5: the peer has restarted, the old connection is half open.
                    self.end(other, Reason::Lost("the peer connected anew, it has restarted".into()), None);
                    return true;
                }
                // If the peer is indeed gone, its reset in answer to this ends the old connection.
                self.send_keepalive(now, other);
                false
            }
        };
        self.close(if stays { other } else { id }, Some(&collision));
        stays
    }

    /// Whether connections that we dialled are the ones to keep: the higher identifier wins, and between
    /// equal ones the higher AS (RFC 6286 §2.3).
    fn dominates(&self, open: &Open) -> bool {
        (self.config.router_id, self.config.asn.get()) > (open.identifier, open.asn())
    }

    pub(super) fn establish(&mut self, now: Instant, id: ConnectionId) {
        let Some(connection) = self.connection(id) else { return };
        let Stage::OpenConfirm(negotiated) = std::mem::replace(&mut connection.stage, Stage::OpenSent) else {
            return;
        };
        let output = Output::Established(negotiated.clone());
        connection.stage = Stage::Established(Established { negotiated, since: now, complete: false });
        connection.heard(now);
        let others: Vec<_> =
            self.connections.iter().map(|each| each.id).filter(|other| *other != id).collect();
        for other in others {
            self.close(other, Some(&Notification::new(ErrorCode::CONNECTION_COLLISION)));
        }
        self.outputs.push_back(output);
    }
}

fn validate(config: &SessionConfig, open: &Open) -> Result<(), WireError> {
    let reject = |error, data: Bytes, what: String| Err(WireError::reset(error, data, what));
    let asn = open.asn();
    if asn != config.peer_asn.get() || open.my_as != Open::two_octet(asn) {
        let what = match open.four_octet_as() {
            Some(four) if four == config.peer_asn.get() => {
                format!("the peer's AS is {} in OPEN, but {four} in its capability", open.my_as)
            }
            _ => format!("the peer's AS is {asn}, configured is {}", config.peer_asn),
        };
        return reject(ErrorCode::BAD_PEER_AS, Bytes::new(), what);
    }
    let identifier = open.identifier;
    if identifier.is_unspecified() || (identifier == config.router_id && !config.external()) {
        let what = if identifier.is_unspecified() {
            "the peer's BGP identifier is 0.0.0.0".to_owned()
        } else {
            format!("the peer's BGP identifier {identifier} is our own")
        };
        return reject(ErrorCode::BAD_IDENTIFIER, Bytes::new(), what);
    }
    if matches!(open.hold_time, 1 | 2) {
        let what =
            format!("the peer offers a hold time of {} s: 0, or at least 3, is allowed", open.hold_time);
        return reject(ErrorCode::UNACCEPTABLE_HOLD_TIME, Bytes::new(), what);
    }
    if !open.families().contains(&Family::IPV4_UNICAST) {
        let what = "the peer does not announce IPv4 unicast, which is all that we speak".to_owned();
        let capability = Bytes::from_static(&[1, 4, 0, 1, 0, 1]);
        return reject(ErrorCode::UNSUPPORTED_CAPABILITY, capability, what);
    }
    Ok(())
}

fn negotiate(config: &SessionConfig, open: Open, local: IpAddr) -> Negotiated {
    let offered = Duration::from_secs(u64::from(open.hold_time));
    Negotiated {
        context: Context { four_octet: open.four_octet_as().is_some(), external: config.external() },
        hold_time: offered.min(config.hold_time),
        route_refresh: open.capabilities.contains(&crate::wire::Capability::RouteRefresh),
        graceful: open.graceful_restart().cloned(),
        local,
        router_id: open.identifier,
        open,
    }
}
